"""The stages under the contract's names: this module is an implementation as docs/contract.md describes one."""

from reference.stages.alignment import align_labels, align_labels_batch, merge_labels, merge_labels_batch
from reference.stages.causal import causal_labels, chunk_documents, chunk_documents_batch, key_token_weights
from reference.stages.chunking import chunk, chunk_batch, chunk_batches
from reference.stages.collation import pad_batch
from reference.stages.masking import mask_tokens, mask_tokens_batch
from reference.stages.scoring import perplexity, score_entities

__all__ = [
    "align_labels",
    "align_labels_batch",
    "causal_labels",
    "chunk",
    "chunk_batch",
    "chunk_batches",
    "chunk_documents",
    "chunk_documents_batch",
    "key_token_weights",
    "mask_tokens",
    "mask_tokens_batch",
    "merge_labels",
    "merge_labels_batch",
    "pad_batch",
    "perplexity",
    "score_entities",
]
