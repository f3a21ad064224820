"""Read questions, contexts and answers from source rows, and find the characters of every token of a window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from touchstone.auditing.finding import Example, NotChecked
from touchstone.auditing.reading.lineage import IDS, Lineage, Origin, lineages, tokens_of
from touchstone.auditing.reading.streams import held
from touchstone.auditing.reading.words import special_ids
from touchstone.auditing.subject import Row, Split, Subject, ints

Chars = tuple[int, int]
"""Characters (start, end) of a context, end not included."""
Path = tuple[str, str, str]
"""Where answers lie in a row: the column that holds them (or "" for the row itself), the starts, the texts."""


@dataclass(frozen=True)
class Window:
    """One processed row beside the question's context and answers.

    Args:
        origin: where the row came from.
        context: the text.
        answers: the characters of the acceptable answers; empty if there is none.
        ids, mask: as the model receives them.
        start, end: the labelled tokens, both included.
        offsets: for each possible place of the window in its context, the characters of each token, None outside the
            context.
        special: the positions of special tokens and padding.
        hidden: the positions of padding.
    """

    origin: Origin
    context: str
    answers: list[Chars]
    ids: list[int]
    start: int
    end: int
    offsets: list[list[Chars | None]]
    special: frozenset[int]
    hidden: frozenset[int]

    @property
    def ignored(self) -> bool:
        """Both labels lie outside the row, where the loss of transformers' heads ignores them."""
        return all(not 0 <= place < len(self.ids) for place in (self.start, self.end))

    @property
    def null(self) -> bool:
        """The labels say that there is no answer."""
        return self.ignored or (self.start == self.end and self.start in self.special)

    def tokens(self, answer: Chars, place: int = 0) -> tuple[int, int] | None:
        """Return the first and last token of an answer, or None if it is not whole in the window."""
        begin, end = answer
        held = [(at, *pair) for at, pair in enumerate(self.offsets[place]) if pair is not None and pair[0] < pair[1]]
        if not held or held[0][1] > begin or held[-1][2] < end:
            return None
        inside = [at for at, first, last in held if first < end and begin < last]
        return (inside[0], inside[-1]) if inside else None

    def text(self) -> str:
        """Return the labelled characters of the context, or an empty string."""
        offsets = self.offsets[0]
        if not 0 <= self.start <= self.end < len(offsets):
            return ""
        first, last = offsets[self.start], offsets[self.end]
        return self.context[first[0] : last[1]] if first is not None and last is not None else ""


@dataclass(frozen=True)
class Windows:
    """The windows of a split, and what is known about their sources."""

    windows: list[Window]
    lineage: Lineage
    reader: Reader

    @property
    def at(self) -> str:
        """The line of the user's code that made the labels, for a message."""
        return f" at {self.lineage.where}" if self.lineage.where else ""


@dataclass(frozen=True)
class Reader:
    """Reads contexts and answers from rows: the column of the context, and where the answers lie."""

    context: str
    path: Path

    def answers(self, row: Row) -> list[Chars] | None:
        """Return the characters of a row's answers, or None if the row has none of the columns."""
        holder, starts, texts = self.path
        parents = _parents(row.get(holder)) if holder else [row]
        if holder and holder not in row:
            return None
        found = []
        for parent in parents:
            for begin, text in _pairs(parent, starts, texts):
                if text and begin >= 0:
                    found.append((begin, begin + len(text)))
        return found


def read_windows(subject: Subject, split: Split) -> Windows:
    """Return the windows of a split. The result is kept on the subject.

    Raises:
        NotChecked: questions and answers were not found, or do not become the tokens of the rows.
    """
    return subject.once(f"windows of {split.name}", lambda: _read(subject, split))


def _read(subject: Subject, split: Split) -> Windows:
    subject, split = held(subject, split)
    tokenizer = subject.need("tokenizer")
    if not getattr(tokenizer, "is_fast", False):
        raise NotChecked("the tokenizer is slow and has no offsets: use its fast version")
    untraced = ""
    for lineage in lineages(subject, split):
        origins = lineage.origins
        reader = _reader([each.source for each in origins])
        if reader is None:
            continue
        rows = tokens_of(split, origins)
        if not all({"start_positions", "end_positions"} <= set(row) for row in rows):
            raise NotChecked("the batches have no start_positions and end_positions")
        special = special_ids(tokenizer)
        found = [
            window
            for origin, row in zip(origins, rows, strict=True)
            if (window := _window(origin, row, reader, tokenizer, special)) is not None
        ]
        if found and len(found) * 2 >= len(origins):
            return Windows(found, lineage, reader)
        untraced = f"the contexts in {lineage.place} do not become the tokens of the rows: is it the same tokenizer?"
    raise NotChecked(
        untraced or "contexts and answers were not found: pass raw= and columns=, such as ('context', 'answers')"
    )


# Columns --------------------------------------------------------------------------------------------------------------


def _parents(value: Any) -> list[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, (list, tuple)):
        return [each for each in value if isinstance(each, Mapping)]
    return []


