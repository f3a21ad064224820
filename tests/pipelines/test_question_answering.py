"""The question answering pipeline: its windows, its loss, and from predictions back to scores."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerBase, set_seed

from tests.support.tiny_source import TinySource, tiny_tokenizer
from touchstone.pipelines import QuestionAnswering
from touchstone.pipelines.pipeline import Feature, FeatureRows
from touchstone.pipelines.question_answering import SpanPrediction, template_of
from touchstone.sources import HubCheckpoint, HubData, open_source
from touchstone.sources.source import Access, Source, SourceError
from touchstone.stages import answer_positions, make_windows


def asker(source: Source | None = None, **options: Any) -> QuestionAnswering:
    options = {"max_length": 14, "stride": 3} | options
    return QuestionAnswering(source or TinySource(), options=QuestionAnswering.Options(**options), seed=0)


def features(pipeline: QuestionAnswering, split: str, rows: list[int]) -> list[Feature]:
    data = FeatureRows(pipeline.columns(split))
    return [data[0, row] for row in rows]


def oracle(pipeline: QuestionAnswering) -> list[SpanPrediction]:
    """What a model predicts that is certain of the labels."""
    split = pipeline.split("validation")
    predictions = []
    for row in range(len(split.example)):
        first, last = (int(split.columns[name][row]) for name in ("start", "end"))
        none = first == split.cls[row]
        span = (-1, -1, -math.inf) if none else (first, last, 8.0)
        predictions.append(SpanPrediction(*span, null=9.0 if none else 0.0, loss=0.5))
    return predictions


def scores(pipeline: QuestionAnswering, predictions: Any) -> dict[str, Any]:
    return {score.name: score for score in pipeline.score(predictions)}


@pytest.mark.parametrize("split", ["train", "validation"])
def test_columns_are_the_plain_windows_and_positions_of_every_example(split: str) -> None:
    source = TinySource()
    pipeline, tokenizer = asker(source), source.tokenizer()
    part, row = pipeline.split(split), 0
    for number, example in enumerate(source.examples(split, columns=("question", "context", "answers"))):
        question, context = (
            tokenizer(example[name], add_special_tokens=False, return_offsets_mapping=True)
            for name in ("question", "context")
        )
        windows = make_windows(
            context["input_ids"],
            offsets=context["offset_mapping"],
            question=question["input_ids"],
            template=pipeline.template.pieces,
            max_length=14,
            stride=3,
        )
        spans = [
            (start, start + len(text))
            for text, start in zip(example["answers"]["text"], example["answers"]["answer_start"], strict=True)
        ]
        for ids, offsets in zip(windows["input_ids"], windows["offsets"], strict=True):
            assert part.columns["input_ids"][row].tolist() == ids
            place = (part.columns["start"][row], part.columns["end"][row])
            assert answer_positions(spans, offsets=offsets, cls=0) == place
            assert part.example[row] == number
            row += 1
    assert row == len(part.example) > len(part.contexts)


def test_the_template_is_the_tokenizers_own() -> None:
    assert template_of(tiny_tokenizer()) == (((2, 0), ("question", 0), (3, 0), ("context", 0), (3, 0)), 0)


def left_padded() -> PreTrainedTokenizerBase:
    """As XLNet's: the context first, the CLS last, padding on the left."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP] [CLS]",
        pair="$A [SEP] $B:1 [SEP]:1 [CLS]:2",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.padding_side = "left"
    return tokenizer


class LeftPadded(TinySource):
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return left_padded()


def test_the_context_comes_first_where_padding_stands_on_the_left() -> None:
    assert template_of(left_padded()) == ((("context", 0), (3, 0), ("question", 1), (3, 1), (2, 2)), 4)
    pipeline = asker(LeftPadded())
    batch = pipeline.collate(features(pipeline, "train", list(range(12))), train=True)
    split = pipeline.split("train")
    for row in range(12):
        for name in ("start", "end"):
            token = batch["input_ids"][row, batch[name][row]]
            assert split.columns["input_ids"][row][split.columns[name][row]] == token
            if split.columns["start"][row] == split.cls[row]:
                assert token == 2
    assert not batch["attention_mask"].all()


