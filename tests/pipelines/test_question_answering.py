"""The question answering pipeline: windows, loss, predictions and scores."""

from __future__ import annotations

import math
import os
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from tests.support.tiny_pipelines import batch_of, scores_by_name, tiny_question_answering, untrained
from tests.support.tiny_source import TinySource, tiny_tokenizer
from touchstone.pipelines import QuestionAnswering
from touchstone.pipelines.question_answering import SpanPrediction, pair_template
from touchstone.sources import HubCheckpoint, HubData, open_source
from touchstone.sources.source import Access, SourceError
from touchstone.stages import answer_positions, make_windows


def oracle(pipeline: QuestionAnswering) -> list[SpanPrediction]:
    """The predictions of a model that is certain of the labels."""
    split = pipeline.split("validation")
    predictions = []
    for row in range(len(split.example)):
        first, last = (int(split.columns[name][row]) for name in ("start", "end"))
        none = first == split.cls[row]
        span = (-1, -1, -math.inf) if none else (first, last, 8.0)
        predictions.append(SpanPrediction(*span, null=9.0 if none else 0.0, loss=0.5))
    return predictions


@pytest.mark.parametrize("split", ["train", "validation"])
def test_columns_equal_the_plain_windows_and_answers_of_each_example(split: str) -> None:
    source = TinySource()
    pipeline, tokenizer = tiny_question_answering(source), source.tokenizer()
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


def test_pair_template_has_the_special_tokens_of_the_tokenizer() -> None:
    assert pair_template(tiny_tokenizer()) == (((2, 0), ("question", 0), (3, 0), ("context", 0), (3, 0)), 0)


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


def test_pair_template_has_the_context_first_if_padding_is_on_the_left() -> None:
    assert pair_template(left_padded()) == ((("context", 0), (3, 0), ("question", 1), (3, 1), (2, 2)), 4)
    pipeline = tiny_question_answering(LeftPadded())
    batch = batch_of(pipeline, range(12))
    split = pipeline.split("train")
    for row in range(12):
        for name in ("start", "end"):
            token = batch["input_ids"][row, batch[name][row]]
            assert split.columns["input_ids"][row][split.columns[name][row]] == token
            if split.columns["start"][row] == split.cls[row]:
                assert token == 2
    assert not batch["attention_mask"].all()


def test_pair_template_refuses_a_tokenizer_without_special_tokens() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B")
    with pytest.raises(SourceError, match="adds no special token to a pair of texts"):
        pair_template(tokenizer)


@pytest.mark.parametrize("source", [TinySource, LeftPadded])
def test_score_of_the_labels_is_100(source: type[TinySource]) -> None:
    pipeline = tiny_question_answering(source())
    result = scores_by_name(pipeline, oracle(pipeline))

    assert list(result) == ["f1", "exact_match", "loss"]
    assert (result["f1"].value, result["exact_match"].value, result["f1"].n) == (100.0, 100.0, 13)
    assert (result["loss"].value, result["loss"].n) == (0.5, len(pipeline.split("validation").example))


def test_score_takes_the_answer_of_the_best_window() -> None:
    pipeline = tiny_question_answering()
    split = pipeline.split("validation")
    (rows, *_) = (np.flatnonzero(split.example == n) for n in range(13) if (split.example == n).sum() > 1)
    predictions = [SpanPrediction(-1, -1, -math.inf, 0.0, 0.0)] * len(split.example)
    for row in rows:
        labelled = split.columns["start"][row] != split.cls[row]
        first = int(split.columns["start"][row]) if labelled else int(np.flatnonzero(split.starts[row] >= 0)[0])
        last = int(split.columns["end"][row]) if labelled else first
        predictions[row] = SpanPrediction(first, last, 3.0 if labelled else 2.0, 0.0, 0.0)
    assert scores_by_name(pipeline, predictions)["exact_match"].value == pytest.approx(100 / 13)


def test_score_refuses_predictions_that_do_not_match_the_windows() -> None:
    pipeline = tiny_question_answering()
    with pytest.raises(ValueError, match=r"\d+ predictions for \d+ validation windows: pass one per window"):
        pipeline.score(oracle(pipeline)[:-1])


def test_signatures_differ_between_settings() -> None:
    signatures = set()
    for options in ({}, {"max_length": 16}, {"max_answer_length": 3}, {"null_answers": True}):
        pipeline = tiny_question_answering(**options)
        signatures.add(scores_by_name(pipeline, oracle(pipeline))["f1"].signature)
    assert len(signatures) == 4


def test_collate_counts_windows_in_the_batch_size() -> None:
    pipeline = tiny_question_answering()
    batch = batch_of(pipeline, range(3))
    lengths = [len(pipeline.columns("train")["input_ids"][row]) for row in range(3)]
    assert batch["size"] == (3, 3, sum(lengths), 3 * max(lengths))


