"""Extractive question answering: find the answer in a text (HF course, chapter 7, section 7).

A question and its context are cut into one or more overlapping windows. The model gives each token of a window two
logits, for the start and the end of the answer. The predicted answer is the best span of all windows of a question.

A row of `columns`, and so an example for training and evaluation, is a window. `WindowedSplit.example` gives the
question that a window belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch.nn.functional import cross_entropy
from transformers import AutoModelForQuestionAnswering, PreTrainedTokenizerBase

from touchstone.pipelines.pipeline import (
    Batch,
    Columns,
    Feature,
    FeatureRows,
    Options,
    Pipeline,
    Score,
    cached_by_split,
    evaluating,
    pad_features,
    to_batch,
)
from touchstone.pipelines.tokenizing import tokenize_parts
from touchstone.sources.source import SourceError
from touchstone.stages.ragged import Array, Ragged
from touchstone.stages.spans import Answer, best_spans_batch, pick_answer_batch
from touchstone.stages.squad import squad_scores
from touchstone.stages.windowing import answer_positions_batch, make_windows_batch, positions_of

if TYPE_CHECKING:  # importing it takes seconds, and only code that builds a model needs it
    from transformers import PreTrainedModel

QUESTION, CONTEXT, ANSWERS = "question", "context", "answers"
SAMPLES = 3
"""Validation questions in the sample outputs."""
EXCERPT = 60
"""Characters of context that sample outputs show on each side of the answer."""


class QuestionAnsweringOptions(Options):
    """The settings of question answering.

    Attributes:
        max_length: the most tokens of a window, with special tokens. Of a question only as many tokens are kept as
            leave room for twice the stride. So no token of a context is in more than three windows.
        stride: tokens of the context that two neighbouring windows share. A longer answer may not be whole in any
            window.
        max_answer_length: the most tokens of a predicted answer.
        null_answers: questions may have no answer, as in SQuAD 2.0. The prediction may then be "no answer".
        null_threshold: how much higher than the best span "no answer" must score to be predicted.
    """

    max_length: int = Field(default=384, ge=8)
    stride: int = Field(default=128, ge=0)
    max_answer_length: int = Field(default=30, ge=1)
    null_answers: bool = False
    null_threshold: float = 0.0


class SpanPrediction(NamedTuple):
    """The prediction for one window.

    Attributes:
        first, last: the first and last token of its best span, -1 if there is none.
        score: the score of that span.
        null: the score of "no answer".
        loss: in nats.
    """

    first: int
    last: int
    score: float
    null: float
    loss: float


class QuestionAnswering(Pipeline):
    """Predict the span of the answer. An item of the loss is a window."""

    task = hub_task = "question-answering"
    Options = QuestionAnsweringOptions
    options: QuestionAnsweringOptions

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
    def template(self) -> PairTemplate:
        return pair_template(self.tokenizer)

    @property
    def longest_question(self) -> int:
        """The most tokens that are kept of a question.

        Raises:
            SourceError: `max_length` is more than the model takes, or leaves no room for a question.
        """
        special = len(self.template.pieces) - 2
        most = self.options.max_length - special - max(2 * self.options.stride, 1)
        if most < 1:
            raise SourceError(
                f"max_length {self.options.max_length} leaves no room for a question next to {special} special tokens "
                f"and twice the stride of {self.options.stride}: raise max_length or lower stride"
            )
        declared = self.tokenizer.model_max_length
        if self.options.max_length > declared:
            raise SourceError(
                f"max_length is {self.options.max_length}, but the tokenizer declares that its model takes {declared} "
                f"tokens: lower max_length"
            )
        return most

    def columns(self, split: str) -> Columns:
        """The columns of W windows; see `WindowedSplit`."""
        return self.split(split).columns

    @cached_by_split
    def split(self, split: str) -> WindowedSplit:
        """Return a split as windows, with everything that turns predicted tokens back into texts."""
        options = self.options
        data = self.source.examples(split, columns=(QUESTION, CONTEXT, ANSWERS)).with_format("arrow")[:]
        if not options.null_answers and (empty := without_answer(data)).size:
            raise SourceError(
                f"row {empty[0]} of split {split!r} has no answer; if this is intended, set null_answers = true"
            )
        return make_windowed_split(
            data,
            tokenizer=self.tokenizer,
            template=self.template,
            max_length=options.max_length,
            stride=options.stride,
            longest_question=self.longest_question,
        )

    def collate(self, features: Sequence[Feature], *, train: bool) -> Batch:
        names = [name for name in ("input_ids", "token_type_ids") if name in features[0]]
        arrays = pad_features(features, names=names, tokenizer=self.tokenizer)
        mask = arrays["attention_mask"]
        shift = mask.shape[1] - mask.sum(1) if self.tokenizer.padding_side == "left" else 0
        for name in ("start", "end"):
            arrays[name] = np.asarray([feature[name] for feature in features], dtype=np.int64) + shift
        arrays["window"] = np.asarray([feature["example"] for feature in features], dtype=np.int64)
        return to_batch(arrays, items=len(features))

    def model(self) -> PreTrainedModel:
        return self.source.model(AutoModelForQuestionAnswering)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return _losses(*_logits(model, batch), batch).sum()

    def predict(self, model: torch.nn.Module, batch: Batch) -> list[SpanPrediction]:
        """Return the predictions for windows of the validation split."""
        split = self.split("validation")
        start, end = _logits(model, batch)
        losses = _losses(start, end, batch).double().cpu().numpy()
        window, real = batch["window"].cpu().numpy(), batch["attention_mask"].cpu().numpy().astype(bool)
        start_logits, end_logits = (logits.cpu().numpy()[real] for logits in (start, end))  # without padding
        starts, ends = split.starts.take(window), split.ends.take(window)
        spans = best_spans_batch(
            start_logits,
            end_logits=end_logits,
            starts=starts,
            ends=ends,
            max_answer_length=self.options.max_answer_length,
        )
        cls = starts.offsets[:-1] + split.cls[window]
        null = start_logits[cls].astype(np.float64) + end_logits[cls]
        columns = (spans["first"], spans["last"], spans["score"], null, losses)
        return [
            SpanPrediction(int(first), int(last), float(score), float(no_answer), float(loss))
            for first, last, score, no_answer, loss in zip(*columns, strict=True)
        ]

    def score(self, predictions: Sequence[SpanPrediction]) -> list[Score]:
        split, options = self.split("validation"), self.options
        if len(predictions) != len(split.example):
            raise ValueError(
                f"{len(predictions)} predictions for {len(split.example)} validation windows: pass one per window"
            )
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
        """Pick the answers to the first validation questions, from the predictions for all their windows (`rows`)."""
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
        """Return the first validation questions with the answer marked in its context, and the predicted answers."""
        split = self.split("validation")
        rows = np.flatnonzero(split.example < SAMPLES)
        features = FeatureRows(split.columns)
        batch = self.collate([features[0, int(row)] for row in rows], train=False)
        device = next(model.parameters()).device
        batch = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
        with evaluating(model):
            predictions = self.predict(model, batch)
        lines = []
        for number, answer in enumerate(self._answers(predictions, rows=rows)):
            lines.append(f"{split.questions[number]}  {excerpt(split.contexts[number], split.references[number])}")
            lines.append(f"    {answer['score']:.2f}  {answer['text'] or '(no answer)'!r}")
        return lines


def excerpt(context: str, references: Sequence[str]) -> str:
    """Return the first reference in brackets with context on each side, or without one the start of the context."""
    if not references:
        return context[: 2 * EXCERPT]
    start = context.find(references[0])
    end = start + len(references[0])
    before, after = context[max(start - EXCERPT, 0) : start], context[end : end + EXCERPT]
    return " ".join(f"{before}[{references[0]}]{after}".split())


def _logits(model: torch.nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, T) float32 logits of starts and of ends, as low as possible at padding."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    output = model(**{name: batch[name] for name in names if name in batch})
    padding = batch["attention_mask"] == 0
    start, end = (
        logits.float().masked_fill(padding, torch.finfo(torch.float32).min)
        for logits in (output.start_logits, output.end_logits)
    )
    return start, end


def _losses(start: torch.Tensor, end: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return (B,) the mean of the cross entropies of start and end, in nats."""
    losses: torch.Tensor = (
        cross_entropy(start, batch["start"], reduction="none") + cross_entropy(end, batch["end"], reduction="none")
    ) / 2
    return losses


