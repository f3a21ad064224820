"""Extractive question answering: find the answer in a text (HF course, chapter 7, section 7).

A question and its context make one window or several that overlap; the model gives each token of a window two logits,
for the answer's start and for its end. The answer is the best span of all windows of an example.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import cross_entropy
from transformers import AutoModelForQuestionAnswering

from reference.pipelines.pair_template import Template, template_of
from reference.pipelines.pipeline import (
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
from reference.pipelines.windowed import ANSWERS, CONTEXT, QUESTION, WindowedSplit, windowed, without_answer
from reference.ragged import Array
from reference.sources.source import Source, SourceError
from reference.stages.collation import pad_batch
from reference.stages.picking import Answer, pick_answer_batch
from reference.stages.spans import best_spans_batch
from reference.stages.squad import squad_scores

if TYPE_CHECKING:  # it takes seconds to import: only those who make a model pay
    from transformers import PreTrainedModel

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

    def probe(self, model: torch.nn.Module) -> list[str]:
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
