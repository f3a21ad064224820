"""The probe of words that have a tag and no label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.scheme import NOTABLE
from touchstone.auditing.probes.tags import need_aligned
from touchstone.auditing.reading.tags import Tagging, place, shown, tagging
from touchstone.auditing.reading.words import Sentence
from touchstone.auditing.subject import IGNORED, Subject

TELLS = 0.95
"""A cause is named if it tells of this share of the words whether they have a label."""
FEW = 5
"""Fewer words without a label than these have no common cause that could be told."""

Kind = Callable[[Sentence, int, list[int]], bool]
"""Tells of a word whether a fault would leave it without a label: (sentence, word, its tokens) -> bool."""
KINDS: dict[str, Kind] = {
    "words of several tokens have none: label the first token of a word, whatever the number of its tokens": (
        lambda sentence, word, tokens: len(tokens) > 1
    ),
    "words of one token have none: label every word, not only those that are split": (
        lambda sentence, word, tokens: len(tokens) == 1
    ),
    "only the first word of a row has one: with a space before a word, offsets do not begin at 0; find the first token "
    "of a word by word_ids()": lambda sentence, word, tokens: word > min(sentence.tokens_of_word()),
}


@probe(
    "words-labelled",
    group="token classification",
    says="Every word of an entity has a label.",
    tasks=("token-classification",),
    budget="fast",
)
def words_labelled(subject: Subject) -> Finding:
    """Look for words of entities none of whose tokens has a label, though their tag has one elsewhere.

    Fault: All words of one kind have no label: those of several tokens, those of one, or all but a row's first. Their
    entities are not learnt, and a metric over labelled tokens does not count them as missed.

    Causes: A word's first token is told by offsets that begin at 0, which does not hold where a space belongs to the
    token. Or only words that are one token, or several, are looked at.

    Remedy: Label the first token of each word: the one whose entry in `word_ids()` differs from the entry before.

    Warning: More than 1% of the words of entities have no label, and nothing tells which.
    """
    found = tagging(subject)
    need_aligned(subject)
    words = [
        (sentence, word, tokens) for sentence in found.sentences for word, tokens in _entity_words(found, sentence)
    ]
    missed = [(sentence, tokens) for sentence, _, tokens in words if _silent(sentence, tokens)]
    if not words:
        raise NotChecked("the rows looked at have no entities")
    if not missed:
        return passed(f"each of {len(words)} words of entities has a label")
    sentence = missed[0][0]
    marked = [tokens[0] for other, tokens in missed if other is sentence]
    parts: dict[str, Any] = {"measured": len(missed), "expected": 0, "example": shown(subject, sentence, marked)}
    message = f"{len(missed)} of {len(words)} words of entities have no label"
    for cause, kind in KINDS.items():
        told = sum(kind(sentence, word, tokens) == _silent(sentence, tokens) for sentence, word, tokens in words)
        if told >= TELLS * len(words) and len(missed) >= FEW:
            return fail(message, cause=cause + place(found.reading), **parts)
    if len(missed) <= NOTABLE * len(words):
        return passed(message)
    return warn(message, cause=f"their entities are not learnt, and not scored{place(found.reading)}", **parts)


def _entity_words(found: Tagging, sentence: Sentence) -> list[tuple[int, list[int]]]:
    """Return the words with the tag of an entity. The last word of a row may be cut, and does not count."""
    words = sentence.tokens_of_word()
    last = max(words, default=None)
    outside = {tag for tag in found.meant if found.text(tag) == "O"}
    if not outside:  # tags without names
        outside = {tag for tag, label in found.meant.items() if label == found.common}
    tags = found.meant.keys() - outside
    return [(word, tokens) for word, tokens in words.items() if word != last and sentence.tags[word] in tags]


def _silent(sentence: Sentence, tokens: list[int]) -> bool:
    return all(sentence.labels[token] == IGNORED for token in tokens)
