"""A split of questions and contexts as windows: what question answering prepares before it trains.

Questions share contexts (SQuAD's 18,891 have 87,599 questions): each is tokenized once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from reference.pipelines.pair_template import Template
from reference.pipelines.tokenizing import tokenize_parts
from reference.ragged import Array, Ragged
from reference.stages.answering import answer_positions_batch
from reference.stages.windowing import make_windows_batch, positions_of

QUESTION, CONTEXT, ANSWERS = "question", "context", "answers"


@dataclass(frozen=True)
class WindowedSplit:
    """N questions as W windows.

    Attributes:
        columns: `input_ids` (and `token_type_ids`, where the model wants them), (W, T_i) each, and the tokens `start`
            and `end` of the answer, (W,) each.
        starts, ends: (W, T_i) the characters of each token of a window, -1 outside the context.
        example, cls: (W,) the example of each window, and where its "no answer" stands.
        questions, contexts, references: N of each.
        cut: questions that were too long.
    """

    columns: dict[str, Ragged | Array]
    starts: Ragged
    ends: Ragged
    example: Array
    cls: Array
    questions: list[str]
    contexts: list[str]
    references: list[list[str]]
    cut: int


def without_answer(data: pa.Table) -> Array:
    """The rows whose list of answers is empty."""
    lengths = pc.list_value_length(data.column(ANSWERS).combine_chunks().field("text"))
    return np.flatnonzero(np.asarray(lengths) == 0)


def windowed(
    data: pa.Table,
    *,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    max_length: int,
    stride: int,
    longest_question: int,
) -> WindowedSplit:
    """All windows of all questions, with their answers.

    Args:
        data: the columns `question`, `context` and `answers`.
        max_length, stride: tokens of a window, and those that two neighbours share of the context.
        longest_question: tokens of a question that are kept at most.
    """
    questions = [str(question).strip() for question in data.column(QUESTION).to_pylist()]  # as the course does
    coded = pc.dictionary_encode(data.column(CONTEXT).combine_chunks())
    distinct: list[str] = coded.dictionary.to_pylist()
    context_of = np.asarray(coded.indices, dtype=np.int64)
    answers = data.column(ANSWERS).combine_chunks()
    texts: list[list[str]] = answers.field("text").to_pylist()
    tokens = tokenize_parts(tokenizer, distinct, offsets=True)
    asked = tokenize_parts(tokenizer, questions, offsets=False)["input_ids"]
    kept = np.minimum(asked.lengths, longest_question)
    short = Ragged.from_lengths(asked.values[asked.places < np.repeat(kept, asked.lengths)], lengths=kept)
    windows: dict[str, Any] = make_windows_batch(
        tokens["input_ids"],
        starts=tokens["starts"],
        ends=tokens["ends"],
        questions=short,
        context_of=context_of,
        template=template.pieces,
        max_length=max_length,
        stride=stride,
    )
    example = windows["example"]
    cls = positions_of(template.cls, template=template.pieces, windows=windows)
    begin = Ragged.from_arrow(answers.field("answer_start"))
    size = np.fromiter((len(text) for row in texts for text in row), dtype=np.int64, count=len(begin.values))
    first, last = answer_positions_batch(
        begin.take(example),
        answer_ends=begin.with_values(begin.values + size).take(example),
        starts=windows["starts"],
        ends=windows["ends"],
        cls=cls,
    )
    columns = {"input_ids": windows["input_ids"], "start": first, "end": last}
    if "token_type_ids" in tokenizer.model_input_names:
        columns["token_type_ids"] = windows["token_type_ids"]
    return WindowedSplit(
        columns=columns,
        starts=windows["starts"],
        ends=windows["ends"],
        example=example,
        cls=cls,
        questions=questions,
        contexts=[distinct[index] for index in context_of.tolist()],
        references=texts,
        cut=int((kept < asked.lengths).sum()),
    )