def _list(value: Any) -> list[Any]:
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _pairs(parent: Mapping[str, Any], starts: str, texts: str) -> list[tuple[int, str]]:
    begins, words = _list(parent.get(starts)), _list(parent.get(texts))
    return [
        (begin, text)
        for begin, text in zip(begins, words, strict=False)
        if isinstance(begin, int) and isinstance(text, str)
    ]


def _reader(rows: Sequence[Row]) -> Reader | None:
    """Find the columns whose texts stand in another column's text where the numbers say."""
    hits: Counter[tuple[str, Path]] = Counter()
    wrong: Counter[tuple[str, Path]] = Counter()
    for row in rows[:48]:
        texts = [name for name, value in row.items() if isinstance(value, str) and value]
        for path, begin, text in _places(row):
            if not text:
                continue
            for context in texts:
                if context != path[2] or path[0]:
                    held = begin >= 0 and row[context][begin : begin + len(text)] == text
                    (hits if held else wrong)[context, path] += 1
    right = [key for key in hits if hits[key] > wrong[key]]
    if not right:
        return None
    context, path = max(right, key=lambda key: (hits[key], "start" in key[1][1], "answer" in "".join(key[1])))
    return Reader(context, path)


def _places(row: Row) -> Iterator[tuple[Path, int, str]]:
    """Yield every number and text of a row that stand beside each other and may be an answer."""
    holders: list[tuple[str, list[Mapping[str, Any]]]] = [
        ("", [row]),
        *((name, _parents(value)) for name, value in row.items()),
    ]
    for holder, parents in holders:
        for parent in parents:
            numbers = [key for key, value in parent.items() if _is_all(value, int)]
            texts = [key for key, value in parent.items() if _is_all(value, str)]
            for starts in numbers:
                for text in texts:
                    for begin, words in _pairs(parent, starts, text)[:1]:
                        yield (holder, starts, text), begin, words


def _is_all(value: Any, kind: type) -> bool:
    entries = _list(value)
    return 0 < len(entries) <= 32 and all(isinstance(each, kind) and not isinstance(each, bool) for each in entries)


# Tokens ---------------------------------------------------------------------------------------------------------------


def _window(origin: Origin, row: Row, reader: Reader, tokenizer: Any, special: frozenset[int]) -> Window | None:
    context, answers = origin.source.get(reader.context), reader.answers(origin.source)
    if not isinstance(context, str) or answers is None:
        return None
    ids = ints(row[IDS])
    start, end = row["start_positions"], row["end_positions"]
    if isinstance(start, list) or isinstance(end, list):
        return None
    encoded = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)
    whole, pairs = ints(encoded[IDS]), [(int(first), int(last)) for first, last in encoded["offset_mapping"]]
    places = _segments(ids, special)
    # The longest run of tokens that the context holds is the context; the other one is the question.
    for first, last in sorted(places, key=lambda each: each[0] - each[1]):
        begins = _found(ids[first:last], whole)
        if not begins:
            continue
        offsets: list[list[Chars | None]] = []
        for begin in begins:
            one: list[Chars | None] = [None] * len(ids)
            one[first:last] = pairs[begin : begin + last - first]
            offsets.append(one)
        pad = tokenizer.pad_token_id
        mask = row.get("attention_mask")
        hidden = frozenset(at for at, each in enumerate(ids) if (not mask[at] if mask else each == pad))
        marks = frozenset(at for at, each in enumerate(ids) if each in special) | hidden
        return Window(origin, context, answers, ids, int(start), int(end), offsets, marks, hidden)
    return None


def _segments(ids: Sequence[int], special: frozenset[int]) -> list[tuple[int, int]]:
    """Return the runs of tokens between special tokens as (first, behind the last)."""
    found: list[tuple[int, int]] = []
    begin: int | None = None
    for place, each in enumerate([*ids, None]):
        if each is None or each in special:
            if begin is not None:
                found.append((begin, place))
            begin = None
        elif begin is None:
            begin = place
    return found


def _found(part: Sequence[int], whole: Sequence[int]) -> list[int]:
    size = len(part)
    return [begin for begin in range(len(whole) - size + 1) if list(whole[begin : begin + size]) == list(part)]


def shown(subject: Subject, window: Window) -> Example:
    """Return a window as a table of tokens, the answer's tokens, and the labelled ones."""
    answer = next((tokens for each in window.answers if (tokens := window.tokens(each)) is not None), None)
    cells = []
    for place, text in enumerate(subject.token_texts(window.ids)):
        held = "answer" if answer and answer[0] <= place <= answer[1] else ""
        names = [name for name, at in (("start", window.start), ("end", window.end)) if at == place]
        cells.append((place, text, held, " ".join(names)))
    marked = [place for place, cell in enumerate(cells) if cell[2] or cell[3]]
    caption = f"row {window.origin.index} of the training data"
    return Example(("position", "token", "answer", "label"), cells, marked=marked, caption=caption)
