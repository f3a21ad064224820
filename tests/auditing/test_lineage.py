"""Source rows are found, whatever happened to the rows after they were made."""

from __future__ import annotations

from typing import Any

import pytest

from tests.auditing.samples import NAMES, SENTENCES, collate, first_tokens, tagged, tokenizer
from touchstone.auditing.reading.lineage import Lineage, lineages
from touchstone.auditing.reading.words import read
from touchstone.auditing.subject import MapCall, Split, Subject


def traced(subject: Subject) -> Lineage:
    """Return the first lineage whose sources are not the processed rows themselves."""
    assert subject.train is not None
    return next(each for each in lineages(subject, subject.train) if each.place == "the calls of map")


def test_rows_are_found_after_shuffling_selecting_and_splitting() -> None:
    subject = tagged()
    assert subject.train is not None
    made = subject.train.dataset
    subject.train.dataset = made.shuffle(seed=3).select([1, 4, 0]).train_test_split(1, seed=1)["train"]
    found = traced(subject)
    assert len(found.origins) == 2
    tokens = tokenizer()
    for origin in found.origins:
        assert origin.row["input_ids"] == tokens(origin.source["words"], is_split_into_words=True)["input_ids"]


def test_all_windows_of_a_row_are_found() -> None:
    from datasets import Dataset

    tokens = tokenizer()

    def windows(rows: dict[str, Any]) -> dict[str, Any]:
        encoded = tokens(
            rows["words"], is_split_into_words=True, truncation=True, max_length=5, return_overflowing_tokens=True
        )
        encoded.pop("overflow_to_sample_mapping")
        return dict(encoded)

    source = Dataset.from_list([{"words": words} for words, _ in SENTENCES])
    result = source.map(windows, batched=True, remove_columns=["words"])
    call = MapCall(windows, source, result, batched=True)
    subject = Subject("", "", None, tokens, train=Split("train", result.shuffle(seed=1), collate, 2), maps=[call])
    found = traced(subject)
    # Rows 0 and 2 both end with the window "[CLS] . [SEP]", of which each is given one.
    assert len(found.origins) == len(result) == len({each.index for each in found.origins}) == 11
    assert found.complete == {0, 1, 2, 3, 4}
    assert [each.place for each in found.origins if each.number == 1] == [3, 4]


def test_rows_that_occur_twice_are_found() -> None:
    subject = tagged(sentences=[*SENTENCES, SENTENCES[0]])
    found = traced(subject).origins
    assert {origin.number for origin in found} == {origin.index for origin in found} == {0, 1, 2, 3, 4, 5}


def test_rows_with_the_same_words_are_told_apart_by_their_labels() -> None:
    words, tags = SENTENCES[0]
    subject = tagged(sentences=[*SENTENCES, (words, ["O"] * len(tags))])
    assert subject.train is not None
    subject.train.dataset = subject.train.dataset.select([5, 1, 0])
    found = {origin.number: origin.row["labels"] for origin in traced(subject).origins}
    assert set(found) == {0, 1, 5}
    assert set(found[5]) == {-100, 0} != set(found[0])


def test_rows_with_the_same_words_and_labels_that_no_source_makes_are_left_out() -> None:
    subject = tagged(sentences=[*SENTENCES, SENTENCES[0]])
    assert subject.train is not None
    rows = subject.train.dataset
    subject.train.dataset = rows.add_column("extra", list(range(6))).map(lambda row: {"labels": row["labels"][::-1]})
    assert {origin.number for origin in traced(subject).origins} == {1, 2, 3, 4}


def test_a_function_that_cannot_be_called_again_gives_no_lineage() -> None:
    subject = tagged()

    def gone(row: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("the file is closed")

    call = subject.maps[0]
    subject.maps = [MapCall(gone, call.source, call.result, batched=False)]
    assert subject.train is not None
    assert all(each.place != "the calls of map" for each in lineages(subject, subject.train))


def test_columns_that_an_earlier_map_removed_are_found() -> None:
    subject = tagged()
    later = subject.maps[0]
    kept = later.source.map(lambda row: {"words": row["words"]}, remove_columns=["tags"])
    first = MapCall(lambda row: row, later.source, kept, batched=False)
    second = MapCall(lambda row: dict(tokenizer()(row["words"], is_split_into_words=True)), kept, later.result, False)
    subject.maps = [first, second]
    assert traced(subject).origins[0].source["tags"] == SENTENCES[0][1]


class Tokenizing:
    """A torch data set that tokenizes when it is asked for a row."""

    def __init__(self, sentences: Any) -> None:
        self.sentences = sentences
        self.tokenizer = tokenizer()

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        words, tags = self.sentences[index]
        encoded = self.tokenizer(words, is_split_into_words=True)
        labels = first_tokens([NAMES.index(tag) for tag in tags], encoded.word_ids())
        return {**encoded, "labels": labels}


def test_attributes_of_a_torch_data_set_are_sources() -> None:
    subject = tagged(dataset=Tokenizing(SENTENCES))
    subject.maps = []
    assert subject.train is not None
    assert [each.words for each in read(subject, subject.train).sentences] == [words for words, _ in SENTENCES]


def test_a_subset_leads_to_the_rows_of_its_data_set() -> None:
    from torch.utils.data import Subset

    subject = tagged(dataset=Subset(Tokenizing(SENTENCES), [3, 1]))  # type: ignore[arg-type]
    subject.maps = []
    assert subject.train is not None
    assert [each.words for each in read(subject, subject.train).sentences] == [SENTENCES[3][0], SENTENCES[1][0]]


def test_columns_below_a_transform_are_sources() -> None:
    subject = tagged()
    made = Tokenizing(SENTENCES)

    def transform(rows: dict[str, Any]) -> dict[str, Any]:
        found = [made[[words for words, _ in SENTENCES].index(words)] for words in rows["words"]]
        return {key: [row[key] for row in found] for key in found[0]}

    assert subject.train is not None
    subject.train.dataset = subject.maps[0].source.with_transform(transform)
    subject.maps = []
    assert len(read(subject, subject.train).sentences) == len(SENTENCES)


def test_rows_that_the_user_passes_come_first() -> None:
    subject = tagged(raw=[{"words": words, "tags": tags, "id": 1} for words, tags in SENTENCES])
    subject.raw_columns = ("words", "tags")
    assert subject.train is not None
    found = next(lineages(subject, subject.train))
    assert found.place == "raw="
    assert set(found.origins[0].source) == {"words", "tags"}


@pytest.mark.parametrize("column", ["ner", "x"])
def test_words_and_tags_are_found_whatever_their_columns_are_called(column: str) -> None:
    from datasets import Dataset

    rows = [
        {"id": "7", "other": ["N"] * len(words), column: tags, "w": words, "size": len(words)}
        for words, tags in SENTENCES
    ]
    subject = tagged(raw=Dataset.from_list(rows))
    subject.maps = []
    assert subject.train is not None
    reading = read(subject, subject.train)
    assert [(each.words, each.tags) for each in reading.sentences] == SENTENCES
