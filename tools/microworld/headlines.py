"""Write the biggest news of a document as a headline.

The frames of a topic are sorted from big news to small ("Weston beat Harlow" before "Weston lead the league"). The
clause with the first of these frames makes the headline. It may be anywhere in the document, so that the first sentence
is a poor summary.

A headline is in the present and uses short names. It omits articles, adjectives before nouns, `be`, possessives,
titles, times, and the parts between or after commas.

A document is its first few sentences, or, once in `WHOLE` documents, all of them. The news of a long document is near
its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from tools.microworld.draws import Draws
from tools.microworld.english import Wording, add_clause, in_english, joined, page
from tools.microworld.grammar import Clause, Document, Filler, Mention, Phrase, Sentence

REPORT = (2, 3)
"""The least and the most sentences of a document: few, so that a tiny model learns in seconds what makes news."""
WHOLE = 25
"""One of this many documents is complete, however long it is."""
LEAD = 9
"""The news is among this many first sentences, the length of the longest ordinary document."""


@dataclass(frozen=True)
class HeadlineRow:
    document: str
    summary: str


def make_headline(document: Document) -> HeadlineRow:
    """Return the text of a document and the headline of its biggest news."""
    sentences = report(document)
    return HeadlineRow(page(sentences).text, _summary(document, sentences[:LEAD]))


def report(document: Document) -> list[Sentence]:
    """Return the first few sentences, or all of them for one document in `WHOLE`."""
    draws = Draws("report", document.seed, document.split, document.index)
    sentences = list(document)
    return sentences if draws.below(WHOLE) == 0 else sentences[: draws.between(*REPORT)]


def _summary(document: Document, lead: list[Sentence]) -> str:
    clauses = [clause for sentence in lead for clause in sentence.clauses]
    if not clauses:  # only lists of names and foreign script: take the first words
        words = in_english(lead[0]).words
        return joined(words[:3]) if len(words) > 3 else words[0].rstrip("。")
    frames = document.topic.frames
    return headline(min(clauses, key=lambda clause: frames.index(clause.frame)))


def headline(clause: Clause) -> str:
    """Return a clause as a headline: "Miller wins Weston Cup"."""
    brief = tuple((slot, _brief(filler)) for slot, filler in clause.slots)
    wording = Wording()
    add_clause(replace(clause, past=False, slots=brief), wording, pattern=headline_pattern(clause.frame.english))
    text = joined(wording.words)
    return text[:1].upper() + text[1:]


def _brief(filler: Filler) -> Filler:
    match filler:
        case Mention():
            return Mention(filler.entity, True)
        case Phrase():
            return Phrase(filler.noun, None, filler.plural, "")
    return filler


@cache
def headline_pattern(english: str) -> str:
    """Return the part of a frame that a headline keeps.

    "{person} , who [play] for {club} , [win] the {event} {when} ." becomes "{person} [win] {event}".
    """
    first, *others = english.removesuffix(" .").split(" , ")
    kept = f"{first} {others[1]}" if len(others) > 1 else first
    return " ".join(_kept(kept.split()))


_DROPPED = ("the", "a", "<his>", "their", "{when}", "[be]", "[be+]")


def _kept(words: list[str]) -> Iterator[str]:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        is_title = word in ("{job}", "{people}") and following.startswith(("{job", "{person"))
        if not (is_title or word in _DROPPED):
            yield word
