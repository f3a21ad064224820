"""The tasks, by the field's name for each."""

from __future__ import annotations

from reference.pipelines.causal_lm import CausalLM
from reference.pipelines.masked_lm import MaskedLM
from reference.pipelines.pipeline import Pipeline
from reference.pipelines.question_answering import QuestionAnswering
from reference.pipelines.summarization import Summarization
from reference.pipelines.token_classification import TokenClassification
from reference.pipelines.translation import Translation

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
