"""Probe of token classification: the labels of tokens that continue a word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from touchstone.auditing.finding import Finding, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.tags import need_aligned
from touchstone.auditing.reading.tags import CLOSES, INSIDE, OPENS, Tagging, entities, place, shown, split_name, tagging
from touchstone.auditing.reading.words import Sentence
from touchstone.auditing.subject import IGNORED, Subject

TASK = ("token-classification",)
SOME, MOST = 5, 0.8
"""First tokens labelled O are a fault if there are so many, and in this share of the words that open an entity."""


@probe(
    "subwords-open-no-entity",
    group="token classification",
    says="The later tokens of a split word have no label, or one that continues the entity.",
    tasks=TASK,
    budget="fast",
)
def subwords_open_no_entity(subject: Subject) -> Finding:
    """Find out how later tokens of words are labelled, and whether that cuts entities into pieces.

    Fault: Later tokens of a split word are labelled B-, so that one entity becomes several, or O, so that it ends
    inside its word. Or it is closed by several tokens (L-, E-), or opened by none. Scores of entities are then wrong.

    Causes: The tag of a word is copied to all of its tokens without turning B- into I-. Or later tokens get 0 instead
    of -100. Or the characters of entities are counted from 1, and those of tokens from 0.

    Remedy: Give later tokens -100, or the I- tag of the same type. The course has it as: an odd label, which is B-, is
    raised by one.

    Warning: The labels of later tokens follow no known scheme, or some words have them and others do not. It is
    harmless only if the metric reads first tokens alone.
    """
    found = tagging(subject)
    need_aligned(subject)
    kinds: dict[str, list[tuple[Sentence, int]]] = defaultdict(list)
    for sentence in found.sentences:
        for tokens in sentence.tokens_of_word().values():
            for at, token in enumerate(tokens[1:], 1):
                kinds[_kind(found, [sentence.labels[each] for each in tokens[: at + 1]])].append((sentence, token))
    counts = {kind: len(places) for kind, places in kinds.items()}
    if not counts:
        return passed("no word of the rows looked at has several tokens")
    if late := _late(found):
        sentence, token = late[0]
        return fail(
            f"in {len(late)} words that open an entity the first token is labelled O, and the next one inside it",
            cause="the entity begins inside its word: label the first token, too; where entities are given by "
            f"characters, look whether they are counted from 0{place(found.reading)}",
            measured=len(late),
            expected=0,
            example=shown(subject, sentence, [each for other, each in late if other is sentence]),
        )
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


def _late(found: Tagging) -> list[tuple[Sentence, int]]:
    """Return the first tokens that are O although their word opens an entity, if that is so in most split words."""
    late: list[tuple[Sentence, int]] = []
    total = 0
    for sentence in found.sentences:
        for word, tokens in sentence.tokens_of_word().items():
            tag = split_name(found.text(sentence.tags[word]) or "")
            if tag is None or tag[0] not in OPENS or len(tokens) < 2:
                continue
            total += 1
            first, second = (split_name(found.label_name(sentence.labels[token]) or "") for token in tokens[:2])
            if first == ("O", "") and second is not None and second[0] in INSIDE:
                late.append((sentence, tokens[0]))
    return late if len(late) >= SOME and len(late) > MOST * total else []


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
