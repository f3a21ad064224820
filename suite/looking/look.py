"""Which look belongs to which task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from rich.console import RenderableType

from reference.pipelines.pipeline import Pipeline
from suite.looking import causal_lm, masked_lm, question_answering, seq2seq, token_classification


class Look(Protocol):
    """Shows a pipeline's data piece by piece, as each is ready.

    Args:
        samples: examples to show, drawn by `seed`.
        batch_size: of the padded batch, and of the batches that the share of padding is computed for.
        width: terminal cells a line.
    """

    def __call__(
        self, pipeline: Pipeline, *, samples: int, seed: int, batch_size: int, width: int
    ) -> Iterator[RenderableType]: ...


LOOKS: dict[str, Look] = {
    "token-classification": token_classification.look,
    "masked-lm": masked_lm.look,
    "translation": seq2seq.look,
    "summarization": seq2seq.look,
    "causal-lm": causal_lm.look,
    "question-answering": question_answering.look,
}
