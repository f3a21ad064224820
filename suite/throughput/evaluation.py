"""Time evaluation: the same untrained model predicts the same validation examples in several ways, taking turns.

Each way runs in its own process. The course uses transformers.Trainer: examples in the order of the data, padded to the
longest of each batch. An engine uses its `evaluate`: by default the longest examples come first, and `packed` computes
without padding. Preparing the data and scoring are not timed; an engine's changes to the model are. The floor is the
time of the forward arithmetic of these examples, without padding, at this machine's rate of matrix products.
"""

from __future__ import annotations

import inspect
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, Seq2SeqTrainer, Seq2SeqTrainingArguments, set_seed

from touchstone.engines import load_engine
from touchstone.engines.training import Execution
from touchstone.engines.work import ExampleCounter, WorkError
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import Columns, FeatureRows, Pipeline
from touchstone.pipelines.seq2seq import Seq2Seq
from touchstone.records.rates import measure_rates
from touchstone.runs.isolation import Message, Send
from touchstone.sources import Access, open_source
from touchstone.specs.spec import load_spec
from touchstone.suite.throughput.steps import Delegating, first_rows

EVALUATION_WAYS = ("course:fp32", "loop:fp32", "packed:fp32", "packed:bf16")
"""Engine and precision. The others are compared with the first."""
EVALUATE = f"{__name__}:evaluate"
BATCHES = 4
"""Batches of validation examples to predict."""


def evaluate(payload: Message, send: Send) -> Message:
    """Return the `seconds` of the evaluation, its `samples` and real `tokens`, and its `floor` in seconds.

    The floor is None if `count` is false or the arithmetic cannot be counted.
    """
    spec = load_spec(payload["spec"], profile=payload["profile"])
    mirror = None if payload["mirror"] is None else Path(payload["mirror"])
    source = open_source(spec.data, spec.checkpoint, access=Access(mirror=mirror, dataset=None, checkpoint=None))
    pipeline = PIPELINES[spec.task](source, options=spec.options, seed=1)
    set_seed(1)
    part = FirstOfValidation(pipeline, rows=BATCHES * spec.eval_batch_size)
    rows = FeatureRows(part.columns("validation"))
    model = pipeline.model()
    flops = forward_flops(part, model) if payload["count"] else None
    execution = Execution(seed=1, precision=payload["precision"], eval_batch_size=spec.eval_batch_size)
    predict = evaluate_as_the_course if payload["engine"] == "course" else load_engine(payload["engine"]).evaluate
    predict(part, model, execution=execution)  # warm up: a run evaluates more than once
    started = time.perf_counter()
    predict(part, model, execution=execution)
    seconds = time.perf_counter() - started
    rate = measure_rates("cpu", precision=payload["precision"], state_bytes=0).gemm if flops else None
    floor = flops / rate.per_second if flops and rate else None
    return {"seconds": [seconds], "samples": len(rows), "tokens": int(rows.lengths.sum()), "floor": floor}


def forward_flops(pipeline: Pipeline, model: PreTrainedModel) -> float | None:
    """Return the FLOPs of predicting all validation examples, counted as for training.

    None for models that generate text, whose length is not known in advance, and for models that cannot be counted.
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


def evaluate_as_the_course(pipeline: Pipeline, model: PreTrainedModel, *, execution: Execution) -> list[Any]:
    """Evaluate as the course's notebooks do: predictions for tasks that score them, otherwise only the loss.

    Returns:
        nothing: the predictions of Trainer have another form.
    """
    assert isinstance(pipeline, FirstOfValidation)
    rows = FeatureRows(pipeline.columns("validation"))
    accepted = inspect.signature(model.forward).parameters.keys()
    generates = bool(model.config.is_encoder_decoder)
    search = pipeline.inner.generation_config if isinstance(pipeline.inner, Seq2Seq) else None
    vocabulary = model.get_output_embeddings() is not None  # type: ignore[no-untyped-call]

    def collate(features: list[Any]) -> dict[str, Any]:
        batch = pipeline.collate(features, train=False)
        given = {name: batch[name] for name in batch if name in accepted}
        if generates:
            del given["decoder_input_ids"]  # the model makes them from the labels
        return given

    with tempfile.TemporaryDirectory() as nowhere:
        arguments = Seq2SeqTrainingArguments(
            output_dir=nowhere,
            use_cpu=True,
            per_device_eval_batch_size=execution.eval_batch_size,
            predict_with_generate=generates,
            generation_num_beams=search.num_beams if search else None,
            generation_max_length=search.max_new_tokens + 1 if search else None,
            prediction_loss_only=vocabulary and not generates,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to="none",
        )
        trainer = Seq2SeqTrainer(model, arguments, data_collator=collate)
        trainer.predict([rows[0, index] for index in range(len(rows))])  # type: ignore[arg-type]
    return []