def test_loss_equals_that_of_the_models_own_head_without_padding() -> None:
    pipeline = tiny_question_answering()
    model = untrained(pipeline)
    rows = [row for row, size in enumerate(pipeline.columns("train")["input_ids"].lengths) if size == 14][:4]
    batch = batch_of(pipeline, rows)
    own = model(input_ids=batch["input_ids"], start_positions=batch["start"], end_positions=batch["end"]).loss

    # Two float32 means of a few terms in another order.
    assert pipeline.loss(model, batch).item() / 4 == pytest.approx(own.item(), rel=1e-5)


@pytest.mark.parametrize("source", [TinySource, LeftPadded])
def test_predict_gives_the_same_for_a_batch_as_for_single_windows(source: type[TinySource]) -> None:
    """Padding is neither predicted nor part of the softmax."""
    pipeline = tiny_question_answering(source())
    model = untrained(pipeline)
    with torch.inference_mode():
        together = pipeline.predict(model, batch_of(pipeline, range(5), split="validation"))
        alone = [pipeline.predict(model, batch_of(pipeline, [i], split="validation"))[0] for i in range(5)]
    if source is LeftPadded:  # position embeddings count from the left with padding, so the numbers differ
        assert all(math.isfinite(prediction.score) for prediction in together)
        return
    for expected, got in zip(alone, together, strict=True):
        assert got[:2] == expected[:2]
        assert got[2:] == pytest.approx(expected[2:], abs=1e-4)  # sums of a few float32 terms of about 1


def test_split_cuts_questions_to_leave_room_for_twice_the_stride() -> None:
    class LongQuestions(TinySource):
        def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
            data = super().examples(split, columns=columns)
            return data.map(lambda row: {"question": "ada sees grace likes alan leaves rio"})

    pipeline = tiny_question_answering(LongQuestions())
    assert pipeline.longest_question == 14 - 3 - 6
    assert pipeline.split("train").cut == len(pipeline.split("train").contexts)
    assert pipeline.columns("train")["input_ids"].lengths.max() == 14


def test_columns_refuse_a_max_length_that_is_too_short_or_too_long() -> None:
    with pytest.raises(SourceError, match="max_length 14 leaves no room for a question"):
        tiny_question_answering(stride=6).columns("train")
    pipeline = tiny_question_answering()
    pipeline.tokenizer.model_max_length = 13
    with pytest.raises(SourceError, match=r"max_length is 14, but .* takes 13 tokens: lower max_length"):
        pipeline.columns("train")


class Unanswerable(TinySource):
    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        data = super().examples(split, columns=columns)
        rows = [row | {"answers": {"text": [], "answer_start": []}} if i % 2 else row for i, row in enumerate(data)]
        return datasets.Dataset.from_list(rows, features=data.features)


def test_columns_refuse_questions_without_an_answer_unless_intended() -> None:
    with pytest.raises(SourceError, match=r"row 1 of split 'train' has no answer; .* set null_answers = true"):
        tiny_question_answering(Unanswerable()).columns("train")
    pipeline = tiny_question_answering(Unanswerable(), null_answers=True)
    assert scores_by_name(pipeline, oracle(pipeline))["exact_match"].value == 100.0
    sure = [prediction._replace(null=-99.0) for prediction in oracle(pipeline)]
    assert scores_by_name(pipeline, sure)["exact_match"].value == 100.0  # no span at all means no answer


def test_sample_outputs_show_questions_and_predicted_answers() -> None:
    pipeline = tiny_question_answering()
    model = untrained(pipeline).train()
    lines = pipeline.sample_outputs(model)

    assert len(lines) == 6
    assert model.training
    assert pipeline.sample_outputs(model) == lines  # no dropout
    split = pipeline.split("validation")
    assert all(f"[{split.references[n][0]}]" in lines[2 * n] for n in range(3))


# These tests need a mirror of the hub.


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


def test_split_makes_10822_windows_of_squads_validation_as_the_course_does(squad: QuestionAnswering) -> None:
    split = squad.split("validation")
    assert (len(split.contexts), len(split.example), split.cut) == (10_570, 10_822, 0)


def test_split_has_each_answer_of_squads_validation_whole_in_a_window(squad: QuestionAnswering) -> None:
    split = squad.split("validation")
    assert len(np.unique(split.example[split.columns["start"] != split.cls])) == 10_570


def test_score_of_the_labels_of_squad_is_almost_100(squad: QuestionAnswering) -> None:
    """Fewer than 1 in 500 answers begin or end within a token, as `four` does in `fourth`."""
    result = scores_by_name(squad, oracle(squad))
    assert 99.8 < result["exact_match"].value <= 100.0
    split = squad.split("validation")
    for row in np.flatnonzero(split.columns["start"] != split.cls).tolist():
        first, last = (int(split.columns[name][row]) for name in ("start", "end"))
        span = split.contexts[split.example[row]][split.starts[row][first] : split.ends[row][last]]
        assert any(text in span for text in split.references[split.example[row]])
