"""Tokenize whole splits: texts or lists of words in, columns of token ids out.

`tokenize` encodes whole inputs with word ids, `token_ids` encodes whole inputs with any tokenizer, and `tokenize_parts`
encodes texts that become parts of an input. Their results equal those of calling the tokenizer on each example, but
they call it on many examples at once, and with a fast (Rust) tokenizer there is no Python loop over tokens.

Lists of words take a faster way where it is valid (`splice_words`). A fast tokenizer encodes the words of a list one by
one: it normalizes, splits and looks up each without its neighbours, concatenates their tokens, truncates, and adds
special tokens (see `encode_single_sequence` in the tokenizers library). So each distinct word needs to be encoded only
once, and in running text only about one word in ten is distinct. A sample of the lists is also tokenized whole. If the
tokenizer may work differently, or the sample differs, all lists are tokenized whole.
"""

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

SLICE = 1024
"""Examples per call of the tokenizer: enough for all cores, and few enough for memory (100 bytes per token)."""
SAMPLE = 32
"""Lists of words that are also tokenized whole, to check the result of `splice_words`."""
WORDS_PER_LIST = 512
"""Distinct words in one list for the tokenizer: this gives few encodings, but enough for all cores."""


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Any] | pa.ChunkedArray,
    *,
    pretokenized: bool,
    max_length: int | None,
) -> dict[str, Ragged]:
    """Encode whole inputs, with special tokens.

    Args:
        tokenizer: a fast tokenizer.
        examples: N texts, or with `pretokenized` N lists of words; or an Arrow column of them.
        pretokenized: the examples are lists of words.
        max_length: the most tokens of an example, with special tokens. The rest is cut off. None: no limit.

    Returns:
        `input_ids`, `word_ids` (-1 at special tokens) and `special_tokens_mask`, (N, T_i) each.

    Raises:
        SourceError: a slow tokenizer, which has no word ids.
        ValueError: a `max_length` that leaves no room for more than the special tokens.
    """
    _require_fast(tokenizer, "word_ids")
    _require_room(tokenizer, max_length)
    if pretokenized and len(examples) > 2 * SAMPLE:
        spliced = _splice(tokenizer, examples, max_length=max_length)
        if spliced is not None:
            return spliced
    ids, words, special = [], [], []
    for start in range(0, len(examples), SLICE):
        encodings = _encode(
            tokenizer, _slice(examples, start), pretokenized=pretokenized, special=True, max_length=max_length
        )
        ids.append(_to_ragged([encoding.ids for encoding in encodings]))
        rows = pa.array([encoding.word_ids for encoding in encodings], type=pa.large_list(pa.int64()))
        words.append(Ragged.from_arrow(rows).values)
        masks = (bytes(encoding.special_tokens_mask) for encoding in encodings)  # each 0 or 1
        special.append(np.frombuffer(b"".join(masks), np.uint8).astype(np.int64))
    whole = Ragged.concatenate(ids)
    mask = np.concatenate([np.empty(0, np.int64), *special])
    # Some tokenizers give a special token the id of a word; the contract says -1.
    word_ids = np.where(mask == 1, MISSING, np.concatenate([np.empty(0, np.int64), *words]))
    return {
        "input_ids": whole,
        "word_ids": whole.with_values(word_ids),
        "special_tokens_mask": whole.with_values(mask),
    }


def token_ids(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int, target: bool = False
) -> Ragged:
    """Encode whole texts, with special tokens: (N, T_i).

    Args:
        tokenizer: a fast or a slow tokenizer.
        texts: N texts.
        max_length: the most tokens of a text, with special tokens. The text is cut, the special tokens stay.
        target: the texts are targets of a sequence-to-sequence model. Some tokenizers (Marian) encode sources and
            targets with different vocabularies.

    Raises:
        ValueError: a `max_length` that leaves no room for more than the special tokens.
    """
    _require_room(tokenizer, max_length)
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
        parts.append(_to_ragged(encoded["input_ids"]))
    return Ragged.concatenate(parts)


