"""The reference stages as an implementation under test: what `--implementation` names by default."""

from reference.stages import (
    align_labels,
    align_labels_batch,
    chunk,
    chunk_batch,
    chunk_batches,
    mask_tokens,
    mask_tokens_batch,
    merge_labels,
    merge_labels_batch,
    pad_batch,
    perplexity,
    score_entities,
)

__all__ = [
    "align_labels",
    "align_labels_batch",
    "chunk",
    "chunk_batch",
    "chunk_batches",
    "mask_tokens",
    "mask_tokens_batch",
    "merge_labels",
    "merge_labels_batch",
    "pad_batch",
    "perplexity",
    "score_entities",
]
