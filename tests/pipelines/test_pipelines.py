"""The pipelines: what they hand to an engine, and how they score."""

from __future__ import annotations

import math
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import set_seed

from tests.support.tiny_source import NAMES, TinySource
from touchstone.pipelines import PIPELINES, MaskedLM, TokenClassification
from touchstone.pipelines.masked_lm import MaskedPrediction
from touchstone.pipelines.pipeline import Feature, FeatureRows, Pipeline
from touchstone.pipelines.token_classification import TokenPrediction
from touchstone.sources.source import SourceError
from touchstone.stages import align_labels, mask_tokens
from touchstone.stages.ragged import Ragged

IGNORED = -100


def tagger(source: TinySource | None = None, **options: Any) -> TokenClassification:
    pipeline = TokenClassification(
        source or TinySource(), options=TokenClassification.Options(**{"max_length": 64} | options), seed=0
    )
    return pipeline


def filler(source: TinySource | None = None, *, seed: int = 0, **options: Any) -> MaskedLM:
    options = {"chunk_length": 16, "probe": "ada likes [MASK] ."} | options
    return MaskedLM(source or TinySource(), options=MaskedLM.Options(**options), seed=seed)


def features(pipeline: Pipeline, split: str, indices: list[int], *, epoch: int = 0) -> list[Feature]:
    rows = FeatureRows(pipeline.columns(split))
    return [rows[epoch, index] for index in indices]


def test_tasks_are_found_by_name() -> None:
    assert {"token-classification": TokenClassification, "masked-lm": MaskedLM}.items() <= PIPELINES.items()
    assert all(name == kind.task for name, kind in PIPELINES.items())


@pytest.mark.parametrize("task", PIPELINES)
def test_unknown_options_are_refused(task: str) -> None:
    with pytest.raises(ValidationError, match="no_such_key"):
        PIPELINES[task].Options(no_such_key=1)  # type: ignore[call-arg]


# Token classification -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["all", "first"])
def test_columns_are_the_plain_alignment_of_every_sentence(strategy: str) -> None:
    source = TinySource(validation=30)
    pipeline = tagger(source, strategy=strategy)
    tokenizer = source.tokenizer()
    columns = pipeline.columns("validation")

    for i, example in enumerate(source.examples("validation", columns=("words", "tags"))):
        encoding = tokenizer(example["words"], is_split_into_words=True)
        expected = align_labels(example["tags"], word_ids=encoding.word_ids(), names=NAMES, strategy=strategy)
        assert columns["input_ids"][i].tolist() == encoding["input_ids"]
        assert columns["labels"][i].tolist() == expected


def test_the_batch_size_counts_what_the_batch_holds() -> None:
    pipeline = tagger()
    batch = pipeline.collate(features(pipeline, "train", [0, 1, 2]), train=True)

    lengths = [len(pipeline.columns("train")["input_ids"][i]) for i in range(3)]
    assert (3, int((batch["labels"] != IGNORED).sum()), sum(lengths), 3 * max(lengths)) == batch["size"]


def gold_predictions(pipeline: TokenClassification) -> list[TokenPrediction]:
    labels = pipeline.columns("validation")["labels"]
    assert isinstance(labels, Ragged)
    return [TokenPrediction(np.where(row == IGNORED, 0, row), 0.0, int((row != IGNORED).sum())) for row in labels]


def scores(pipeline: Pipeline, predictions: Any) -> dict[str, Any]:
    return {score.name: score for score in pipeline.score(predictions)}


@pytest.mark.parametrize("strategy", ["all", "first"])
def test_gold_labels_score_one(strategy: str) -> None:
    pipeline = tagger(strategy=strategy)
    result = scores(pipeline, gold_predictions(pipeline))

    perfect = {"f1", "precision", "recall", "accuracy", "token_f1", "token_accuracy"}
    assert {result[name].value for name in perfect} == {1.0}
    assert next(iter(result)) == "f1"


def test_entities_cut_off_by_truncation_are_misses() -> None:
    long = [["ada", "sees", "oslo", ".", "grace", "likes", "rio", "."]], [[1, 0, 3, 0, 1, 0, 3, 0]]
    pipeline = tagger(TinySource(validation=0, extra=long), max_length=6)  # [CLS] ada sees oslo . [SEP]
    result = scores(pipeline, gold_predictions(pipeline))

    assert (result["precision"].value, result["recall"].value, result["recall"].n) == (1.0, 0.5, 4)
    assert result["token_f1"].value == 1.0  # what the course computes does not see them


def test_the_tokenizer_says_how_long_an_example_may_be_where_the_options_do_not() -> None:
    pipeline = tagger(max_length=None)
    with pytest.raises(SourceError, match="max_length"):
        pipeline.columns("train")
    pipeline.tokenizer.model_max_length = 7

    assert pipeline.columns("train")["input_ids"].lengths.max() == 7


