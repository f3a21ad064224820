"""Extractive question answering: find the answer in a text (HF course, chapter 7, section 7).

A question and its context make one window or several that overlap; the model gives each token of a window two logits,
for the answer's start and for its end. The answer is the best span of all windows of an example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch.nn.functional import cross_entropy
from transformers import AutoModelForQuestionAnswering, PreTrainedTokenizerBase

from touchstone.pipelines.pipeline import (
    Batch,
    BatchSize,
    Columns,
    Feature,
    FeatureRows,
    Options,
    Pipeline,
    Score,
    to_tensors,
)
from touchstone.pipelines.tokenizing import tokenize_parts
from touchstone.sources.source import Source, SourceError
from touchstone.stages.collation import pad_batch
from touchstone.stages.ragged import Array, Ragged
from touchstone.stages.spans import Answer, best_spans_batch, pick_answer_batch
from touchstone.stages.squad import squad_scores
from touchstone.stages.windowing import answer_positions_batch, make_windows_batch, positions_of

if TYPE_CHECKING:  # it takes seconds to import: only those who make a model pay
    from transformers import PreTrainedModel


# How a tokenizer puts two texts together, learnt from what it makes of a pair.


class Template(NamedTuple):
    """How the tokenizer puts a question and a context together, and which special token stands for "no answer"."""

    pieces: tuple[tuple[int | str, int], ...]
    cls: int
    """Its index in `pieces`."""


def template_of(tokenizer: PreTrainedTokenizerBase) -> Template:
    """What the tokenizer makes of a pair, question first, or context first where it pads on the left (XLNet).

    Raises:
        SourceError: no special token that could stand for "no answer", or none that pads.
    """
    question_first = tokenizer.padding_side == "right"
    encodings = tokenizer("a", "b").encodings
    assert encodings is not None
    (encoding,) = encodings
    names = ("question", "context") if question_first else ("context", "question")
    pieces: list[tuple[int | str, int]] = []
    previous = None
    for token, type_id, sequence, special in zip(
        encoding.ids, encoding.type_ids, encoding.sequence_ids, encoding.special_tokens_mask, strict=True
    ):
        current = None if special else sequence
        if current is None:
            pieces.append((int(token), int(type_id)))
        elif current != previous:
            pieces.append((names[current], int(type_id)))
        previous = current
    tokens = [what for what, _ in pieces if isinstance(what, int)]
    if not tokens or tokenizer.pad_token_id is None:
        raise SourceError(
            "the tokenizer puts no special token into a pair of texts, or has none to pad with; question answering "
            "needs one that stands for no answer, and one that pads: take a checkpoint that was made for pairs"
        )
    wanted = tokenizer.cls_token_id if tokenizer.cls_token_id in tokens else tokens[0]
    return Template(tuple(pieces), [what for what, _ in pieces].index(wanted))


# A split of questions and contexts as windows: what question answering prepares before it trains. Questions share
# contexts (SQuAD's 18,891 have 87,599 questions): each is tokenized once.


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


PROBED = 3
"""Validation examples whose answers a probe shows: the first."""
EXCERPT = 60
"""Characters of context that a probe shows on either side of the answer."""


class QuestionAnsweringOptions(Options):
    """What a spec may choose.

    Attributes:
        max_length: tokens of a window, special tokens included. Of a question only the beginning is kept that leaves
            room for twice the stride: so no token of a context is in more than three windows.
        stride: tokens of the context that two neighbouring windows share. A longer answer may be in no window whole.
        max_answer_length: tokens of a predicted answer at most.
        null_answers: whether there are questions without an answer, as in SQuAD 2.0: "no answer" then competes.
        null_threshold: how far "no answer" must be above the best answer to win.
    """

    max_length: int = Field(default=384, ge=8)
    stride: int = Field(default=128, ge=0)
    max_answer_length: int = Field(default=30, ge=1)
    null_answers: bool = False
    null_threshold: float = 0.0


class SpanPrediction(NamedTuple):
    """What is kept of one window: its best span with its score, the score of "no answer", and the loss in nats."""

    first: int
    last: int
    score: float
    null: float
    loss: float


class QuestionAnswering(Pipeline):
    task: ClassVar[str] = "question-answering"
    hub_task: ClassVar[str] = "question-answering"
    Options: ClassVar[type[Options]] = QuestionAnsweringOptions
    options: QuestionAnsweringOptions

    def __init__(self, source: Source, *, options: QuestionAnsweringOptions, seed: int) -> None:
        super().__init__(source, options=options, seed=seed)
        self._splits: dict[str, WindowedSplit] = {}

    @property
    def example(self) -> str:
        return "My name is Sylvain and I work at Hugging Face in Brooklyn."

    def usage(self, repo: str) -> list[str]:
        first, second = ("question", "context") if self.tokenizer.padding_side == "right" else ("context", "question")
        return [
            "from transformers import AutoModelForQuestionAnswering, AutoTokenizer",
            "",
            f"tokenizer = AutoTokenizer.from_pretrained({repo!r})",
            f"model = AutoModelForQuestionAnswering.from_pretrained({repo!r})",
            "question = 'Where do I work?'",
            f"context = {self.example!r}",
            f"inputs = tokenizer({first}, {second}, return_tensors='pt')",
            "logits = model(**inputs)",
            "start, end = logits.start_logits.argmax(), logits.end_logits.argmax()",
            "print(tokenizer.decode(inputs['input_ids'][0, start : end + 1]))",
        ]

    @cached_property
    def template(self) -> Template:
        return template_of(self.tokenizer)

    @property
    def longest_question(self) -> int:
        """Tokens of a question that are kept at most.

        Raises:
            SourceError: `max_length` is more than the tokenizer's model takes, or leaves no room for a question.
        """
        special = len(self.template.pieces) - 2
        most = self.options.max_length - special - max(2 * self.options.stride, 1)
        if most < 1:
            raise SourceError(
                f"max_length {self.options.max_length} leaves no room for a question beside {special} special tokens "
                f"and twice the stride of {self.options.stride}: raise it or lower stride"
            )
        declared = self.tokenizer.model_max_length
        if self.options.max_length > declared:
            raise SourceError(
                f"max_length is {self.options.max_length}, but the tokenizer's model takes {declared} tokens: lower it"
            )
        return most

    def columns(self, split: str) -> Columns:
        """`input_ids` (and `token_type_ids`, where the model wants them) of each window, and the answer's place."""
        return self.split(split).columns

    def split(self, split: str) -> WindowedSplit:
        if split not in self._splits:
            options = self.options
            data = self.source.examples(split, columns=(QUESTION, CONTEXT, ANSWERS)).with_format("arrow")[:]
            if not options.null_answers and (empty := without_answer(data)).size:
                raise SourceError(
                    f"split {split!r}, row {empty[0]}: there is no answer; if that is meant, set null_answers = true"
                )
            self._splits[split] = windowed(
                data,
                tokenizer=self.tokenizer,
                template=self.template,
                max_length=options.max_length,
                stride=options.stride,
                longest_question=self.longest_question,
            )
        return self._splits[split]

    def collate(self, features: Sequence[Feature], *, train: bool) -> Batch:
        names = [name for name in ("input_ids", "token_type_ids") if name in features[0]]
        rows = [{name: feature[name] for name in names} for feature in features]
        rows = [row | {"attention_mask": np.ones(len(row["input_ids"]), dtype=np.int64)} for row in rows]
        side = self.tokenizer.padding_side
        arrays = pad_batch(rows, pad_id=self.tokenizer.pad_token_id, side=side)
        mask = arrays["attention_mask"]
        before = mask.shape[1] - mask.sum(1) if side == "left" else 0
        for name in ("start", "end"):
            arrays[name] = np.asarray([feature[name] for feature in features], dtype=np.int64) + before
        arrays["window"] = np.asarray([feature["example"] for feature in features], dtype=np.int64)
        size = BatchSize(len(rows), len(rows), int(mask.sum()), mask.size)
        return {**to_tensors(arrays), "size": size}

    def model(self) -> PreTrainedModel:
        return self.source.model(AutoModelForQuestionAnswering)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return _losses(*_logits(model, batch), batch).sum()

    def predict(self, model: torch.nn.Module, batch: Batch) -> list[SpanPrediction]:
        """Of the *validation* windows that the batch holds."""
        split = self.split("validation")
        start, end = _logits(model, batch)
        losses = _losses(start, end, batch).double().cpu().numpy()
        window, real = batch["window"].cpu().numpy(), batch["attention_mask"].cpu().numpy().astype(bool)
        flat = [logits.cpu().numpy()[real] for logits in (start, end)]
        starts, ends = split.starts.take(window), split.ends.take(window)
        spans = best_spans_batch(
            flat[0],
            end_logits=flat[1],
            starts=starts,
            ends=ends,
            max_answer_length=self.options.max_answer_length,
        )
        cls = starts.offsets[:-1] + split.cls[window]
        null = flat[0][cls].astype(np.float64) + flat[1][cls]
        columns = (spans["first"], spans["last"], spans["score"], null, losses)
        return [
            SpanPrediction(int(first), int(last), float(score), float(nothing), float(loss))
            for first, last, score, nothing, loss in zip(*columns, strict=True)
        ]

    def score(self, predictions: Sequence[SpanPrediction]) -> list[Score]:
        split, options = self.split("validation"), self.options
        if len(predictions) != len(split.example):
            raise ValueError(f"{len(predictions)} predictions for {len(split.example)} validation windows")
        answers = self._answers(predictions, rows=np.arange(len(predictions)))
        scores = squad_scores([answer["text"] for answer in answers], references=split.references)
        loss = sum(prediction.loss for prediction in predictions) / max(len(predictions), 1)
        null = f"null:{options.null_threshold:g}" if options.null_answers else "null:no"
        windows = f"max_length:{options.max_length}|stride:{options.stride}"
        spans = f"{scores['signature']}|spans:all|max_answer_length:{options.max_answer_length}|{null}|{windows}"
        return [
            Score("f1", scores["f1"], scores["number"], True, f"f1|{spans}", upper=100.0),
            Score("exact_match", scores["exact_match"], scores["number"], True, f"exact_match|{spans}", upper=100.0),
            Score("loss", loss, len(predictions), False, f"nll|unit:nat|mean:window,start,end|{windows}", upper=None),
        ]

    def _answers(self, predictions: Sequence[SpanPrediction], *, rows: Array) -> list[Answer]:
        """Of the first examples of validation, whose windows these rows are."""
        split = self.split("validation")
        names = ("first", "last", "score", "null")
        columns = {name: np.asarray([getattr(prediction, name) for prediction in predictions]) for name in names}
        count = int(split.example[rows].max(initial=-1)) + 1
        return pick_answer_batch(
            columns,
            example=split.example[rows],
            starts=split.starts.take(rows),
            ends=split.ends.take(rows),
            contexts=split.contexts[:count],
            null_scores=columns["null"] if self.options.null_answers else None,
            null_threshold=self.options.null_threshold,
        )

    def sample_outputs(self, model: torch.nn.Module) -> list[str]:
        """The first questions of validation with the answer, marked in its context, and what the model answers."""
        split = self.split("validation")
        rows = np.flatnonzero(split.example < PROBED)
        features = FeatureRows(split.columns)
        batch = self.collate([features[0, int(row)] for row in rows], train=False)
        device = next(model.parameters()).device
        batch = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
        training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                predictions = self.predict(model, batch)
        finally:
            model.train(training)
        lines = []
        for number, answer in enumerate(self._answers(predictions, rows=rows)):
            lines.append(f"{split.questions[number]}  {excerpt(split.contexts[number], split.references[number])}")
            lines.append(f"    {answer['score']:.2f}  {answer['text'] or '(no answer)'!r}")
        return lines


def excerpt(context: str, references: Sequence[str]) -> str:
    """The first answer in brackets with some of the context on either side; the context's beginning without one."""
    if not references:
        return context[: 2 * EXCERPT]
    start = context.find(references[0])
    end = start + len(references[0])
    before, after = context[max(start - EXCERPT, 0) : start], context[end : end + EXCERPT]
    return " ".join(f"{before}[{references[0]}]{after}".split())


def _logits(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) float32 logits of starts and of ends; padding can be neither."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    output = model(**{name: batch[name] for name in names if name in batch})
    padding = batch["attention_mask"] == 0
    start, end = (
        logits.float().masked_fill(padding, torch.finfo(torch.float32).min)
        for logits in (output.start_logits, output.end_logits)
    )
    return start, end


def _losses(start: torch.Tensor, end: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(B,) the mean of the cross entropies of start and end."""
    losses: torch.Tensor = (
        cross_entropy(start, batch["start"], reduction="none") + cross_entropy(end, batch["end"], reduction="none")
    ) / 2
    return losses
