"""The first rows of a stream are held, so that its source rows are found; the stream itself stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.auditing.samples import NAMES, SENTENCES, collate, first_tokens, tokenizer
from touchstone.auditing.finding import NotChecked
from touchstone.auditing.observing.observe import Observer
from touchstone.auditing.reading.streams import hold
from touchstone.auditing.reading.words import read
from touchstone.auditing.subject import Split, Subject


def label(row: dict[str, Any]) -> dict[str, Any]:
    encoded = tokenizer()(row["words"], is_split_into_words=True)
    return {**encoded, "labels": first_tokens([NAMES.index(tag) for tag in row["tags"]], encoded.word_ids())}


def source() -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"words": words, "tags": tags} for words, tags in SENTENCES]).to_iterable_dataset()


def streamed(dataset: Any, maps: Any = ()) -> Subject:
    split = Split("train", dataset, collate, 2, columns=["input_ids", "attention_mask", "labels"])
    return Subject("a test", "token-classification", None, tokenizer(), train=split, names=NAMES, maps=maps)


def words_of(subject: Subject) -> set[tuple[str, ...]]:
    assert subject.train is not None
    return {tuple(each.words) for each in read(subject, subject.train).sentences}


ALL = {tuple(words) for words, _ in SENTENCES}


def test_words_and_tags_of_a_mapped_stream_are_found() -> None:
    with Observer() as observer:
        made = source().map(label, remove_columns=["words", "tags"])
    subject = streamed(made.shuffle(seed=1, buffer_size=3), observer.maps)
    assert (subject.maps, len(subject.streamed)) == ([], 1)
    assert words_of(subject) == ALL


def test_columns_that_an_earlier_map_of_a_stream_removed_are_found() -> None:
    with Observer() as observer:
        kept = source().map(lambda row: {"words": row["words"], "tags": row["tags"]})
        made = kept.map(label).remove_columns(["words", "tags"])
    assert words_of(streamed(made, observer.maps)) == ALL


def test_a_stream_that_keeps_its_words_needs_no_map() -> None:
    assert words_of(streamed(source().map(label))) == ALL


def test_holding_rows_does_not_move_a_stream() -> None:
    class Stream:
        def __init__(self) -> None:
            self.rows = iter(range(10))

        def __iter__(self) -> Iterator[int]:
            return self.rows

    stream = Stream()
    assert hold(stream, 3) == [0, 1, 2]
    assert next(stream.rows) == 0


def test_a_stream_that_cannot_be_copied_is_not_read() -> None:
    with pytest.raises(NotChecked, match="cannot be copied"):
        hold((number for number in range(10)), 3)


def test_chosen_rows_of_a_streamed_evaluation_are_read() -> None:
    from touchstone.auditing.adapters.trainer_evaluation import chosen

    rows = chosen(source(), [3, 1], 10)
    assert [row["words"] for row in rows] == [SENTENCES[3][0], SENTENCES[1][0]]
    with pytest.raises(NotChecked, match="first 5 rows"):
        chosen(source(), [7], 10)