def test_words_without_tokens_are_scored_as_no_entity() -> None:
    odd = [["ada", "\u200d", "sees", ""], [], ["\u200d"]], [[1, 2, 0, 0], [], [1]]
    pipeline = tagger(TinySource(validation=0, extra=odd))
    result = scores(pipeline, gold_predictions(pipeline))

    # Gold: the entity of words 0 and 1, and the one nobody can see. Found: word 0 alone.
    assert (result["f1"].value, result["f1"].n) == (0.0, 2)
    assert result["accuracy"].value == pytest.approx(3 / 5)  # 3 of 5 words: ada, sees, and the empty one


def test_the_loss_weighs_tokens_not_batches() -> None:
    pipeline = tagger()
    predictions = [p._replace(loss=0.5 * p.items) for p in gold_predictions(pipeline)]
    predictions[0] = predictions[0]._replace(loss=predictions[0].loss + 7.0)
    items = sum(p.items for p in predictions)

    assert scores(pipeline, predictions)["loss"].value == pytest.approx(0.5 + 7.0 / items)


def test_signatures_tell_apart_what_is_not_comparable() -> None:
    signatures = set()
    for strategy in ("all", "first"):
        pipeline = tagger(strategy=strategy)
        result = scores(pipeline, gold_predictions(pipeline))
        signatures |= {result["f1"].signature, result["token_f1"].signature}

    assert len(signatures) == 4


def test_predictions_that_do_not_fit_the_examples_are_refused() -> None:
    pipeline = tagger()
    with pytest.raises(ValueError, match="do not fit"):
        pipeline.score(gold_predictions(pipeline)[:-1])


def test_predictions_of_a_batch_are_those_of_its_examples_alone() -> None:
    pipeline = tagger()
    set_seed(0)
    model = pipeline.model().eval()
    rows = features(pipeline, "validation", [0, 1, 2, 3])
    with torch.inference_mode():
        together = pipeline.predict(model, pipeline.collate(rows, train=False))
        alone = [pipeline.predict(model, pipeline.collate([row], train=False))[0] for row in rows]

    for expected, got in zip(alone, together, strict=True):
        assert expected.labels.tolist() == got.labels.tolist()
        assert got.items == expected.items
        # A sum of some 20 float32 terms of about 2 nats, each rounded to 2e-7 of itself.
        assert got.loss == pytest.approx(expected.loss, abs=1e-4)


class ForeignLabels(TinySource):
    """A source whose splits disagree in, or lack, their labels."""

    def __init__(self, names: list[str] | None) -> None:
        super().__init__()
        self.names = names

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        data = super().examples(split, columns=columns)
        label = datasets.Value("int64") if self.names is None else datasets.ClassLabel(names=self.names)
        return data if split == "train" else data.cast_column("tags", datasets.List(label))


@pytest.mark.parametrize(("names", "message"), [(None, "ClassLabel"), (NAMES[::-1], "another split")])
def test_labels_without_names_or_of_other_names_are_refused(names: list[str] | None, message: str) -> None:
    pipeline = tagger(ForeignLabels(names))
    pipeline.columns("train")
    with pytest.raises(SourceError, match=message):
        pipeline.columns("validation")


class OddLabels(TinySource):
    """A source that calls its labels something else, in both splits alike."""

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        odd = datasets.List(datasets.ClassLabel(names=["0", *NAMES[1:]]))
        return super().examples(split, columns=columns).cast_column("tags", odd)


def test_labels_that_do_not_fit_the_scheme_are_refused_with_the_split() -> None:
    with pytest.raises(SourceError, match=r"labels of split 'train', 0, B-.* names\[0\] is '0', not a tag of IOB2"):
        tagger(OddLabels()).columns("train")


# Masked language modeling ---------------------------------------------------------------------------------------------


def test_chunks_are_the_documents_in_a_row_with_their_special_tokens() -> None:
    source = TinySource()
    pipeline = filler(source, tail="keep")
    texts = source.examples("validation", columns=("text",))["text"]
    expected = [token for text in texts for token in source.tokenizer()(text)["input_ids"]]

    assert pipeline.columns("validation")["input_ids"].values.tolist() == expected


def test_validation_chunks_are_drawn_from_train_as_the_course_draws_them() -> None:
    everything = filler().columns("train")["input_ids"]
    pipeline = filler(train_chunks=10, validation_chunks=4, split_seed=42)
    expected = datasets.Dataset.from_dict({"i": range(len(everything))}).train_test_split(
        train_size=10, test_size=4, seed=42
    )
    for split, part in (("train", "train"), ("validation", "test")):
        chunks = pipeline.columns(split)["input_ids"]
        assert [everything[i].tolist() for i in expected[part]["i"]] == [chunk.tolist() for chunk in chunks]


