"""The microworld's headlines: the biggest news of a document, in few words.

Which of its sentences that is has to be read off the sentences: a topic's frames stand in the order of how newsworthy
they are ("Weston beat Harlow" before "Weston lead the league"), and the first told of the biggest makes the headline.
It may be anywhere in the document, so that the first sentence is no good summary.

A headline drops what a newspaper drops: articles, adjectives before nouns, `be`, possessives, titles, when it was, and
what stands between commas or after one; it names by short names and is in the present.

Documents are told in their first few sentences, one in `WHOLE` as a whole: one in fifty of these is longer than any
window, and as in a newspaper its news is near its beginning, among as many sentences as an ordinary document has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from tools.microworld.draws import Draws
from tools.microworld.english import Telling, joined, page, tell, tell_clause
from tools.microworld.grammar import Clause, Document, Filler, Mention, Phrase, Sentence

REPORT = (2, 3)
"""Sentences of a document, from and to: short enough that a tiny model learns in seconds what makes news."""
WHOLE = 25
"""Of so many documents one is told as a whole, however long it is."""
LEAD = 9
"""Sentences of the longest ordinary document: the news is among the first so many."""


@dataclass(frozen=True)
class Headlined:
    document: str
    summary: str


def headlined(document: Document) -> Headlined:
    """A document's text, and the headline of its biggest news."""
    sentences = report(document)
    return Headlined(page(sentences).text, _summary(document, sentences[:LEAD]))


def report(document: Document) -> list[Sentence]:
    """The first few sentences, and of one document in `WHOLE` all of them."""
    draws = Draws("report", document.seed, document.split, document.index)
    sentences = list(document)
    return sentences if draws.below(WHOLE) == 0 else sentences[: draws.between(*REPORT)]


def _summary(document: Document, lead: list[Sentence]) -> str:
    clauses = [clause for sentence in lead for clause in sentence.clauses]
    if not clauses:  # lists of names and foreign script alone: their first words
        words = tell(lead[0]).words
        return joined(words[:3]) if len(words) > 3 else words[0].rstrip("。")
    frames = document.topic.frames
    return headline(min(clauses, key=lambda clause: frames.index(clause.frame)))


def headline(clause: Clause) -> str:
    """A clause as a headline: "Miller wins Weston Cup"."""
    brief = tuple((slot, _brief(filler)) for slot, filler in clause.slots)
    telling = Telling()
    tell_clause(replace(clause, past=False, slots=brief), telling, pattern=headline_pattern(clause.frame.english))
    text = joined(telling.words)
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
    """What a headline keeps of a frame: "{person} , who [play] for {club} , [win] the {event} {when} ." is
    "{person} [win] {event}".
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
