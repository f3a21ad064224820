"""The token classification pipeline: alignment, batches, predictions and entity scores."""

from __future__ import annotations

import doctest

import datasets
import numpy as np
import pytest
import torch

from tests.support.tiny_pipelines import batch_of, column, scores_by_name, tiny_token_classification, untrained
from tests.support.tiny_source import NAMES, TinySource
from touchstone.pipelines import TokenClassification, token_classification
from touchstone.pipelines.token_classification import TokenPrediction
from touchstone.sources.source import SourceError
from touchstone.stages import align_labels

IGNORED = -100


def test_the_example_in_the_docstring_trains_a_token_classifier() -> None:
    failed, attempted = doctest.testmod(token_classification)
    assert attempted > 0
    assert failed == 0


@pytest.mark.parametrize("strategy", ["all", "first"])
def test_columns_equal_the_plain_alignment_of_each_sentence(strategy: str) -> None:
    source = TinySource(validation=30)
    pipeline = tiny_token_classification(source, strategy=strategy)
    tokenizer = source.tokenizer()
    columns = pipeline.columns("validation")

    for i, example in enumerate(source.examples("validation", columns=("words", "tags"))):
        encoding = tokenizer(example["words"], is_split_into_words=True)
        expected = align_labels(example["tags"], word_ids=encoding.word_ids(), names=NAMES, strategy=strategy)
        assert columns["input_ids"][i].tolist() == encoding["input_ids"]
        assert columns["labels"][i].tolist() == expected


def test_collate_counts_the_batch_size() -> None:
    pipeline = tiny_token_classification()
    batch = batch_of(pipeline, [0, 1, 2])

    lengths = [len(pipeline.columns("train")["input_ids"][i]) for i in range(3)]
    assert batch["size"] == (3, int((batch["labels"] != IGNORED).sum()), sum(lengths), 3 * max(lengths))


def gold_predictions(pipeline: TokenClassification) -> list[TokenPrediction]:
    labels = column(pipeline, "validation", "labels")
    return [TokenPrediction(np.where(row == IGNORED, 0, row), 0.0, int((row != IGNORED).sum())) for row in labels]


@pytest.mark.parametrize("strategy", ["all", "first"])
def test_score_of_the_gold_labels_is_one(strategy: str) -> None:
    pipeline = tiny_token_classification(strategy=strategy)
    result = scores_by_name(pipeline, gold_predictions(pipeline))

    perfect = {"f1", "precision", "recall", "accuracy", "token_f1", "token_accuracy"}
    assert {result[name].value for name in perfect} == {1.0}
    assert next(iter(result)) == "f1"


def test_score_counts_truncated_entities_as_misses() -> None:
    long = [["ada", "sees", "oslo", ".", "grace", "likes", "rio", "."]], [[1, 0, 3, 0, 1, 0, 3, 0]]
    source = TinySource(validation=0, extra=long)
    pipeline = tiny_token_classification(source, max_length=6)  # [CLS] ada sees oslo . [SEP]
    result = scores_by_name(pipeline, gold_predictions(pipeline))

    assert (result["precision"].value, result["recall"].value, result["recall"].n) == (1.0, 0.5, 4)
    assert result["token_f1"].value == 1.0  # the course's metric misses them


def test_max_length_defaults_to_the_tokenizers_limit() -> None:
    pipeline = tiny_token_classification(max_length=None)
    with pytest.raises(SourceError, match="max_length"):
        pipeline.columns("train")
    pipeline.tokenizer.model_max_length = 7

    assert pipeline.columns("train")["input_ids"].lengths.max() == 7


def test_score_counts_words_without_tokens_as_outside_entities() -> None:
    odd = [["ada", "\u200d", "sees", ""], [], ["\u200d"]], [[1, 2, 0, 0], [], [1]]
    pipeline = tiny_token_classification(TinySource(validation=0, extra=odd))
    result = scores_by_name(pipeline, gold_predictions(pipeline))

    # Gold: the entity of words 0 and 1, and an invisible one. Predicted: word 0 alone.
    assert (result["f1"].value, result["f1"].n) == (0.0, 2)
    assert result["accuracy"].value == pytest.approx(3 / 5)  # 3 of 5 words: ada, sees, and the empty one


def test_score_weights_the_loss_by_tokens() -> None:
    pipeline = tiny_token_classification()
    predictions = [p._replace(loss=0.5 * p.items) for p in gold_predictions(pipeline)]
    predictions[0] = predictions[0]._replace(loss=predictions[0].loss + 7.0)
    items = sum(p.items for p in predictions)

    assert scores_by_name(pipeline, predictions)["loss"].value == pytest.approx(0.5 + 7.0 / items)


def test_signatures_differ_between_strategies() -> None:
    signatures = set()
    for strategy in ("all", "first"):
        pipeline = tiny_token_classification(strategy=strategy)
        result = scores_by_name(pipeline, gold_predictions(pipeline))
        signatures |= {result["f1"].signature, result["token_f1"].signature}

    assert len(signatures) == 4


def test_score_refuses_predictions_that_do_not_match_the_examples() -> None:
    pipeline = tiny_token_classification()
    with pytest.raises(ValueError, match="do not match"):
        pipeline.score(gold_predictions(pipeline)[:-1])


def test_predict_gives_the_same_for_a_batch_as_for_single_examples() -> None:
    pipeline = tiny_token_classification()
    model = untrained(pipeline)
    with torch.inference_mode():
        together = pipeline.predict(model, batch_of(pipeline, range(4), split="validation"))
        alone = [pipeline.predict(model, batch_of(pipeline, [i], split="validation"))[0] for i in range(4)]

    for expected, got in zip(alone, together, strict=True):
        assert got.labels.tolist() == expected.labels.tolist()
        assert got.items == expected.items
        # A sum of about 20 float32 terms of about 2 nats, each with a relative rounding error of 2e-7.
        assert got.loss == pytest.approx(expected.loss, abs=1e-4)


class ForeignLabels(TinySource):
    """A source whose validation split has other label names than its train split, or none."""

    def __init__(self, names: list[str] | None) -> None:
        super().__init__()
        self.names = names

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        data = super().examples(split, columns=columns)
        label = datasets.Value("int64") if self.names is None else datasets.ClassLabel(names=self.names)
        return data if split == "train" else data.cast_column("tags", datasets.List(label))


@pytest.mark.parametrize(("names", "message"), [(None, "ClassLabel"), (NAMES[::-1], "another split")])
def test_columns_refuse_labels_without_names_or_with_other_names(names: list[str] | None, message: str) -> None:
    pipeline = tiny_token_classification(ForeignLabels(names))
    pipeline.columns("train")
    with pytest.raises(SourceError, match=message):
        pipeline.columns("validation")


class OddLabels(TinySource):
    """A source whose label names do not fit the scheme, in both splits."""

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        odd = datasets.List(datasets.ClassLabel(names=["0", *NAMES[1:]]))
        return super().examples(split, columns=columns).cast_column("tags", odd)


def test_columns_refuse_labels_that_do_not_fit_the_scheme() -> None:
    with pytest.raises(SourceError, match=r"labels of split 'train', 0, B-.* names\[0\] is '0', not a tag of IOB2"):
        tiny_token_classification(OddLabels()).columns("train")
