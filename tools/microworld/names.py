"""Draw names from syllables. A word of a name belongs to one split, by a digest of its spelling.

The exceptions are in `SHARED`: given names that are also ordinary words, and the fixed parts of names ("Bank of",
"United", "Cup"). Kinds of names share endings, so that the spelling does not decide the kind: a person or a town may be
called Weston.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tools.microworld.draws import Draws
from touchstone.sources.installed import digest

Split = Literal["train", "validation"]
EntityType = Literal["PER", "ORG", "LOC", "MISC"]
Role = Literal["person", "company", "club", "body", "town", "country", "landmark", "people", "event"]
"""The kind of an entity. `people` is the adjective and noun of a country (Norlandian)."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


STEMS = _words(
    """
    Al An Bal Bar Bel Ben Bor Bran Cal Cam Cas Cor Dal Dan Del Den Dor Dun El Em Fal Far Fen Fer Gal Gar Gil Glen Gor
    Hal Har Hel Hol Il Jan Jor Kal Kan Kel Ken Lan Lar Len Lin Mal Mar Mel Mil Mon Nar Nel Nor Or Os Pal Par Pen Por
    Ral Ran Ren Ros Sal San Sel Sil Sol Tal Tam Tor Ul Val Var Vil Vor Wal Wel Wes Wil Yar Zan Zel
    """
)
MIDDLES = _words(
    "a e i o ba da de di ga ke ko la le li ma me mi na no ra re ri ro sa se ta ti va ve vi bar den ler mar nor sel tan"
)
ENDINGS = {
    "feminine": _words("a a ia ina elle ette isa ora"),
    "masculine": _words("o us in as ek ard on el"),
    "surname": _words("son son man sen ez ova ski er ini ard mann ton berg"),
    "town": _words("ton ville ford burg stad mouth ham field bury well o a"),
    "country": _words("ia ia ia land land stan stan ora any o"),
    "company": _words("ex tech co soft gen corp on ix tron berg a"),
}
"""Endings by kind of name. An ending that is listed twice is twice as likely."""
PEOPLE_ENDINGS = ("ian", "ish", "ese", "i")

AMBIGUOUS_GIVEN_NAMES = ("May", "April", "June", "Mark", "Will", "Rose", "Grace", "Bill", "Frank", "Art")
"""Given names that are also ordinary words, and therefore occur in both splits."""
_FEMININE_AMBIGUOUS = frozenset({"May", "April", "June", "Rose", "Grace"})

CLUB_ENDINGS = ("United", "City", "Rovers", "Wanderers", "Athletic")
COMPANY_ENDINGS = ("Inc", "Corp", "Group", "Holdings", "Bank", "Airlines", "Motors")
BODIES = ("Bank of", "University of", "Court of", "Museum of", "Institute of")
LANDMARKS = ("Mount", "Lake", "River", "Port", "Cape")
EVENTS = ("Cup", "Prize", "Open", "Festival", "Treaty", "Trophy")
PARTICLES = ("de", "van", "al")
SHARED = frozenset(
    [
        *(*AMBIGUOUS_GIVEN_NAMES, *PARTICLES, *(particle.capitalize() for particle in PARTICLES), "&", "Sons", "and"),
        *(*CLUB_ENDINGS, *COMPANY_ENDINGS, *LANDMARKS, *EVENTS, *(word for body in BODIES for word in body.split())),
    ]
)
"""Words of names that both splits may use, in addition to initials."""


# Awkward spellings, on purpose: other scripts, combining accents, names of one character.
def _characters(first: int, last: int) -> str:
    return "".join(map(chr, range(first, last + 1)))


_CJK = "東西南北山川林森田村高松中石井上本木金水野原島崎藤橋河池岡竹"
_HEBREW = _characters(0x05D0, 0x05D9)
_ARABIC = _characters(0x062A, 0x063A)
_ACCENTS = ("e\u0301", "o\u0308", "n\u0303", "a\u0302", "u\u030a", "i\u0308")
_SINGLE = "QXZÅÆÑØÞ王李张刘陈杨赵黄周吴" + _characters(0x0393, 0x03A1) + _characters(0x0416, 0x042F)  # Greek, Cyrillic


@dataclass(frozen=True)
class Entity:
    """A named entity. `full` is its name at the first mention, `short` later (the surname, the town of a club)."""

    role: Role
    type: EntityType
    full: tuple[str, ...]
    short: tuple[str, ...]
    feminine: bool = False