class PairTemplate(NamedTuple):
    """The way a tokenizer combines a question and a context.

    Attributes:
        pieces: the special tokens (their ids) and the two texts (`question`, `context`) in order, each with its
            `token_type_id`.
        cls: the index in `pieces` of the special token that means "no answer".
    """

    pieces: tuple[tuple[int | str, int], ...]
    cls: int


def pair_template(tokenizer: PreTrainedTokenizerBase) -> PairTemplate:
    """Find out how the tokenizer combines a pair, from a pair that it encodes.

    The question comes first, or the context where the tokenizer pads on the left (XLNet).

    Raises:
        SourceError: the tokenizer has no padding token, or adds no special token that could mean "no answer".
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
            "the tokenizer has no padding token, or adds no special token to a pair of texts that could mean no "
            "answer; question answering needs both: use a checkpoint whose tokenizer has them, such as BERT"
        )
    cls = tokenizer.cls_token_id if tokenizer.cls_token_id in tokens else tokens[0]
    return PairTemplate(tuple(pieces), [what for what, _ in pieces].index(cls))


@dataclass(frozen=True)
class WindowedSplit:
    """N questions as W windows.

    Attributes:
        columns: `input_ids`, and `token_type_ids` for models that use them, (W, T_i) each; `start` and `end`, (W,)
            each: the first and last token of the answer, or the "no answer" token if the window lacks the answer.
        starts, ends: (W, T_i) the first character of each token in the context and the one after its last, -1 for
            tokens outside the context.
        example: (W,) the question of each window.
        cls: (W,) the position of the "no answer" token in each window.
        questions, contexts: N texts each.
        references: N lists of answers.
        cut: the number of questions that were too long.
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
    """Return the indices of the rows whose list of answers is empty."""
    lengths = pc.list_value_length(data.column(ANSWERS).combine_chunks().field("text"))
    return np.flatnonzero(np.asarray(lengths) == 0)


