"""Summarization: a short text for a long one (HF course, chapter 7, section 5).

Beside every ROUGE stands that of the first three sentences, which is hard to beat and costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from reference.pipelines.pipeline import Options, Score
from reference.pipelines.seq2seq import Seq2Seq, Seq2SeqOptions
from reference.stages import lead, rouge, split_sentences

METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
LEAD = 3
"""Sentences of the baseline (See et al. 2017, section 4)."""


class SummarizationOptions(Seq2SeqOptions):
    """What a spec may choose.

    Attributes:
        max_source_length: tokens of a document, prefix and end included; the rest is cut off.
        max_target_length: tokens of a summary, its end included.
        prefix: what stands before each document (`summarize: ` for T5).
    """

    max_source_length: int = Field(default=512, ge=2)
    max_target_length: int = Field(default=30, ge=2)
    prefix: str = ""


class Summarization(Seq2Seq):
    task: ClassVar[str] = "summarization"
    hub_task: ClassVar[str] = "summarization"
    Options: ClassVar[type[Options]] = SummarizationOptions
    options: SummarizationOptions
    source_column: ClassVar[str] = "document"
    target_column: ClassVar[str] = "summary"
    two_languages: ClassVar[bool] = False

    @property
    def source_length(self) -> int:
        return self.options.max_source_length

    @property
    def target_length(self) -> int:
        return self.options.max_target_length

    def prompt(self, text: str) -> str:
        return self.options.prefix + text

    def score_texts(self, texts: Sequence[str], references: Sequence[str]) -> list[Score]:
        """ROUGE of the texts, then of the first sentences of the documents."""
        documents, _ = self.texts("validation")
        baseline = [lead(document, sentences=LEAD) for document in documents]
        own = _rouge(texts, references, how=self.search_signature)
        how = f"refs:{self.options.references}|lead:{LEAD}"
        return [*own, *_rouge(baseline, references, how=how, named=f"lead{LEAD}_")]


def _rouge(texts: Sequence[str], references: Sequence[str], *, how: str, named: str = "") -> list[Score]:
    result: Mapping[str, Any] = rouge(
        [_lines(text) for text in texts], references=[_lines(text) for text in references]
    )
    signature = f"{result['signature']}|{how}"
    return [
        Score(f"{named}{metric}", result[metric], result["number"], True, signature, upper=100.0) for metric in METRICS
    ]


def _lines(text: str) -> str:
    """One sentence a line, as ROUGE-Lsum reads texts."""
    return "\n".join(split_sentences(text))
