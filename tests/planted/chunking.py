"""Bugs of concatenating documents and cutting chunks."""

from __future__ import annotations

from itertools import chain, pairwise, takewhile
from typing import Any

import touchstone.stages
from tests.independent.chunking import chunk, chunk_batches
from tests.planted.bug import planted


def total_of(columns: Any) -> int:
    return sum(map(len, next(iter(columns.values()), [])))


# What becomes of the tail ------------------------------------------------------------------------------------------


@planted("chunk_batches", caught_by="C7", evidence="course/3.mdx:375")
def remainder_dropped_in_each_batch(batches, *, length, tail="drop", pad=None):
    """Every batch of `map` is cut separately: the result and the lost tokens depend on the batch size."""
    result: dict[str, list[Any]] = {}
    for batch in batches:
        for name, rows in chunk(batch, length=length, tail=tail, pad=pad).items():
            result.setdefault(name, []).extend(rows)
    return result


@planted("chunk", caught_by="C1 C2")
def tail_kept_although_dropped(columns, *, length, tail="drop", pad=None):
    """`drop` keeps the short last chunk."""
    return chunk(columns, length=length, tail="keep" if tail == "drop" else tail, pad=pad)


@planted("chunk", caught_by="C8", evidence="huggingface/transformers#18167 huggingface/transformers#17882")
def short_corpus_kept(columns, *, length, tail="drop", pad=None):
    """run_mlm's `if total_length >= block_size`: with fewer tokens than one chunk, a short chunk is returned."""
    return chunk(
        columns, length=length, tail="keep" if tail == "drop" and total_of(columns) < length else tail, pad=pad
    )


@planted("chunk", caught_by="C2")
def full_last_chunk_dropped(columns, *, length, tail="drop", pad=None):
    """`range(0, total - length, length)`: a total that is a multiple of the length loses its last chunk."""
    result = chunk(columns, length=length, tail=tail, pad=pad)
    lost = tail == "drop" and total_of(columns) % length == 0
    return {name: rows[:-1] if lost else rows for name, rows in result.items()}


@planted("chunk", caught_by="C1")
def empty_chunk_kept(columns, *, length, tail="drop", pad=None):
    """With `keep`, a total that is a multiple of the length ends in an empty chunk."""
    result = chunk(columns, length=length, tail=tail, pad=pad)
    return {
        n: [*rows, []] if tail == "keep" and total_of(columns) % length == 0 else rows for n, rows in result.items()
    }


@planted("chunk", caught_by="C2", evidence="course/6.mdx:223")
def documents_cut_by_themselves(columns, *, length, tail="drop", pad=None):
    """Documents are not concatenated: each loses its own tail, and short ones vanish."""
    parts = [
        chunk({name: [rows[index]] for name, rows in columns.items()}, length=length, tail=tail, pad=pad)
        for index in range(len(next(iter(columns.values()), [])))
    ]
    return {name: [row for part in parts for row in part[name]] for name in columns}


@planted("chunk", caught_by="C12")
def every_column_filled_alike(columns, *, length, tail="drop", pad=None):
    """All columns are filled with the first column's pad value."""
    alike = None if pad is None else dict.fromkeys(pad, next(iter(pad.values()), None))
    return chunk(columns, length=length, tail=tail, pad=alike)


@planted("chunk", caught_by="C12 C3")
def filled_in_front(columns, *, length, tail="drop", pad=None):
    """The fill is before the last tokens instead of after them."""
    result = chunk(columns, length=length, tail=tail, pad=pad)
    missing = -total_of(columns) % length
    if tail == "pad" and missing:
        for rows in result.values():
            rows[-1] = rows[-1][-missing:] + rows[-1][:-missing]
    return result


# What is in the chunks ---------------------------------------------------------------------------------------------


@planted("chunk", caught_by="C3")
def documents_sorted_by_length(columns, *, length, tail="drop", pad=None):
    """Documents are concatenated from short to long."""
    sizes = [len(document) for document in next(iter(columns.values()), [])]
    order = sorted(range(len(sizes)), key=lambda index: sizes[index])
    return chunk({n: [rows[i] for i in order] for n, rows in columns.items()}, length=length, tail=tail, pad=pad)


