"""The stages under the contract's names: the reference implementation of docs/contract.md."""

# ruff: noqa: F401  (the imports are the module's content; __all__ comes from the contract)
# mypy: implicit-reexport

from touchstone.contract import NAMES as _NAMES
from touchstone.stages.alignment import align_labels, align_labels_batch, merge_labels, merge_labels_batch
from touchstone.stages.bleu import bleu
from touchstone.stages.causal import causal_labels, chunk_documents, chunk_documents_batch, key_token_weights
from touchstone.stages.chunking import chunk, chunk_batch, chunk_batches
from touchstone.stages.collation import pad_batch
from touchstone.stages.masking import mask_tokens, mask_tokens_batch
from touchstone.stages.packing import assign_bins, assign_bins_batch, pack, pack_batch, unpack
from touchstone.stages.rouge import lead, rouge, split_sentences
from touchstone.stages.scoring import perplexity, score_entities
from touchstone.stages.seq2seq import clean_sequences, pad_seq2seq, shift_right
from touchstone.stages.spans import best_spans, best_spans_batch, pick_answer, pick_answer_batch
from touchstone.stages.squad import squad_scores
from touchstone.stages.windowing import answer_positions, answer_positions_batch, make_windows, make_windows_batch

__all__ = list(_NAMES)
