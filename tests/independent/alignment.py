"""Alignment by word: the tokens of each word are collected first, then the word is spelt as a whole."""

from collections.abc import Sequence

from tests.independent.ignored import IGNORED
from tests.independent.tags import Tag, check_ids, name_of, read_names


def align_labels(
    labels: Sequence[int],
    *,
    word_ids: Sequence[int | None],
    names: Sequence[str],
    strategy: str = "all",
    scheme: str = "IOB2",
    sequence_ids: Sequence[int | None] | None = None,
    sequence: int = 0,
) -> list[int]:
    """See `docs/contract.md`."""
    tags = read_names(names, scheme)
    label_of_word = check_ids(labels, len(tags), "labels")
    if strategy not in ("all", "first"):
        raise ValueError(f"strategy {strategy!r} is neither 'all' nor 'first'")

    result = [IGNORED] * len(word_ids)
    for word, positions in positions_of_words(word_ids, sequence_ids, sequence, len(label_of_word)).items():
        label = label_of_word[word]
        if strategy == "first" or len(positions) == 1:
            result[positions[0]] = label
            continue
        tag = tags[label]
        if tag is None:
            spelt: list[Tag] = [None] * len(positions)
        else:
            role, kind = tag
            first = "B" if role in "BS" else "I"
            last = "E" if role in "ES" else "I"
            spelt = [(first, kind), *[("I", kind)] * (len(positions) - 2), (last, kind)]
        for position, new in zip(positions, spelt, strict=True):
            result[position] = label if new == tag else id_of(new, tags, scheme, f"word {word}, a split {names[label]}")
    return result


def merge_labels(
    token_labels: Sequence[int],
    *,
    word_ids: Sequence[int | None],
    n_words: int,
    names: Sequence[str],
    scheme: str = "IOB2",
    sequence_ids: Sequence[int | None] | None = None,
    sequence: int = 0,
) -> list[int]:
    """See `docs/contract.md`."""
    tags = read_names(names, scheme)
    token_label = check_ids(token_labels, len(tags), "token_labels", ignored=True)
    if len(token_label) != len(word_ids):
        raise ValueError(f"{len(token_label)} token_labels but {len(word_ids)} word_ids")
    outside = id_of(None, tags, scheme, "a word without a label")

    result = [outside] * n_words
    for word, positions in positions_of_words(word_ids, sequence_ids, sequence, n_words).items():
        first, last = token_label[positions[0]], token_label[positions[-1]]
        if first == IGNORED:
            continue
        result[word] = first
        head = tags[first]
        if scheme == "IOB2" or head is None or last == IGNORED:
            continue
        tail = tags[last]
        begins = head[0] in "BS"
        ends = tail is not None and tail[0] in "ES"
        new = {(True, True): "S", (True, False): "B", (False, True): "E", (False, False): "I"}[begins, ends]
        if new != head[0]:
            result[word] = id_of((new, head[1]), tags, scheme, f"word {word}, from {names[first]} to {names[last]}")
    return result


def positions_of_words(
    word_ids: Sequence[int | None], sequence_ids: Sequence[int | None] | None, sequence: int, n_words: int
) -> dict[int, list[int]]:
    """Return the positions of the tokens of each word of this sequence, in order."""
    if sequence_ids is not None and len(sequence_ids) != len(word_ids):
        raise ValueError(f"{len(word_ids)} word_ids but {len(sequence_ids)} sequence_ids")
    positions: dict[int, list[int]] = {}
    for position, word in enumerate(word_ids):
        if word is None or (sequence_ids is not None and sequence_ids[position] != sequence):
            continue
        if not 0 <= word < n_words:
            raise ValueError(f"word_ids[{position}] = {word} is not in range({n_words})")
        positions.setdefault(int(word), []).append(position)
    return positions


def id_of(tag: Tag, tags: list[Tag], scheme: str, why: str) -> int:
    """Return the id of a tag, or raise ValueError; `why` explains where the tag is needed."""
    if tag not in tags:
        raise ValueError(f"{why}: {name_of(tag, scheme)!r} is not among the names")
    return tags.index(tag)
