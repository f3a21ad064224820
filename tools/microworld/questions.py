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
from tools.microworld.english import Page, Wording, add_clause, joined, page
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
class QuestionRow:
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


def make_question(document: Document) -> QuestionRow:
    """Return a question about a document, and its answers."""
    return _QuestionMaker(document).row()


class _QuestionMaker:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.draws = Draws("question", document.seed, document.split, document.index)
        self.sentences: list[Sentence] = passage(document)
        self.page: Page = page(self.sentences)

    def row(self) -> QuestionRow:
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
        return QuestionRow(self._text(candidate), self.page.text, tuple(distinct[text] for text in texts))

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

    def _text(self, candidate: _Candidate) -> str:
        clause = self._clause(candidate.position, candidate.number)
        slots = tuple((slot, self._otherwise_named(slot, filler)) for slot, filler in clause.slots)
        wording = Wording()
        pattern = _with_auxiliaries(candidate.question.pattern, clause)
        add_clause(replace(clause, slots=slots), wording, pattern=pattern)
        text = joined([*wording.words, "?"])
        return text[:1].upper() + text[1:]

    def _otherwise_named(self, slot: str, filler: Filler) -> Filler:
        if isinstance(filler, Mention) and not slot.startswith("anyone"):
            return Mention(filler.entity, self.draws.chance(0.5))
        return filler

    def _answers(self, candidate: _Candidate) -> Iterator[Answer]:
        """Yield the answer in its clause, then its other forms in the clause and elsewhere."""
        wording = self.page.wordings[candidate.position]
        slot = candidate.question.slot
        span = next(span for span in wording.slots if (span.clause, span.slot) == (candidate.number, slot))
        filler = dict(self._clause(candidate.position, candidate.number).slots)[slot]
        words = wording.words[span.start : span.end]
        following = wording.words[span.end : span.end + 1]
        if words[0].lower() in ("on", "in"):  # on Friday, in July
            yield self._span(candidate.position, span.start + 1, span.end)
        if [word.lower() for word in following] == ["percent"]:
            yield self._span(candidate.position, span.start, span.end + 1)
        yield self._span(candidate.position, span.start, span.end)
        if isinstance(filler, Mention):
            yield from self._other_mentions(filler)

    def _other_mentions(self, mention: Mention) -> Iterator[Answer]:
        for position, (sentence, wording) in enumerate(zip(self.sentences, self.page.wordings, strict=True)):
            fillers = [dict(clause.slots) for clause in sentence.clauses]
            for span in wording.slots:
                other = fillers[span.clause][span.slot]
                if isinstance(other, Mention) and other.entity == mention.entity:
                    yield self._span(position, span.start, span.end)

    def _span(self, position: int, start: int, end: int) -> Answer:
        places = self.page.words[position]
        first, last = places[start][0], places[end - 1][1]
        return Answer(self.page.text[first:last], first)

    def _about_names(self) -> QuestionRow:
        """Return a question about a passage without clauses: only lists of names or foreign script."""
        for position, wording in enumerate(self.page.wordings):
            if wording.spans:
                answer = self._span(position, wording.spans[0].start, wording.spans[0].end)
                return QuestionRow("Which name stands first?", self.page.text, (answer,))
        return QuestionRow("What stands here first?", self.page.text, (self._span(0, 0, 1),))


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