def test_a_tokenizer_without_special_tokens_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B")
    with pytest.raises(SourceError, match="stands for no answer"):
        template_of(tokenizer)


@pytest.mark.parametrize("source", [TinySource, LeftPadded])
def test_the_labels_score_100(source: type[TinySource]) -> None:
    pipeline = asker(source())
    result = scores(pipeline, oracle(pipeline))

    assert list(result) == ["f1", "exact_match", "loss"]
    assert (result["f1"].value, result["exact_match"].value, result["f1"].n) == (100.0, 100.0, 13)
    assert (0.5, len(pipeline.split("validation").example)) == (result["loss"].value, result["loss"].n)


def test_the_best_window_of_an_example_answers() -> None:
    pipeline = asker()
    split = pipeline.split("validation")
    (rows, *_) = (np.flatnonzero(split.example == n) for n in range(13) if (split.example == n).sum() > 1)
    predictions = [SpanPrediction(-1, -1, -math.inf, 0.0, 0.0)] * len(split.example)
    for row in rows:
        labelled = split.columns["start"][row] != split.cls[row]
        first = int(split.columns["start"][row]) if labelled else int(np.flatnonzero(split.starts[row] >= 0)[0])
        last = int(split.columns["end"][row]) if labelled else first
        predictions[row] = SpanPrediction(first, last, 3.0 if labelled else 2.0, 0.0, 0.0)
    assert pytest.approx(scores(pipeline, predictions)["exact_match"].value) == 100 / 13


def test_predictions_that_do_not_fit_the_windows_are_refused() -> None:
    pipeline = asker()
    with pytest.raises(ValueError, match="predictions for"):
        pipeline.score(oracle(pipeline)[:-1])


def test_signatures_tell_apart_what_is_not_comparable() -> None:
    signatures = set()
    for options in ({}, {"max_length": 16}, {"max_answer_length": 3}, {"null_answers": True}):
        pipeline = asker(**options)
        signatures.add(scores(pipeline, oracle(pipeline))["f1"].signature)
    assert len(signatures) == 4


def test_the_batch_size_counts_windows() -> None:
    pipeline = asker()
    batch = pipeline.collate(features(pipeline, "train", [0, 1, 2]), train=True)
    lengths = [len(pipeline.columns("train")["input_ids"][row]) for row in range(3)]
    assert (3, 3, sum(lengths), 3 * max(lengths)) == batch["size"]


def test_the_loss_is_that_of_the_models_own_head_where_nothing_is_padded() -> None:
    pipeline = asker(TinySource(dropout=0.0))
    set_seed(0)
    model = pipeline.model().eval()
    rows = [row for row, size in enumerate(pipeline.columns("train")["input_ids"].lengths) if size == 14][:4]
    batch = pipeline.collate(features(pipeline, "train", rows), train=True)
    own = model(input_ids=batch["input_ids"], start_positions=batch["start"], end_positions=batch["end"]).loss

    # Two float32 means of a handful of terms in another order.
    assert pipeline.loss(model, batch).item() / 4 == pytest.approx(own.item(), rel=1e-5)


@pytest.mark.parametrize("source", [TinySource, LeftPadded])
def test_predictions_of_a_batch_are_those_of_its_windows_alone(source: type[TinySource]) -> None:
    """So padding is neither answered with nor in the softmax."""
    pipeline = asker(source())
    set_seed(0)
    model = pipeline.model().eval()
    rows = features(pipeline, "validation", [0, 1, 2, 3, 4])
    with torch.inference_mode():
        together = pipeline.predict(model, pipeline.collate(rows, train=False))
        alone = [pipeline.predict(model, pipeline.collate([row], train=False))[0] for row in rows]
    if source is LeftPadded:  # positions are counted from the left, padding included: other embeddings
        assert all(math.isfinite(prediction.score) for prediction in together)
        return
    for expected, got in zip(alone, together, strict=True):
        assert got[:2] == expected[:2]
        assert got[2:] == pytest.approx(expected[2:], abs=1e-4)  # sums of a few float32 terms of about 1