def split_of(word: str) -> Split:
    """Return the split that a word of a name belongs to, in capitals or not."""
    return "validation" if digest(word.upper()) & 1 else "train"


class Names:
    """Draws the names of one split."""

    def __init__(self, draws: Draws, *, split: Split) -> None:
        self.draws = draws
        self.split = split

    def entity(self, role: Role) -> Entity:
        return getattr(self, f"_{role}")()  # type: ignore[no-any-return]

    def _word(self, kind: str) -> str:
        while split_of(word := self._spelling(kind)) != self.split:
            pass
        return word

    def _spelling(self, kind: str) -> str:
        draws = self.draws
        rare = draws.below(1000)
        if rare < 4:
            return draws.pick(_SINGLE)
        if rare < 10:
            return "".join(draws.pick(_CJK) for _ in range(draws.between(2, 3)))
        if rare < 16:
            letters = draws.pick((_HEBREW, _ARABIC))
            return "".join(draws.pick(letters) for _ in range(draws.between(3, 6)))
        if rare < 24:  # splits into many subwords
            return (
                draws.pick(STEMS)
                + "".join(draws.pick(MIDDLES) for _ in range(draws.between(6, 12)))
                + draws.pick(ENDINGS[kind])
            )
        stem = draws.pick(STEMS)
        if rare < 36:
            return stem + draws.pick(_ACCENTS) + draws.pick(MIDDLES) + draws.pick(ENDINGS[kind])
        middle = draws.pick(MIDDLES) if draws.chance(0.4) else ""
        return stem + middle + draws.pick(ENDINGS[kind])

    def _person(self) -> Entity:
        draws = self.draws
        if draws.chance(0.1):
            given = draws.pick(AMBIGUOUS_GIVEN_NAMES)
            feminine = given in _FEMININE_AMBIGUOUS
        else:
            feminine = draws.chance(0.5)
            given = self._word("feminine" if feminine else "masculine")
        surname = self._word("surname")
        middle = (f"{draws.pick(STEMS)[0]}.",) if draws.chance(0.08) else ()
        particle = (draws.pick(PARTICLES),) if draws.chance(0.04) else ()
        return Entity("person", "PER", (given, *middle, *particle, surname), (*particle, surname), feminine)

    def _company(self) -> Entity:
        draws = self.draws
        shape = draws.below(10)
        if shape < 5:
            name = self._word("company")
            return Entity("company", "ORG", (name, draws.pick(COMPANY_ENDINGS)), (name,))
        if shape < 7:
            name = self._word("surname")
            return Entity("company", "ORG", (name, "&", "Sons"), (name,))
        if shape < 8:
            name = self._word("surname")
            return Entity("company", "ORG", (name, "and", self._word("surname")), (name,))
        while (
            split_of(name := "".join(draws.pick("ABCDEFGHIKLMNOPRSTVW") for _ in range(draws.between(3, 4))))
            != self.split
        ):
            pass
        return Entity("company", "ORG", (name,), (name,))

    def _club(self) -> Entity:
        town = self._word("town")
        return Entity("club", "ORG", (town, self.draws.pick(CLUB_ENDINGS)), (town,))

    def _body(self) -> Entity:
        name = (*self.draws.pick(BODIES).split(), self._word(self.draws.pick(("town", "country"))))
        return Entity("body", "ORG", name, name)

    def _town(self) -> Entity:
        town = (self._word("town"),)
        return Entity("town", "LOC", town, town)

    def _country(self) -> Entity:
        country = (self._word("country"),)
        return Entity("country", "LOC", country, country)

    def _landmark(self) -> Entity:
        name = (self.draws.pick(LANDMARKS), self._word(self.draws.pick(("surname", "town"))))
        return Entity("landmark", "LOC", name, name)

    def _people(self) -> Entity:
        draws = self.draws
        while True:
            word = draws.pick(STEMS) + (draws.pick(MIDDLES) if draws.chance(0.4) else "") + draws.pick(PEOPLE_ENDINGS)
            if split_of(word) == self.split:
                return Entity("people", "MISC", (word,), (word,))

    def _event(self) -> Entity:
        name = (self._word(self.draws.pick(("surname", "town", "country"))), self.draws.pick(EVENTS))
        return Entity("event", "MISC", name, name)
