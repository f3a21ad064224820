"""Text to columnar token ids, many examples a call; with a Rust tokenizer no Python loop over tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils.generic import PaddingStrategy

from touchstone.sources.source import SourceError
from touchstone.stages.ragged import MISSING, Array, Ragged

# Lists of words to tokens, each distinct word tokenized once. A fast tokenizer takes the words of a list one by
# one: it normalizes, splits and looks up each without a look at its neighbours, puts their tokens in a row, cuts
# the row and sets special tokens about it (`encode_single_sequence` of the tokenizers library). So what it makes of
# a list follows from what it makes of each word, and running text has one distinct word in ten or so. Where that is
# not known to hold, or a sample shows that it does not, there is no result here, and the tokenizer has to be asked
# for every list.


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
