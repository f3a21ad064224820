"""What every task shows alike: the data's columns, a padded batch, and statistics of its tokens."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from touchstone.pipelines.pipeline import Batch, FeatureRows, Pipeline
from touchstone.stages.ragged import Array, Ragged

# Rows of short texts set in columns, so that each word stands above its label, whatever script it is written in.


GAP = 2
LEFT_TO_RIGHT_MARK = "\u200e"
LONGEST_CELL = 60
"""Terminal cells of one column. A word can be a thousand letters long; a line cannot."""


def visible(text: str) -> str:
    """Safe to print: every character that moves the cursor, reorders the line or is not seen is spelt out."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the Unicode picture of the control character
    if code == 0x7F:
        return "\u2421"
    if character in "\u200d\ufe0e\ufe0f":  # they make one emoji of several characters
        return character
    if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn"):
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return character


def cell(text: str) -> str:
    """A text as it stands in a column: visible, short enough, not drawing right-to-left neighbours out of theirs."""
    text = visible(text) or "''"
    if cell_len(text) > LONGEST_CELL:
        text = set_cell_size(text, LONGEST_CELL - 1) + "\u2026"
    if any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text):
        text = LEFT_TO_RIGHT_MARK + text + LEFT_TO_RIGHT_MARK
    return text


def set_in_columns(
    rows: Sequence[Sequence[str]], *, width: int, styles: Sequence[Sequence[str]] | None = None, indent: int = 2
) -> list[Text]:
    """R rows of N texts, column i of each row beneath the others.

    Where the width ends all rows go on below, a blank line between. Trailing blanks are left out.

    Args:
        rows: R sequences of the same length N.
        width: terminal cells a line (a single column that is wider stands alone).
        styles: of the same shape, a rich style for each text.

    Raises:
        ValueError: rows that differ in length.
    """
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"rows differ in length: {[len(row) for row in rows]}")
    cells = [[cell(text) for text in row] for row in rows]
    widths = [
        max(cell_len(text.replace(LEFT_TO_RIGHT_MARK, "")) for text in column) for column in zip(*cells, strict=True)
    ]
    lines: list[Text] = []
    for start, end in _breaks(widths, room=width - indent):
        if lines:
            lines.append(Text())
        for r, row in enumerate(cells):
            line = Text(" " * indent)
            for i in range(start, end):
                text = row[i]
                line.append(text, style=styles[r][i] if styles else "")
                line.append(" " * (widths[i] - cell_len(text.replace(LEFT_TO_RIGHT_MARK, "")) + GAP))
            line.rstrip()
            lines.append(line)
    return lines


def _breaks(widths: Sequence[int], *, room: int) -> list[tuple[int, int]]:
    """Where each line's columns begin and end."""
    breaks: list[tuple[int, int]] = []
    start, used = 0, 0
    for i, width in enumerate(widths):
        if i > start and used + width > room:
            breaks.append((start, i))
            start, used = i, 0
        used += width + GAP
    if start < len(widths):
        breaks.append((start, len(widths)))
    return breaks


IGNORED = -100
SHOWN_OF_BATCH = 4
"""Rows of a batch: more say nothing new."""


def heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def lines(*texts: str) -> list[RenderableType]:
    return [Text(f"  {text}") for text in texts]


def features(pipeline: Pipeline, *, columns: tuple[str, ...]) -> list[RenderableType]:
    """The source's columns with their types, and how many rows each split has."""
    shown: list[RenderableType] = [heading("Data")]
    for split in ("train", "validation"):
        data = pipeline.source.examples(split, columns=columns)
        shown += lines(f"{split}: {len(data):,} rows")
        if split == "train":
            for name, feature in data.features.items():
                shown += lines(f"  {name}: {visible(str(feature))}")
    return shown


def ragged(pipeline: Pipeline, split: str, name: str) -> Ragged:
    """A column that has one sequence an example."""
    column = pipeline.columns(split)[name]
    assert isinstance(column, Ragged)
    return column


def sample(size: int, *, count: int, seed: int) -> list[int]:
    """`count` different rows of `size`, drawn by the seed (all of them, if there are fewer)."""
    chosen = np.random.default_rng(seed).choice(size, size=min(count, size), replace=False)
    return [int(row) for row in chosen]


def tokens_of(pipeline: Pipeline, ids: Array) -> list[str]:
    """The tokenizer's own spelling: `##ing`, `\u0120the`, `\u2581the`."""
    return list(pipeline.tokenizer.convert_ids_to_tokens([int(index) for index in ids]))


