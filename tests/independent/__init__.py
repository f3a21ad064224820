"""A second correct implementation of every stage, written from `docs/contract.md` alone.

It shares no code and no algorithm with `reference/stages`. Where the two disagree, the contract is unclear or one of
them is wrong.

    pytest suite/properties --implementation tests.independent

It offers no batched versions, so a run on it also shows what "not offered" looks like.
"""

# ruff: noqa: F401  (the imports are the module's content)

from tests.independent.alignment import align_labels, merge_labels
from tests.independent.bleu import bleu
from tests.independent.causal import causal_labels, chunk_documents, key_token_weights
from tests.independent.chunking import chunk, chunk_batches
from tests.independent.collation import pad_batch
from tests.independent.decoding import clean_sequences
from tests.independent.masking import mask_tokens
from tests.independent.packing import assign_bins, pack, unpack
from tests.independent.perplexity import perplexity
from tests.independent.rouge import lead, rouge, split_sentences
from tests.independent.scoring import score_entities
from tests.independent.seq2seq import pad_seq2seq, shift_right
from tests.independent.spans import best_spans, pick_answer
from tests.independent.squad import squad_scores
from tests.independent.windowing import answer_positions, make_windows