def tokenize_parts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, offsets: bool) -> dict[str, Ragged]:
    """Encode texts that become parts of an input (questions, contexts), without special tokens.

    Args:
        tokenizer: a fast tokenizer.
        texts: N texts.
        offsets: also return `starts` and `ends`: the first character of each token, and the one after its last.

    Returns:
        `input_ids`, and with `offsets` also `starts` and `ends`, (N, T_i) each.

    Raises:
        SourceError: a slow tokenizer, which has no offsets.
    """
    _require_fast(tokenizer, "offsets")
    ids: list[Ragged] = []
    pairs: list[Array] = []
    for start in range(0, len(texts), SLICE):
        encodings = _encode(tokenizer, _slice(texts, start), pretokenized=False, special=False, offsets=offsets)
        ids.append(_to_ragged([encoding.ids for encoding in encodings]))
        if offsets:
            flat = chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings))
            pairs.append(np.fromiter(flat, dtype=np.int64, count=2 * len(ids[-1].values)).reshape(-1, 2))
    columns = {"input_ids": Ragged.concatenate(ids)}
    if offsets:
        both = np.concatenate([np.empty((0, 2), np.int64), *pairs])
        for column, name in enumerate(("starts", "ends")):
            columns[name] = columns["input_ids"].with_values(both[:, column].copy())
    return columns


def _encode(
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Any],
    *,
    pretokenized: bool,
    special: bool,
    max_length: int | None = None,
    offsets: bool = True,
) -> list[Encoding]:
    """Return the `encodings` of calling the tokenizer, without the lists that a call makes from them.

    Args:
        special: add special tokens.
        offsets: also find the words and characters of the tokens; it is faster without.
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
            verbose=False,  # texts longer than the model's limit are cut into chunks or windows later
        ).encodings
        assert called is not None
        return list(called)
    _configure(tokenizer, max_length=max_length)
    rust = tokenizer.backend_tokenizer
    encode = rust.encode_batch if offsets else rust.encode_batch_fast
    encodings: list[Encoding] = encode(examples, is_pretokenized=pretokenized, add_special_tokens=special)
    return encodings


def _is_plain(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a call only calls the Rust tokenizer. Some tokenizers do more (layouts, entities, tables)."""
    kind, base = type(tokenizer), PreTrainedTokenizerFast
    methods = ("__call__", "_encode_plus", "set_truncation_and_padding")
    return issubclass(kind, base) and all(getattr(kind, name) is getattr(base, name) for name in methods)


def _configure(tokenizer: PreTrainedTokenizerBase, *, max_length: int | None) -> None:
    """Configure the Rust tokenizer as a call does. Every call does this, so no earlier setting can matter."""
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


