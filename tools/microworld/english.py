"""Write sentences in English, as words with entity spans and as running text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tools.microworld.grammar import Clause, Filler, Mention, Phrase, Sentence, Term, Value
from tools.microworld.names import EntityType
from tools.microworld.topics import DAYS, MONTHS, past, present
from touchstone.sources.embedded import TAGS

RECENT = ("last week", "last year", "yesterday", "this month")


@dataclass(frozen=True)
class Span:
    """An entity: the words from `start` up to and without `end`."""

    start: int
    end: int
    type: EntityType


@dataclass(frozen=True)
class SlotSpan:
    """The words, from `start` up to and without `end`, that fill a slot of the clause with number `clause`."""

    start: int
    end: int
    clause: int
    slot: str


@dataclass
class Wording:
    """A sentence in words, with the spans of its names and of its slots."""

    words: list[str] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    slots: list[SlotSpan] = field(default_factory=list)

    def say(self, words: str) -> None:
        self.words += words.split()

    def name(self, mention: Mention) -> None:
        start = len(self.words)
        self.words += mention.words
        self.spans.append(Span(start, len(self.words), mention.entity.type))

    def tags(self) -> list[int]:
        """Return the IOB2 tag of each word, as an index into `TAGS`."""
        tags = [0] * len(self.words)
        for span in self.spans:
            begin = TAGS.index(f"B-{span.type}")
            tags[span.start : span.end] = [begin] + [begin + 1] * (span.end - span.start - 1)
        return tags


def in_english(sentence: Sentence) -> Wording:
    """Return a sentence in words. Every style has at least one word."""
    wording = Wording()
    match sentence.style:
        case "foreign":
            wording.say(sentence.foreign)
            return wording
        case "listing":
            for position, mention in enumerate(sentence.names):
                if position % 3 == 2:  # the other names follow without a comma: adjacent entities of one type
                    wording.say(",")
                wording.name(mention)
            return wording
    if sentence.place is not None:
        if sentence.style == "dateline":
            wording.name(sentence.place)
            wording.say(f", {MONTHS[sentence.day % 12]} {sentence.day} -")
        else:
            wording.say("In")
            wording.name(sentence.place)
            wording.say(",")
    for position, clause in enumerate(sentence.clauses):
        if position:
            wording.words[-1:] = [",", str(sentence.connective)]
        add_clause(clause, wording, number=position)
    if sentence.speaker is not None and wording.words[-1] == ".":
        wording.words[-1] = ","
        wording.name(sentence.speaker)
        wording.say("said .")
    if sentence.emoji is not None:
        wording.say(sentence.emoji)
    if sentence.style == "headline":
        wording.words = [word.upper() for word in wording.words if word != "."]
    wording.words[0] = wording.words[0][:1].upper() + wording.words[0][1:]
    if sentence.stray:
        wording.words.append("\u200f")
    return wording


def add_clause(clause: Clause, wording: Wording, *, pattern: str | None = None, number: int = 0) -> None:
    """Add a clause to a sentence, by its frame's English or by another pattern in the same notation."""
    fillers = dict(clause.slots)
    subject: Filler = None
    for word in (pattern or clause.frame.english).split():
        if word.startswith("{"):
            filler = fillers[word[1:-1]]
            if subject is None and can_act(filler):
                subject = filler
            start = len(wording.words)
            _add_filler(filler, wording)
            if filler is not None:
                wording.slots.append(SlotSpan(start, len(wording.words), number, word[1:-1]))
        elif word.startswith("["):
            plural = word.endswith("+]") or (isinstance(subject, Phrase) and subject.plural and not word.endswith("-]"))
            verb = word.strip("[+-]")
            wording.say(past(verb, plural=plural) if clause.past else present(verb, plural=plural))
        elif word == "<his>":
            wording.say(_possessive(subject))
        else:
            if word == "that":
                subject = None
            wording.say(word)


def can_act(filler: Filler) -> bool:
    """Return whether a filler can be a subject. `Norlandian` and `striker` in "Norlandian striker Miller" cannot."""
    return isinstance(filler, Phrase) or (isinstance(filler, Mention) and filler.entity.role != "people")


def _possessive(subject: Filler) -> str:
    if isinstance(subject, Phrase) and subject.plural:
        return "their"
    if isinstance(subject, Mention) and subject.entity.role == "person":
        return "her" if subject.entity.feminine else "his"
    return "its"


def _add_filler(filler: Filler, wording: Wording) -> None:
    match filler:
        case Mention():
            wording.name(filler)
        case Phrase():
            noun = filler.noun.plural if filler.plural else filler.noun.singular
            words = f"{filler.adjective} {noun}" if filler.adjective else noun
            article = "an" if filler.article == "a" and words[0] in "aeiou" else filler.article
            wording.say(f"{article} {words}")
        case Term():
            wording.say(filler.word)
        case Value():
            wording.say(_value(filler))


def _value(value: Value) -> str:
    amount = value.amount
    match value.kind:
        case "money":
            return f"$ {amount} million"
        case "score":
            return f"{amount // 6}-{amount % 6}"
        case "day":
            return f"on {DAYS[amount]}"
        case "month":
            return f"in {MONTHS[amount]}"
        case "year":
            return f"in {amount}"
        case "recent":
            return RECENT[amount]
        case "number" | "percent":
            return str(amount)


NO_SPACE_BEFORE = frozenset({",", ".", ";", ":", "?", "'s", "。"})
NO_SPACE_AFTER = frozenset({"$"})


@dataclass(frozen=True)
class Page:
    """Sentences as running text.

    Attributes:
        text: the whole text.
        wordings: each sentence in words.
        words: for each sentence, the (start, end) of its words in `text`, in characters.
    """

    text: str
    wordings: list[Wording]
    words: list[list[tuple[int, int]]]


def page(document: Iterable[Sentence]) -> Page:
    """Return a document, or any sentences, as a page."""
    pieces: list[str] = []
    wordings: list[Wording] = []
    places: list[list[tuple[int, int]]] = []
    length = 0
    for sentence in document:
        wording = in_english(sentence)
        within: list[tuple[int, int]] = []
        glue = True
        for word in wording.words:
            if not glue and word not in NO_SPACE_BEFORE:
                pieces.append(" ")
                length += 1
            pieces.append(word)
            within.append((length, length + len(word)))
            length += len(word)
            glue = word in NO_SPACE_AFTER
        pieces.append(" ")
        length += 1
        wordings.append(wording)
        places.append(within)
    return Page("".join(pieces).rstrip(" "), wordings, places)


def running_text(document: Iterable[Sentence]) -> str:
    """Return a document, or any sentences, as text."""
    return page(document).text


def joined(words: Iterable[str]) -> str:
    """Return words as text, without a space before punctuation."""
    text, glue = "", True
    for word in words:
        text += word if glue or word in NO_SPACE_BEFORE else f" {word}"
        glue = word in NO_SPACE_AFTER
    return text
