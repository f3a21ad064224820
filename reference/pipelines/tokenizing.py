"""Text to columnar token ids, many examples a call; with a Rust tokenizer no Python loop over tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from reference.ragged import Array, Ragged
from reference.sources.source import SourceError

SLICE = 1024
"""Examples a call: enough for every core, little enough that encodings (some 100 bytes a token) never add up."""


def tokenize(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Any], *, pretokenized: bool, max_length: int | None
) -> dict[str, Ragged]:
    """`input_ids`, `word_ids` (-1 at special tokens) and `special_tokens_mask`, (N, T_i) each.

    Args:
        tokenizer: a fast tokenizer.
        examples: N texts or, `pretokenized`, N lists of words.
        pretokenized: whether examples are lists of words.
        max_length: tokens of an example, special tokens included; the rest is cut off at the end. None: nothing is.

    Raises:
        SourceError: a slow tokenizer, which does not know word ids.
        ValueError: a `max_length` that has no room beside the special tokens.
    """
    if not tokenizer.is_fast:
        raise SourceError(
            f"the tokenizer is a slow one ({type(tokenizer).__name__}), which does not know word_ids: "
            f"take a checkpoint with a fast one (tokenizer.json)"
        )
    _leave_room(tokenizer, max_length)
    parts: dict[str, list[pa.Array]] = {"input_ids": [], "word_ids": [], "special_tokens_mask": []}
    for start in range(0, len(examples), SLICE):
        encodings = tokenizer(
            list(examples[start : start + SLICE]),
            is_split_into_words=pretokenized,
            truncation=max_length is not None,
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # texts longer than the model are cut into chunks later
        ).encodings
        assert encodings is not None
        for name, attribute in (("input_ids", "ids"), ("word_ids", "word_ids"), ("special_tokens_mask",) * 2):
            rows = [getattr(encoding, attribute) for encoding in encodings]
            parts[name].append(pa.array(rows, type=pa.large_list(pa.int64())))
    columns = {}
    for name, arrays in parts.items():
        columns[name] = Ragged.from_arrow(pa.chunked_array(arrays, type=pa.large_list(pa.int64())))
    # A special token belongs to no word, although some tokenizers give it one.
    words = columns["word_ids"]
    columns["word_ids"] = words.with_values(np.where(columns["special_tokens_mask"].values == 1, -1, words.values))
    return columns


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int, target: bool = False
) -> Ragged:
    """(N, T_i) the tokens of N texts, with a tokenizer fast or slow.

    Args:
        tokenizer: any; where source and target are spelt with different pieces (Marian), it knows both.
        texts: N texts.
        max_length: tokens of a text, special tokens included: the text is cut, they stay.
        target: whether the texts are what a model is to write, and not what it reads.

    Raises:
        ValueError: a `max_length` that has no room beside the special tokens.
    """
    _leave_room(tokenizer, max_length)
    rows: list[list[int]] = []
    for start in range(0, len(texts), SLICE):
        batch = list(texts[start : start + SLICE])
        encoded = tokenizer(
            **{"text_target" if target else "text": batch},
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        rows += encoded["input_ids"]
    return Ragged.from_lists(rows)


def _leave_room(tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> None:
    special = tokenizer.num_special_tokens_to_add()
    if max_length is not None and max_length <= special:
        raise ValueError(f"max_length {max_length} leaves no room beside {special} special tokens: raise it")


def tokenize_parts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, offsets: bool) -> dict[str, Ragged]:
    """`input_ids` of parts of an input, such as questions, without special tokens: (N, T_i).

    Args:
        tokenizer: a fast tokenizer.
        texts: N texts.
        offsets: also `starts` and `ends`, the characters that each token stands for.
    """
    if not tokenizer.is_fast:
        raise SourceError(
            f"the tokenizer is a slow one ({type(tokenizer).__name__}), which does not know offsets: "
            f"take a checkpoint with a fast one (tokenizer.json)"
        )
    lengths: list[int] = []
    ids: list[Array] = []
    pairs: list[Array] = []
    for start in range(0, len(texts), SLICE):
        encodings = tokenizer(
            list(texts[start : start + SLICE]),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # contexts longer than the model are cut into windows later
        ).encodings
        assert encodings is not None
        lengths += map(len, encodings)
        ids.append(np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), dtype=np.int64))
        if offsets:
            flat = chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings))
            pairs.append(np.fromiter(flat, dtype=np.int64).reshape(-1, 2))
    sizes = np.asarray(lengths, dtype=np.int64)
    columns = {"input_ids": np.concatenate([np.empty(0, np.int64), *ids])}
    if offsets:
        both = np.concatenate([np.empty((0, 2), np.int64), *pairs])
        columns |= {"starts": both[:, 0].copy(), "ends": both[:, 1].copy()}
    return {name: Ragged.from_lengths(values, lengths=sizes) for name, values in columns.items()}
