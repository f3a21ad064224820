"""The minimum work of a run: equal to formulas by hand, and without side effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import set_seed

from tests.support.tiny_seq2seq_source import SPECIAL as SEQ2SEQ_SPECIAL
from tests.support.tiny_seq2seq_source import WORDS as SEQ2SEQ_WORDS
from tests.support.tiny_seq2seq_source import TinyPairs
from tests.support.tiny_source import NAMES, TinySource, tiny_tokenizer
from touchstone.engines import engine_names, load_engine
from touchstone.engines.training import Execution, Recipe, TrainingRun
from touchstone.engines.work import (
    ADAMW_BYTES,
    EXACT,
    ExampleCounter,
    WorkError,
    minimum_work,
    pairs,
    times_trained,
)
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import FeatureRows, Pipeline
from touchstone.sources import MicroworldCheckpoint, MicroworldData, open_source

OPTIONS: dict[str, dict[str, Any]] = {
    "token-classification": {"max_length": 64},
    "masked-lm": {"chunk_length": 16, "tail": "keep", "probe": "ada likes [MASK] ."},
    "question-answering": {"max_length": 24, "stride": 4},
    "translation": {"max_length": 16},
    "summarization": {"max_source_length": 48, "max_target_length": 16},
    "causal-lm": {"context_length": 32, "remainder": "keep", "prompts": ["import"], "new_tokens": 2},
}
H, LAYERS = 16, 2


def pipeline(task: str, source: Any = None) -> Pipeline:
    kind = PIPELINES[task]
    return kind(source or TinySource(hidden=H, layers=LAYERS), options=kind.Options(**OPTIONS[task]), seed=3)


def microworld(architecture: Any, **sizes: Any) -> Any:
    family: Any = "byte-bpe" if architecture == "gpt2" else "wordpiece"
    checkpoint = MicroworldCheckpoint(
        architecture=architecture, layers=LAYERS, hidden=H, heads=2, tokenizer=family, **sizes
    )
    return open_source(MicroworldData(train=6, validation=2), checkpoint)


def count(pipe: Pipeline, index: int, *, items: int) -> int:
    counter = ExampleCounter(pipe, pipe.model())
    return counter.count(FeatureRows(pipe.columns("train")), index, items=items)


def length(pipe: Pipeline, index: int, column: str = "input_ids") -> int:
    return len(pipe.columns("train")[column][index])


# Compared with formulas by hand: 6 FLOPs per weight and token, 12 per pair of tokens and feature ----------------------

BERT_LAYER = 4 * H * H + 2 * H * 2 * H
"""Weights of queries, keys, values and output, and of the two feed-forward matrices (twice as wide in `TinySource`)."""


@pytest.mark.parametrize("index", [0, 1, 2, 7])
def test_bert_takes_6_flops_per_weight_and_token_and_12_per_pair_and_feature(index: int) -> None:
    pipe = pipeline("token-classification")
    t = length(pipe, index)

    assert 6 * t * (LAYERS * BERT_LAYER + H * len(NAMES)) + 12 * LAYERS * t * t * H == count(pipe, index, items=5)


@pytest.mark.parametrize("items", [0, 1, 3])
def test_the_layer_over_the_vocabulary_counts_only_at_labelled_positions(items: int) -> None:
    pipe = pipeline("masked-lm")
    t = length(pipe, 0)
    head = H * H + H * len(tiny_tokenizer())

    assert count(pipe, 0, items=items) == 6 * (t * LAYERS * BERT_LAYER + items * head) + 12 * LAYERS * t * t * H


def test_question_answering_has_two_logits_per_token() -> None:
    pipe = pipeline("question-answering")
    t = length(pipe, 0)

    assert count(pipe, 0, items=1) == 6 * t * (LAYERS * BERT_LAYER + 2 * H) + 12 * LAYERS * t * t * H


def test_gpt2_counts_half_of_the_pairs() -> None:
    pipe = pipeline("causal-lm", microworld("gpt2"))
    t = length(pipe, 0)
    body = 6 * t * LAYERS * 12 * H * H
    attention = 12 * LAYERS * H * t * (t + 1) // 2
    head = 6 * (t - 1) * H * pipe.model().config.vocab_size  # the first token is not predicted

    assert count(pipe, 0, items=t - 1) == body + attention + head


@pytest.mark.parametrize("architecture", ["marian", "t5"])
@pytest.mark.parametrize("index", [0, 3])
def test_an_encoder_decoder_takes_sources_targets_and_their_product(architecture: Any, index: int) -> None:
    pipe = pipeline("translation", TinyPairs(architecture=architecture))
    s, t = length(pipe, index), length(pipe, index, "labels")
    vocabulary = len(SEQ2SEQ_SPECIAL) + len(SEQ2SEQ_WORDS)
    feed_forward = 2 * 16 * 32
    encoder = 6 * s * (4 * 16 * 16 + feed_forward) + 12 * 16 * s * s
    decoder = 6 * t * (4 * 16 * 16 + feed_forward) + 12 * 16 * t * (t + 1) // 2
    across = 6 * (t * 2 * 16 * 16 + s * 2 * 16 * 16) + 12 * 16 * s * t

    assert count(pipe, index, items=t) == encoder + decoder + across + 6 * t * 16 * vocabulary


@pytest.mark.parametrize("task", ["token-classification", "masked-lm", "question-answering", "causal-lm"])
def test_forward_is_a_third_of_forward_and_backward(task: str) -> None:
    """Each matrix product has two gradients, and each takes as many FLOPs."""
    pipe = pipeline(task, microworld("gpt2") if task == "causal-lm" else None)
    rows = FeatureRows(pipe.columns("validation"))
    both, forward = (ExampleCounter(pipe, pipe.model(), learns=learns) for learns in (True, False))

    assert both.count(rows, 0, items=3) == 3 * forward.count(rows, 0, items=3)
    assert both.count(rows, 0, items=0) == 3 * forward.count(rows, 0, items=0)


def test_a_sliding_window_counts_only_the_pairs_within_it() -> None:
    pipe = pipeline("masked-lm", microworld("modernbert"))
    config = pipe.model().config
    t = length(pipe, 0)
    near = sum(abs(i - j) <= config.local_attention // 2 for i in range(t) for j in range(t))
    layer = 4 * H * H + 3 * H * config.intermediate_size  # the feed-forward layer is gated

    assert count(pipe, 0, items=0) == 6 * t * LAYERS * layer + 12 * H * (near + t * t)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 3, 50])
def test_pairs_counts_the_pairs_that_can_see_each_other(causal: bool, window: int | None) -> None:
    def sees(i: int, j: int) -> bool:
        return (not causal or j <= i) and (window is None or abs(i - j) < window)

    for n in (1, 2, 7, 12):
        assert sum(sees(i, j) for i in range(n) for j in range(n)) == pairs(n, n, causal=causal, window=window)


def test_counts_equal_those_of_torch_with_data_and_eager_attention() -> None:
    pipe = pipeline("token-classification")
    rows = FeatureRows(pipe.columns("train"))
    model = pipe.model()
    counter = ExampleCounter(pipe, model)
    model.set_attn_implementation("eager")

    for index in (0, 1, 5):
        with FlopCounterMode(display=False) as found:
            pipe.loss(model, pipe.collate([rows[0, index]], train=True)).backward()
        assert found.get_total_flops() == counter.count(rows, index, items=0)


# Sums over what was trained -------------------------------------------------------------------------------------------

SOURCES: dict[str, Any] = {
    "token-classification": lambda: TinySource(train=12),
    "masked-lm": lambda: microworld(
        "modernbert"
    ),  # chunks of 16 tokens, a window of 5, and one last chunk that is shorter
    "question-answering": lambda: TinySource(train=8),
    "translation": lambda: TinyPairs(train=12),
    "summarization": lambda: TinyPairs(architecture="t5", train=12),
    "causal-lm": lambda: microworld("gpt2"),
}


@pytest.mark.parametrize("task", SOURCES)
def test_total_equals_the_sum_over_single_examples(task: str) -> None:
    pipe = pipeline(task, SOURCES[task]())
    rows = FeatureRows(pipe.columns("train"))
    counter = ExampleCounter(pipe, pipe.model())
    times = np.zeros(len(rows), dtype=np.int64)
    times[:6], times[-2:] = (1, 2, 0, 1, 3, 1), (1, 2)  # the last one of chunks is shorter than the others
    one_by_one = sum(int(times[i]) * counter.count(rows, i, items=0) for i in np.flatnonzero(times).tolist())
    head = counter.count(rows, 0, items=1) - counter.count(rows, 0, items=0)

    assert one_by_one + 1000 * head == pytest.approx(counter.total(rows, times=times, items=1000), rel=EXACT)
    assert (head > 0) == (task not in ("token-classification", "question-answering"))


def train(pipe: Pipeline, *, engine: str = "loop", seed: int = 5, **values: Any) -> TrainingRun:
    recipe = Recipe(**{"epochs": 1, "batch_size": 4, "learning_rate": 1e-3} | values)
    return load_engine(engine).train(pipe, recipe=recipe, execution=Execution(seed=seed))


@pytest.mark.parametrize("engine", engine_names())
@pytest.mark.parametrize("values", [{"epochs": 2}, {"epochs": 1.5}, {"epochs": 2, "stop_after": 13}], ids=str)
def test_times_trained_gives_the_examples_of_a_run(engine: str, values: dict[str, Any]) -> None:
    pipe = pipeline("token-classification")
    run = train(pipe, engine=engine, **values)
    rows = FeatureRows(pipe.columns("train"))
    times = times_trained(len(rows), samples=run.trajectory[-1].samples, seed=5)

    assert int(times @ rows.lengths) == run.tokens


def test_minimum_work_counts_examples_labels_and_steps() -> None:
    pipe = pipeline("masked-lm")
    run = train(pipe, epochs=2)
    rows = FeatureRows(pipe.columns("train"))
    assert run.model is not None
    counter = ExampleCounter(pipe, run.model)
    hidden = sum(
        pipe.collate([rows[epoch, i]], train=True)["size"].items for epoch in range(2) for i in range(len(rows))
    )
    work = minimum_work(pipe, run, seed=5)

    assert hidden == run.items > 0
    assert counter.total(rows, times=np.full(len(rows), 2), items=hidden) == work.flops
    assert ADAMW_BYTES * run.parameters * len(run.trajectory) == work.optimizer_bytes
    assert 16 * run.parameters == work.state_bytes


def test_minimum_work_ignores_frozen_parameters_in_the_optimizer() -> None:
    pipe = pipeline("translation", TinyPairs())  # Marian computes its positions
    run = train(pipe)
    assert run.model is not None
    frozen = sum(p.numel() for p in run.model.parameters() if not p.requires_grad)

    assert frozen > 0
    assert minimum_work(pipe, run, seed=5).state_bytes == 16 * (run.parameters - frozen)


# Side effects and refusals -------------------------------------------------------------------------------------------


def test_counting_changes_neither_model_nor_gradients_nor_generator() -> None:
    pipe = pipeline("masked-lm")
    model = pipe.model().train()
    rows = FeatureRows(pipe.columns("train"))
    set_seed(11)
    pipe.loss(model, pipe.collate([rows[0, 0]], train=True)).backward()
    before = {name: (p.clone(), None if p.grad is None else p.grad.clone()) for name, p in model.named_parameters()}
    attention, generator = model.config._attn_implementation, torch.get_rng_state()
    torch.use_deterministic_algorithms(True)
    try:
        ExampleCounter(pipe, model).total(rows, times=np.ones(len(rows), dtype=np.int64), items=7)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)

    assert torch.equal(generator, torch.get_rng_state())
    assert (model.config._attn_implementation, model.training) == (attention, True)
    for name, parameter in model.named_parameters():
        value, gradient = before[name]
        assert torch.equal(value, parameter)
        assert (gradient is None) == (parameter.grad is None)
        assert gradient is None or torch.equal(gradient, parameter.grad)


def test_total_refuses_a_model_whose_flops_are_not_a_polynomial_of_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipeline("token-classification", TinySource(train=40))
    rows = FeatureRows(pipe.columns("train"))
    counter = ExampleCounter(pipe, pipe.model())
    exact = counter.count
    monkeypatch.setattr(counter, "count", lambda rows, i, *, items: exact(rows, i, items=items) + rows.lengths[i] ** 3)

    with pytest.raises(WorkError, match="polynomial"):
        counter.total(rows, times=np.ones(len(rows), dtype=np.int64), items=0)


def test_example_counter_refuses_attention_it_cannot_count(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipeline("token-classification")
    model = pipe.model()

    def refuse(self: Any, name: str) -> None:
        raise ValueError("not this one")

    monkeypatch.setattr(type(model), "set_attn_implementation", refuse)

    with pytest.raises(WorkError, match=r"BertForTokenClassification does not use .* interface.*not this one"):
        ExampleCounter(pipe, model)


def test_minimum_work_refuses_a_run_without_steps() -> None:
    with pytest.raises(WorkError, match="no step"):
        minimum_work(pipeline("token-classification"), TrainingRun(), seed=0)
