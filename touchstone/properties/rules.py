"""What the properties know about tags, written from the published rules and sharing no code with any implementation.

Schemes: Ratinov and Roth, "Design Challenges and Misconceptions in Named Entity Recognition", CoNLL 2009, section 3
(BIO and BILOU); IOBES is BILOU with E for L and S for U. Lenient reading: conlleval (CoNLL-2000 shared task,
`endOfChunk` and `startOfChunk`). The entity counts try every span and ask whether it is an entity: cubic, and therefore
easy to believe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

IGNORED = -100
OUTSIDE = "O"


class Prefixes(NamedTuple):
    """The letters of a scheme; `end` and `single` are `None` where it has none."""

    begin: str
    inside: str
    end: str | None
    single: str | None


SCHEMES = {
    "IOB2": Prefixes("B", "I", None, None),
    "IOBES": Prefixes("B", "I", "E", "S"),
    "BILOU": Prefixes("B", "I", "L", "U"),
}


class Entity(NamedTuple):
    type: str
    first: int
    last: int


def split_tag(tag: str) -> tuple[str, str]:
    """`B-X` to `("B", "X")`, `O` to `("O", "")`; only the first hyphen separates."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def tags_of(types: Sequence[str], *, scheme: str) -> list[str]:
    """`O` and every tag of the types."""
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in SCHEMES[scheme] if prefix)]


def spell(kind: str, length: int, *, scheme: str) -> list[str]:
    """The tags of one entity of `length` words."""
    begin, inside, end, single = SCHEMES[scheme]
    if length == 1:
        return [f"{single or begin}-{kind}"]
    return [f"{begin}-{kind}", *[f"{inside}-{kind}"] * (length - 2), f"{end or inside}-{kind}"]


def respell(tag: str, n_tokens: int, *, scheme: str) -> list[str]:
    """The tags of a word's tokens under strategy `all` (the table in docs/contract.md)."""
    if tag == OUTSIDE or n_tokens == 1:
        return [tag] * n_tokens
    prefix, kind = split_tag(tag)
    begin, inside, end, single = SCHEMES[scheme]
    first = begin if prefix in (begin, single) else inside
    last = end if end and prefix in (end, single) else inside
    return [f"{first}-{kind}", *[f"{inside}-{kind}"] * (n_tokens - 2), f"{last}-{kind}"]


def merge(first: str | None, last: str | None, *, scheme: str) -> str:
    """A word's tag from those of its first and last token, `None` for -100 or no token."""
    begin, inside, end, single = SCHEMES[scheme]
    if first is None:
        return OUTSIDE
    if first == OUTSIDE or last is None or end is None:
        return first
    prefix, kind = split_tag(first)
    starts = prefix in (begin, single)
    ends = split_tag(last)[0] in (end, single)
    return f"{single if starts and ends else begin if starts else end if ends else inside}-{kind}"


def is_valid(tags: Sequence[str], *, scheme: str) -> bool:
    """Whether a sequence is one the scheme can spell."""
    begin, inside, end, _ = SCHEMES[scheme]
    open_type: str | None = None  # of the entity that may (IOB2) or must (IOBES, BILOU) go on
    for tag in tags:
        prefix, kind = split_tag(tag)
        continues = prefix in (inside, end)
        if continues and kind != open_type:
            return False
        if not continues and end and open_type is not None:
            return False
        open_type = kind if prefix in (begin, inside) else None
    return not (end and open_type is not None)


def strict_entities(tags: Sequence[str], *, scheme: str) -> set[Entity]:
    """The well-formed entities: in IOB2 a B and all I of its type that follow, else S or B I ... I E."""
    found = set()
    for first in range(len(tags)):
        for last in range(first, len(tags)):
            kind = split_tag(tags[first])[1]
            whole = list(tags[first : last + 1]) == spell(kind, last - first + 1, scheme=scheme) and tags[first] != "O"
            goes_on = scheme == "IOB2" and list(tags[last + 1 : last + 2]) == [f"I-{kind}"]
            if whole and not goes_on:
                found.add(Entity(kind, first, last))
    return found


def lenient_entities(tags: Sequence[str]) -> set[Entity]:
    """As conlleval reads them: I or E (L) after B or I of the same type goes on with an entity, any other tag
    but O opens one."""

    def goes_on(position: int) -> bool:
        if not 0 < position < len(tags):
            return False
        (before, kind_before), (prefix, kind) = split_tag(tags[position - 1]), split_tag(tags[position])
        return before in "BI" and prefix in "IEL" and kind == kind_before

    found = set()
    for first in range(len(tags)):
        if tags[first] == OUTSIDE or goes_on(first):
            continue
        for last in range(first, len(tags)):
            if all(goes_on(k) for k in range(first + 1, last + 1)) and not goes_on(last + 1):
                found.add(Entity(split_tag(tags[first])[1], first, last))
    return found


def entities(tags: Sequence[str], *, scheme: str, mode: str) -> set[Entity]:
    return strict_entities(tags, scheme=scheme) if mode == "strict" else lenient_entities(tags)


def first_and_last(word_ids: Sequence[int | None], *, among: Sequence[bool]) -> dict[int, tuple[int, int]]:
    """Word to the positions of its first and last token; `among` says which tokens to look at."""
    spans: dict[int, tuple[int, int]] = {}
    for position, word in enumerate(word_ids):
        if word is not None and among[position]:
            spans[word] = (spans.get(word, (position, position))[0], position)
    return spans
