"""Probe of token classification: the labels of tokens that continue a word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from touchstone.auditing.finding import Finding, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.tags import need_aligned
from touchstone.auditing.reading.tags import OPENS, Tagging, entities, place, shown, split_name, tagging
from touchstone.auditing.reading.words import Sentence
from touchstone.auditing.subject import IGNORED, Subject

TASK = ("token-classification",)


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
    inside its word. Scores of entities are then wrong.

    Causes: The tag of a word is copied to all of its tokens without turning B- into I-. Or later tokens get 0 instead
    of -100.

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
            first = sentence.labels[tokens[0]]
            for token in tokens[1:]:
                kinds[_kind(found, first, sentence.labels[token])].append((sentence, token))
    counts = {kind: len(places) for kind, places in kinds.items()}
    if not counts:
        return passed("no word of the rows looked at has several tokens")
    bad = next((kind for kind in (COPIED, CUT) if counts.get(kind)), None)
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
    else:
        message = f"{counts[bad]} of {total} tokens that continue a word of an entity are labelled O: {entity}"
        change = "the entity ends inside its word: label later tokens I-, or -100"
    cause = f"{change}{place(found.reading)}"
    if counts.get(CONTINUED):
        return fail(message, cause=f"{cause} ({counts[CONTINUED]} others after a B- are labelled I-)", **parts)
    if counts_entities(subject):
        return fail(message, cause=f"{cause}; the metric counts whole entities over all labelled tokens", **parts)
    return warn(message, cause=f"{cause}; harmless only if the metric reads first tokens alone", **parts)


UNLABELLED, CONTINUED, INNER, OUTSIDE = "unlabelled", "continued", "inner", "outside"
COPIED, CUT, OTHER = "copied", "cut", "other"


def _kind(found: Tagging, first: int, later: int) -> str:
    """Tell how the label of a later token of a word relates to that of the first."""
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