def make_windowed_split(
    data: pa.Table,
    *,
    tokenizer: PreTrainedTokenizerBase,
    template: PairTemplate,
    max_length: int,
    stride: int,
    longest_question: int,
) -> WindowedSplit:
    """Cut all questions and contexts into windows, and find the answers in them.

    Many questions share a context (SQuAD has 87,599 questions on 18,891 contexts). Each context is tokenized once.

    Args:
        data: a table with the columns `question`, `context` and `answers`.
        max_length, stride: see `QuestionAnsweringOptions`.
        longest_question: the most tokens that are kept of a question.
    """
    questions = [str(question).strip() for question in data.column(QUESTION).to_pylist()]  # as in the course
    encoded = pc.dictionary_encode(data.column(CONTEXT).combine_chunks())
    distinct: list[str] = encoded.dictionary.to_pylist()
    context_of = np.asarray(encoded.indices, dtype=np.int64)
    answers = data.column(ANSWERS).combine_chunks()
    texts: list[list[str]] = answers.field("text").to_pylist()
    context_tokens = tokenize_parts(tokenizer, distinct, offsets=True)
    whole = tokenize_parts(tokenizer, questions, offsets=False)["input_ids"]
    kept = np.minimum(whole.lengths, longest_question)
    question_ids = Ragged.from_lengths(whole.values[whole.places < np.repeat(kept, whole.lengths)], lengths=kept)
    windows: dict[str, Any] = make_windows_batch(
        context_tokens["input_ids"],
        starts=context_tokens["starts"],
        ends=context_tokens["ends"],
        questions=question_ids,
        context_of=context_of,
        template=template.pieces,
        max_length=max_length,
        stride=stride,
    )
    example = windows["example"]
    cls = positions_of(template.cls, template=template.pieces, windows=windows)
    answer_starts = Ragged.from_arrow(answers.field("answer_start"))
    n = len(answer_starts.values)
    characters = np.fromiter((len(text) for row in texts for text in row), dtype=np.int64, count=n)
    first, last = answer_positions_batch(
        answer_starts.take(example),
        answer_ends=answer_starts.with_values(answer_starts.values + characters).take(example),
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
        cut=int((kept < whole.lengths).sum()),
    )
