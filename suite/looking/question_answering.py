"""A look at question answering: a question, its context in windows, and the answer marked in each that holds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import cast

import numpy as np
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from reference.pipelines.pipeline import Pipeline
from reference.pipelines.question_answering import QuestionAnswering
from reference.pipelines.windowed import ANSWERS, CONTEXT, QUESTION
from suite.looking import common
from suite.looking.columns import visible

SHOWN_CHARACTERS = 900
SPLITS = ("train", "validation")


def look(pipeline: Pipeline, *, samples: int, seed: int, batch_size: int, width: int) -> Iterator[RenderableType]:
    pipeline = cast(QuestionAnswering, pipeline)
    yield from common.features(pipeline, columns=(QUESTION, CONTEXT, ANSWERS))
    train, options = pipeline.split("train"), pipeline.options
    for number in common.sample(len(train.contexts), count=samples, seed=seed):
        yield from example(pipeline, number)
    yield common.heading(f"Windows of at most {options.max_length} tokens, neighbours share {options.stride}")
    for split in SPLITS:
        part = pipeline.split(split)
        labelled = part.columns["start"] != part.cls
        without = len(part.contexts) - len(np.unique(part.example[labelled]))
        windows = Counter(np.bincount(part.example, minlength=len(part.contexts)).tolist())
        spelt = ", ".join(f"{count:,} in {many}" for many, count in sorted(windows.items()))
        yield from common.lines(
            f"{split}: {len(part.contexts):,} examples ({spelt}), {len(part.example):,} windows",
            f"  {np.count_nonzero(labelled):,} windows hold a whole answer; {without:,} examples have "
            f"none that does; {part.cut:,} questions are cut to {pipeline.longest_question} tokens",
        )
    size = len(train.example)
    yield from common.padded_batch(pipeline, common.sample(size, count=batch_size, seed=seed), width=width)
    yield from common.token_statistics(pipeline, batch_size=batch_size)


def example(pipeline: QuestionAnswering, number: int) -> Iterator[RenderableType]:
    """One example of the train split: its texts, and its windows as the model reads them."""
    split = pipeline.split("train")
    context, references = split.contexts[number], split.references[number]
    rows = np.flatnonzero(split.example == number).tolist()
    yield common.heading(f"Train example {number}: {len(context):,} characters, {len(rows)} windows")
    yield from common.lines(
        f"question: {visible(split.questions[number])}",
        f"answers:  {visible(' | '.join(references)) if references else '(none)'}",
    )
    for place, row in enumerate(rows, start=1):
        first, last = (int(split.columns[name][row]) for name in ("start", "end"))
        held = np.flatnonzero(split.starts[row] >= 0)
        label = "no whole answer: " if first == split.cls[row] else ""
        yield from common.lines(f"window {place} of {len(rows)}: {label}tokens {first} to {last}")
        if held.size:
            span = None if label else (int(split.starts[row][first]), int(split.ends[row][last]))
            edges = int(split.starts[row][held[0]]), int(split.ends[row][held[-1]])
            yield Padding(marked(context, span, edges=edges), (0, 0, 0, 4))


def marked(context: str, span: tuple[int, int] | None, *, edges: tuple[int, int]) -> Text:
    """The part of the context that a window holds, the answer in brackets and in colour."""
    start, end = edges
    if span is None:
        return Text(visible(context[start : min(end, start + SHOWN_CHARACTERS)]), style="dim")
    room = SHOWN_CHARACTERS // 2
    before, after = context[max(start, span[0] - room) : span[0]], context[span[1] : min(end, span[1] + room)]
    text = Text(visible(before))
    text.append(f"[{visible(context[span[0] : span[1]])}]", style="bold yellow")
    text.append(visible(after))
    return text