@planted("chunk", caught_by="C3")
def chunks_overlap(columns, *, length, tail="drop", pad=None):
    """Each chunk begins with the last token of the chunk before."""
    result = chunk(columns, length=length, tail=tail, pad=pad)
    for rows in result.values():
        for before, row in pairwise(rows):
            row[:] = [before[-1], *row[:-1]]
    return result


@planted("chunk", caught_by="C4")
def last_column_shifted(columns, *, length, tail="drop", pad=None):
    """One column is shifted by a token, as labels for causal language modelling are by some, but not by the model."""
    result = chunk(columns, length=length, tail=tail, pad=pad)
    if len(result) > 1:
        rows = result[list(result)[-1]]
        flat = [cell for row in rows for cell in row]
        cells = iter(flat[1:] + flat[:1])
        for row in rows:
            row[:] = [next(cells) for _ in row]
    return result


@planted("chunk", caught_by="C4 C8")
def columns_lost_without_chunks(columns, *, length, tail="drop", pad=None):
    """If there is no chunk, the columns are missing."""
    return {name: rows for name, rows in chunk(columns, length=length, tail=tail, pad=pad).items() if rows}


@planted("chunk", caught_by="C8")
def stops_at_an_empty_document(columns, *, length, tail="drop", pad=None):
    """Reading ends at the first empty document."""
    return chunk({n: list(takewhile(len, rows)) for n, rows in columns.items()}, length=length, tail=tail, pad=pad)


# Word ids ----------------------------------------------------------------------------------------------------------


@planted("chunk", caught_by="C5", evidence="course/3.mdx:375-382")
def word_ids_not_shifted(columns, *, length, tail="drop", pad=None):
    """Word ids are concatenated unchanged: every document has a word 0."""
    renamed = {name + "_" * (name == "word_ids"): rows for name, rows in columns.items()}
    fills = None if pad is None else {name + "_" * (name == "word_ids"): value for name, value in pad.items()}
    result = chunk(renamed, length=length, tail=tail, pad=fills)
    return {name.removesuffix("_") if name == "word_ids_" else name: rows for name, rows in result.items()}


def with_word_ids(columns: Any, word_ids: Any, **options: Any) -> dict[str, list[list[Any]]]:
    """Chunks with these word ids, not renumbered."""
    columns = {**columns, "word_ids": word_ids} if "word_ids" in columns else columns
    return word_ids_not_shifted.chunk(columns, **options)  # type: ignore[no-any-return]


@planted("chunk", caught_by="C5")
def shifted_by_distinct_words(columns, **options):
    """The shift is the number of different words seen, which is too little where an id is missing."""
    shift, shifted = 0, []
    for document in columns.get("word_ids", []):
        shifted.append([None if word is None else word + shift for word in document])
        shift += len(set(document) - {None})
    return with_word_ids(columns, shifted, **options)


@planted("chunk", caught_by="C5")
def missing_word_ids_numbered(columns, **options):
    """`None` becomes a separate word, so that special tokens look like words."""
    result = chunk(columns, **options)
    if "word_ids" in result:
        largest = max((w for row in result["word_ids"] for w in row if w is not None), default=-1)
        result["word_ids"] = [[largest + 1 if w is None else w for w in row] for row in result["word_ids"]]
    return result


@planted("chunk", caught_by="C5")
def words_numbered_anew_by_run(columns, **options):
    """Word ids count the changes of id: a word that continues after a special token gets two numbers."""
    count, numbered = -1, []
    for document in columns.get("word_ids", []):
        row, previous = [], None
        for word in document:
            count += word is not None and word != previous
            row.append(None if word is None else count)
            previous = word
        numbered.append(row)
    return with_word_ids(columns, numbered, **options)


# Manners -----------------------------------------------------------------------------------------------------------


@planted("chunk", caught_by="C6", evidence="course/3.mdx:382")
def labels_share_memory_with_inputs(columns, **options):
    """`labels = input_ids.copy()` copies the outer list only: masking one masks the other."""
    result = chunk(columns, **options)
    for name, rows in result.items():
        if name != "input_ids" and rows == result.get("input_ids"):
            result[name] = result["input_ids"].copy()
    return result


