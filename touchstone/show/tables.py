"""Parts that all tasks show: columns of the data, a padded batch, token statistics and sample outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from touchstone.pipelines.pipeline import Batch, FeatureRows, Pipeline
from touchstone.show.columns import set_in_columns, visible
from touchstone.stages.ragged import IGNORED, Array, Ragged

SPLITS = ("train", "validation")
SHOWN_BATCH_ROWS = 4
SHOWN_CHARACTERS = 600
"""Characters shown of a long text."""


@dataclass(frozen=True)
class View:
    """How much of the data is shown.

    Attributes:
        samples: number of examples.
        seed: chooses the examples, and the rows of the batch.
        width: terminal cells per line.
    """

    samples: int
    seed: int
    width: int

    def rows(self, size: int, *, count: int | None = None) -> list[int]:
        """Draw `count` different rows out of `size` (by default `samples`), or all rows if there are fewer."""
        count = self.samples if count is None else count
        chosen = np.random.default_rng(self.seed).choice(size, size=min(count, size), replace=False)
        return [int(row) for row in chosen]


def heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def lines(*texts: str) -> list[RenderableType]:
    return [Text(f"  {text}") for text in texts]


def paragraph(text: str, *, below: int = 0) -> RenderableType:
    """Show the beginning of a text, indented, with `below` blank lines after it."""
    shown = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."
    return Padding(Text(visible(shown)), (0, 0, below, 2))


def features(pipeline: Pipeline, *, columns: tuple[str, ...]) -> list[RenderableType]:
    """Show the columns of the source with their types, and the number of rows of each split."""
    shown: list[RenderableType] = [heading("Data")]
    for split in SPLITS:
        data = pipeline.source.examples(split, columns=columns)
        shown += lines(f"{split}: {len(data):,} rows")
        if split == "train":
            for name, feature in data.features.items():
                shown += lines(f"  {name}: {visible(str(feature))}")
    return shown


def ragged(pipeline: Pipeline, split: str, name: str) -> Ragged:
    """Return a column that holds one sequence per example."""
    column = pipeline.columns(split)[name]
    assert isinstance(column, Ragged)
    return column


def tokens_of(pipeline: Pipeline, ids: Array) -> list[str]:
    """Return the tokens as the tokenizer spells them: `##ing`, `\u0120the`, `\u2581the`."""
    return list(pipeline.tokenizer.convert_ids_to_tokens([int(index) for index in ids]))


def token_count(pipeline: Pipeline, text: str) -> int:
    """Return the number of tokens of a text of any length, without special tokens."""
    return len(pipeline.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def style_of(label: str) -> str:
    """Return a colour for each type of entity; O and ignored labels have none."""
    kind = label.partition("-")[2]
    if label == str(IGNORED):
        return "dim"
    colours = ("cyan", "magenta", "yellow", "green", "blue", "red")
    return f"bold {colours[sum(kind.encode()) % len(colours)]}" if kind else ""


def padded_batch(pipeline: Pipeline, *, size: int, batch_size: int, view: View) -> list[RenderableType]:
    """Show every tensor of a training batch as the model receives it. `size` is the number of training features."""
    data = FeatureRows(pipeline.columns("train"))
    batch: Batch = pipeline.collate([data[0, row] for row in view.rows(size, count=batch_size)], train=True)
    numbers = batch["size"]
    shape = ", ".join(f"{name} {tuple(value.shape)}" for name, value in batch.items() if name != "size")
    shown: list[RenderableType] = [heading(f"A padded batch of {numbers.examples}")]
    shown += lines(
        shape,
        f"{numbers.padded_tokens} positions: {numbers.tokens} tokens and "
        f"{share(numbers.padded_tokens - numbers.tokens, numbers.padded_tokens)} padding; {numbers.items} with a label",
    )
    for name, value in batch.items():
        if name == "size" or value.ndim != 2:
            continue
        shown += lines(f"{name}:")
        for row in value[:SHOWN_BATCH_ROWS].tolist():
            text = " ".join(str(entry) for entry in row)
            shown.append(
                Text(f"    {text if len(text) <= view.width - 4 else text[: view.width - 8] + ' ...'}", no_wrap=True)
            )
    return shown


def token_statistics(
    pipeline: Pipeline, *, batch_size: int, column: str = "input_ids", of: str | None = None
) -> list[RenderableType]:
    """Show lengths, the share of padding, and the share of unknown tokens.

    Args:
        column: a column of the pipeline that holds token ids.
        of: name of what the column holds, for pipelines with more than one such column.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("  split")
    for name in ("examples", "tokens", "shortest", "median", "mean", "95%", "longest", "padding", "unknown"):
        table.add_column(name, justify="right")
    for split in SPLITS:
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
            share_text(padding_share(lengths, batch_size=batch_size)),
            "-" if unknown is None else share(int((values == unknown).sum()), len(values)),
        )
    whose = "" if of is None else f" of each {of}"
    return [heading(f"Tokens{whose} (padding: in batches of {batch_size}, in the order of the data)"), table]


def padding_share(lengths: Array, *, batch_size: int) -> float:
    """Return the share of positions that are padding if each batch is padded to its longest row."""
    padded = sum(
        int(batch.max()) * len(batch)
        for batch in (lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size))
    )
    return 1 - int(lengths.sum()) / padded if padded else 0.0


def counts(pairs: Iterable[tuple[str, Counter[str]]], *, of: str) -> list[RenderableType]:
    """Show counters side by side, one row per key."""
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
    """Set rows of texts in columns. Row number `labels` decides the colour of each column."""
    styles = [[style_of(label) for label in rows[labels]] for _ in rows]
    return list(set_in_columns(rows, width=width, styles=styles))


def sample_outputs(pipeline: Pipeline, *, seed: int) -> list[RenderableType]:
    """Show what the checkpoint's model produces for the task's sample inputs. The seed draws untrained weights."""
    torch.manual_seed(seed)
    model = pipeline.model()
    model.train(False)
    outputs = pipeline.sample_outputs(model)
    shown: list[RenderableType] = [heading("Sample outputs of the checkpoint's model")]
    return shown + (lines(*map(visible, outputs)) if outputs else lines("(this task has none)"))


def settings(declared: BaseModel) -> str:
    """Format the settings of a spec on one line, without those that are not set."""
    given = declared.model_dump(exclude_none=True).items()
    return "  ".join(f"{name}={value!r}" for name, value in given if value != {})


def share(part: int, whole: int) -> str:
    return share_text(part / whole) if whole else "-"


def share_text(value: float) -> str:
    return f"{value:.2%}" if 0 < value < 0.01 else f"{value:.1%}"
