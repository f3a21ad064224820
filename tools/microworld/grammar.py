"""Draw documents and sentences as structure, independent of a language.

A document has a topic and a cast. Its sentences fill the frames of the topic with members of the cast, so that names
and nouns occur again. Document i of a split and its sentences depend on (seed, split, i) alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from tools.microworld.draws import Draws
from tools.microworld.names import Entity, Names, Role, Split
from tools.microworld.topics import CONNECTIVES, EMOJI_WORDS, TOPICS, Frame, Noun, Topic


@dataclass(frozen=True)
class Mention:
    """An entity with its full or its short name."""

    entity: Entity
    short: bool

    @property
    def words(self) -> tuple[str, ...]:
        return self.entity.short if self.short else self.entity.full


@dataclass(frozen=True)
class Phrase:
    """A noun with its adjective, number and article."""

    noun: Noun
    adjective: str | None
    plural: bool
    article: Literal["a", "the", ""]


@dataclass(frozen=True)
class Value:
    """A number, an amount or a time, independent of a language."""

    kind: Literal["number", "percent", "money", "score", "day", "month", "year", "recent"]
    amount: int


@dataclass(frozen=True)
class Term:
    """An adjective or the name of a profession, by its English word."""

    word: str


Filler = Mention | Phrase | Value | Term | None


@dataclass(frozen=True)
class Clause:
    frame: Frame
    past: bool
    slots: tuple[tuple[str, Filler], ...]
    """Slot name and filler, in the order of the frame. None leaves the slot out."""


@dataclass(frozen=True)
class Sentence:
    """One or two clauses on a topic, with the parts before and after them.

    Attributes:
        clauses: joined by `connective`.
        place: the place at the beginning ("In Weston , ..."), or the place of the dateline if that is the style.
        speaker: the speaker at the end ("..., Miller said .").
        style: `plain`; `headline` is all in capitals; `dateline` has a place and a date before the clauses; `listing`
            is a long sequence of `names`; `foreign` is a sentence in a script without spaces.
        emoji: the emoji at the end.
        foreign: the characters of a foreign sentence.
        stray: True if an invisible character follows the last word, as in text copied from the web.
    """

    clauses: tuple[Clause, ...]
    connective: str | None = None
    place: Mention | None = None
    speaker: Mention | None = None
    style: Literal["plain", "headline", "dateline", "listing", "foreign"] = "plain"
    day: int = 1
    names: tuple[Mention, ...] = ()
    emoji: str | None = None
    foreign: str = ""
    stray: bool = False


@dataclass(frozen=True)
class Document:
    """Sentences on one topic. `sentence(j)` draws the j-th alone."""

    seed: int
    split: Split
    index: int
    topic: Topic
    cast: tuple[Entity, ...]
    length: int

    def sentence(self, position: int) -> Sentence:
        if not 0 <= position < self.length:
            raise IndexError(f"sentence {position} of {self.length}")
        draws = Draws("sentence", self.seed, self.split, self.index, position)
        return _SentenceMaker(self, draws, opening=position == 0).sentence()

    def __iter__(self) -> Iterator[Sentence]:
        return (self.sentence(position) for position in range(self.length))


def document(index: int, *, seed: int, split: Split) -> Document:
    """Return document `index` of a split. Most have 2 to 9 sentences; one in fifty is longer than most windows."""
    if index < 0:
        raise IndexError(f"document {index}: the index must be 0 or more")
    draws = Draws("document", seed, split, index)
    topic = draws.pick(TOPICS)
    length = draws.between(40, 90) if draws.chance(0.02) else draws.between(2, 9)
    return Document(seed, split, index, topic, tuple(_cast(Names(draws, split=split))), length)


def sentence(index: int, *, seed: int, split: Split) -> Sentence:
    """Return one sentence of document `index`, anywhere in it."""
    whole = document(index, seed=seed, split=split)
    return whole.sentence(Draws("position", seed, split, index).below(whole.length))


CAST: tuple[Role, ...] = (
    *("person", "person", "company", "company", "club", "club", "town", "town"),
    *("body", "country", "landmark", "people", "event"),
)
ANYONE: tuple[Role, ...] = ("person", "person", "company", "club", "country", "town")


def _cast(names: Names) -> Iterator[Entity]:
    for role in CAST:
        yield names.entity(role)


@cache
def slots_of(frame: Frame) -> tuple[str, ...]:
    """Return the names of a frame's slots in order, such as `club2` for `{club2}`."""
    return tuple(word[1:-1] for word in frame.english.split() if word.startswith("{"))


