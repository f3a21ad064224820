"""Bugs on the way from ids back to text."""

from __future__ import annotations

import numpy as np

from tests.independent.decoding import clean_sequences
from tests.planted.bug import planted

IGNORED = -100


@planted(
    "clean_sequences",
    caught_by="D1",
    evidence="huggingface/transformers#22634 huggingface/transformers#24433 course/4.mdx:547 course/5.mdx:521",
)
def only_labels_are_cleaned(sequences, *, pad_id, eos_id, start_id=None):
    """-100 stays where a sequence was padded over batches: the tokenizer raises an OverflowError."""
    cleaned = clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=start_id)
    return [[*ids, *[IGNORED for id in row if id == IGNORED][:1]] for ids, row in zip(cleaned, sequences, strict=True)]


@planted("clean_sequences", caught_by="D1", evidence="huggingface/transformers#10046")
def ignored_is_padding_and_padding_stays(sequences, *, pad_id, eos_id, start_id=None):
    """`np.where(labels != -100, labels, pad_id)` and no more: whether padding becomes text is left to the tokenizer."""
    cleaned = clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=start_id)
    width = max((len(row) for row in sequences), default=0)
    return [[*ids, *[pad_id] * (width - len(ids))] for ids in cleaned]


@planted("clean_sequences", caught_by="D2 D3")
def text_after_the_end(sequences, *, pad_id, eos_id, start_id=None):
    """The end of sequence is dropped as a special token, and what was written behind it is kept."""
    kept = [[id for place, id in enumerate(row) if id != eos_id or place == 0] for row in sequences]
    return clean_sequences(kept, pad_id=pad_id, eos_id=eos_id, start_id=start_id)


@planted("clean_sequences", caught_by="D2")
def end_kept(sequences, *, pad_id, eos_id, start_id=None):
    """The row ends behind its first end of sequence, and not before it."""
    cleaned = clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=start_id)
    ended = [eos_id in list(row)[1:] and eos_id != pad_id for row in sequences]
    return [[*ids, eos_id] if end else ids for ids, end in zip(cleaned, ended, strict=True)]


@planted("clean_sequences", caught_by="D2")
def last_end_counts(sequences, *, pad_id, eos_id, start_id=None):
    """The row is cut at its last end of sequence instead of its first."""
    rows = []
    for row in sequences:
        ids = [int(id) for id in row]
        last = len(ids) - 1 - ids[::-1].index(eos_id) if eos_id in ids else len(ids)
        rows.append([id for place, id in enumerate(ids[:last]) if id != eos_id or place == 0])
    return clean_sequences(rows, pad_id=pad_id, eos_id=eos_id, start_id=start_id)


@planted("clean_sequences", caught_by="D3")
def last_token_cut_for_the_end(sequences, *, pad_id, eos_id, start_id=None):
    """The last token is always treated as the end: text cut at the length limit loses a word."""
    cleaned = clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=start_id)
    return [ids if eos_id in list(row)[1:] else ids[:-1] for ids, row in zip(cleaned, sequences, strict=True)]


@planted("clean_sequences", caught_by="D3")
def tokens_become_a_set(sequences, *, pad_id, eos_id, start_id=None):
    """Special tokens are taken out as from a set: order and repetitions are lost."""
    cleaned = clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=start_id)
    return [sorted(set(ids)) for ids in cleaned]


@planted("clean_sequences", caught_by="D4")
def start_dropped_everywhere(sequences, *, pad_id, eos_id, start_id=None):
    """Every token with the start's id goes, also within the text."""
    cleaned = clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=start_id)
    return [[id for id in ids if id != start_id] for ids in cleaned]


@planted("clean_sequences", caught_by="D4")
def start_kept(sequences, *, pad_id, eos_id, start_id=None):
    """`start_id` is ignored: the decoder's first token is part of the text."""
    return clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=None)


@planted("clean_sequences", caught_by="D4")
def first_token_always_dropped(sequences, *, pad_id, eos_id, start_id=None):
    """`ids[1:]`: the first token is removed even if it is not the start."""
    rows = [[id for id in row if id != IGNORED][1:] for row in sequences]
    clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=start_id)
    return clean_sequences(rows, pad_id=pad_id, eos_id=eos_id)


@planted("clean_sequences", caught_by="D5", evidence="huggingface/transformers#23530")
def padding_dropped_before_the_end_is_seen(sequences, *, pad_id, eos_id, start_id=None):
    """Padding goes first: where it is also the end, no end is left to stop at."""
    rows = [[id for place, id in enumerate(row) if id != pad_id or place == 0] for row in sequences]
    return clean_sequences(rows, pad_id=pad_id, eos_id=eos_id, start_id=start_id)


@planted("clean_sequences", caught_by="D5")
def end_seen_before_the_start(sequences, *, pad_id, eos_id, start_id=None):
    """The row ends at its first end, also where that is the start: BART's texts are all empty."""
    clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=start_id)
    return clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=None if start_id == eos_id else start_id)


@planted("clean_sequences", caught_by="D6")
def cleaning_shortens_what_is_clean(sequences, *, pad_id, eos_id, start_id=None):
    """A row without an end of sequence is treated as truncated and loses its last token."""
    cleaned = clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=start_id)
    return [ids if len(ids) < len(list(row)) else ids[:-1] for ids, row in zip(cleaned, sequences, strict=True)]


@planted("clean_sequences", caught_by="D6")
def all_rows_cut_at_the_shortest(sequences, *, pad_id, eos_id, start_id=None):
    """All rows of a batch end where the first of them ends."""
    cleaned = clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=start_id)
    shortest = min(map(len, cleaned), default=0)
    return [ids[:shortest] for ids in cleaned]


@planted("clean_sequences", caught_by="D3 D6")
def empty_texts_dropped(sequences, *, pad_id, eos_id, start_id=None):
    """Rows without a token are not returned: predictions and references no longer belong to the same examples."""
    return [ids for ids in clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=start_id) if ids]


@planted("clean_sequences", caught_by="D7")
def whatever_is_negative_is_dropped(sequences, *, pad_id, eos_id, start_id=None):
    """Any negative id is treated as -100: an overflow goes unnoticed."""
    rows = [[id for id in row if id >= 0] for row in sequences]
    return clean_sequences(rows, pad_id=pad_id, eos_id=eos_id, start_id=start_id)


@planted("clean_sequences", caught_by="D8")
def ignored_replaced_in_place(sequences, *, pad_id, eos_id, start_id=None):
    """`labels[labels == -100] = pad_id` on the caller's array."""
    cleaned = clean_sequences(sequences, pad_id=pad_id, eos_id=eos_id, start_id=start_id)
    if isinstance(sequences, np.ndarray):
        sequences[sequences == IGNORED] = pad_id
    return cleaned


@planted("clean_sequences", caught_by="D8")
def rows_must_be_lists(sequences, *, pad_id, eos_id, start_id=None):
    """The end is looked up with `row.index`, which an array does not have."""
    rows = [row[: row.index(eos_id) + 1] if eos_id in row and row[0] != start_id else row for row in sequences]
    return clean_sequences(rows, pad_id=pad_id, eos_id=eos_id, start_id=start_id)
