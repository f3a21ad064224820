"""Text to columnar token ids, many examples a call; with a Rust tokenizer no Python loop over tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils.generic import PaddingStrategy

from reference.pipelines.words import splice_words
from reference.ragged import MISSING, Array, Ragged
from reference.sources.source import SourceError

SLICE = 1024
"""Examples a call: enough for every core, little enough that encodings (some 100 bytes a token) never add up."""
SAMPLE = 32
"""Lists of words that are tokenized both ways before the short one is believed."""


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Any] | pa.ChunkedArray,
    *,
    pretokenized: bool,
    max_length: int | None,
) -> dict[str, Ragged]:
    """`input_ids`, `word_ids` (-1 at special tokens) and `special_tokens_mask`, (N, T_i) each.

    Args:
        tokenizer: a fast tokenizer.
        examples: N texts or, `pretokenized`, N lists of words; or the Arrow column that holds them.
        pretokenized: whether examples are lists of words.
        max_length: tokens of an example, special tokens included; the rest is cut off at the end. None: nothing is.

    Raises:
        SourceError: a slow tokenizer, which does not know word ids.
        ValueError: a `max_length` that has no room beside the special tokens.
    """
    _want_fast(tokenizer, "word_ids")
    _leave_room(tokenizer, max_length)
    if pretokenized and len(examples) > 2 * SAMPLE:
        spliced = _splice(tokenizer, examples, max_length=max_length)
        if spliced is not None:
            return spliced
    ids, words, special = [], [], []
    for start in range(0, len(examples), SLICE):
        encodings = _encode(
            tokenizer, _slice(examples, start), pretokenized=pretokenized, special=True, max_length=max_length
        )
        ids.append(_in_a_row([encoding.ids for encoding in encodings]))
        rows = pa.array([encoding.word_ids for encoding in encodings], type=pa.large_list(pa.int64()))
        words.append(Ragged.from_arrow(rows).values)
        masks = (bytes(encoding.special_tokens_mask) for encoding in encodings)  # each 0 or 1
        special.append(np.frombuffer(b"".join(masks), np.uint8).astype(np.int64))
    whole = Ragged.concatenate(ids)
    mask = np.concatenate([np.empty(0, np.int64), *special])
    # A special token belongs to no word, although some tokenizers give it one.
    word_ids = np.where(mask == 1, MISSING, np.concatenate([np.empty(0, np.int64), *words]))
    return {
        "input_ids": whole,
        "word_ids": whole.with_values(word_ids),
        "special_tokens_mask": whole.with_values(mask),
    }


def _splice(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Any] | pa.ChunkedArray, *, max_length: int | None
) -> dict[str, Ragged] | None:
    """Lists of words by way of their distinct words; None where that gives something else for a sample of them."""
    if not _is_plain(tokenizer) or tokenizer.truncation_side != "right":
        return None
    if not isinstance(examples, pa.ChunkedArray):
        offsets = np.cumsum([0, *map(len, examples)], dtype=np.int64)
        words = pa.array(list(chain.from_iterable(examples)), type=pa.large_string())
        examples = pa.chunked_array([pa.LargeListArray.from_arrays(pa.array(offsets), words)])
    column = examples.cast(pa.large_list(pa.large_string())).combine_chunks()
    if column.null_count or column.flatten().null_count:
        return None  # the tokenizer says what it thinks of that
    _set(tokenizer, max_length=None)
    columns = splice_words(tokenizer.backend_tokenizer, column, max_length=max_length)
    sample = np.unique(np.linspace(0, len(column) - 1, SAMPLE).astype(np.int64))
    lists = [column[row].as_py() for row in sample.tolist()]
    expected = tokenize(tokenizer, lists, pretokenized=True, max_length=max_length)
    if columns is None or any(columns[name].take(sample) != expected[name] for name in expected):
        return None
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
    parts = []
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
        parts.append(_in_a_row(encoded["input_ids"]))
    return Ragged.concatenate(parts)


def tokenize_parts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, offsets: bool) -> dict[str, Ragged]:
    """`input_ids` of parts of an input, such as questions, without special tokens: (N, T_i).

    Args:
        tokenizer: a fast tokenizer.
        texts: N texts.
        offsets: also `starts` and `ends`, the characters that each token stands for.
    """
    _want_fast(tokenizer, "offsets")
    ids: list[Ragged] = []
    pairs: list[Array] = []
    for start in range(0, len(texts), SLICE):
        # Contexts longer than the model are cut into windows later.
        encodings = _encode(tokenizer, _slice(texts, start), pretokenized=False, special=False, places=offsets)
        ids.append(_in_a_row([encoding.ids for encoding in encodings]))
        if offsets:
            flat = chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings))
            pairs.append(np.fromiter(flat, dtype=np.int64, count=2 * len(ids[-1].values)).reshape(-1, 2))
    columns = {"input_ids": Ragged.concatenate(ids)}
    if offsets:
        both = np.concatenate([np.empty((0, 2), np.int64), *pairs])
        for column, name in enumerate(("starts", "ends")):
            columns[name] = columns["input_ids"].with_values(both[:, column].copy())
    return columns


# What the Rust tokenizer is asked -------------------------------------------------------------------------------------


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Any],
    *,
    pretokenized: bool,
    special: bool,
    max_length: int | None = None,
    places: bool = True,
) -> list[Encoding]:
    """What calling the tokenizer gives as `encodings`, without the lists that it makes of them for its other results.

    `places`: whether words and characters are to be known; it is faster without.
    """
    if not _is_plain(tokenizer):
        called = tokenizer(
            examples,
            add_special_tokens=special,
            is_split_into_words=pretokenized,
            truncation=max_length is not None,
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # texts longer than the model are cut into chunks later
        ).encodings
        assert called is not None
        return list(called)
    _set(tokenizer, max_length=max_length)
    rust = tokenizer.backend_tokenizer
    encode = rust.encode_batch if places else rust.encode_batch_fast
    encodings: list[Encoding] = encode(examples, is_pretokenized=pretokenized, add_special_tokens=special)
    return encodings


def _is_plain(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether calling it is asking its Rust tokenizer: some models' tokenizers do more (layouts, entities, tables)."""
    kind, base = type(tokenizer), PreTrainedTokenizerFast
    methods = ("__call__", "_encode_plus", "set_truncation_and_padding")
    return issubclass(kind, base) and all(getattr(kind, name) is getattr(base, name) for name in methods)


