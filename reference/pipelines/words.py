"""Lists of words to tokens, each distinct word tokenized once.

A fast tokenizer takes the words of a list one by one: it normalizes, splits and looks up each without a look at its
neighbours, puts their tokens in a row, cuts the row and sets special tokens about it (`encode_single_sequence` of the
tokenizers library). So what it makes of a list follows from what it makes of each word, and running text has one
distinct word in ten or so. Where that is not known to hold, or a sample shows that it does not, there is no result
here, and the tokenizer has to be asked for every list.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from reference.ragged import MISSING, Array, Ragged

TOGETHER = 512
"""Distinct words a call hands over as one list: so few encodings are made, and all cores have some."""


class Frame(NamedTuple):
    """The special tokens that the tokenizer sets about every input: (P,) before it and (S,) behind it."""

    before: Array
    behind: Array


def splice_words(tokenizer: Tokenizer, words: pa.LargeListArray, *, max_length: int | None) -> dict[str, Ragged] | None:
    """`input_ids`, `word_ids` (-1 at special tokens) and `special_tokens_mask` of N lists of words, (N, T_i) each.

    Args:
        tokenizer: it must neither cut nor pad by itself.
        words: N lists of strings.
        max_length: tokens of a list, special tokens included, which must leave room for one more; the rest is cut off
            at the end.

    Returns:
        None if the tokenizer draws at random or sets special tokens elsewhere than about the whole.
    """
    frame = frame_of(tokenizer)
    if frame is None or _draws(tokenizer):
        return None
    coded = pc.dictionary_encode(words.flatten())
    pieces = _pieces(tokenizer, coded.dictionary.to_pylist())
    word = np.asarray(coded.indices, dtype=np.int64)
    offsets = np.asarray(words.offsets, dtype=np.int64)
    within = np.arange(len(word), dtype=np.int64) - np.repeat(offsets[:-1] - offsets[0], np.diff(offsets))
    ids = pieces.take(word)  # a row a word
    sentences = Ragged(ids.values, ids.offsets[offsets - offsets[0]])  # the same values, a row a list
    word_ids = np.repeat(within, ids.lengths)
    if max_length is not None:
        room = max_length - len(frame.before) - len(frame.behind)
        kept = sentences.places < room
        sentences = Ragged.from_lengths(ids.values[kept], lengths=np.minimum(sentences.lengths, room))
        word_ids = word_ids[kept]
    return _framed(sentences, word_ids=word_ids, frame=frame)


def frame_of(tokenizer: Tokenizer) -> Frame | None:
    """None where special tokens do not simply stand before and behind."""
    bare = tokenizer.encode(["a"], is_pretokenized=True, add_special_tokens=False).ids
    whole = tokenizer.encode(["a"], is_pretokenized=True)
    if not bare or len(whole.ids) != len(bare) + tokenizer.num_special_tokens_to_add(False):
        return None
    start = whole.special_tokens_mask.index(0) if 0 in whole.special_tokens_mask else 0
    before, behind = whole.ids[:start], whole.ids[start + len(bare) :]
    if whole.ids != [*before, *bare, *behind] or sum(whole.special_tokens_mask) != len(before) + len(behind):
        return None
    return Frame(np.asarray(before, np.int64), np.asarray(behind, np.int64))


def _draws(tokenizer: Tokenizer) -> bool:
    """Whether tokens are drawn at random: BPE dropout, sampling of a unigram model."""
    model: Any = tokenizer.model
    return bool(getattr(model, "dropout", None) or getattr(model, "alpha", None))


def _pieces(tokenizer: Tokenizer, words: Sequence[str]) -> Ragged:
    """(D, T_d) the tokens of each word."""
    groups = [words[start : start + TOGETHER] for start in range(0, len(words), TOGETHER)]
    encodings = tokenizer.encode_batch(groups, is_pretokenized=True, add_special_tokens=False)
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), dtype=np.int64)
    counts = [
        np.bincount(np.asarray(encoding.word_ids, dtype=np.int64), minlength=len(group))
        for encoding, group in zip(encodings, groups, strict=True)
    ]
    return Ragged.from_lengths(ids, lengths=np.concatenate([np.empty(0, np.int64), *counts]))


def _framed(sentences: Ragged, *, word_ids: Array, frame: Frame) -> dict[str, Ragged]:
    before, behind = len(frame.before), len(frame.behind)
    lengths = sentences.lengths + before + behind
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    starts, ends = offsets[:-1], offsets[1:]
    special = np.zeros(offsets[-1], np.int64)
    ids = np.empty(offsets[-1], np.int64)
    for place, token in enumerate(frame.before):
        ids[starts + place] = token
        special[starts + place] = 1
    for place, token in enumerate(frame.behind):
        ids[ends - behind + place] = token
        special[ends - behind + place] = 1
    real = special == 0
    ids[real] = sentences.values
    words = np.full(offsets[-1], MISSING, np.int64)
    words[real] = word_ids
    return {
        "input_ids": Ragged(ids, offsets),
        "word_ids": Ragged(words, offsets),
        "special_tokens_mask": Ragged(special, offsets),
    }
