"""Pipelines on tiny sources, and what their tests need: features, batches, untrained models and scores by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, set_seed

from tests.support.tiny_seq2seq_source import TinyPairs
from tests.support.tiny_source import TinySource
from touchstone.pipelines import MaskedLM, QuestionAnswering, Summarization, TokenClassification, Translation
from touchstone.pipelines.pipeline import Batch, Feature, FeatureRows, Pipeline, Score
from touchstone.sources.source import Source
from touchstone.stages.ragged import Ragged


def tiny_token_classification(source: Source | None = None, **options: Any) -> TokenClassification:
    options = {"max_length": 64} | options
    return TokenClassification(source or TinySource(), options=TokenClassification.Options(**options), seed=0)


def tiny_masked_lm(source: Source | None = None, *, seed: int = 0, **options: Any) -> MaskedLM:
    options = {"chunk_length": 16, "probe": "ada likes [MASK] ."} | options
    return MaskedLM(source or TinySource(), options=MaskedLM.Options(**options), seed=seed)


def tiny_question_answering(source: Source | None = None, **options: Any) -> QuestionAnswering:
    options = {"max_length": 14, "stride": 3} | options
    return QuestionAnswering(source or TinySource(), options=QuestionAnswering.Options(**options), seed=0)


def tiny_translation(source: Source | None = None, **options: Any) -> Translation:
    options = {"max_length": 12} | options
    return Translation(source or TinyPairs(), options=Translation.Options(**options), seed=0)


def tiny_summarization(source: Source | None = None, **options: Any) -> Summarization:
    options = {"max_source_length": 40, "max_target_length": 8} | options
    return Summarization(source or TinyPairs(), options=Summarization.Options(**options), seed=0)


def column(pipeline: Pipeline, split: str, name: str) -> Ragged:
    values = pipeline.columns(split)[name]
    assert isinstance(values, Ragged)
    return values


def features(pipeline: Pipeline, split: str, indices: Sequence[int], *, epoch: int = 0) -> list[Feature]:
    rows = FeatureRows(pipeline.columns(split))
    return [rows[epoch, index] for index in indices]


def batch_of(pipeline: Pipeline, indices: Sequence[int], *, split: str = "train", epoch: int = 0) -> Batch:
    """The batch of these examples; those of the train split are prepared for training."""
    return pipeline.collate(features(pipeline, split, indices, epoch=epoch), train=split == "train")


def untrained(pipeline: Pipeline) -> PreTrainedModel:
    """The pipeline's model with weights from seed 0, in evaluation mode."""
    set_seed(0)
    return pipeline.model().eval()


def scores_by_name(pipeline: Pipeline, predictions: Any) -> dict[str, Score]:
    return {score.name: score for score in pipeline.score(predictions)}