def _set(tokenizer: PreTrainedTokenizerBase, *, max_length: int | None) -> None:
    """What a call sets before it asks; every call does, so that nobody relies on what was set."""
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    cut = TruncationStrategy.DO_NOT_TRUNCATE if max_length is None else TruncationStrategy.LONGEST_FIRST
    tokenizer.set_truncation_and_padding(
        padding_strategy=PaddingStrategy.DO_NOT_PAD,
        truncation_strategy=cut,
        max_length=max_length or 0,
        stride=0,
        pad_to_multiple_of=None,
        padding_side=None,
    )
    tokenizer.backend_tokenizer.encode_special_tokens = tokenizer.split_special_tokens


def _slice(examples: Sequence[Any] | pa.ChunkedArray, start: int) -> list[Any]:
    part = examples[start : start + SLICE]
    return part.to_pylist() if isinstance(part, pa.ChunkedArray) else list(part)


def _in_a_row(rows: Sequence[Sequence[int]]) -> Ragged:
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    values = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
    return Ragged.from_lengths(values, lengths=lengths)


def _want_fast(tokenizer: PreTrainedTokenizerBase, what: str) -> None:
    if not tokenizer.is_fast:
        raise SourceError(
            f"the tokenizer is a slow one ({type(tokenizer).__name__}), which does not know {what}: "
            f"take a checkpoint with a fast one (tokenizer.json)"
        )


def _leave_room(tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> None:
    special = tokenizer.num_special_tokens_to_add()
    if max_length is not None and max_length <= special:
        raise ValueError(f"max_length {max_length} leaves no room beside {special} special tokens: raise it")