class _SentenceMaker:
    """Draws one sentence of a document."""

    def __init__(self, document: Document, draws: Draws, *, opening: bool) -> None:
        self.document = document
        self.draws = draws
        self.opening = opening
        self.names = Names(draws, split=document.split)

    def sentence(self) -> Sentence:
        draws = self.draws
        rare = draws.below(1000)
        if rare < 5:
            roles: tuple[Role, ...] = ("person", "club", "town", "country")
            role = draws.pick(roles)
            names = tuple(Mention(self.names.entity(role), draws.chance(0.5)) for _ in range(draws.between(12, 80)))
            return Sentence((), style="listing", names=names)
        if rare < 12:
            return Sentence((), style="foreign", foreign=_foreign(draws))
        first = self._clause()
        if rare < 45:
            return Sentence((first,), style="headline")
        place = self._mention("town") if draws.chance(0.08) else None
        if rare < 95:
            return Sentence((first,), style="dateline", place=place or self._mention("town"), day=draws.between(1, 28))
        second = self._clause() if draws.chance(0.18) else None
        joined = second and second.frame != first.frame and all(clause.frame.is_sentence for clause in (first, second))
        return Sentence(
            (first, second) if second and joined else (first,),
            connective=draws.pick(CONNECTIVES),
            place=place,
            speaker=self._anyone() if draws.chance(0.08) else None,
            emoji=draws.pick(EMOJI_WORDS) if draws.chance(0.01) else None,
            stray=draws.chance(0.003),
        )

    def _clause(self) -> Clause:
        frame = self.draws.pick(self.document.topic.frames)
        used: set[Entity] = set()
        slots = []
        for slot in slots_of(frame):
            filler = self._filler(slot.rstrip("0123456789"), used=used)
            if isinstance(filler, Mention):
                used.add(filler.entity)
            slots.append((slot, filler))
        return Clause(frame, self.draws.chance(0.7), tuple(slots))

    def _filler(self, kind: str, *, used: set[Entity]) -> Filler:
        draws, topic = self.draws, self.document.topic
        if kind in get_args(Role):
            return self._mention(kind, used=used)  # type: ignore[arg-type]
        match kind:
            case "anyone":
                return self._anyone(used=used)
            case "noun" | "bare" | "nouns":
                adjective = draws.pick(topic.adjectives) if draws.chance(0.35) else None
                plural = kind == "nouns" or draws.chance(0.25)
                article: Literal["a", "the", ""] = (
                    "" if kind != "noun" else "the" if draws.chance(0.6) else "" if plural else "a"
                )
                return Phrase(draws.pick(topic.nouns), adjective, plural, article)
            case "adjective":
                return Term(draws.pick(topic.adjectives))
            case "job":
                return Term(draws.pick(topic.jobs))
            case "number":
                return Value("number", draws.between(2, 60))
            case "percent":
                return Value("percent", draws.between(1, 99))
            case "money":
                return Value("money", draws.between(1, 40))
            case "score":
                return Value("score", draws.below(36))
            case "day":
                return Value("day", draws.below(7))
            case "when":
                return self._when()
        raise AssertionError(f"no filler for slot {kind!r}")

    def _when(self) -> Value | None:
        draws = self.draws
        shape = draws.below(8)
        if shape < 3:
            return None
        if shape < 5:
            return Value("day", draws.below(7))
        if shape == 5:
            return Value("month", draws.below(12))
        return Value("year", draws.between(1950, 2029)) if shape == 6 else Value("recent", draws.below(4))

    def _mention(self, role: Role, *, used: set[Entity] | None = None) -> Mention:
        """Draw an entity, mostly from the cast. The first sentence uses full names."""
        draws = self.draws
        free = [entity for entity in self.document.cast if entity.role == role and entity not in (used or ())]
        if not free or draws.chance(0.2):
            return Mention(self.names.entity(role), False)
        return Mention(draws.pick(free), not self.opening and draws.chance(0.6))

    def _anyone(self, *, used: set[Entity] | None = None) -> Mention:
        return Mention(self._mention(self.draws.pick(ANYONE), used=used).entity, True)


_FOREIGN = (
    *("彼女", "今日", "電車", "東京", "天気", "先生", "手紙", "雨", "山", "海", "人"),
    *("は", "が", "を", "に", "で", "の", "と", "待つ", "書く", "見る", "行く"),
)


def _foreign(draws: Draws) -> str:
    return "".join(draws.pick(_FOREIGN) for _ in range(draws.between(4, 14))) + "。"
