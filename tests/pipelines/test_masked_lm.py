"""The masked language modeling pipeline: chunks, masks, loss, scores and fillings."""

from __future__ import annotations

import math

import datasets
import pytest
from pydantic import ValidationError

from tests.support.tiny_pipelines import batch_of, features, scores_by_name, tiny_masked_lm, untrained
from tests.support.tiny_source import TinySource
from touchstone.pipelines import MaskedLM
from touchstone.pipelines.vocabulary import ChunkPrediction
from touchstone.sources.source import SourceError
from touchstone.stages import mask_tokens


def test_columns_concatenate_documents_with_their_special_tokens() -> None:
    source = TinySource()
    pipeline = tiny_masked_lm(source, tail="keep")
    texts = source.examples("validation", columns=("text",))["text"]
    expected = [token for text in texts for token in source.tokenizer()(text)["input_ids"]]

    assert pipeline.columns("validation")["input_ids"].values.tolist() == expected


def test_columns_draw_validation_chunks_from_train_as_the_course_does() -> None:
    everything = tiny_masked_lm().columns("train")["input_ids"]
    pipeline = tiny_masked_lm(train_chunks=10, validation_chunks=4, split_seed=42)
    expected = datasets.Dataset.from_dict({"i": range(len(everything))}).train_test_split(
        train_size=10, test_size=4, seed=42
    )
    for split, part in (("train", "train"), ("validation", "test")):
        chunks = pipeline.columns(split)["input_ids"]
        assert [chunk.tolist() for chunk in chunks] == [everything[i].tolist() for i in expected[part]["i"]]


def test_columns_refuse_more_chunks_than_there_are() -> None:
    with pytest.raises(SourceError, match=r"train split has \d+ chunks of 16 tokens, but .* need 100000: lower them"):
        tiny_masked_lm(train_chunks=100_000).columns("train")


def test_columns_refuse_text_shorter_than_a_chunk() -> None:
    with pytest.raises(SourceError, match="less than one chunk"):
        tiny_masked_lm(chunk_length=100_000).columns("train")


@pytest.mark.parametrize("whole_word", [False, True])
def test_collate_masks_by_seed_epoch_and_example_in_training(whole_word: bool) -> None:
    pipeline = tiny_masked_lm(seed=5, whole_word=whole_word, rate=0.4)
    columns = pipeline.columns("train")
    batch = batch_of(pipeline, [3, 1], epoch=2)

    for row, index in enumerate([3, 1]):
        expected_ids, expected_labels = mask_tokens(
            columns["input_ids"][index].tolist(),
            special=columns["special_tokens_mask"][index].tolist(),
            mask_id=pipeline.tokenizer.mask_token_id,
            vocabulary=pipeline.vocabulary,
            rate=0.4,
            word_ids=[None if w < 0 else w for w in columns["word_ids"][index].tolist()] if whole_word else None,
            seed=5,
            epoch=3,  # the third epoch of training; 0 is for evaluation
            example=index,
        )
        assert batch["input_ids"][row].tolist() == list(expected_ids)
        assert batch["labels"][row].tolist() == list(expected_labels)


def test_collate_masks_by_example_alone_in_evaluation() -> None:
    one, other = tiny_masked_lm(seed=1), tiny_masked_lm(seed=2)
    expected = batch_of(one, [0, 1, 2], split="validation")
    got = other.collate(features(other, "validation", [2, 0], epoch=7), train=False)

    assert got["labels"].tolist() == expected["labels"][[2, 0]].tolist()
    assert got["input_ids"].tolist() == expected["input_ids"][[2, 0]].tolist()


def test_collate_masks_other_tokens_in_another_epoch() -> None:
    pipeline = tiny_masked_lm(rate=0.4)
    first, second = (batch_of(pipeline, range(8), epoch=epoch) for epoch in (0, 1))

    assert first["labels"].tolist() != second["labels"].tolist()


def test_collate_refuses_a_batch_of_two_epochs() -> None:
    pipeline = tiny_masked_lm()
    mixed = features(pipeline, "train", [0]) + features(pipeline, "train", [1], epoch=1)
    with pytest.raises(ValueError, match=r"must be of one epoch, got epochs \[1, 2\]"):
        pipeline.collate(mixed, train=True)


def test_loss_equals_that_of_the_models_own_head() -> None:
    pipeline = tiny_masked_lm(TinySource(dropout=0.0))
    model = untrained(pipeline)
    batch = batch_of(pipeline, range(4))
    own = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss

    # Two float32 sums of about twelve terms in another order.
    assert pipeline.loss(model, batch).item() / batch["size"].items == pytest.approx(own.item(), rel=1e-5)


def test_score_computes_perplexity_from_the_mean_over_tokens() -> None:
    pipeline = tiny_masked_lm()
    n = len(pipeline.columns("validation")["input_ids"])
    predictions = [ChunkPrediction(loss=3.0, right=1, items=1)] + [ChunkPrediction(0.0, 0, 0)] * (n - 2)
    result = scores_by_name(pipeline, [*predictions, ChunkPrediction(loss=1.0, right=0, items=3)])

    assert result["perplexity"].value == pytest.approx(math.e)
    assert (result["loss"].value, result["masked_accuracy"].value, result["loss"].n) == (1.0, 0.25, 4)


def test_score_refuses_chunks_without_hidden_tokens() -> None:
    pipeline = tiny_masked_lm(rate=0.0)
    n = len(pipeline.columns("validation")["input_ids"])
    with pytest.raises(ValueError, match="raise the rate 0"):
        pipeline.score([ChunkPrediction(0.0, 0, 0)] * n)


def test_sample_outputs_show_five_fillings_and_their_probabilities() -> None:
    pipeline = tiny_masked_lm()
    model = untrained(pipeline).train()
    lines = pipeline.sample_outputs(model)

    assert len(lines) == 5
    assert model.training
    assert pipeline.sample_outputs(model) == lines  # no dropout
    probabilities = [float(line.split()[0]) for line in lines]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(line.split(maxsplit=1)[1].startswith("ada likes") for line in lines)


@pytest.mark.parametrize("probe", ["no mask", "[MASK] and [MASK]"])
def test_options_refuse_a_probe_without_exactly_one_mask(probe: str) -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        MaskedLM.Options(probe=probe)
