"""Align word labels with tokens, and merge token labels back into word labels.

People label words, but a token classifier labels tokens, and a tokenizer may split a word into several. There are two
strategies. `all` labels every token of a word, and the later ones continue the entity. `first` labels only the first
token, and the loss ignores the others (Devlin et al. 2019, "BERT", section 5.3). Both depend on the *name* of a label,
never on the order of the ids.

One rule re-spells the label of a split word in every scheme: a token opens an entity if its word does and it is the
word's first token; it closes the entity if its word does and it is the word's last token. Merging inverts this rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from touchstone.stages.batched import Mask, check_row_counts, refuse_rows, rows_of_other_length, rows_with
from touchstone.stages.ragged import IGNORED, MISSING, Array, Ragged
from touchstone.stages.tags import NO_SUCH_NAME, OUTSIDE, Tag, TagSet, parse_names

STRATEGIES = ("all", "first")


def align_labels(
    labels: Sequence[int],
    *,
    word_ids: Sequence[int | None],
    names: Sequence[str],
    strategy: str = "all",
    scheme: str = "IOB2",
    sequence_ids: Sequence[int | None] | None = None,
    sequence: int = 0,
) -> list[int]:
    """Turn word labels into token labels.

    >>> names = ["O", "B-PER", "I-PER"]
    >>> align_labels([0, 1], word_ids=[None, 0, 1, 1, None], names=names)
    [-100, 0, 1, 2, -100]
    >>> align_labels([0, 1], word_ids=[None, 0, 1, 1, None], names=names, strategy="first")
    [-100, 0, 1, -100, -100]

    Args:
        labels: (W,) the label id of each word.
        word_ids: (T,) the index of the word that each token came from, `None` at special tokens.
        names: (L,) the name of each label id.
        strategy: `all` labels every token of a word, `first` only the first; the later ones get -100.
        scheme: `IOB2`, `IOBES` or `BILOU`.
        sequence_ids: (T,) for pairs, the sequence that each token belongs to, `None` at special tokens.
        sequence: the sequence of the pair that `labels` describes. Tokens outside it get -100.

    Returns:
        (T,) the label id of each token. A word without a token (truncated away) has no effect.

    Raises:
        ValueError: a label id outside `names`, a word id outside `labels`, a name that is not a tag of the scheme or
            occurs twice, a split word whose re-spelt tag is not in `names`, `word_ids` and `sequence_ids` of different
            lengths, an unknown strategy or scheme.
    """
    tag_set = parse_names(names, scheme=scheme)
    _check_strategy(strategy)
    for word, label in enumerate(labels):
        if not 0 <= label < len(tag_set.names):
            raise ValueError(f"labels[{word}] is {label}, outside the {len(tag_set.names)} names")

    aligned = [IGNORED] * len(word_ids)
    for word, tokens in _tokens_of_words(word_ids, sequence_ids, sequence, n_words=len(labels)).items():
        label = int(labels[word])
        if strategy == "first":
            aligned[tokens[0]] = label
            continue
        tag = tag_set.tags[label]
        for token in tokens:
            opens = tag.opens and token == tokens[0]
            closes = tag.closes and token == tokens[-1]
            aligned[token] = _id_of(Tag(tag.type, opens, closes), tag_set, word=word)
    return aligned


def merge_labels(
    token_labels: Sequence[int],
    *,
    word_ids: Sequence[int | None],
    n_words: int,
    names: Sequence[str],
    scheme: str = "IOB2",
    sequence_ids: Sequence[int | None] | None = None,
    sequence: int = 0,
) -> list[int]:
    """Turn token labels, predicted or gold, into one label per word: the inverse of `align_labels`.

    The first token of a word decides its label. In IOBES and BILOU the last token, if it has a label, decides whether
    the entity closes. A word without a token, or whose first token has no label, gets `O`, so its gold entity still
    counts in recall.

    >>> names = ["O", "B-PER", "I-PER"]
    >>> merge_labels([-100, 0, 1, 2, -100], word_ids=[None, 0, 1, 1, None], n_words=3, names=names)
    [0, 1, 0]

    Args:
        token_labels: (T,) the label id of each token, -100 where there is none.
        word_ids, names, scheme, sequence_ids, sequence: as in `align_labels`.
        n_words: the number of words in the sentence, including truncated ones.

    Returns:
        (n_words,) the label id of each word.

    Raises:
        ValueError: as in `align_labels`; `token_labels` and `word_ids` of different lengths, a negative `n_words`, or
            no `O` in `names`.
    """
    tag_set = parse_names(names, scheme=scheme)
    outside_id = _outside_id(tag_set)
    if n_words < 0:
        raise ValueError(f"n_words is {n_words}: a sentence has 0 words or more")
    if len(token_labels) != len(word_ids):
        raise ValueError(f"{len(token_labels)} token_labels for {len(word_ids)} word_ids")
    for token, label in enumerate(token_labels):
        if label != IGNORED and not 0 <= label < len(tag_set.names):
            raise ValueError(f"token_labels[{token}] is {label}: not {IGNORED}, not in {len(tag_set.names)} names")

    merged = [outside_id] * n_words
    for word, tokens in _tokens_of_words(word_ids, sequence_ids, sequence, n_words=n_words).items():
        first, last = token_labels[tokens[0]], token_labels[tokens[-1]]
        if first == IGNORED or tag_set.tags[first] == OUTSIDE:
            continue
        opening = tag_set.tags[first]
        closing = opening if last == IGNORED else tag_set.tags[last]
        merged[word] = _id_of(Tag(opening.type, opening.opens, closing.closes), tag_set, word=word)
    return merged


def _tokens_of_words(
    word_ids: Sequence[int | None],
    sequence_ids: Sequence[int | None] | None,
    sequence: int,
    *,
    n_words: int,
) -> dict[int, list[int]]:
    """Return the tokens of each word of `sequence` that has any: word id to ascending positions."""
    if sequence_ids is not None and len(sequence_ids) != len(word_ids):
        raise ValueError(f"{len(sequence_ids)} sequence_ids for {len(word_ids)} word_ids")
    tokens: dict[int, list[int]] = {}
    for token, word in enumerate(word_ids):
        if word is None or (sequence_ids is not None and sequence_ids[token] != sequence):
            continue
        if not 0 <= word < n_words:
            raise ValueError(f"word_ids[{token}] is {word}, outside the {n_words} words")
        tokens.setdefault(int(word), []).append(token)
    return tokens


def _id_of(tag: Tag, tag_set: TagSet, *, word: int) -> int:
    if tag not in tag_set.ids:
        raise ValueError(
            f"word {word} needs the label {tag_set.spell(tag)!r}, which is not among the names {list(tag_set.names)}: "
            "add it, or label only the first token of each word"
        )
    return tag_set.ids[tag]


def _outside_id(tag_set: TagSet) -> int:
    if OUTSIDE not in tag_set.ids:
        raise ValueError(f"names {list(tag_set.names)} lack 'O', the label of words without a token: add it")
    return tag_set.ids[OUTSIDE]


def _check_strategy(strategy: str) -> None:
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy {strategy!r} is unknown: use one of {', '.join(STRATEGIES)}")


# The batched versions -------------------------------------------------------------------------------------------------


class _WordTokens(NamedTuple):
    """The M tokens that belong to words, and the W words of all rows together."""

    token: Array  # (M,) index into the flat tokens
    word: Array  # (M,) index into the flat words
    first: Array  # (W,) flat index of the word's first token, -1 if it has no token
    last: Array  # (W,) flat index of the word's last token, -1 if it has no token
    invalid: Mask  # (N,) rows with a word id outside their words


def align_labels_batch(
    labels: Ragged,
    *,
    word_ids: Ragged,
    names: Sequence[str],
    strategy: str = "all",
    scheme: str = "IOB2",
    sequence_ids: Ragged | None = None,
    sequence: int = 0,
) -> Ragged:
    """Apply `align_labels` to N sentences.

    >>> word_ids = Ragged.from_lists([[None, 0, 1, 1, None], [None, 0, None]])
    >>> labels = Ragged.from_lists([[0, 1], [1]])
    >>> align_labels_batch(labels, word_ids=word_ids, names=["O", "B-PER", "I-PER"]).to_lists()
    [[-100, 0, 1, 2, -100], [-100, 1, -100]]

    Args:
        labels: N rows of words.
        word_ids, sequence_ids: N rows of tokens, with -1 for `None`.
        names, strategy, scheme, sequence: as in `align_labels`.

    Returns:
        N rows of token labels.

    Raises:
        ValueError: as in `align_labels`, with the number of the row; different numbers of rows.
    """
    tag_set = parse_names(names, scheme=scheme)
    _check_strategy(strategy)
    check_row_counts(len(labels), word_ids=word_ids, sequence_ids=sequence_ids)
    tokens = {"word_ids": word_ids, "sequence_ids": sequence_ids, "sequence": sequence}
    options = {"names": tag_set.names, "strategy": strategy, "scheme": scheme}
    refuse = partial(refuse_rows, align_labels, labels, **tokens, **options)

    refuse(rows_of_other_length(word_ids, sequence_ids))
    refuse(rows_with((labels.values < 0) | (labels.values >= len(tag_set.names)), labels))
    words = _find_words(word_ids, sequence_ids, sequence, word_offsets=labels.offsets)
    refuse(words.invalid)

    aligned = np.full(len(word_ids.values), IGNORED, np.int64)
    is_first = words.first[words.word] == words.token
    if strategy == "first":
        aligned[words.token[is_first]] = labels.values[words.word[is_first]]
    else:
        table = tag_set.table
        is_last = words.last[words.word] == words.token
        label = labels.values[words.word]
        opens, closes = table.opens[label] & is_first, table.closes[label] & is_last
        aligned[words.token] = table.ids[table.kind[label], opens, closes]
        refuse(rows_with(aligned == NO_SUCH_NAME, word_ids))
    return Ragged(aligned, word_ids.offsets.copy())


def merge_labels_batch(
    token_labels: Ragged,
    *,
    word_ids: Ragged,
    n_words: Sequence[int] | Array,
    names: Sequence[str],
    scheme: str = "IOB2",
    sequence_ids: Ragged | None = None,
    sequence: int = 0,
) -> Ragged:
    """Apply `merge_labels` to N sentences.

    Args:
        token_labels, word_ids, sequence_ids: N rows of tokens, with -1 for `None`.
        n_words: (N,) the number of words of each sentence.
        names, scheme, sequence: as in `merge_labels`.

    Returns:
        N rows of word labels.

    Raises:
        ValueError: as in `merge_labels`, with the number of the row; different numbers of rows.
    """
    tag_set = parse_names(names, scheme=scheme)
    counts = np.array(n_words, dtype=np.int64).reshape(-1)
    check_row_counts(len(counts), token_labels=token_labels, word_ids=word_ids, sequence_ids=sequence_ids)
    tokens = {"word_ids": word_ids, "sequence_ids": sequence_ids, "sequence": sequence}
    options = {"n_words": counts, "names": tag_set.names, "scheme": scheme}
    refuse = partial(refuse_rows, merge_labels, token_labels, **tokens, **options)

    outside_id = _outside_id(tag_set)
    refuse((counts < 0) | rows_of_other_length(word_ids, token_labels, sequence_ids))
    in_names = (token_labels.values >= 0) & (token_labels.values < len(tag_set.names))
    refuse(rows_with(~in_names & (token_labels.values != IGNORED), token_labels))
    merged = Ragged.from_lengths(np.full(counts.sum(), outside_id, np.int64), lengths=counts)
    words = _find_words(word_ids, sequence_ids, sequence, word_offsets=merged.offsets)
    refuse(words.invalid)

    table = tag_set.table
    labelled = np.flatnonzero(words.first >= 0)
    labelled = labelled[token_labels.values[words.first[labelled]] != IGNORED]
    first, last = token_labels.values[words.first[labelled]], token_labels.values[words.last[labelled]]
    last = np.where(last == IGNORED, first, last)
    merged.values[labelled] = table.ids[table.kind[first], table.opens[first], table.closes[last]]
    refuse(rows_with(merged.values == NO_SUCH_NAME, merged))
    return merged


def _find_words(word_ids: Ragged, sequence_ids: Ragged | None, sequence: int, *, word_offsets: Array) -> _WordTokens:
    belongs = word_ids.values != MISSING
    if sequence_ids is not None:
        belongs &= sequence_ids.values == sequence
    token = np.flatnonzero(belongs)
    row, word = word_ids.rows[token], word_ids.values[token]
    valid = (word >= 0) & (word < np.diff(word_offsets)[row])
    invalid = np.zeros(len(word_ids), np.bool_)
    invalid[row[~valid]] = True
    token, word = token[valid], word[valid] + word_offsets[row[valid]]
    # When several values are assigned to one place, NumPy keeps the last. Reversed, that is the word's first token.
    first, last = np.full((2, word_offsets[-1]), -1, np.int64)
    first[word[::-1]] = token[::-1]
    last[word] = token
    return _WordTokens(token, word, first, last, invalid)
