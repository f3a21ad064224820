"""The interface between tasks and engines: its helpers, its registry, and the task that its docstring shows."""

from __future__ import annotations

import textwrap
from typing import Any, ClassVar, NamedTuple

import datasets
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification

from tests.support.tiny_pipelines import tiny_token_classification
from tests.support.tiny_source import TinySource, tiny_tokenizer
from touchstone.engines import load_engine
from touchstone.engines.training import Execution, Recipe
from touchstone.pipelines import PIPELINES, pipeline
from touchstone.pipelines.pipeline import FeatureRows, Pipeline, cached_by_split, evaluating, pad_features, to_batch
from touchstone.pipelines.tokenizing import tokenize
from touchstone.stages import pad_seq2seq
from touchstone.stages.ragged import Ragged

PAD = 0


def test_pipelines_are_registered_by_the_name_of_their_task() -> None:
    assert len(PIPELINES) == 6
    assert all(name == kind.task for name, kind in PIPELINES.items())


@pytest.mark.parametrize("task", PIPELINES)
def test_options_refuse_unknown_keys(task: str) -> None:
    with pytest.raises(ValidationError, match="no_such_key"):
        PIPELINES[task].Options(no_such_key=1)  # type: ignore[call-arg]


class Reviews(TinySource):
    """Sentences with the label 1 if they have more than one clause."""

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        assert columns == ("text", "label")
        texts = list(super().examples(split, columns=("text",))["text"])
        return datasets.Dataset.from_dict({"text": texts, "label": [int(text.count(".") > 1) for text in texts]})


def example_task() -> type[Pipeline]:
    """The task in the docstring of the module."""
    _, _, rest = str(pipeline.__doc__).partition("::\n")
    code, _, _ = rest.partition("\nTo train it")
    names: dict[str, Any] = {
        **vars(pipeline),
        "AutoModelForSequenceClassification": AutoModelForSequenceClassification,
        "NamedTuple": NamedTuple,
        "cross_entropy": cross_entropy,
        "np": np,
        "tokenize": tokenize,
    }
    exec(textwrap.dedent(code), names)
    task: type[Pipeline] = names["ReviewClassification"]
    return task


@pytest.mark.parametrize("engine", ["loop", "trainer"])
def test_the_task_in_the_docstring_trains_on_the_engines(engine: str) -> None:
    kind = example_task()
    recipe = Recipe(epochs=4, batch_size=8, accumulation=2, learning_rate=1e-2)
    task = kind(Reviews(dropout=0.0), options=kind.Options(), seed=0)
    run = load_engine(engine).train(task, recipe=recipe, execution=Execution(seed=0))

    accuracy, loss = zip(*(evaluation.scores for evaluation in run.evaluations), strict=True)
    assert (accuracy[0].name, loss[0].name) == ("accuracy", "loss")
    assert loss[-1].value < loss[0].value
    assert accuracy[-1].value > accuracy[0].value


def test_collate_gives_the_batch_in_its_docstring() -> None:
    rows = [
        {"input_ids": [2, 9, 8, 3], "labels": [-100, 1, 0, -100], "example": 5, "epoch": 0},
        {"input_ids": [2, 7, 3], "labels": [-100, 3, -100], "example": 1, "epoch": 0},
    ]
    batch = tiny_token_classification().collate(rows, train=True)

    assert batch["input_ids"].tolist() == [[2, 9, 8, 3], [2, 7, 3, PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, 1, 0, -100], [-100, 3, -100, -100]]
    assert batch["size"]._asdict() == {"examples": 2, "items": 3, "tokens": 7, "padded_tokens": 8}


def test_feature_rows_add_example_and_epoch_to_a_row() -> None:
    rows = FeatureRows({"input_ids": Ragged.from_lists([[5], [6, 7]]), "label": np.array([0, 1])})
    feature = rows[3, 1]

    assert feature["input_ids"].tolist() == [6, 7]
    assert (feature["label"], feature["example"], feature["epoch"]) == (1, 1, 3)
    assert (len(rows), rows.lengths.tolist()) == (2, [1, 2])


def test_feature_rows_refuse_columns_of_different_sizes() -> None:
    with pytest.raises(ValueError, match=r"the same number of rows, got \{'a': 1, 'b': 2\}"):
        FeatureRows({"a": np.zeros(1), "b": np.zeros(2)})


def test_pad_features_masks_by_length_and_not_by_the_padding_id() -> None:
    rows = [{"input_ids": [5, PAD], "example": 0}, {"input_ids": [6, 7, 8], "example": 1}]
    arrays = pad_features(rows, names=("input_ids",), tokenizer=tiny_tokenizer())

    assert arrays.keys() == {"input_ids", "attention_mask"}
    assert arrays["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    left = pad_features(rows, names=("input_ids",), tokenizer=tiny_tokenizer(), side="left")
    assert left["input_ids"].tolist() == [[PAD, 5, PAD], [6, 7, 8]]
    assert to_batch(arrays, items=4)["size"] == (2, 4, 5, 6)


def test_pad_features_takes_another_stage_for_pairs() -> None:
    rows = [{"input_ids": [5, 6], "labels": [7]}, {"input_ids": [8], "labels": [9]}]
    arrays = pad_features(rows, names=("input_ids", "labels"), tokenizer=tiny_tokenizer(), pad=pad_seq2seq)

    assert (arrays["input_ids"].shape, arrays["labels"].shape) == ((2, 2), (2, 1))


def test_cached_by_split_computes_each_split_once_per_instance() -> None:
    class Counting:
        calls: ClassVar[list[str]] = []

        @cached_by_split
        def columns(self, split: str) -> list[str]:
            self.calls.append(split)
            return [split]

    one, other = Counting(), Counting()
    assert one.columns("train") is one.columns("train")
    assert one.columns("validation") == ["validation"]
    assert one.columns("train") is not other.columns("train")
    assert Counting.calls == ["train", "validation", "train"]


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_restores_the_mode_even_after_an_error(training: bool) -> None:
    model = torch.nn.Dropout().train(training)
    with evaluating(model):
        assert not model.training
        assert torch.is_inference_mode_enabled()
    assert model.training == training
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.training == training
