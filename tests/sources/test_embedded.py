"""The embedded data: what is stored, and the properties that the specs rely on."""

from __future__ import annotations

import hashlib
import itertools
import json
import unicodedata
import warnings
from collections import Counter
from functools import cache
from typing import Any

import datasets
import pytest
from pydantic import TypeAdapter, ValidationError

from tools.microworld.names import SHARED
from touchstone.sources import (
    CheckpointSettings,
    DataSettings,
    MicroworldCheckpoint,
    MicroworldData,
    SourceError,
    fingerprint,
    open_source,
)
from touchstone.sources.embedded import DATA_SETS, TAGS
from touchstone.specs.spec import SPECS, available_specs, load_spec

TINY = MicroworldCheckpoint(architecture="bert", layers=1, hidden=32, heads=2)
SPLITS = ("train", "validation")
COLUMNS = {
    "token-classification": "sentences",
    "masked-lm": "documents",
    "causal-lm": "programs",
    "question-answering": "questions",
    "translation": "translations",
    "summarization": "headlines",
}


@cache
def rows(split: str, *columns: str, train: int = 1500, validation: int = 300) -> list[dict[str, Any]]:
    return list(examples(split, *columns, train=train, validation=validation))


def examples(split: str, *columns: str, train: int = 1500, validation: int = 300) -> datasets.Dataset:
    data = MicroworldData(train=train, validation=validation)
    return open_source(data, TINY).examples(split, columns=columns)


@pytest.mark.parametrize("task", available_specs())
def test_the_data_is_the_data_that_the_expectations_were_measured_on(task: str) -> None:
    spec = load_spec(task, profile="embedded")
    source = open_source(spec.data, spec.checkpoint)
    columns = tuple(DATA_SETS[COLUMNS[task]])
    digest = hashlib.sha256()
    for split in SPLITS:  # as in a record
        content = fingerprint(source.examples(split, columns=columns))
        digest.update(f"{split}:{','.join(columns)}={content}\n".encode())
    measured = json.loads((SPECS / "expectations" / f"{task}.embedded.json").read_text())["expectations"]
    assert {one["provenance"]["dataset_fingerprint"] for one in measured} == {f"sha256:{digest.hexdigest()}"}


def test_fewer_rows_are_the_first_rows() -> None:
    assert rows("train", "words", "tags", train=7) == rows("train", "words", "tags", train=50)[:7]


def test_columns_have_the_order_and_the_types_of_the_request() -> None:
    features = examples("train", "tags", "answers", "words", train=1).features
    assert list(features) == ["tags", "answers", "words"]
    assert features["tags"].feature.names == list(TAGS)
    assert features["answers"]["answer_start"] == datasets.List(datasets.Value("int32"))


