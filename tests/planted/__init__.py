"""Small implementations with exactly one bug each, and the checks that must catch it.

`python -m tests.planted` prints which check catches which bug and writes docs/planted-bugs.md.
"""

from tests.planted import (
    alignment,
    bleu,
    causal,
    chunking,
    collation,
    decoding,
    masking,
    packing,
    rouge,
    scoring,
    seq2seq,
    spans,
    squad,
    windowing,
)
from tests.planted.bug import BUGS, Bug, link

__all__ = [
    "BUGS",
    "Bug",
    "alignment",
    "bleu",
    "causal",
    "chunking",
    "collation",
    "decoding",
    "link",
    "masking",
    "packing",
    "rouge",
    "scoring",
    "seq2seq",
    "spans",
    "squad",
    "windowing",
]
