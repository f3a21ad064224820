"""Evaluation in turn: the same untrained model predicts the same validation examples, each way in a process of its own.

The course leaves it to transformers.Trainer: examples in the order of the data, padded to the longest of each batch.
The engines share the reference's evaluation, the longest examples first; `packed` computes it without padding.
Preparing the data and scoring the predictions are left out. Beside the seconds stands a floor: how long the forward
arithmetic of these examples takes, without padding, at the rate of matrix products.
"""

from __future__ import annotations

import inspect
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, Seq2SeqTrainer, Seq2SeqTrainingArguments, set_seed

from touchstone.engines.device import large_blocks_from_the_heap
from touchstone.engines.evaluation import predict_share
from touchstone.engines.work import ExampleCounter, WorkError
from touchstone.packed.engine import DTYPES, EVAL_BATCHES_MERGED, computing
from touchstone.packed.unpadded import Unpadded
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import Columns, FeatureRows, Pipeline
from touchstone.records.rates import measure_rates
from touchstone.runs.isolation import Message, Send
from touchstone.sources import Access, open_source
from touchstone.specs.spec import Spec, load_spec
from touchstone.suite.throughput.steps import Delegating, first_rows

EVALUATION_WAYS = ("course:fp32", "loop:fp32", "packed:fp32", "packed:bf16")
"""Whose evaluation, and in which precision; the first is what the others are judged against."""
EVALUATE = f"{__name__}:evaluate"
BATCHES = 4


def evaluate(payload: Message, send: Send) -> Message:
    """`seconds` of the whole, and what was predicted in them: `samples`, real `tokens`; where `count` asks for it, the
    seconds of the `floor` on this machine, None where it cannot be told.
    """
    spec = load_spec(payload["spec"], profile=payload["profile"])
    mirror = None if payload["mirror"] is None else Path(payload["mirror"])
    source = open_source(spec.data, spec.checkpoint, access=Access(mirror=mirror, dataset=None, checkpoint=None))
    pipeline = PIPELINES[spec.task](source, options=spec.options, seed=1)
    set_seed(1)
    way = Course if payload["engine"] == "course" else Engine
    part = FirstOfValidation(pipeline, rows=BATCHES * spec.eval_batch_size)
    rows = FeatureRows(part.columns("validation"))
    model = pipeline.model()
    flops = forward_flops(part, model) if payload["count"] else None
    predict = way(model, spec=spec, payload=payload).predict
    predict(part)  # finds memory for the longest batch, and kernels, made ready: a run evaluates more than once
    started = time.perf_counter()
    predict(part)
    seconds = time.perf_counter() - started
    rate = measure_rates("cpu", precision=payload["precision"], state_bytes=0).gemm if flops else None
    floor = flops / rate.per_second if flops and rate else None
    return {"seconds": [seconds], "samples": len(rows), "tokens": int(rows.lengths.sum()), "floor": floor}


def forward_flops(pipeline: Pipeline, model: PreTrainedModel) -> float | None:
    """Of the predictions for all validation examples, counted as those of training are; None where a model writes (how
    long it will, nobody knows before), or where they cannot be counted.
    """
    if model.config.is_encoder_decoder:
        return None
    rows = FeatureRows(pipeline.columns("validation"))
    batch = pipeline.collate([rows[0, index] for index in range(len(rows))], train=False)
    try:
        counter = ExampleCounter(pipeline, model, learns=False)
        return counter.total(rows, times=np.ones(len(rows), dtype=np.int64), items=batch["size"].items)
    except WorkError:
        return None


class FirstOfValidation(Delegating):
    """The first rows of the validation split."""

    def __init__(self, inner: Pipeline, *, rows: int) -> None:
        super().__init__(inner)
        self.rows = rows

    def columns(self, split: str) -> Columns:
        return first_rows(self.inner.columns(split), self.rows)


class Engine:
    """The evaluation of `loop` or of `packed`."""

    def __init__(self, model: PreTrainedModel, *, spec: Spec, payload: Message) -> None:
        self.size = spec.eval_batch_size
        self.model: torch.nn.Module = model
        if payload["engine"] == "packed":
            large_blocks_from_the_heap()  # as the engine does
            unpadded = Unpadded(model)
            computing(unpadded, recipe=spec.recipe, dtype=DTYPES[payload["precision"]])
            self.model, self.size = unpadded, EVAL_BATCHES_MERGED * self.size

    def predict(self, pipeline: FirstOfValidation) -> None:
        predict_share(pipeline, model=self.model, device=torch.device("cpu"), batch_size=self.size)


class Course:
    """What the course's notebooks call: `predict` for what they score, `evaluate` where they want the loss alone."""

    def __init__(self, model: PreTrainedModel, *, spec: Spec, payload: Message) -> None:
        self.size = spec.eval_batch_size
        self.model = model
        self.accepted = inspect.signature(model.forward).parameters.keys()

    def predict(self, pipeline: FirstOfValidation) -> None:
        rows = FeatureRows(pipeline.columns("validation"))
        writes = bool(self.model.config.is_encoder_decoder)
        search = getattr(pipeline.inner, "search", None)
        vocabulary = self.model.get_output_embeddings() is not None  # type: ignore[no-untyped-call]
        with tempfile.TemporaryDirectory() as nowhere:
            arguments = Seq2SeqTrainingArguments(
                output_dir=nowhere,
                use_cpu=True,
                per_device_eval_batch_size=self.size,
                predict_with_generate=writes,
                generation_num_beams=search.num_beams if search else None,
                generation_max_length=search.max_new_tokens + 1 if search else None,
                prediction_loss_only=vocabulary and not writes,
                remove_unused_columns=False,
                disable_tqdm=True,
                report_to="none",
            )

            def collate(features: list[Any]) -> dict[str, Any]:
                batch = pipeline.collate(features, train=False)
                given = {name: batch[name] for name in batch if name in self.accepted}
                if writes:
                    del given["decoder_input_ids"]  # the model makes them of the labels
                return given

            trainer = Seq2SeqTrainer(self.model, arguments, data_collator=collate)
            trainer.predict([rows[0, index] for index in range(len(rows))])  # type: ignore[arg-type]
