"""Tags as (role, type), with the same four roles in every scheme: B begins, I inside, E ends, S single."""

from collections.abc import Sequence

from tests.independent.ignored import IGNORED

ROLES = {
    "IOB2": {"B": "B", "I": "I"},
    "IOBES": {"B": "B", "I": "I", "E": "E", "S": "S"},
    "BILOU": {"B": "B", "I": "I", "L": "E", "U": "S"},
}
Tag = tuple[str, str] | None  # None is O


def read_names(names: Sequence[str], scheme: str) -> list[Tag]:
    """Return the tag of each id, or raise ValueError for an unknown scheme or a name that is not a tag of it."""
    if scheme not in ROLES:
        raise ValueError(f"scheme {scheme!r} is not one of {sorted(ROLES)}")
    tags: list[Tag] = []
    for index, name in enumerate(names):
        prefix, hyphen, kind = str(name).partition("-")
        if name == "O":
            tags.append(None)
        elif prefix in ROLES[scheme] and hyphen and kind:
            tags.append((ROLES[scheme][prefix], kind))
        else:
            raise ValueError(f"names[{index}] = {name!r} is not a tag of {scheme}")
    return tags


def name_of(tag: Tag, scheme: str) -> str:
    """Return the name of a tag in a scheme."""
    if tag is None:
        return "O"
    [prefix] = [letter for letter, role in ROLES[scheme].items() if role == tag[0]]
    return f"{prefix}-{tag[1]}"


def check_ids(ids: Sequence[int], count: int, what: str, *, ignored: bool = False) -> list[int]:
    """Return the ids as Python integers, or raise ValueError for one outside range(count); `ignored` allows -100."""
    result = [int(i) for i in ids]
    for index, i in enumerate(result):
        if not (0 <= i < count or (ignored and i == IGNORED)):
            raise ValueError(f"{what}[{index}] = {i} is not in range({count})")
    return result