def _to_ragged(rows: Sequence[Sequence[int]]) -> Ragged:
    """Concatenate lists of integers. This is faster than `Ragged.from_lists`, which also handles None."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    values = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
    return Ragged.from_lengths(values, lengths=lengths)


def _require_fast(tokenizer: PreTrainedTokenizerBase, what: str) -> None:
    if not tokenizer.is_fast:
        raise SourceError(
            f"the tokenizer is a slow one ({type(tokenizer).__name__}), which has no {what}: "
            f"use a checkpoint with a fast tokenizer (tokenizer.json)"
        )


def _require_room(tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> None:
    special = tokenizer.num_special_tokens_to_add()
    if max_length is not None and max_length <= special:
        raise ValueError(f"max_length {max_length} leaves no room for more than {special} special tokens: raise it")


def _splice(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Any] | pa.ChunkedArray, *, max_length: int | None
) -> dict[str, Ragged] | None:
    """Encode lists of words with `splice_words`, or return None if that may differ from encoding them whole."""
    if not _is_plain(tokenizer) or tokenizer.truncation_side != "right":
        return None
    if not isinstance(examples, pa.ChunkedArray):
        offsets = np.cumsum([0, *map(len, examples)], dtype=np.int64)
        words = pa.array(list(chain.from_iterable(examples)), type=pa.large_string())
        examples = pa.chunked_array([pa.LargeListArray.from_arrays(pa.array(offsets), words)])
    column = examples.cast(pa.large_list(pa.large_string())).combine_chunks()
    if column.null_count or column.flatten().null_count:
        return None  # the tokenizer will raise its own error
    _configure(tokenizer, max_length=None)
    columns = splice_words(tokenizer.backend_tokenizer, column, max_length=max_length)
    sample = np.unique(np.linspace(0, len(column) - 1, SAMPLE).astype(np.int64))
    lists = [column[row].as_py() for row in sample.tolist()]
    expected = tokenize(tokenizer, lists, pretokenized=True, max_length=max_length)
    if columns is None or any(columns[name].take(sample) != expected[name] for name in expected):
        return None
    return columns


class Frame(NamedTuple):
    """The special tokens that a tokenizer adds to every input: (P,) before it and (S,) after it."""

    before: Array
    after: Array


def splice_words(tokenizer: Tokenizer, words: pa.LargeListArray, *, max_length: int | None) -> dict[str, Ragged] | None:
    """Encode lists of words by encoding each distinct word once.

    Args:
        tokenizer: a Rust tokenizer that is configured neither to truncate nor to pad.
        words: N lists of strings.
        max_length: the most tokens of a list, with special tokens. It must leave room for one more token. The rest is
            cut off at the end.

    Returns:
        The columns of `tokenize`; None if the tokenizer is random, or adds special tokens inside an input.
    """
    frame = find_frame(tokenizer)
    if frame is None or _is_random(tokenizer):
        return None
    encoded = pc.dictionary_encode(words.flatten())
    tokens_of = _encode_words(tokenizer, encoded.dictionary.to_pylist())
    word = np.asarray(encoded.indices, dtype=np.int64)
    offsets = np.asarray(words.offsets, dtype=np.int64)
    within = np.arange(len(word), dtype=np.int64) - np.repeat(offsets[:-1] - offsets[0], np.diff(offsets))
    ids = tokens_of.take(word)  # one row per word
    sentences = Ragged(ids.values, ids.offsets[offsets - offsets[0]])  # the same values, one row per list
    word_ids = np.repeat(within, ids.lengths)
    if max_length is not None:
        room = max_length - len(frame.before) - len(frame.after)
        kept = sentences.places < room
        sentences = Ragged.from_lengths(ids.values[kept], lengths=np.minimum(sentences.lengths, room))
        word_ids = word_ids[kept]
    return _add_frame(sentences, word_ids=word_ids, frame=frame)


def find_frame(tokenizer: Tokenizer) -> Frame | None:
    """Find the special tokens around an input; None if the tokenizer also adds some inside."""
    bare = tokenizer.encode(["a"], is_pretokenized=True, add_special_tokens=False).ids
    whole = tokenizer.encode(["a"], is_pretokenized=True)
    if not bare or len(whole.ids) != len(bare) + tokenizer.num_special_tokens_to_add(False):
        return None
    start = whole.special_tokens_mask.index(0) if 0 in whole.special_tokens_mask else 0
    before, after = whole.ids[:start], whole.ids[start + len(bare) :]
    if whole.ids != [*before, *bare, *after] or sum(whole.special_tokens_mask) != len(before) + len(after):
        return None
    return Frame(np.asarray(before, np.int64), np.asarray(after, np.int64))


def _is_random(tokenizer: Tokenizer) -> bool:
    """Return whether the tokens of a text are random, by BPE dropout or by sampling from a unigram model."""
    model: Any = tokenizer.model
    return bool(getattr(model, "dropout", None) or getattr(model, "alpha", None))


def _encode_words(tokenizer: Tokenizer, words: Sequence[str]) -> Ragged:
    """Return (D, T_d) the tokens of D words."""
    groups = [words[start : start + WORDS_PER_LIST] for start in range(0, len(words), WORDS_PER_LIST)]
    encodings = tokenizer.encode_batch(groups, is_pretokenized=True, add_special_tokens=False)
    ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), dtype=np.int64)
    counts = [
        np.bincount(np.asarray(encoding.word_ids, dtype=np.int64), minlength=len(group))
        for encoding, group in zip(encodings, groups, strict=True)
    ]
    return Ragged.from_lengths(ids, lengths=np.concatenate([np.empty(0, np.int64), *counts]))


def _add_frame(sentences: Ragged, *, word_ids: Array, frame: Frame) -> dict[str, Ragged]:
    """Add the special tokens to each row."""
    before, after = len(frame.before), len(frame.after)
    lengths = sentences.lengths + before + after
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    starts, ends = offsets[:-1], offsets[1:]
    special = np.zeros(offsets[-1], np.int64)
    ids = np.empty(offsets[-1], np.int64)
    for place, token in enumerate(frame.before):
        ids[starts + place] = token
        special[starts + place] = 1
    for place, token in enumerate(frame.after):
        ids[ends - after + place] = token
        special[ends - after + place] = 1
    real = special == 0
    ids[real] = sentences.values
    words = np.full(offsets[-1], MISSING, np.int64)
    words[real] = word_ids
    return {
        "input_ids": Ragged(ids, offsets),
        "word_ids": Ragged(words, offsets),
        "special_tokens_mask": Ragged(special, offsets),
    }