def test_too_many_chunks_asked_for_is_an_error_that_says_how_many_there_are() -> None:
    with pytest.raises(SourceError, match="ask for 100000"):
        filler(train_chunks=100_000).columns("train")


def test_text_shorter_than_a_chunk_is_an_error() -> None:
    with pytest.raises(SourceError, match="less than one chunk"):
        filler(chunk_length=100_000).columns("train")


@pytest.mark.parametrize("whole_word", [False, True])
def test_training_masks_are_the_plain_masks_of_seed_epoch_and_example(whole_word: bool) -> None:
    pipeline = filler(seed=5, whole_word=whole_word, rate=0.4)
    columns = pipeline.columns("train")
    batch = pipeline.collate(features(pipeline, "train", [3, 1], epoch=2), train=True)

    for row, index in enumerate([3, 1]):
        expected_ids, expected_labels = mask_tokens(
            columns["input_ids"][index].tolist(),
            special=columns["special_tokens_mask"][index].tolist(),
            mask_id=pipeline.tokenizer.mask_token_id,
            vocabulary=pipeline.vocabulary,
            rate=0.4,
            word_ids=[None if w < 0 else w for w in columns["word_ids"][index].tolist()] if whole_word else None,
            seed=5,
            epoch=3,  # the third epoch of training: 0 is evaluation's
            example=index,
        )
        assert list(expected_ids) == batch["input_ids"][row].tolist()
        assert list(expected_labels) == batch["labels"][row].tolist()


def test_evaluation_masks_depend_on_the_example_alone() -> None:
    one, other = filler(seed=1), filler(seed=2)
    expected = one.collate(features(one, "validation", [0, 1, 2]), train=False)
    got = other.collate(features(other, "validation", [2, 0], epoch=7), train=False)

    assert expected["labels"][[2, 0]].tolist() == got["labels"].tolist()
    assert expected["input_ids"][[2, 0]].tolist() == got["input_ids"].tolist()


def test_training_masks_change_with_the_epoch() -> None:
    pipeline = filler(rate=0.4)
    first, second = (
        pipeline.collate(features(pipeline, "train", list(range(8)), epoch=epoch), train=True) for epoch in (0, 1)
    )

    assert first["labels"].tolist() != second["labels"].tolist()


def test_a_batch_of_two_epochs_is_refused() -> None:
    pipeline = filler()
    mixed = features(pipeline, "train", [0]) + features(pipeline, "train", [1], epoch=1)
    with pytest.raises(ValueError, match="one epoch"):
        pipeline.collate(mixed, train=True)


def test_the_masked_loss_is_that_of_the_models_own_head() -> None:
    pipeline = filler(TinySource(dropout=0.0))
    set_seed(0)
    model = pipeline.model()
    batch = pipeline.collate(features(pipeline, "train", [0, 1, 2, 3]), train=True)
    own = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss

    # Two float32 sums of a dozen terms in another order.
    assert pipeline.loss(model, batch).item() / batch["size"].items == pytest.approx(own.item(), rel=1e-5)


def test_perplexity_is_exp_of_the_token_weighted_mean() -> None:
    pipeline = filler()
    n = len(pipeline.columns("validation")["input_ids"])
    predictions = [MaskedPrediction(loss=3.0, right=1, items=1)] + [MaskedPrediction(0.0, 0, 0)] * (n - 2)
    result = scores(pipeline, [*predictions, MaskedPrediction(loss=1.0, right=0, items=3)])

    assert result["perplexity"].value == pytest.approx(math.e)
    assert (result["loss"].value, result["masked_accuracy"].value, result["loss"].n) == (1.0, 0.25, 4)


def test_no_hidden_token_at_all_is_an_error() -> None:
    pipeline = filler(rate=0.0)
    n = len(pipeline.columns("validation")["input_ids"])
    with pytest.raises(ValueError, match="rate 0"):
        pipeline.score([MaskedPrediction(0.0, 0, 0)] * n)


def test_the_probe_shows_five_fillings_and_their_probabilities() -> None:
    pipeline = filler()
    set_seed(0)
    model = pipeline.model().train()
    lines = pipeline.sample_outputs(model)

    assert len(lines) == 5
    assert model.training
    assert pipeline.sample_outputs(model) == lines  # no dropout
    probabilities = [float(line.split()[0]) for line in lines]
    assert sorted(probabilities, reverse=True) == probabilities
    assert all(line.split(maxsplit=1)[1].startswith("ada likes") for line in lines)


@pytest.mark.parametrize("probe", ["no mask", "[MASK] and [MASK]"])
def test_a_probe_without_exactly_one_mask_is_refused(probe: str) -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        MaskedLM.Options(probe=probe)