def token_count(pipeline: Pipeline, text: str) -> int:
    """Tokens of a text of any length, special tokens left out."""
    return len(pipeline.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def style_of(label: str) -> str:
    """A colour for each kind of entity, none for O and for what is ignored."""
    kind = label.partition("-")[2]
    if label.startswith("-100"):
        return "dim"
    colours = ("cyan", "magenta", "yellow", "green", "blue", "red")
    return f"bold {colours[sum(kind.encode()) % len(colours)]}" if kind else ""


def padded_batch(pipeline: Pipeline, rows: Sequence[int], *, split: str = "train", width: int) -> list[RenderableType]:
    """The first rows of a batch as the model gets it, every tensor of it."""
    data = FeatureRows(pipeline.columns(split))
    batch: Batch = pipeline.collate([data[0, row] for row in rows], train=True)
    size = batch["size"]
    shape = ", ".join(f"{name} {tuple(value.shape)}" for name, value in batch.items() if name != "size")
    shown: list[RenderableType] = [heading(f"A padded batch of {size.examples}")]
    shown += lines(
        shape,
        f"{size.padded_tokens} positions, {size.tokens} of them tokens "
        f"({share(size.padded_tokens - size.tokens, size.padded_tokens)} padding), {size.items} with a label",
    )
    for name, value in batch.items():
        if name == "size" or value.ndim != 2:
            continue
        shown += lines(f"{name}:")
        for row in value[:SHOWN_OF_BATCH].tolist():
            text = " ".join(str(number) for number in row)
            shown.append(Text(f"    {text if len(text) <= width - 4 else text[: width - 8] + ' ...'}", no_wrap=True))
    return shown


def token_statistics(
    pipeline: Pipeline, *, batch_size: int, column: str = "input_ids", of: str | None = None
) -> list[RenderableType]:
    """Lengths, the share that padding takes, and how much of the text the tokenizer does not know.

    `column` is the pipeline's; `of` says what it holds, where a pipeline has more than one.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("  split")
    for name in ("examples", "tokens", "shortest", "median", "mean", "95%", "longest", "padding", "unknown"):
        table.add_column(name, justify="right")
    for split in ("train", "validation"):
        ids = ragged(pipeline, split, column)
        lengths, values = ids.lengths, ids.values
        unknown = pipeline.tokenizer.unk_token_id
        table.add_row(
            f"  {split}",
            f"{len(lengths):,}",
            f"{len(values):,}",
            *(f"{figure:.0f}" for figure in (lengths.min(), np.median(lengths))),
            f"{lengths.mean():.1f}",
            *(f"{figure:.0f}" for figure in (np.percentile(lengths, 95), lengths.max())),
            share_of(padding_share(lengths, batch_size=batch_size)),
            "-" if unknown is None else share(int((values == unknown).sum()), len(values)),
        )
    title = heading(
        f"Tokens{'' if of is None else f' of each {of}'} (padding: of batches of {batch_size} in the data's order)"
    )
    return [title, table]


def padding_share(lengths: Array, *, batch_size: int) -> float:
    """Share of positions that are padding if batches are padded to their longest row."""
    padded = sum(
        int(batch.max()) * len(batch)
        for batch in (lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size))
    )
    return 1 - int(lengths.sum()) / padded if padded else 0.0


def counts(pairs: Iterable[tuple[str, Counter[str]]], *, of: str) -> list[RenderableType]:
    """Counters side by side, one row a key."""
    columns = list(pairs)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"  {of}")
    for name, _ in columns:
        table.add_column(name, justify="right")
        table.add_column("share", justify="right")
    for key in dict.fromkeys(key for _, counter in columns for key in counter):
        cells: list[Any] = []
        for _, counter in columns:
            cells += [f"{counter[key]:,}", share(counter[key], counter.total())]
        table.add_row(Text(f"  {visible(key)}", style=style_of(key)), *cells)
    return [table]


def in_columns(rows: Sequence[Sequence[str]], *, width: int, labels: int) -> list[RenderableType]:
    """Texts above texts; row number `labels` decides the colour of its column."""
    styles = [[style_of(label) for label in rows[labels]] for _ in rows]
    return list(set_in_columns(rows, width=width, styles=styles))


def probe(pipeline: Pipeline, *, seed: int) -> list[RenderableType]:
    """What the checkpoint's model makes of the task's probe; what is untrained of it is drawn by the seed."""
    torch.manual_seed(seed)
    model = pipeline.model()
    model.train(False)
    written = pipeline.sample_outputs(model)
    shown: list[RenderableType] = [heading("What the checkpoint's model makes of the probe")]
    return shown + (lines(*map(visible, written)) if written else lines("(this task has none)"))


def settings(declared: BaseModel) -> str:
    """A spec's settings on one line, without what is left open."""
    given = declared.model_dump(exclude_none=True).items()
    return "  ".join(f"{name}={value!r}" for name, value in given if value != {})


def share(part: int, whole: int) -> str:
    return share_of(part / whole) if whole else "-"


def share_of(value: float) -> str:
    return f"{value:.2%}" if 0 < value < 0.01 else f"{value:.1%}"
