"""Translation: a sentence of one language into another (HF course, chapter 7, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from reference.pipelines.pipeline import Options, Score
from reference.pipelines.seq2seq import Seq2Seq, Seq2SeqOptions
from reference.stages import bleu


class TranslationOptions(Seq2SeqOptions):
    """What a spec may choose.

    Attributes:
        max_length: tokens of a source and of a target, the end included; the rest is cut off.
    """

    max_length: int = Field(default=128, ge=2)


class Translation(Seq2Seq):
    task: ClassVar[str] = "translation"
    hub_task: ClassVar[str] = "translation"
    Options: ClassVar[type[Options]] = TranslationOptions
    options: TranslationOptions
    source_column: ClassVar[str] = "source"
    target_column: ClassVar[str] = "target"

    @property
    def source_length(self) -> int:
        return self.options.max_length

    @property
    def target_length(self) -> int:
        return self.options.max_length

    def score_texts(self, texts: Sequence[str], references: Sequence[str]) -> list[Score]:
        result = bleu(texts, references=references)
        signature = f"{result['signature']}|{self.search_signature}"
        return [Score("bleu", result["bleu"], result["number"], True, signature, upper=100.0)]