@pytest.mark.parametrize(
    ("split", "column", "message"),
    [
        ("test", "words", "no split 'test': it has train and validation"),
        ("train", "tokens", "no column 'tokens': it has words, tags, text"),
        ("train", "code", "has 1500 rows of code for train, but train = 1501: set train to 1500 or less"),
        ("validation", "source", "has 300 rows of source, target for validation, but validation = 1200"),
    ],
)
def test_a_request_for_data_that_is_not_stored_is_an_error(split: str, column: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        examples(split, column, train=1501, validation=1200)


def test_settings_refuse_unknown_keys_and_values() -> None:
    data = {"source": "microworld", "train": 2, "validation": 1}
    checkpoint = {"source": "microworld", "architecture": "bert", "layers": 1, "hidden": 32, "heads": 2}
    assert TypeAdapter[Any](DataSettings).validate_python(data) == MicroworldData(train=2, validation=1)
    for wrong in ({"trian": 3}, {"seed": 1}, {"train": 0}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            TypeAdapter[Any](DataSettings).validate_python(data | wrong)
    with pytest.raises(ValidationError, match="hidden = 32 is not a multiple of heads = 3"):
        TypeAdapter[Any](CheckpointSettings).validate_python(checkpoint | {"heads": 3})


# The content


def entities(words: list[str], tags: list[int]) -> list[tuple[str, list[str], int]]:
    """Return type, words and start of each entity of a valid IOB2 sentence."""
    found: list[tuple[str, list[str], int]] = []
    for position, (word, tag) in enumerate(zip(words, [TAGS[tag] for tag in tags], strict=True)):
        if tag.startswith("B-"):
            found.append((tag[2:], [word], position))
        elif tag.startswith("I-"):
            assert found[-1][0] == tag[2:]
            assert found[-1][2] + len(found[-1][1]) == position
            found[-1][1].append(word)
    return found


def names(split: str) -> set[str]:
    """Return the words of all entities of a split, except initials and words that both splits may use."""
    words = {
        word.upper()
        for row in rows(split, "words", "tags", validation=1000)
        for _, name, _ in entities(**row)
        for word in name
        if not (len(word) == 2 and word.endswith("."))
    }
    return words - {word.upper() for word in SHARED}


def test_every_data_set_describes_the_same_document_in_row_i() -> None:
    columns = ("words", "source", "text", "document", "context")
    for row in rows("validation", *columns):
        assert "".join(row["words"]) == row["source"].replace(" ", "")
        assert row["source"] in row["text"]
        assert row["text"].startswith(row["document"])
        assert row["context"] in row["text"]


@pytest.mark.parametrize("split", SPLITS)
def test_tags_are_valid_and_every_type_is_common(split: str) -> None:
    types = Counter(kind for row in rows(split, "words", "tags") for kind, _, _ in entities(**row))
    assert set(types) == {"PER", "ORG", "LOC", "MISC"}
    assert min(types.values()) > 0.05 * sum(types.values())


def test_no_name_of_the_validation_split_occurs_in_training() -> None:
    seen = {word.upper() for row in rows("train", "words", "tags", train=4000) for word in row["words"]}
    assert len(names("validation")) > 1000
    assert names("validation") & seen == set()


def test_other_words_of_the_validation_split_occur_in_training() -> None:
    seen = {word for row in rows("train", "words", "tags", train=4000) for word in row["words"]}
    other = [
        word
        for row in rows("validation", "words", "tags")
        for word, tag in zip(row["words"], row["tags"], strict=True)
        if tag == 0
    ]
    assert sum(word in seen for word in other) > 0.98 * len(other)


@pytest.mark.parametrize("split", SPLITS)
def test_every_answer_is_a_span_of_its_context(split: str) -> None:
    counts = set()
    for row in rows(split, "question", "context", "answers", train=4000):
        texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
        assert all(text and row["context"].startswith(text, start) for text, start in zip(texts, starts, strict=True))
        assert row["question"].endswith("?")
        counts.add(len(texts))
    assert counts == {1} if split == "train" else {1, 2} <= counts


@pytest.mark.parametrize("split", SPLITS)
def test_every_headline_is_shorter_than_its_document(split: str) -> None:
    assert all(0 < len(row["summary"]) < len(row["document"]) for row in rows(split, "document", "summary"))


def test_every_sentence_has_a_translation_that_is_not_a_copy() -> None:
    pairs = [(row["source"], row["target"]) for row in rows("validation", "source", "target")]
    assert all(target for _, target in pairs)
    assert sum(source != target for source, target in pairs) > 0.95 * len(pairs)


@pytest.mark.parametrize("split", SPLITS)
def test_every_program_compiles_without_a_warning(split: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index, row in enumerate(rows(split, "code", train=400, validation=120)):
            compile(row["code"], f"program {index} of {split}", "exec")


def test_some_texts_are_longer_than_any_window() -> None:
    assert max(len(row["text"].split()) for row in rows("train", "text")) > 512
    assert max(len(row["code"]) for row in rows("train", "code")) > 2500


AWKWARD = {
    "adjacent entities of one type": lambda words, tags: any(
        first[0] == second[0] and second[2] == first[2] + len(first[1])
        for first, second in itertools.pairwise(entities(words, tags))
    ),
    "a name of one character": lambda words, tags: any(len("".join(name)) == 1 for _, name, _ in entities(words, tags)),
    "a very long word": lambda words, tags: any(len(word) > 20 and word.isascii() for word in words),
    "a very long sentence": lambda words, tags: len(words) > 64,
    "an emoji": lambda words, tags: any(unicodedata.category(word[0]) == "So" for word in words),
    "a combining mark": lambda words, tags: any(unicodedata.combining(c) for word in words for c in word),
    "a script without spaces": lambda words, tags: any(len(w) > 4 and "\u3040" < w[1] < "\u9fff" for w in words),
    "a script from right to left": lambda words, tags: any(
        unicodedata.bidirectional(c) in ("R", "AL") for word in words for c in word if len(word) > 1
    ),
    "a word without tokens": lambda words, tags: "\u200f" in words,
}  # fmt: skip


@pytest.mark.parametrize("case", AWKWARD)
def test_every_awkward_case_occurs_and_is_rare(case: str) -> None:
    share = sum(AWKWARD[case](**row) for row in rows("train", "words", "tags", train=4000)) / 4000
    assert 0 < share < 0.08
