"""Probes of token classification: labels against the tags of the words they came from."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.tags import Tagging, entities, heads, place, shown, split_name, tagging
from touchstone.auditing.reading.words import Sentence
from touchstone.auditing.subject import IGNORED, Subject

TASK = ("token-classification",)
TELLS = 0.9
"""A cause is named if it explains this share of the wrong labels."""
ODD = 0.1
"""Labels that no cause explains are a fault from this share of the words of entities; fewer may be meant."""


@probe(
    "labels-follow-tags",
    group="token classification",
    says="The label of every token is the tag of the word it came from.",
    tasks=TASK,
    budget="fast",
)
def labels_follow_tags(subject: Subject) -> Finding:
    """Compare the label of each word's first labelled token with the word's tag, in training and evaluation data.

    Fault: Words are trained with the tags of other words or other rows. The loss still falls, because O is the
    commonest tag everywhere.

    Causes: Tags of words are put on tokens one by one, though words have several tokens. Or labels are moved by the
    special token in front, or the index of a row is taken from the batch for words and from the data set for tags.

    Remedy: Align by word ids, with the index of the row in the batch: `for word in encoded.word_ids(batch_index=i)`,
    then `tags[i][word]`. The finding names the shift that explains the labels.

    Warning: Some labels are not those of their words, and no single shift explains it. Look at the rows that are
    shown; noise added on purpose looks like this.
    """
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
ANY = object()
"""What a guess gives where the fault may give any tag: an index outside a list is cut off, wrapped or an error."""


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
            if token is not None and (tag := guess(sentence, token, word)) is not ANY:
                pairs.append((tag, sentence.labels[token]))
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

    guesses: dict[str, Guess] = {}  # of two that tell the labels as well, the first one is named
    guesses[
        "a word without a token shifts the labels of the words behind it: count words by word_ids(), not by tokens"
    ] = skipping
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
        ] = lambda sentence, token, word, step=step: (  # type: ignore[misc]
            at(sentence.tags, word + step) if 0 <= word + step < len(sentence.tags) else ANY
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


def need_aligned(subject: Subject) -> None:
    if labels_follow_tags(subject).outcome == "fail":
        raise NotChecked("the labels are not those of the words: see labels-follow-tags")