@planted("chunk", caught_by="C6")
def whole_documents_handed_through(columns, **options):
    """A document that is exactly one chunk is returned itself, not a copy of it."""
    result = chunk(columns, **options)
    for name, documents in columns.items():
        if name != "word_ids" and isinstance(documents, list):
            own = [document for document in documents if isinstance(document, list)]
            result[name] = [next((d for d in own if d == row), row) for row in result[name]]
    return result


@planted("chunk", caught_by="C9")
def columns_cut_to_the_shortest(columns, **options):
    """Columns that disagree about a document's length are cut to the shortest."""
    documents = [list(zip(*pair, strict=False)) for pair in zip(*columns.values(), strict=False)]
    cut = {name: [[row[at] for row in document] for document in documents] for at, name in enumerate(columns)}
    return chunk(cut, **options)


@planted("chunk", caught_by="C9")
def length_zero_is_one(columns, *, length, **options):
    """A length below 1 is silently raised to 1."""
    return chunk(columns, length=max(1, length), **options)


@planted("chunk", caught_by="C9")
def missing_pad_value_is_zero(columns, *, pad=None, **options):
    """A column without a pad value is filled with 0."""
    return chunk(columns, pad={**dict.fromkeys(columns, 0), **(pad or {})}, **options)


@planted("chunk", caught_by="C10")
def word_ids_shifted_in_place(columns, **options):
    """The shift is added to the caller's word ids."""
    result = chunk(columns, **options)
    shift = 0
    for document in columns.get("word_ids", []):
        largest = max((word for word in document if word is not None), default=-1)
        if isinstance(document, list):
            document[:] = [None if word is None else word + shift for word in document]
        shift += largest + 1
    return result


@planted("chunk_batch", caught_by="C11", base=touchstone.stages)
def twin_forgets_the_tail(columns, *, length, tail="drop", pad=None):
    """The batched version drops the tail, whichever tail is declared."""
    return touchstone.stages.chunk_batch(columns, length=length, tail="drop", pad=pad)


@planted("chunk_batches", caught_by="C7")
def iterator_read_twice(batches, **options):
    """The batches are looked through once before they are read: an iterator is then at its end."""
    if not all(isinstance(name, str) for batch in batches for name in batch):
        raise ValueError("column names must be text")
    return chunk_batches(batches, **options)


@planted("chunk_batches", caught_by="C7")
def word_ids_start_anew_in_each_batch(batches, **options):
    """The shift of word ids is forgotten between batches."""
    batches = [dict(batch) for batch in batches]
    result = chunk_batches(batches, **options)
    if all("word_ids" in batch for batch in batches) and "word_ids" in result:
        words: dict[str, list[Any]] = {"word_ids": []}
        for batch in batches:
            whole = chunk({"word_ids": batch["word_ids"]}, length=max(1, total_of(batch)), tail="keep")
            words["word_ids"].append(list(chain.from_iterable(whole["word_ids"])))
        result["word_ids"] = with_word_ids(words, words["word_ids"], **options)["word_ids"]
    return result


@planted("chunk", caught_by="C9")
def unknown_tail_is_drop(columns, *, tail="drop", **options):
    """Any value except `keep` and `pad` drops the tail."""
    return chunk(columns, tail=tail if tail in ("keep", "pad") else "drop", **options)


@planted("chunk", caught_by="C10", evidence="course/3.mdx:375-382")
def concatenated_with_sum(columns, **options):
    """`sum(documents, [])` takes quadratic time, and adds an empty list to a tuple or to an array."""
    for documents in columns.values():
        sum(documents, [])  # noqa: RUF017 - the bug
    return chunk(columns, **options)


@planted("chunk_batches", caught_by="C9")
def columns_of_the_first_batch(batches, **options):
    """The columns of the first batch are read of all: a later one that has more loses them."""
    batches = list(batches)
    return chunk_batches([{name: batch[name] for name in batches[0] if name in batch} for batch in batches], **options)


@planted("chunk_batches", caught_by="C10")
def batches_used_up(batches, **options):
    """The columns are taken out of the caller's batches one by one."""
    result = chunk_batches([dict(batch) for batch in batches], **options)
    for batch in batches:
        if isinstance(batch, dict):
            batch.clear()
    return result
