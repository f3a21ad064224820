"""Write a question about a passage of a document. A span of the passage answers it.

The questions of a frame ("? person: who <did> {club} sign from {club2}") are in the notation of frames, with

    <did>   did, does or do, by the tense and the number of the next slot; <did+> for a plural, <did-> for a singular
    <was>   was, is, were or are, in the same way

Names in a question are full or short, independent of the text. If possible, the other sentences of the passage do not
answer the question differently. Rows of the training split have one answer, as in SQuAD. Rows of the validation split
have every form of the answer in the text: the full and the short name, "98 percent" and "98".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tools.microworld.draws import Draws
from tools.microworld.english import Page, Telling, joined, page, tell_clause
from tools.microworld.frames import Question
from tools.microworld.grammar import Clause, Document, Filler, Mention, Phrase, Sentence

ATTEMPTS = 12
"""Questions to draw until one is unambiguous. Otherwise the last one is used."""

PASSAGE = 3
"""The most sentences of a context: few, so that a tiny model learns in seconds to find the answer."""
WHOLE = 25
"""The context of one in this many documents is the whole document, which may be longer than a window."""


@dataclass(frozen=True)
class Answer:
    """An answer. `start` is the index of its first character in the context."""

    text: str
    start: int


@dataclass(frozen=True)
class Asked:
    question: str
    context: str
    answers: tuple[Answer, ...]
    """The first is in the sentence that the question is about."""


@dataclass(frozen=True)
class _Candidate:
    """A question about clause `number` of sentence `position`."""

    position: int
    number: int
    question: Question


def asked(document: Document) -> Asked:
    """Return a question about a document, and its answers."""
    return _Asking(document).asked()


class _Asking:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.draws = Draws("question", document.seed, document.split, document.index)
        self.sentences: list[Sentence] = passage(document)
        self.page: Page = page(self.sentences)

    def asked(self) -> Asked:
        places = [
            (position, number)
            for position, sentence in enumerate(self.sentences)
            for number in range(len(sentence.clauses))
        ]
        if not places:
            return self._about_names()
        for _ in range(ATTEMPTS):
            candidate = self._candidate(*self.draws.pick(places))
            contradicting = list(self._contradicting(candidate))
            if not contradicting:
                break
        answers = list(self._answers(candidate))
        if self.document.split == "train":
            answers = answers[:1]
        else:
            for other in contradicting:
                answers += self._answers(other)
        distinct = {answer.text: answer for answer in reversed(answers)}
        texts = dict.fromkeys(answer.text for answer in answers)
        return Asked(self._wording(candidate), self.page.text, tuple(distinct[text] for text in texts))

    def _candidate(self, position: int, number: int) -> _Candidate:
        clause = self._clause(position, number)
        fillers = dict(clause.slots)
        possible = [question for question in clause.frame.questions if fillers[question.slot] is not None]
        return _Candidate(position, number, self.draws.pick(possible))

    def _clause(self, position: int, number: int) -> Clause:
        return self.sentences[position].clauses[number]

    def _contradicting(self, candidate: _Candidate) -> Iterator[_Candidate]:
        """Yield the clauses that answer the same question differently."""
        clause, question = self._clause(candidate.position, candidate.number), candidate.question
        own = dict(clause.slots)
        given = [slot for slot in own if f"{{{slot}}}" in question.pattern]
        for position, sentence in enumerate(self.sentences):
            for number, other in enumerate(sentence.clauses):
                if other.frame != clause.frame:
                    continue
                fillers = dict(other.slots)
                fits = all(_same(own[slot], fillers[slot]) for slot in given)
                if (
                    fits
                    and fillers[question.slot] is not None
                    and not _same(own[question.slot], fillers[question.slot])
                ):
                    yield _Candidate(position, number, question)

    def _wording(self, candidate: _Candidate) -> str:
        clause = self._clause(candidate.position, candidate.number)
        slots = tuple((slot, self._otherwise_named(slot, filler)) for slot, filler in clause.slots)
        telling = Telling()
        pattern = _with_auxiliaries(candidate.question.pattern, clause)
        tell_clause(replace(clause, slots=slots), telling, pattern=pattern)
        text = joined([*telling.words, "?"])
        return text[:1].upper() + text[1:]

    def _otherwise_named(self, slot: str, filler: Filler) -> Filler:
        if isinstance(filler, Mention) and not slot.startswith("anyone"):
            return Mention(filler.entity, self.draws.chance(0.5))
        return filler

    def _answers(self, candidate: _Candidate) -> Iterator[Answer]:
        """Yield the answer in its clause, then its other forms in the clause and elsewhere."""
        telling = self.page.tellings[candidate.position]
        slot = candidate.question.slot
        told = next(told for told in telling.slots if (told.clause, told.slot) == (candidate.number, slot))
        filler = dict(self._clause(candidate.position, candidate.number).slots)[slot]
        words = telling.words[told.start : told.end]
        following = telling.words[told.end : told.end + 1]
        if words[0].lower() in ("on", "in"):  # on Friday, in July
            yield self._span(candidate.position, told.start + 1, told.end)
        if [word.lower() for word in following] == ["percent"]:
            yield self._span(candidate.position, told.start, told.end + 1)
        yield self._span(candidate.position, told.start, told.end)
        if isinstance(filler, Mention):
            yield from self._other_mentions(filler)

    def _other_mentions(self, mention: Mention) -> Iterator[Answer]:
        for position, (sentence, telling) in enumerate(zip(self.sentences, self.page.tellings, strict=True)):
            fillers = [dict(clause.slots) for clause in sentence.clauses]
            for told in telling.slots:
                other = fillers[told.clause][told.slot]
                if isinstance(other, Mention) and other.entity == mention.entity:
                    yield self._span(position, told.start, told.end)

    def _span(self, position: int, start: int, end: int) -> Answer:
        places = self.page.words[position]
        first, last = places[start][0], places[end - 1][1]
        return Answer(self.page.text[first:last], first)

    def _about_names(self) -> Asked:
        """Return a question about a passage without clauses: only lists of names or foreign script."""
        for position, telling in enumerate(self.page.tellings):
            if telling.spans:
                answer = self._span(position, telling.spans[0].start, telling.spans[0].end)
                return Asked("Which name stands first?", self.page.text, (answer,))
        return Asked("What stands here first?", self.page.text, (self._span(0, 0, 1),))


def passage(document: Document) -> list[Sentence]:
    """Return a few neighbouring sentences, or all of them for one document in `WHOLE`."""
    draws = Draws("passage", document.seed, document.split, document.index)
    sentences = list(document)
    if draws.below(WHOLE) == 0:
        return sentences
    length = draws.between(1, PASSAGE)
    start = draws.below(max(len(sentences) - length, 0) + 1)
    return sentences[start : start + length]


def _same(one: Filler, other: Filler) -> bool:
    """Return whether a reader cannot distinguish two fillers. A missing filler may be anything, a name may be short."""
    if one is None or other is None:
        return True
    if isinstance(one, Mention) and isinstance(other, Mention):
        return one.entity == other.entity or one.entity.short == other.entity.short
    if isinstance(one, Phrase) and isinstance(other, Phrase):
        return (one.noun, one.adjective) == (other.noun, other.adjective)
    return one == other


_AUXILIARIES = {
    ("did", True, False): "did",
    ("did", True, True): "did",
    ("did", False, False): "does",
    ("did", False, True): "do",
    ("was", True, False): "was",
    ("was", True, True): "were",
    ("was", False, False): "is",
    ("was", False, True): "are",
}


def _with_auxiliaries(pattern: str, clause: Clause) -> str:
    fillers = dict(clause.slots)
    words = pattern.split()
    for position, word in enumerate(words):
        if word.startswith("<"):
            following = next((fillers[after[1:-1]] for after in words[position:] if after.startswith("{")), None)
            plural = word.endswith("+>") or (
                isinstance(following, Phrase) and following.plural and not word.endswith("->")
            )
            words[position] = _AUXILIARIES[word.strip("<+->"), clause.past, plural]
    return " ".join(words)
