"""Probes of token classification: tokens and labels against the words and tags they came from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.words import Reading, Sentence, read
from touchstone.auditing.subject import IGNORED, Subject

TASK = ("token-classification",)
OPENS, INSIDE, CLOSES = "BSU", "IELM", "ELSU"
TELLS = 0.9
"""A cause is named if it explains this share of the wrong labels."""
MOST = 0.8
"""Numbers are labels themselves if that explains this share of what the usual labels explain."""
ODD = 0.1
"""Labels that no cause explains are a fault from this share of the words of entities; fewer may be meant."""
FEW = 0.02
"""Up to this share of a tag's words may have another label, and the tag still stands for its usual label."""
NOTABLE = 0.01
"""A share of entities from which their loss is a warning."""


# Tags and entities ----------------------------------------------------------------------------------------------------


def split_name(name: str) -> tuple[str, str] | None:
    """Return the prefix and the type of a tag's name, or None if it is no tag.

    >>> split_name("B-PER"), split_name("O"), split_name("PER")
    (('B', 'PER'), ('O', ''), None)
    """
    if name == "O":
        return "O", ""
    if len(name) > 2 and name[0] in OPENS + INSIDE and name[1] in "-_":
        return name[0], name[2:]
    return None


def entities(names: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return the entities of a row of tags as (type, first, last), read leniently in any scheme.

    >>> sorted(entities(["B-PER", "I-PER", "O", "I-LOC"]))
    [('LOC', 3, 3), ('PER', 0, 1)]
    """
    found: set[tuple[str, int, int]] = set()
    start: int | None = None
    before = ("O", "")
    for place, name in enumerate([*names, "O"]):
        prefix, kind = split_name(name) or ("I", name)
        goes_on = prefix in INSIDE and kind == before[1] and before[0] not in CLOSES and start is not None
        if start is not None and not goes_on:
            found.add((before[1], start, place - 1))
            start = None
        if prefix != "O" and start is None:
            start = place
        before = (prefix, kind)
    return found


class Tagging:
    """What the sentences of a run tell about its labels.

    Attributes:
        meant: the label id that each tag stands for in this run.
        named: tags have various labels, but each tag's own name tells the label it should have.
    """

    def __init__(self, subject: Subject, reading: Reading) -> None:
        self.subject, self.reading = subject, reading
        self.names = list(subject.names or ()) if has_names(subject) else None
        self.sentences = reading.sentences
        seen: dict[Any, Counter[int]] = defaultdict(Counter)
        for sentence in self.sentences:
            for tag, label in heads(sentence):
                seen[tag][label] += 1
        self.usual = {tag: counted.most_common(1)[0][0] for tag, counted in seen.items()}
        self.spread = {tag: 1 - max(counted.values()) / sum(counted.values()) for tag, counted in seen.items()}
        self.given = {tag: self._given(tag) for tag in seen}
        # Tags may be merged or renumbered on purpose. Then every tag has one usual label, and that is what it means.
        steady = all(share <= FEW for share in self.spread.values()) and len(set(self.usual.values())) > 1
        self.named = not steady and all(label is not None for label in self.given.values())
        self.meant: dict[Any, int] = dict(self.usual)
        if self.named:
            self.meant = {tag: label for tag, label in self.given.items() if label is not None}
        elif not steady and all(isinstance(tag, int) for tag in seen):
            same = sum(counted[tag] for tag, counted in seen.items())
            usual = sum(max(counted.values()) for counted in seen.values())
            if same > MOST * usual:
                self.meant = {tag: tag for tag in seen}

    def text(self, tag: Any) -> str | None:
        """Return a tag's name, or None if it is a number without a name."""
        if isinstance(tag, str):
            return tag
        names = self.reading.tag_names
        return names[tag] if names and 0 <= tag < len(names) else None

    def _given(self, tag: Any) -> int | None:
        text = self.text(tag)
        return self.names.index(text) if text is not None and self.names is not None and text in self.names else None

    def label_name(self, label: int) -> str | None:
        """Return a label's name: that of the only tag it stands for, or else the model's.

        Where tags were converted, as I-PER of IOB2 to L-PER of BILOU, the model's name is the one that the label means.
        """
        texts = {self.text(tag) for tag, each in self.meant.items() if each == label}
        own = self.names[label] if self.names is not None and 0 <= label < len(self.names) else None
        if len(texts) != 1:
            return own
        text = texts.pop()
        return own if self.converted and own is not None and text is not None and own[1:] == text[1:] else text

    @property
    def converted(self) -> bool:
        """The model's names have a prefix that no tag has, so that the tags are spelled in another scheme."""
        return bool(_prefixes(self.names or ()) - _prefixes([self.text(tag) for tag in self.usual]))

    @property
    def common(self) -> int | None:
        """The commonest label, which is that of words outside entities."""
        counted = Counter(label for sentence in self.sentences for _, label in heads(sentence))
        return counted.most_common(1)[0][0] if counted else None


def has_names(subject: Subject) -> bool:
    """Tell whether the model's label names were set."""
    return bool(subject.names) and not all(str(name).startswith("LABEL_") for name in subject.names or ())


def heads(sentence: Sentence) -> Iterator[tuple[Any, int]]:
    """Yield each word's tag and the label of the first of its tokens that has one."""
    for word, tokens in sentence.tokens_of_word().items():
        label = next((sentence.labels[token] for token in tokens if sentence.labels[token] != IGNORED), IGNORED)
        if label != IGNORED:
            yield sentence.tags[word], label


def tagging(subject: Subject, part: str = "train") -> Tagging:
    """Return what the sentences of a split tell. The result is kept on the subject."""
    return subject.once(f"tagging of {part}", lambda: Tagging(subject, read(subject, subject.need(part))))


def shown(subject: Subject, sentence: Sentence, marked: Sequence[int], part: str = "train") -> Example:
    """Return a sentence as a table of tokens, words, tags and labels."""
    tag_names = tagging(subject, part).text
    cells = []
    for place, text in enumerate(subject.token_texts(sentence.ids)):
        word = sentence.word_of[place]
        tag = None if word is None else sentence.tags[word]
        cells.append(
            (
                text,
                None if word is None else sentence.words[word],
                None if tag is None else tag_names(tag) or tag,
                subject.label_text(sentence.labels[place]),
            )
        )
    return Example(
        ("token", "word", "tag", "label"),
        cells,
        marked=marked,
        caption=f"row {sentence.origin.index} of the {'training' if part == 'train' else part} data",
    )


def place(reading: Reading) -> str:
    """Return the line of the user's code that made the labels, for a message."""
    return f" at {reading.lineage.where}" if reading.lineage.where else ""


# Labels against tags --------------------------------------------------------------------------------------------------


@probe(
    "labels-follow-tags",
    group="token classification",
    says="The label of every token is the tag of the word it came from.",
    tasks=TASK,
    budget="fast",
)
def labels_follow_tags(subject: Subject) -> Finding:
    """Compare the label of each word's first labelled token with the word's tag, in training and evaluation data."""
    finding = _follow(subject, "train")
    if finding.outcome != "pass" or subject.evaluation is None:
        return finding
    try:
        other = _follow(subject, "evaluation")
    except NotChecked:
        return finding
    if other.outcome == "pass":
        return finding
    return replace(other, message=f"in the evaluation data, {other.message}")


def _follow(subject: Subject, part: str) -> Finding:
    found = tagging(subject, part)
    wrong = [(sentence, misses) for sentence in found.sentences if (misses := _misses(found, sentence))]
    words = sum(len(sentence.tokens_of_word()) for sentence in found.sentences)
    rows = len(found.sentences)
    if not found.usual:
        raise NotChecked("no word of the rows looked at has a label")
    unlike = found.reading.unlike
    if unlike * 2 > len(found.reading.lineage.origins):
        return fail(
            f"{unlike} of {len(found.reading.lineage.origins)} rows have not as many tags as words",
            cause="the tags are those of other rows: compare the lengths of both lists where they are read",
            measured=unlike,
            expected=0,
            example=shown(subject, found.sentences[0], [], part),
        )
    if not wrong:
        return passed(f"the labels of {words} words in {rows} rows are their tags")
    count = sum(len(misses) for _, misses in wrong)
    cause = _explain(found, [sentence for sentence, _ in wrong])
    sentence, misses = wrong[0]
    parts: dict[str, Any] = {"measured": count, "expected": 0, "example": shown(subject, sentence, misses, part)}
    message = f"{count} of {words} words have the label of another tag, in {len(wrong)} of {rows} rows"
    if cause:
        return fail(message, cause=cause + place(found.reading), **parts)
    inside = sum(label != found.common for sentence in found.sentences for _, label in heads(sentence))
    if found.named and count > ODD * inside:
        cause = f"the labels do not follow the tags: check how labels are aligned with tokens{place(found.reading)}"
        return fail(message, cause=cause, **parts)
    return warn(message, cause="no single shift explains it: look at the rows shown", **parts)


def _misses(found: Tagging, sentence: Sentence) -> list[int]:
    """Return the tokens whose label is that of another tag, unless another scheme spells the same entities."""
    misses = []
    names: list[str] = []
    texts: list[str] = []
    for word, tokens in sentence.tokens_of_word().items():
        labelled = [token for token in tokens if sentence.labels[token] != IGNORED]
        if not labelled:
            continue
        label = sentence.labels[labelled[0]]
        if label != found.meant.get(sentence.tags[word], label):
            misses.append(labelled[0])
        names.append(found.label_name(label) or str(label))
        texts.append(found.text(sentence.tags[word]) or str(sentence.tags[word]))
    if misses and all(split_name(each) for each in (*names, *texts)) and entities(names) == entities(texts):
        return []
    return misses


Guess = Callable[[Sentence, int, int], Any]
"""Tells the tag that a fault would give to a token: (sentence, token, word) -> tag, or None if it would give none."""


def _explain(found: Tagging, wrong: Sequence[Sentence]) -> str:
    """Return the fault that explains nearly all labels of the wrong rows, or an empty string."""
    scores = {cause: _score(found, wrong, guess) for cause, guess in _guesses(found).items()}
    if not scores:
        return ""
    best = max(scores, key=lambda cause: scores[cause])
    right = _score(found, wrong, lambda sentence, token, word: sentence.tags[word])
    return best if scores[best] >= TELLS and scores[best] > right else ""


def _score(found: Tagging, sentences: Sequence[Sentence], guess: Guess) -> float:
    """Return the share of labels that a guess tells, among words that are or should be inside entities."""
    common = found.common
    pairs = []
    for sentence in sentences:
        for word, tokens in sentence.tokens_of_word().items():
            token = next((each for each in tokens if sentence.labels[each] != IGNORED), None)
            if token is not None:
                pairs.append((guess(sentence, token, word), sentence.labels[token]))
    meant = found.meant
    if not found.named:  # the labels themselves must tell what the tags mean
        counted: dict[Any, Counter[int]] = defaultdict(Counter)
        for tag, label in pairs:
            counted[tag][label] += 1
        meant = {tag: each.most_common(1)[0][0] for tag, each in counted.items()}
    told = [(label, meant.get(tag, IGNORED) if tag is not None else IGNORED) for tag, label in pairs]
    inside = [(label, each) for label, each in told if label != common or each not in (common, IGNORED)]
    return sum(_same(found, label, each) for label, each in inside) / len(inside) if inside else 0.0


def _same(found: Tagging, label: int, told: int) -> bool:
    """Tell whether a label is the one expected, or the one that continues the same entity."""
    if label == told:
        return True
    first, second = split_name(found.label_name(label) or ""), split_name(found.label_name(told) or "")
    return first is not None and second is not None and first[0] == "I" and first[1] == second[1] != ""


def _labels_a_special_token(sentence: Sentence) -> bool:
    return any(word is None and label != IGNORED for word, label in zip(sentence.word_of, sentence.labels, strict=True))


def _guesses(found: Tagging) -> dict[str, Guess]:
    def at(tags: Sequence[Any] | None, index: int) -> Any:
        return tags[index] if tags is not None and 0 <= index < len(tags) else None

    def of_token(sentence: Sentence, token: int) -> Any:
        word = sentence.word_of[token] if 0 <= token < len(sentence.word_of) else None
        return None if word is None else sentence.tags[word]

    def neighbour(sentence: Sentence, step: int) -> Sequence[Any] | None:
        row = found.reading.lineage.sources(sentence.origin.number + step)
        pair = found.reading.pair(row) if row else None
        return pair[1] if pair else None

    def skipping(sentence: Sentence, token: int, word: int) -> Any:
        with_tokens = sorted(sentence.tokens_of_word())
        return at(sentence.tags, with_tokens.index(word))

    guesses: dict[str, Guess] = {}
    # Labels that are moved leave the words at one end, and stand on a special token.
    moved = sum(_labels_a_special_token(sentence) for sentence in found.sentences) * 2 > len(found.sentences)
    for step in (1, -1, 2, -2) if moved else ():
        side = "right" if step < 0 else "left"
        guesses[
            f"labels stand {abs(step)} token{'s' * (abs(step) > 1)} too far to the {side}: special tokens take"
            " part in the sequence, give them -100 before labels are appended"
        ] = (
            lambda sentence, token, word, step=step: of_token(sentence, token + step)  # type: ignore[misc]
        )
    for step in (1, -1, 2, -2):
        guesses[
            f"each word has the tag of the word {abs(step)} {'before' if step < 0 else 'after'} it: the index into"
            " the tags is wrong"
        ] = (
            lambda sentence, token, word, step=step: at(sentence.tags, word + step)  # type: ignore[misc]
        )
        guesses[
            f"the rows have the tags of the row {abs(step)} {'before' if step < 0 else 'after'} them: use the"
            " index of the row within the batch for words and tags alike"
        ] = (
            lambda sentence, token, word, step=step: at(neighbour(sentence, step), word)  # type: ignore[misc]
        )
    for first in (0, 1):
        guesses[
            f"the tags are put on the tokens one by one from token {first} on, though words have several tokens:"
            " align them with word_ids()"
        ] = (
            lambda sentence, token, word, first=first: at(sentence.tags, token - first)  # type: ignore[misc]
        )
    guesses[
        "the tags are laid on the tokens by the words of another row: call word_ids(batch_index=i) with the row's own"
        " index in its batch"
    ] = _laid_by_the_first_row(found)
    guesses[
        "a word without a token shifts the labels of the words behind it: count words by word_ids(), not by tokens"
    ] = skipping
    return guesses


def _laid_by_the_first_row(found: Tagging) -> Guess:
    """Return the guess that tags were laid on tokens by the word ids of the first row of a batch."""
    lineage, tokenizer = found.reading.lineage, found.subject.need("tokenizer")
    layouts: dict[int, list[int | None]] = {}

    def layout(number: int) -> list[int | None]:
        row = lineage.sources(number)
        pair = found.reading.pair(row) if row else None
        try:
            return list(tokenizer(pair[0], is_split_into_words=True).word_ids()) if pair else []
        except ValueError:  # a slow tokenizer
            return []

    def guess(sentence: Sentence, token: int, word: int) -> Any:
        number = sentence.origin.number
        first = number - number % lineage.batch if lineage.batch else 0
        if first not in layouts:
            layouts[first] = layout(first)
        other = layouts[first][token] if token < len(layouts[first]) else None
        return sentence.tags[other] if other is not None and other < len(sentence.tags) else None

    return guess


# Tokens that continue a word ------------------------------------------------------------------------------------------


@probe(
    "subwords-open-no-entity",
    group="token classification",
    says="The later tokens of a split word have no label, or one that continues the entity.",
    tasks=TASK,
    budget="fast",
)
def subwords_open_no_entity(subject: Subject) -> Finding:
    """Find out how later tokens of words are labelled, and whether that cuts entities into pieces."""
    found = tagging(subject)
    _aligned(subject)
    kinds: dict[str, list[tuple[Sentence, int]]] = defaultdict(list)
    for sentence in found.sentences:
        for tokens in sentence.tokens_of_word().values():
            for at, token in enumerate(tokens[1:], 1):
                kinds[_kind(found, [sentence.labels[each] for each in tokens[: at + 1]])].append((sentence, token))
    counts = {kind: len(places) for kind, places in kinds.items()}
    if not counts:
        return passed("no word of the rows looked at has several tokens")
    bad = next((kind for kind in (COPIED, CUT, CLOSED) if counts.get(kind)), None)
    if bad is None:
        return _special_convention(found, kinds) or _convention(counts)
    sentence, token = kinds[bad][0]
    parts: dict[str, Any] = {
        "measured": counts[bad],
        "expected": 0,
        "example": shown(subject, sentence, [each for other, each in kinds[bad] if other is sentence]),
    }
    entity = f"{_entities(found, tokens=True)} entities where the words have {_entities(found, tokens=False)}"
    total = sum(counts.values())
    if bad == COPIED:
        message = f"{counts[bad]} of {total} tokens that continue a word are labelled B-: the labels hold {entity}"
        change = "a token labelled B- opens a new entity: turn B- into I- behind a word's first token, or give it -100"
    elif bad == CLOSED:
        name = found.label_name(sentence.labels[token]) or ""
        message = (
            f"{counts[bad]} of {total} tokens that continue a word are labelled {name[:2]} behind the entity's end"
        )
        message += f": the labels hold {entity}"
        change = f"an entity ends once: label only the last token of its last word {name[:2]}, those before it I-"
    else:
        message = f"{counts[bad]} of {total} tokens that continue a word of an entity are labelled O: {entity}"
        change = "the entity ends inside its word: label later tokens I-, or -100"
    cause = f"{change}{place(found.reading)}"
    if counts.get(CONTINUED):
        return fail(message, cause=f"{cause} ({counts[CONTINUED]} others after a B- are labelled I-)", **parts)
    if bad == CLOSED:
        return warn(message, cause=f"{cause}; right if each token has its word's tag on purpose", **parts)
    if counts_entities(subject):
        return fail(message, cause=f"{cause}; the metric counts whole entities over all labelled tokens", **parts)
    return warn(message, cause=f"{cause}; harmless only if the metric reads first tokens alone", **parts)


UNLABELLED, CONTINUED, INNER, OUTSIDE = "unlabelled", "continued", "inner", "outside"
COPIED, CUT, CLOSED, OTHER = "copied", "cut", "closed", "other"


def _kind(found: Tagging, labels: Sequence[int]) -> str:
    """Tell how the last of the labels of a word's tokens relates to those before it."""
    first, later = labels[0], labels[-1]
    if later == IGNORED:
        return UNLABELLED
    if first == IGNORED:
        return OTHER
    opening, name = split_name(found.label_name(first) or ""), split_name(found.label_name(later) or "")
    if opening is None or name is None:
        return OUTSIDE if first == later == found.common else OTHER
    if opening[0] == "O":
        return OUTSIDE if name[0] == "O" else OTHER
    if name[0] == "O":
        return CUT
    if name[0] in OPENS:
        return COPIED if first == later else OTHER
    if name[1] != opening[1]:
        return OTHER
    before = split_name(found.label_name(labels[-2]) or "")
    if before is not None and before[0] in CLOSES:
        return CLOSED if name[0] in CLOSES else OTHER
    return CONTINUED if opening[0] in OPENS else INNER


def _special_convention(found: Tagging, kinds: Mapping[str, Sequence[tuple[Sentence, int]]]) -> Finding | None:
    """Return a pass if later tokens have a label of their own, or only the last token of a word has one."""
    if set(kinds) == {OTHER}:
        labels = {sentence.labels[token] for sentence, token in kinds[OTHER]}
        if len(labels) == 1 and not labels & set(found.meant.values()):
            name = found.subject.label_text(labels.pop())
            return passed(
                f"all {len(kinds[OTHER])} tokens that continue a word have the label {name}, which no word has"
            )
    split = [
        [sentence.labels[token] for token in tokens]
        for sentence in found.sentences
        for tokens in sentence.tokens_of_word().values()
        if len(tokens) > 1 and sentence.word_of[tokens[0] - 1] != sentence.word_of[tokens[0]]
    ]
    last = sum(labels[-1] != IGNORED and set(labels[:-1]) == {IGNORED} for labels in split)
    if last == len(split):
        return passed(f"only the last token of each of {len(split)} split words is labelled")
    return None


def _convention(counts: Mapping[str, int]) -> Finding:
    labelled = sum(count for kind, count in counts.items() if kind != UNLABELLED)
    silent = counts.get(UNLABELLED, 0)
    if not labelled:
        return passed(f"only first tokens of words are labelled: {silent} later tokens have no label")
    if silent:
        return warn(
            f"{labelled} tokens that continue a word have labels, and {silent} have none",
            cause="words are weighted by their number of tokens in some cases and not in others: label all or none",
        )
    if counts.get(OTHER):
        return warn(
            f"{counts[OTHER]} of {labelled} tokens that continue a word have a label of another kind than its first",
            cause="the labels of a word's tokens do not form one entity in any scheme that is known",
        )
    return passed(f"all tokens of words are labelled; the {labelled} later ones continue their word's entity")


def _entities(found: Tagging, *, tokens: bool) -> int:
    """Count the entities in the labels of all tokens, or of first tokens only."""
    total = 0
    for sentence in found.sentences:
        places = [place for place, label in enumerate(sentence.labels) if label != IGNORED]
        if not tokens:
            firsts = {each[0] for each in sentence.tokens_of_word().values()}
            places = [place for place in places if place in firsts]
        total += len(entities([found.label_name(sentence.labels[place]) or "O" for place in places]))
    return total


def counts_entities(subject: Subject) -> bool:
    """Tell whether the user's metric counts whole entities over all labelled tokens.

    It is given an entity of three tokens of which two are predicted. A metric of tokens sees two hits, one of entities
    none.
    """
    import numpy as np

    names = [str(name) for name in subject.names or ()]
    kind = next((name[2:] for name in names if name.startswith("B-") and f"I-{name[2:]}" in names), None)
    calls = subject.trace.metrics if subject.trace is not None else ()
    if any(call.name.startswith("seqeval") for call in calls):
        return True
    if subject.compute_metrics is None or kind is None or "O" not in names:
        return False
    opens, inside, outside = (names.index(name) for name in (f"B-{kind}", f"I-{kind}", "O"))
    gold = [IGNORED, outside, opens, inside, inside, outside, IGNORED]
    guessed = [outside, outside, opens, inside, outside, outside, outside]
    logits = np.eye(len(names), dtype=np.float32)[[guessed]] * 10
    try:
        scores = subject.compute_metrics(logits, np.array([gold]))
    except Exception:
        return False
    numbers = [float(value) for value in scores.values() if isinstance(value, (int, float, np.floating))]
    return any(value == 0 for value in numbers)


def _aligned(subject: Subject) -> None:
    if labels_follow_tags(subject).outcome == "fail":
        raise NotChecked("the labels are not those of the words: see labels-follow-tags")


# Names ----------------------------------------------------------------------------------------------------------------


@probe(
    "label-names-are-the-data-names",
    group="token classification",
    says="The model's names of labels are the data's names of the same tags.",
    tasks=TASK,
    budget="fast",
)
def label_names_are_the_data_names(subject: Subject) -> Finding:
    """Compare `config.id2label` with the names of the tags that have each label."""
    if subject.names is None:
        raise NotChecked("the model has no label names: set config.id2label")
    twisted = _twisted_config(subject)
    if not has_names(subject):
        return warn(
            f"the model calls its labels {subject.names[0]} to {subject.names[-1]}",
            cause="predictions cannot be read, and a tag's type is lost: pass id2label= and label2id= to the model",
        )
    found = tagging(subject)
    _aligned(subject)
    names = list(subject.names)
    texts = {
        found.text(tag): label
        for tag, label in found.usual.items()
        if found.text(tag) is not None and found.spread[tag] <= FEW
    }
    if not texts:
        raise NotChecked("the tags are numbers without names: use a ClassLabel feature, or pass raw= with its names")
    wrong = {text: names[label] for text, label in texts.items() if 0 <= label < len(names) and names[label] != text}
    # A tag that is merged into another one has no name of its own in the model, or shares its label with the other.
    # Tags that were converted to another scheme keep their type: I-PER of IOB2 is often L-PER of BILOU.
    swapped = {
        text: name
        for text, name in wrong.items()
        if text in names
        and not (found.converted and str(text)[1:] == name[1:])
        and sum(label == texts[text] for label in texts.values()) == 1
        and name in {*wrong, *names}
    }
    if len(swapped) >= 2 or "O" in swapped:
        shown_pairs = ", ".join(f"{text} is called {name}" for text, name in list(swapped.items())[:4])
        return fail(
            f"{len(swapped)} of {len(texts)} tags have another name in the model: {shown_pairs}",
            cause="id2label is in another order than the ids of the tags: make it from the same list of names",
            measured={str(text): name for text, name in swapped.items()},
            expected={str(text): text for text in swapped},
        )
    if twisted:
        return warn(f"label2id and id2label of the model disagree: {twisted}", cause="make both from one list of names")
    wrong = {text: name for text, name in wrong.items() if str(text)[1:] != name[1:]}  # another scheme's spelling
    if wrong and not {*texts, "O"} & {*names} - {"O"}:
        return _renamed(texts, wrong)
    if wrong:
        some = ", ".join(f"{text} as {name}" for text, name in list(wrong.items())[:4])
        return warn(
            f"{len(wrong)} tags have a label of another name: {some}", cause="right if they were merged on purpose"
        )
    return passed(f"the names of {len(texts)} tags are those of the model")


def _renamed(texts: Mapping[str | None, int], wrong: Mapping[str | None, str]) -> Finding:
    """Judge names of which none is a tag of the data: other classes, other words for the same, or another data set."""
    tags = {text: (split_name(str(text)), split_name(name)) for text, name in wrong.items()}
    paired = [
        (text, a, b) for text, (a, b) in tags.items() if a is not None and b is not None and "O" not in (a[0], b[0])
    ]
    one_to_one = len(set(texts.values())) == len(texts)
    if not one_to_one or len(paired) < len(wrong):
        return passed(f"the {len(set(texts.values()))} labels are other classes than the {len(texts)} tags")
    turned = [text for text, a, b in paired if (a[0] in OPENS) != (b[0] in OPENS)]
    some = ", ".join(f"{text} as {wrong[text]}" for text in (turned or list(wrong))[:4])
    message = f"the model has other names than the data: {some}"
    if 2 <= len(turned) < len(paired):
        return fail(
            message,
            cause="some tags that open an entity are called I-, or the other way round: id2label is that of another "
            "data set; make it from the names of these tags",
            measured=len(turned),
            expected=0,
        )
    if all(a[1].lower()[:3] == b[1].lower()[:3] for _, a, b in paired):
        return passed(f"the names of {len(paired)} tags are spelt in another way in the model")
    return warn(message, cause="id2label may be that of another data set; right if the types were renamed on purpose")


def _prefixes(names: Sequence[str | None]) -> set[str]:
    return {prefix for prefix, kind in (split_name(name) or ("O", "") for name in names if name) if kind}


def _twisted_config(subject: Subject) -> str:
    """Return the first label whose id in label2id is another one than in id2label."""
    config = getattr(subject.model, "config", None)
    forward, back = getattr(config, "id2label", None) or {}, getattr(config, "label2id", None) or {}
    for number, name in forward.items():
        if name in back and back[name] != int(number):
            return f"{name} is {number} in id2label and {back[name]} in label2id"
    return ""


@probe(
    "tags-form-a-scheme",
    group="token classification",
    says="Label names are O, B-TYPE, I-TYPE and so on, and no entity goes on that was not opened.",
    tasks=TASK,
    budget="fast",
)
def tags_form_a_scheme(subject: Subject) -> Finding:
    """Look for names that are no tags, and for tags that continue an entity which none opened."""
    found = tagging(subject)
    texts = {found.text(tag) for sentence in found.sentences for tag in sentence.tags} - {None}
    if not texts and has_names(subject):
        texts = set(subject.names or ())
    if not texts:
        raise NotChecked("neither the tags nor the labels have names: pass id2label= to the model")
    named = sorted(str(text) for text in texts)
    odd = [text for text in named if split_name(text) is None]
    prefixed = [text for text in named if split_name(text) not in (None, ("O", ""))]
    if odd and not prefixed:
        return passed(f"the tags are plain classes, without B- and I-: {', '.join(odd[:5])}")
    if odd:
        hint = " (the digit 0 is not the letter O)" if "0" in odd else ""
        return warn(
            f"{', '.join(odd[:5])}: no tag of a scheme{hint}",
            cause="metrics of entities read tags as O, B-TYPE, I-TYPE: other names are taken for entities, or refused",
        )
    types = {text[2:] for text in prefixed}
    one_sided = sorted(kind for kind in types if not any(f"{each}-{kind}" in named for each in OPENS))
    inside = opened = 0
    for sentence in found.sentences:
        before = ("O", "")
        for tag in sentence.tags:
            now = split_name(found.text(tag) or "O") or ("O", "")
            if now[0] in INSIDE:
                inside += 1
                opened += now[1] != before[1] or before[0] == "O"
            before = now
    if opened and len(one_sided) < len(types):
        return warn(
            f"{opened} of {inside} tags that continue an entity follow none of their type",
            cause="the tags are IOB1, or rows were cut inside entities: metrics in strict mode ignore such entities",
        )
    if one_sided:
        return passed(f"the tags are in the scheme IO: {', '.join(one_sided[:5])} have no tag that opens an entity")
    return passed(f"{len(named)} names are tags, and every entity is opened")


# Truncation -----------------------------------------------------------------------------------------------------------


@probe(
    "entities-survive-truncation",
    group="token classification",
    says="No entity is lost because its words are cut off.",
    tasks=TASK,
    budget="fast",
)
def entities_survive_truncation(subject: Subject) -> Finding:
    """Count the entities whose words have no token in any row."""
    found = tagging(subject)
    _aligned(subject)
    sources: dict[int, tuple[Sentence, set[int]]] = {}
    for sentence in found.sentences:
        held = sources.setdefault(sentence.origin.number, (sentence, set()))[1]
        held |= set(sentence.tokens_of_word())
    total = lost = cut = words = 0
    worst: Sentence | None = None
    complete = found.reading.lineage.complete
    for number, (sentence, held) in sources.items():
        if number not in complete:
            continue
        names = [found.text(tag) or found.label_name(found.meant.get(tag, IGNORED)) or "O" for tag in sentence.tags]
        spans = entities(names)
        missing = sum(any(word not in held for word in range(first, last + 1)) for _, first, last in spans)
        behind = max(held, default=-1)
        total += len(spans)
        lost += missing
        words += len(sentence.words)
        cut += len(sentence.words) - behind - 1
        if missing and worst is None:
            worst = sentence
    if not total:
        raise NotChecked("the rows looked at have no entities")
    figures = f"{lost} of {total} entities and {cut} of {words} words"
    if lost > NOTABLE * total and worst is not None:
        return warn(
            f"truncation loses {figures}",
            cause="raise max_length, or split long rows into windows (return_overflowing_tokens=True)",
            measured=lost / total,
            expected=0,
            example=shown(subject, worst, []),
        )
    return passed(f"truncation loses {figures}")