def test_a_question_is_cut_to_leave_room_for_twice_the_stride() -> None:
    class LongQuestions(TinySource):
        def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
            data = super().examples(split, columns=columns)
            return data.map(lambda row: {"question": "ada sees grace likes alan leaves rio"})

    pipeline = asker(LongQuestions())
    assert pipeline.longest_question == 14 - 3 - 6
    assert pipeline.split("train").cut == len(pipeline.split("train").contexts)
    assert pipeline.columns("train")["input_ids"].lengths.max() == 14


def test_options_that_cannot_be_are_refused_with_the_remedy() -> None:
    with pytest.raises(SourceError, match="max_length 14 leaves no room for a question"):
        asker(stride=6).columns("train")
    pipeline = asker()
    pipeline.tokenizer.model_max_length = 13
    with pytest.raises(SourceError, match="max_length is 14, but the tokenizer's model takes 13 tokens"):
        pipeline.columns("train")


class Unanswerable(TinySource):
    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        data = super().examples(split, columns=columns)
        rows = [row | {"answers": {"text": [], "answer_start": []}} if i % 2 else row for i, row in enumerate(data)]
        return datasets.Dataset.from_list(rows, features=data.features)


def test_questions_without_an_answer_must_be_meant() -> None:
    with pytest.raises(SourceError, match="row 1: there is no answer; if that is meant, set null_answers = true"):
        asker(Unanswerable()).columns("train")
    pipeline = asker(Unanswerable(), null_answers=True)
    assert scores(pipeline, oracle(pipeline))["exact_match"].value == 100.0
    sure = [prediction._replace(null=-99.0) for prediction in oracle(pipeline)]
    assert scores(pipeline, sure)["exact_match"].value == 100.0  # no span at all is no answer


def test_the_probe_shows_questions_and_what_the_model_answers() -> None:
    pipeline = asker()
    set_seed(0)
    model = pipeline.model().train()
    lines = pipeline.sample_outputs(model)

    assert len(lines) == 6
    assert model.training
    assert pipeline.sample_outputs(model) == lines  # no dropout
    split = pipeline.split("validation")
    assert all(f"[{split.references[n][0]}]" in lines[2 * n] for n in range(3))


# A real mirror, where there is one


@pytest.fixture(scope="module")
def squad() -> QuestionAnswering:
    where = os.environ.get("TOUCHSTONE_MIRROR")
    needed = ("datasets/rajpurkar/squad", "models/google-bert/bert-base-cased")
    if where is None or not all(Path(where, path).is_dir() for path in needed):
        pytest.skip(f"needs TOUCHSTONE_MIRROR, a mirror directory with {' and '.join(needed)}")
    data = HubData(id="rajpurkar/squad", revision="7b6d24c440a36b6815f21b70d25016731768db1f", config="plain_text")
    checkpoint = HubCheckpoint(id="google-bert/bert-base-cased", revision="cd5ef92a9fb2f889e972770a36d4ed042daf221e")
    source = open_source(data, checkpoint, access=Access(mirror=Path(where)))
    return QuestionAnswering(source, options=QuestionAnswering.Options(), seed=0)


def test_squads_validation_makes_the_courses_10822_windows(squad: QuestionAnswering) -> None:
    split = squad.split("validation")
    assert (len(split.contexts), len(split.example), split.cut) == (10_570, 10_822, 0)


def test_every_answer_of_squads_validation_is_whole_in_a_window(squad: QuestionAnswering) -> None:
    split = squad.split("validation")
    assert len(np.unique(split.example[split.columns["start"] != split.cls])) == 10_570


def test_oracle_logits_give_squads_answers_back(squad: QuestionAnswering) -> None:
    """All but those that begin or end within a token, such as `four` of `fourth`: fewer than 1 in 500."""
    result = scores(squad, oracle(squad))
    assert 99.8 < result["exact_match"].value <= 100.0
    split = squad.split("validation")
    for row in np.flatnonzero(split.columns["start"] != split.cls).tolist():
        first, last = (int(split.columns[name][row]) for name in ("start", "end"))
        span = split.contexts[split.example[row]][split.starts[row][first] : split.ends[row][last]]
        assert any(text in span for text in split.references[split.example[row]])
