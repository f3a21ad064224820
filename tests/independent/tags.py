"""Names of tags as (role, type), the same four roles for every scheme: B begins, I inside, E ends, S single."""

from collections.abc import Sequence

ROLES = {
    "IOB2": {"B": "B", "I": "I"},
    "IOBES": {"B": "B", "I": "I", "E": "E", "S": "S"},
    "BILOU": {"B": "B", "I": "I", "L": "E", "U": "S"},
}
Tag = tuple[str, str] | None  # None is O


def read_names(names: Sequence[str], scheme: str) -> list[Tag]:
    """The tag of each id; `ValueError` for an unknown scheme and for a name that is no tag of it."""
    if scheme not in ROLES:
        raise ValueError(f"scheme {scheme!r} is none of {sorted(ROLES)}")
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
    if tag is None:
        return "O"
    [prefix] = [letter for letter, role in ROLES[scheme].items() if role == tag[0]]
    return f"{prefix}-{tag[1]}"


def check_ids(ids: Sequence[int], count: int, what: str, *, ignored: bool = False) -> list[int]:
    """The ids as Python integers; `ValueError` for one outside range(count), -100 apart if `ignored`."""
    result = [int(i) for i in ids]
    for index, i in enumerate(result):
        if not (0 <= i < count or (ignored and i == -100)):
            raise ValueError(f"{what}[{index}] = {i} is not in range({count})")
    return result
