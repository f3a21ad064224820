"""Tokenizing: the results equal those of calling the tokenizer on each example."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BatchEncoding, PreTrainedTokenizerFast

from touchstone.pipelines import tokenizing
from touchstone.pipelines.tokenizing import SLICE, token_ids, tokenize, tokenize_parts
from touchstone.properties.strategies.tags import AWKWARD_WORDS
from touchstone.properties.tokenizer_families import CORPUS, FAMILIES
from touchstone.stages.ragged import Ragged

TRAPS = (
    "[SEP]",
    "a[MASK]b",
    "[CLS] [SEP]",
    "",
    " ",
    "\t",
    "two words",
    " blank",
    "\u200d",
    "\x00",
    "ab" * 60,
    "▁",
    "Ġ",
)
"""Words with special tokens, blanks or the marks that tokenizers use internally, and empty words."""
WORDS = (*AWKWARD_WORDS, *TRAPS, *(word for line in CORPUS for word in line.split()))


def tokenizer_of(family: str, **options: Any) -> PreTrainedTokenizerFast:
    """Make a new tokenizer, because settings of a shared one would change other tests."""
    return wrap(FAMILIES[family](), **options)


def wrap(tokenizer: Tokenizer, *, kind: Any = PreTrainedTokenizerFast, **options: Any) -> PreTrainedTokenizerFast:
    marks = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    wrapped: PreTrainedTokenizerFast = kind(tokenizer_object=tokenizer, **marks, **options)
    return wrapped


def lists_of_words(seed: int, *, count: int = 200) -> list[list[str]]:
    random = Random(seed)
    return [random.choices(WORDS, k=random.randrange(12)) for _ in range(count)]


def called(tokenizer: Any, examples: Any, *, pretokenized: bool, max_length: int | None) -> dict[str, Ragged]:
    """Call the tokenizer on one example after the other. This is the definition."""
    columns: dict[str, list[Any]] = {"input_ids": [], "word_ids": [], "special_tokens_mask": []}
    for example in examples:
        (encoding,) = tokenizer(
            [example], is_split_into_words=pretokenized, truncation=max_length is not None, max_length=max_length
        ).encodings
        special = encoding.special_tokens_mask
        words = zip(encoding.word_ids, special, strict=True)
        columns["input_ids"].append(encoding.ids)
        columns["word_ids"].append([None if hidden else word for word, hidden in words])
        columns["special_tokens_mask"].append(special)
    return {name: Ragged.from_lists(rows) for name, rows in columns.items()}


def spliced(tokenizer: Any, examples: Any, *, max_length: int | None) -> dict[str, Ragged] | None:
    return tokenizing._splice(tokenizer, examples, max_length=max_length)


@pytest.mark.parametrize("max_length", [None, 3, 7, 64])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_splicing_words_equals_tokenizing_lists_in_every_family(family: str, seed: int, max_length: int | None) -> None:
    tokenizer, lists = tokenizer_of(family), lists_of_words(seed)
    result = spliced(tokenizer, lists, max_length=max_length)
    assert result is not None, "the sample differed"
    assert result == called(tokenizer, lists, pretokenized=True, max_length=max_length)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokenize_gives_the_same_for_lists_and_arrow_columns(family: str) -> None:
    tokenizer, lists = tokenizer_of(family), lists_of_words(5, count=150)
    column = pa.chunked_array([pa.array(lists[:70]), pa.array([["not", "ours"], *lists[70:]]).slice(1)])
    expected = called(tokenizer, lists, pretokenized=True, max_length=9)
    assert tokenize(tokenizer, column, pretokenized=True, max_length=9) == expected
    assert tokenize(tokenizer, lists, pretokenized=True, max_length=9) == expected


@pytest.mark.parametrize("lists", [[], [[]], [[], ["a"]], [[]] * 200])
def test_tokenize_takes_empty_lists(lists: list[list[str]]) -> None:
    tokenizer = tokenizer_of("WordPiece")
    expected = called(tokenizer, lists, pretokenized=True, max_length=8)
    assert tokenize(tokenizer, lists, pretokenized=True, max_length=8) == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("max_length", [None, 5])
def test_tokenize_equals_calling_the_tokenizer_on_texts(family: str, max_length: int | None) -> None:
    tokenizer, texts = tokenizer_of(family), [" ".join(words) for words in lists_of_words(7, count=40)]
    expected = called(tokenizer, texts, pretokenized=False, max_length=max_length)
    assert tokenize(tokenizer, texts, pretokenized=False, max_length=max_length) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_tokenize_parts_equals_calling_the_tokenizer_without_special_tokens(family: str) -> None:
    tokenizer, texts = tokenizer_of(family), [" ".join(words) for words in lists_of_words(8, count=40)]
    expected = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    result = tokenize_parts(tokenizer, texts, offsets=True)
    assert result["input_ids"].to_lists() == expected["input_ids"]
    pairs = [[start for start, _ in row] for row in expected["offset_mapping"]]
    assert result["starts"].to_lists() == pairs
    assert result["ends"].to_lists() == [[end for _, end in row] for row in expected["offset_mapping"]]
    assert tokenize_parts(tokenizer, texts, offsets=False)["input_ids"] == result["input_ids"]
    assert tokenize_parts(tokenizer, [""], offsets=True)["starts"].to_lists() == [[]]


def test_tokenizing_returns_all_examples_of_several_calls() -> None:
    tokenizer = tokenizer_of("WordPiece")
    texts = [f"the town {number}" for number in range(SLICE + 3)]
    expected = tokenizer(texts)["input_ids"]
    assert tokenize(tokenizer, texts, pretokenized=False, max_length=None)["input_ids"].to_lists() == expected
    assert token_ids(tokenizer, texts, max_length=64).to_lists() == expected
    bare = [row[1:-1] for row in expected]
    assert tokenize_parts(tokenizer, texts, offsets=False)["input_ids"].to_lists() == bare


# Where words are not spliced ------------------------------------------------------------------------------------------


def test_splicing_is_not_used_for_a_random_tokenizer() -> None:
    assert spliced(wrap(FAMILIES["metaspace BPE"]()), lists_of_words(0), max_length=None) is not None
    drawing = FAMILIES["metaspace BPE"]()
    drawing.model.dropout = 0.5
    assert spliced(wrap(drawing), lists_of_words(0), max_length=None) is None


@pytest.mark.parametrize("bad", [["a", None], ["a", 3]])
def test_tokenize_refuses_words_that_are_not_strings(bad: list[Any]) -> None:
    with pytest.raises(TypeError):
        tokenize(tokenizer_of("WordPiece"), [["a"]] * 80 + [bad], pretokenized=True, max_length=None)


def test_splicing_is_not_used_for_a_tokenizer_that_truncates_on_the_left() -> None:
    tokenizer, lists = tokenizer_of("WordPiece", truncation_side="left"), lists_of_words(1)
    assert spliced(tokenizer, lists, max_length=6) is None
    expected = called(tokenizer, lists, pretokenized=True, max_length=6)
    assert tokenize(tokenizer, lists, pretokenized=True, max_length=6) == expected


def test_splicing_is_not_used_if_a_sample_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, lists = tokenizer_of("WordPiece"), lists_of_words(2)
    expected = called(tokenizer, lists, pretokenized=True, max_length=None)

    def wrong(*_: Any, **__: Any) -> dict[str, Ragged]:
        ids = expected["input_ids"]
        return {**expected, "input_ids": ids.with_values(ids.values + 1)}

    monkeypatch.setattr(tokenizing, "splice_words", wrong)
    assert tokenize(tokenizer, lists, pretokenized=True, max_length=None) == expected


class Upside(PreTrainedTokenizerFast):
    """A tokenizer that does more in a call than to call the Rust tokenizer."""

    def __call__(self, text: Any, *arguments: Any, **options: Any) -> BatchEncoding:
        return super().__call__([example[::-1] for example in text], *arguments, **options)


def test_tokenize_calls_a_tokenizer_that_does_more_in_a_call() -> None:
    backend, lists = FAMILIES["WordPiece"](), lists_of_words(3)
    plain, tokenizer = wrap(backend), wrap(Tokenizer.from_str(backend.to_str()), kind=Upside)
    expected = called(plain, [words[::-1] for words in lists], pretokenized=True, max_length=None)
    assert tokenize(tokenizer, lists, pretokenized=True, max_length=None) == expected


@pytest.mark.parametrize(
    "template", ["$A", "[CLS] $A", "$A [SEP] [SEP]", "[CLS] [CLS] $A [SEP]"], ids=lambda template: template
)
def test_splicing_puts_special_tokens_where_the_template_has_them(template: str) -> None:
    backend = FAMILIES["WordPiece"]()
    ids = [(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    tokenizer, lists = wrap(backend), lists_of_words(4)
    result = spliced(tokenizer, lists, max_length=8)
    assert result is not None
    assert result == called(tokenizer, lists, pretokenized=True, max_length=8)


def test_splicing_adds_nothing_without_a_post_processor() -> None:
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    lists = [["a", "b a", ""]] * 100
    result = spliced(wrap(backend), lists, max_length=None)
    assert result is not None
    assert result["input_ids"].to_lists() == [[1, 2, 1]] * 100
    assert result["word_ids"].to_lists() == [[0, 1, 1]] * 100
    assert not np.any(result["special_tokens_mask"].values)


def test_tokenize_does_not_depend_on_earlier_settings_of_the_tokenizer() -> None:
    tokenizer, lists = tokenizer_of("WordPiece"), lists_of_words(6)
    expected = called(tokenizer, lists, pretokenized=True, max_length=None)
    tokenizer(["the town"], truncation=True, max_length=3, padding="max_length")
    assert tokenize(tokenizer, lists, pretokenized=True, max_length=None) == expected
    tokenizer(["the town"], truncation=True, max_length=3, padding="max_length")
    few = tokenize(tokenizer, lists[:50], pretokenized=True, max_length=None)
    assert few == {name: rows.take(np.arange(50)) for name, rows in expected.items()}
