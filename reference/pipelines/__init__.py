"""Pipelines: the six tasks of the course, and the interface for a task of your own (see `pipeline`)."""

from __future__ import annotations

from touchstone.pipelines.causal_lm import CausalLM
from touchstone.pipelines.masked_lm import MaskedLM
from touchstone.pipelines.pipeline import Pipeline
from touchstone.pipelines.question_answering import QuestionAnswering
from touchstone.pipelines.seq2seq import Summarization, Translation
from touchstone.pipelines.token_classification import TokenClassification

PIPELINES: dict[str, type[Pipeline]] = {
    pipeline.task: pipeline
    for pipeline in (TokenClassification, MaskedLM, Translation, Summarization, CausalLM, QuestionAnswering)
}

__all__ = [
    "PIPELINES",
    "CausalLM",
    "MaskedLM",
    "Pipeline",
    "QuestionAnswering",
    "Summarization",
    "TokenClassification",
    "Translation",
]
