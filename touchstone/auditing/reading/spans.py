"""Read words and tags from texts whose entities are given by their characters, as annotation tools write them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from touchstone.auditing.subject import Row

WORD = re.compile(r"\w+|[^\w\s]")
STARTS = ("start", "begin", "start_offset", "start_char", "offset_start")
ENDS = ("end", "stop", "end_offset", "end_char", "offset_end")
KINDS = ("label", "type", "entity", "tag", "entity_group", "category", "entity_type")
Span = tuple[int, int, str]
"""The first character, the one behind the last, and the type of an entity."""


def columns_of_spans(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Yield pairs of columns of which one is a text, and the other the entities in it."""
    for text in rows[0] if rows else ():
        if not all(isinstance(row.get(text), str) for row in rows):
            continue
        for spans in rows[0]:
            read = [words_and_tags(row.get(text), row.get(spans)) for row in rows]
            known = [each for each in read if each is not None]
            if len(known) * 2 >= len(rows) and any(tag != "O" for _, tags in known for tag in tags):
                yield text, spans


def words_and_tags(text: Any, value: Any) -> tuple[list[str], list[str]] | None:
    """Return the words of a text and their tags in IOB2.

    None stands for what cannot be written so: entities that overlap, or that begin or end inside a word.

    >>> words_and_tags("Ada sees Rome.", [(0, 3, "PER"), {"start": 9, "end": 13, "label": "LOC"}])
    (['Ada', 'sees', 'Rome', '.'], ['B-PER', 'O', 'B-LOC', 'O'])
    """
    spans = _spans(value)
    if not isinstance(text, str) or spans is None:
        return None
    words = [(found.start(), found.end()) for found in WORD.finditer(text)]
    begins, ends = {begin for begin, _ in words}, {end for _, end in words}
    tags = ["O"] * len(words)
    for begin, end, kind in spans:
        end = begin + len(text[begin:end].rstrip())
        if begin not in begins or end not in ends:
            return None
        inside = [place for place, (first, last) in enumerate(words) if begin <= first and last <= end]
        if not inside or any(tags[place] != "O" for place in inside):
            return None
        tags[inside[0]] = f"B-{kind}"
        for place in inside[1:]:
            tags[place] = f"I-{kind}"
    return [text[begin:end] for begin, end in words], tags


def _spans(value: Any) -> list[Span] | None:
    """Return entities as (start, end, type), or None if a value is no list of them."""
    if isinstance(value, Mapping):  # a column of each, as `datasets` stores a list of dicts
        lists = [next((value[name] for name in names if name in value), None) for names in (STARTS, ENDS, KINDS)]
        if any(not isinstance(each, (list, tuple)) for each in lists):
            return None
        value = list(zip(*lists, strict=False))
    if not isinstance(value, (list, tuple)):
        return None
    found = [_span(each) for each in value]
    spans = [each for each in found if each is not None]
    return sorted(spans) if len(spans) == len(found) else None


def _span(value: Any) -> Span | None:
    if isinstance(value, Mapping):
        parts = [next((value[name] for name in names if name in value), None) for names in (STARTS, ENDS, KINDS)]
        if isinstance(parts[2], (list, tuple)) and len(parts[2]) == 1:  # Label Studio
            parts[2] = parts[2][0]
    elif isinstance(value, (list, tuple)) and len(value) == 3:
        parts = list(value) if isinstance(value[0], int) else [value[1], value[2], value[0]]
    else:
        return None
    begin, end, kind = parts
    if not isinstance(begin, int) or not isinstance(end, int) or not isinstance(kind, str) or not 0 <= begin < end:
        return None
    return begin, end, kind
