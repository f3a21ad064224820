"""The stages under the contract's names: this module is an implementation as docs/contract.md describes one."""

from reference.stages.alignment import align_labels, align_labels_batch, merge_labels, merge_labels_batch
from reference.stages.bleu import bleu
from reference.stages.causal import causal_labels, chunk_documents, chunk_documents_batch, key_token_weights
from reference.stages.chunking import chunk, chunk_batch, chunk_batches
from reference.stages.collation import pad_batch
from reference.stages.decoding import clean_sequences
from reference.stages.masking import mask_tokens, mask_tokens_batch
from reference.stages.rouge import lead, rouge, split_sentences
from reference.stages.scoring import perplexity, score_entities
from reference.stages.seq2seq import pad_seq2seq, shift_right

__all__ = [
    "align_labels",
    "align_labels_batch",
    "bleu",
    "causal_labels",
    "chunk",
    "chunk_batch",
    "chunk_batches",
    "chunk_documents",
    "chunk_documents_batch",
    "clean_sequences",
    "key_token_weights",
    "lead",
    "mask_tokens",
    "mask_tokens_batch",
    "merge_labels",
    "merge_labels_batch",
    "pad_batch",
    "pad_seq2seq",
    "perplexity",
    "rouge",
    "score_entities",
    "shift_right",
    "split_sentences",
]
