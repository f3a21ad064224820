"""Tagging schemes: how the tag of a word encodes where an entity opens and closes.

A tag is `O` (outside any entity), or a prefix, a hyphen and the entity's type: `B-PER`. Only the first hyphen separates
them, so a type may contain hyphens (`B-B-cell` opens a `B-cell`). A prefix answers two questions: does an entity *open*
at this word, and does it *close* here? A scheme is the table of these answers.

Sources: Tjong Kim Sang and Veenstra 1999, "Representing Text Chunks" (IOB2); Ratinov and Roth 2009, "Design Challenges
and Misconceptions in Named Entity Recognition" (BILOU); IOBES is BILOU with other letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from touchstone.stages.ragged import Array

SCHEMES: dict[str, dict[str, tuple[bool, bool]]] = {  # prefix -> (opens, closes)
    # In IOB2 no tag closes an entity: it ends where the next word does not continue it.
    "IOB2": {"B": (True, False), "I": (False, False)},
    "IOBES": {"B": (True, False), "I": (False, False), "E": (False, True), "S": (True, True)},
    "BILOU": {"B": (True, False), "I": (False, False), "L": (False, True), "U": (True, True)},
}


class Tag(NamedTuple):
    """One parsed label name. `O` has the empty type, and neither opens nor closes anything."""

    type: str
    opens: bool
    closes: bool


OUTSIDE = Tag("", opens=False, closes=False)
NO_SUCH_NAME = -1


class TagTable(NamedTuple):
    """A `TagSet` as arrays, so that re-spelling is a look-up. There are L labels and K types; `O` is type 0."""

    kind: Array  # (L,) number of the label's type
    opens: Array  # (L,) 0 or 1
    closes: Array  # (L,) 0 or 1
    ids: Array  # (K, 2, 2) label id by type, opens, closes; NO_SUCH_NAME if there is no such label


class TagSet:
    """The label names of a model, parsed: `tags[id]` is the meaning of an id, `ids[tag]` the inverse.

    >>> tag_set = TagSet(["O", "B-PER", "I-PER"], scheme="IOB2")
    >>> tag_set.tags[1]
    Tag(type='PER', opens=True, closes=False)
    >>> tag_set.ids[Tag("PER", opens=False, closes=False)]
    2

    Raises:
        ValueError: an unknown scheme, a name that is not a tag of the scheme, the same name twice.
    """

    def __init__(self, names: Sequence[str], *, scheme: str) -> None:
        if scheme not in SCHEMES:
            raise ValueError(f"scheme {scheme!r} is unknown: use one of {', '.join(SCHEMES)}")
        self.names = tuple(names)
        self.scheme = scheme
        self.tags = tuple(self._parse(name, index) for index, name in enumerate(self.names))
        self.ids: dict[Tag, int] = {}
        for index, tag in enumerate(self.tags):
            if self.ids.setdefault(tag, index) != index:
                raise ValueError(
                    f"names[{index}] is {self.names[index]!r}, and so is names[{self.ids[tag]}]: "
                    "a label must have one id, or re-spelling a tag is ambiguous"
                )

    def _parse(self, name: str, index: int) -> Tag:
        if name == "O":
            return OUTSIDE
        prefixes = SCHEMES[self.scheme]
        prefix, hyphen, type_ = name.partition("-") if isinstance(name, str) else ("", "", "")
        if prefix not in prefixes or not hyphen or not type_:
            hint = " (the digit 0 is not the letter O)" if name == "0" else ""
            allowed = ", ".join(f"{prefix}-TYPE" for prefix in prefixes)
            raise ValueError(f"names[{index}] is {name!r}, not a tag of {self.scheme}{hint}: use O, {allowed}")
        opens, closes = prefixes[prefix]
        return Tag(type_, opens, closes)

    def spell(self, tag: Tag) -> str:
        """Return the name of a tag in this scheme, even if it is not among the names."""
        if tag == OUTSIDE:
            return "O"
        prefixes = {meaning: prefix for prefix, meaning in SCHEMES[self.scheme].items()}
        return f"{prefixes[tag.opens, tag.closes]}-{tag.type}"

    @cached_property
    def table(self) -> TagTable:
        """The tag set as arrays."""
        kinds = {OUTSIDE.type: 0}
        for tag in self.tags:
            kinds.setdefault(tag.type, len(kinds))
        ids = np.full((len(kinds), 2, 2), NO_SUCH_NAME, np.int64)
        for tag, label in self.ids.items():
            ids[kinds[tag.type], int(tag.opens), int(tag.closes)] = label
        ids[0] = ids[0, 0, 0]  # O stays O, whatever the label of its word's last token
        kind = np.array([kinds[tag.type] for tag in self.tags], np.int64)
        opens, closes = np.array([(tag.opens, tag.closes) for tag in self.tags], np.int64).reshape(-1, 2).T
        return TagTable(kind, opens, closes, ids)


@lru_cache(maxsize=64)
def _parsed(names: tuple[str, ...], scheme: str) -> TagSet:
    return TagSet(names, scheme=scheme)


def parse_names(names: Sequence[str], *, scheme: str) -> TagSet:
    """Return `TagSet(names, scheme=scheme)`, cached: the stages need the same few label sets for every example."""
    return _parsed(tuple(names), scheme)
