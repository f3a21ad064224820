"""The microworld and the tiny checkpoints that belong to it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification, AutoTokenizer

from touchstone.sources import (
    CheckpointSettings,
    DataSettings,
    MicroworldCheckpoint,
    MicroworldData,
    SourceError,
    fingerprint,
    open_source,
)
from touchstone.sources.checkpoints import microworld_tokenizer
from touchstone.sources.microworld import TAGS, document, sentence
from touchstone.sources.microworld.draws import Draws, mix
from touchstone.sources.microworld.english import running_text, tell
from touchstone.sources.microworld.names import SHARED, Split, split_of
from touchstone.sources.microworld.topics import EMOJI_WORDS, TOPICS, past, plural_of, present

TINY = MicroworldCheckpoint(architecture="bert", layers=1, hidden=32, heads=2)
ROWS = 3000
FAMILIES = ["wordpiece", "byte-bpe", "metaspace-bpe"]


def of_family(family: str, **other: Any) -> MicroworldCheckpoint:
    return MicroworldCheckpoint.model_validate(TINY.model_dump() | {"tokenizer": family} | other)


@cache
def rows(split: Split, *, count: int = ROWS) -> list[tuple[list[str], list[str]]]:
    """Words and tag names of each row."""
    told = [tell(sentence(index, seed=0, split=split)) for index in range(count)]
    return [(telling.words, [TAGS[tag] for tag in telling.tags()]) for telling in told]


def entities(words: list[str], tags: list[str]) -> list[tuple[str, tuple[str, ...], int]]:
    """Type, words and start of each entity, read off IOB2 tags."""
    found: list[tuple[str, tuple[str, ...], int]] = []
    for position, (word, tag) in enumerate(zip(words, tags, strict=True)):
        if tag.startswith("B-"):
            found.append((tag[2:], (word,), position))
        elif tag.startswith("I-"):
            assert tags[position - 1] in (f"B-{tag[2:]}", f"I-{tag[2:]}"), f"{tag} opens an entity in {words} {tags}"
            found[-1] = (found[-1][0], (*found[-1][1], word), found[-1][2])
    return found


# Draws


def test_draws_are_splitmix64() -> None:
    # The first outputs of SplitMix64 for seed 1234567, as in the test of several public implementations.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    gamma = 0x9E3779B97F4A7C15
    assert [mix((1234567 + step * gamma) % 2**64) for step in range(1, 5)] == expected


def test_draws_depend_on_every_part_of_their_key_and_on_its_order() -> None:
    keys: list[tuple[int | str, ...]] = [
        ("a", 1),
        ("a", 2),
        ("b", 1),
        (1, "a"),
        ("a", 1, 0),
        ("a",),
        ("a1",),
        ("a", -1),
    ]
    assert len(keys) == len({Draws(*key).bits() for key in keys})


def test_draws_below_n_are_uniform() -> None:
    draws = Draws("uniform")
    counts = Counter(draws.below(6) for _ in range(60_000))
    # Binomial(60000, 1/6) has sd 91: beyond 6 sd once in 5e8, and this draw is fixed.
    assert set(counts) == set(range(6))
    assert all(abs(count - 10_000) < 6 * 91 for count in counts.values())


# The same everywhere


def test_rows_do_not_depend_on_how_many_are_drawn() -> None:
    few = open_source(MicroworldData(train=7, validation=3), TINY).examples("train", columns=("words", "tags"))
    many = open_source(MicroworldData(train=50, validation=9), TINY).examples("train", columns=("words", "tags"))
    assert few[:] == many[:7]


def test_a_sentence_does_not_depend_on_those_before_it() -> None:
    whole = document(11, seed=3, split="train")
    assert list(whole) == [whole.sentence(position) for position in reversed(range(whole.length))][::-1]


def test_the_world_and_its_tokenizers_are_the_same_in_another_process_with_another_hash_seed() -> None:
    here = [world_digest(), *(tokenizer_digest(family) for family in FAMILIES)]
    code = f"import {__name__} as t; print(t.world_digest(), *map(t.tokenizer_digest, t.FAMILIES))"
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == here


def world_digest() -> str:
    source = open_source(MicroworldData(train=40, validation=40), TINY)
    views: list[tuple[Split, tuple[str, ...]]] = [("train", ("words", "tags")), ("validation", ("text",))]
    return "-".join(fingerprint(source.examples(split, columns=columns)) for split, columns in views)


def tokenizer_digest(family: str) -> str:
    return hashlib.sha256(microworld_tokenizer(of_family(family)).backend_tokenizer.to_str().encode()).hexdigest()


def test_the_world_is_the_one_that_expectations_were_measured_on() -> None:
    """Spelled out, so that no change of the grammar passes unseen: expectations must then be measured again."""
    source = open_source(MicroworldData(train=300, validation=100), TINY)
    expected = {
        ("train", ("words", "tags")): "eb7cce7471460ea5fc0aac2a0044841e04436341b36f048a950ddbcf4ccba657",
        ("validation", ("words", "tags")): "641dc3a0e935310432f1bb9c6e5bf4f8d02f9e91ddf470120ab0bf4b034fb095",
        ("train", ("text",)): "12c68fa62def67b787cc89e9465c3c721f70743121ff58e344f853a387fa9f7c",
    }
    assert {key: fingerprint(source.examples(key[0], columns=key[1])) for key in expected} == expected


def test_another_seed_is_another_world() -> None:
    worlds = [MicroworldData(train=20, validation=5, seed=seed) for seed in (0, 1)]
    texts = [open_source(world, TINY).examples("train", columns=("text",))[:]["text"] for world in worlds]
    assert not set(texts[0]) & set(texts[1])


# Entities


def test_tags_are_in_the_order_of_conll() -> None:
    features = (
        open_source(MicroworldData(train=1, validation=1), TINY).examples("train", columns=("tags", "words")).features
    )
    expected = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
    assert features["tags"].feature.names == expected
    assert list(features) == ["tags", "words"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_tags_are_valid_iob2_and_every_type_is_common(split: Split) -> None:
    types = Counter(kind for words, tags in rows(split) for kind, _, _ in entities(words, tags))
    assert set(types) == {"PER", "ORG", "LOC", "MISC"}
    assert min(types.values()) > 0.05 * sum(types.values())


def test_no_name_of_validation_occurs_in_training() -> None:
    seen = {word.upper() for words, _ in rows("train") for word in words}
    shared = {word.upper() for word in SHARED}
    names = {
        word.upper()
        for words, tags in rows("validation")
        for _, name, _ in entities(words, tags)
        for word in name
        if word.upper() not in shared and not (len(word) == 2 and word.endswith("."))
    }
    assert len(names) > 1000
    assert names & seen == set()
    assert {split_of(word) for word in names} == {"validation"}


def _is_headline(words: list[str]) -> bool:
    return all(word == word.upper() for word in words)


def test_context_words_of_validation_occur_in_training() -> None:
    seen = {word for words, _ in rows("train") for word in words}
    context = [word for words, tags in rows("validation") for word, tag in zip(words, tags, strict=True) if tag == "O"]
    assert sum(word in seen for word in context) > 0.98 * len(context)


def test_names_are_ambiguous() -> None:
    """A surname is also a town, a club goes by its town: a dictionary of names cannot be perfect."""
    types: dict[str, set[str]] = defaultdict(set)
    for words, tags in rows("train"):
        for kind, name, _ in entities(words, tags):
            types[name[-1]].add(kind)
    assert sum(len(kinds) > 1 for kinds in types.values()) > 50
    plain = {word for words, tags in rows("train") for word, tag in zip(words, tags, strict=True) if tag == "O"}
    named = {word for words, tags in rows("train") for _, name, _ in entities(words, tags) for word in name}
    assert plain & named >= {"May", "June"}


# Awkward cases, each present and none common


def _is(word: str, *kinds: str) -> bool:
    return any(unicodedata.bidirectional(character) in kinds for character in word)


AWKWARD = {
    "adjacent entities of one type": lambda words, tags: any(
        first[0] == second[0] and second[2] == first[2] + len(first[1])
        for first, second in pairwise(entities(words, tags))
    ),
    "a name of one character": lambda words, tags: any(len("".join(name)) == 1 for _, name, _ in entities(words, tags)),
    "a very long word": lambda words, tags: any(len(word) > 20 and word.isascii() for word in words),
    "a very long row": lambda words, tags: len(words) > 64,
    "emoji": lambda words, tags: any(word in EMOJI_WORDS for word in words),
    "combining marks": lambda words, tags: any(unicodedata.combining(c) for word in words for c in word),
    "characters without spaces": lambda words, tags: any(len(w) > 4 and "\u3040" < w[1] < "\u9fff" for w in words),
    "right to left": lambda words, tags: any(_is(word, "R", "AL") and len(word) > 1 for word in words),
    "a word of which no token remains": lambda words, tags: "\u200f" in words,
    "all capitals": lambda words, tags: len(words) > 3 and _is_headline(words),
}  # fmt: skip


@pytest.mark.parametrize("case", AWKWARD)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_awkward_cases_are_there_and_rare(case: str, split: Split) -> None:
    share = sum(AWKWARD[case](words, tags) for words, tags in rows(split)) / ROWS
    assert 0 < share < 0.08, f"{case}: {share:.2%} of rows"


def test_a_row_has_words_and_none_is_empty_or_has_a_space() -> None:
    for words, tags in rows("train"):
        assert len(words) == len(tags) > 0
        assert all(word and not any(character.isspace() for character in word) for word in words)


# Language


def test_verbs_and_nouns_inflect() -> None:
    assert [present(verb, plural=False) for verb in ("win", "carry", "play", "reach", "be")] == [
        "wins",
        "carries",
        "plays",
        "reaches",
        "is",
    ]
    assert [present(verb, plural=True) for verb in ("win", "be")] == ["win", "are"]
    assert [past(verb, plural=False) for verb in ("win", "carry", "play", "arrest", "be", "raise")] == [
        "won",
        "carried",
        "played",
        "arrested",
        "was",
        "raised",
    ]
    assert [plural_of(noun) for noun in ("match", "theory", "bus", "day", "crisis", "policeman")] == [
        "matches",
        "theories",
        "buses",
        "days",
        "crises",
        "policemen",
    ]


def test_articles_agree() -> None:
    pairs = Counter(pair for words, _ in rows("train") for pair in pairwise(words))
    wrong = [
        (article, noun)
        for article, noun in pairs
        if noun[0].islower()
        and ((article == "a" and noun[0] in "aeiou") or (article == "an" and noun[0] not in "aeiou"))
    ]
    assert wrong == []
    assert [pair for pair in pairs if pair[0] == pair[1] == "the"] == []


def test_every_frame_of_every_topic_is_told() -> None:
    told = {clause.frame for index in range(ROWS) for clause in sentence(index, seed=0, split="train").clauses}
    assert {frame for topic in TOPICS for frame in topic.frames} == told


def test_a_document_keeps_to_its_topic_and_names_its_people_again() -> None:
    again = 0
    for index in range(100):
        whole = document(index, seed=0, split="train")
        frames = {clause.frame for told in whole for clause in told.clauses}
        assert set(whole.topic.frames) >= frames
        names = Counter(name for told in whole for _, name, _ in _names(told))
        again += any(count > 1 for count in names.values())
    assert again > 60


def _names(told: Any) -> list[tuple[str, tuple[str, ...], int]]:
    telling = tell(told)
    return entities(telling.words, [TAGS[tag] for tag in telling.tags()])


def test_some_documents_are_longer_than_any_window() -> None:
    lengths = [len(running_text(document(index, seed=0, split="train")).split()) for index in range(300)]
    assert max(lengths) > 512
    assert min(lengths) < 20


def test_text_has_its_punctuation_attached() -> None:
    text = " ".join(running_text(document(index, seed=0, split="train")) for index in range(50))
    assert " ." not in text
    assert " ," not in text
    assert "$ " not in text
    assert ". " in text


# Refusals


@pytest.mark.parametrize(
    ("split", "columns", "says"),
    [("test", ("words",), "no split 'test'"), ("train", ("tokens",), "no column 'tokens': it has words, tags, text")],
)
def test_what_the_microworld_does_not_have_is_an_error(split: str, columns: tuple[str, ...], says: str) -> None:
    with pytest.raises(SourceError, match=says):
        open_source(MicroworldData(train=1, validation=1), TINY).examples(split, columns=columns)


def test_settings_are_told_apart_by_source_and_refuse_unknown_keys() -> None:
    adapter = TypeAdapter[Any](DataSettings)
    assert MicroworldData(train=2, validation=1) == adapter.validate_python(
        {"source": "microworld", "train": 2, "validation": 1}
    )
    with pytest.raises(ValidationError, match="trian"):
        adapter.validate_python({"source": "microworld", "trian": 2, "validation": 1})
    with pytest.raises(ValidationError, match="heads = 3"):
        TypeAdapter[Any](CheckpointSettings).validate_python(
            {"source": "microworld", "architecture": "bert", "layers": 1, "hidden": 32, "heads": 3}
        )


def test_a_negative_index_is_no_document() -> None:
    with pytest.raises(IndexError):
        document(-1, seed=0, split="train")
    with pytest.raises(IndexError):
        document(0, seed=0, split="train").sentence(1000)


# Checkpoints


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tokenizer_is_fast_of_the_declared_size_and_knows_words(family: str) -> None:
    tokenizer = microworld_tokenizer(of_family(family, vocabulary=900))
    assert tokenizer.is_fast
    assert len(tokenizer) == 900
    assert sorted(tokenizer.get_vocab().values()) == list(range(900))
    encoded = tokenizer(["Weston", "beat", "Harlow"], is_split_into_words=True)
    assert list(dict.fromkeys(encoded.word_ids())) == [None, 0, 1, 2]
    assert tokenizer.cls_token_id == encoded["input_ids"][0]
    assert tokenizer.sep_token_id == encoded["input_ids"][-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_names_split_into_pieces_and_common_words_do_not(family: str) -> None:
    tokenizer = microworld_tokenizer(of_family(family))
    assert len(tokenizer.tokenize("Renselabaoringerimezatisegeez")) > 6
    assert len(tokenizer.tokenize("police")) == 1


def test_byte_level_pieces_know_every_character() -> None:
    tokenizer = microworld_tokenizer(of_family("byte-bpe"))
    for text in (" 👩‍🔬 e\u0301 東京 אבג \u200f Ω", " \ufffd\x00"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_few_tokens_of_the_world_are_unknown() -> None:
    tokenizer = microworld_tokenizer(TINY)
    encoded = tokenizer([words for words, _ in rows("validation")[:500]], is_split_into_words=True)
    ids = [token for row in encoded["input_ids"] for token in row]
    assert 0 < ids.count(tokenizer.unk_token_id) < 0.01 * len(ids)


def test_a_stray_mark_has_no_token() -> None:
    encoded = microworld_tokenizer(TINY)(["Rain", "\u200f", "fell"], is_split_into_words=True)
    assert 1 not in encoded.word_ids()


@pytest.mark.parametrize(
    ("architecture", "auto_class"),
    [
        ("bert", AutoModelForTokenClassification),
        ("distilbert", AutoModelForMaskedLM),
        ("modernbert", AutoModelForTokenClassification),
        ("modernbert", AutoModelForMaskedLM),
    ],
)
def test_a_model_is_drawn_from_torchs_generator_in_float32(architecture: str, auto_class: Any) -> None:
    checkpoint = MicroworldCheckpoint.model_validate(TINY.model_dump() | {"architecture": architecture})
    source = open_source(MicroworldData(train=1, validation=1), checkpoint)
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(source.model(auto_class, num_labels=9).state_dict())
    assert {weight.dtype for weight in models[0].values() if weight.is_floating_point()} == {torch.float32}
    assert all(torch.equal(weight, models[1][name]) for name, weight in models[0].items())
    assert not all(torch.equal(weight, models[2][name]) for name, weight in models[0].items())


def test_a_model_has_the_declared_size_and_takes_config_overrides() -> None:
    source = open_source(MicroworldData(train=1, validation=1), TINY)
    model = source.model(AutoModelForTokenClassification, num_labels=3, id2label={0: "O", 1: "B-X", 2: "I-X"})
    config = model.config
    sizes = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.vocab_size)
    assert (1, 32, 2, len(source.tokenizer())) == sizes
    assert config.id2label == {0: "O", 1: "B-X", 2: "I-X"}
    tokens = source.tokenizer()(["Weston beat Harlow.", "Rain fell."], padding=True, return_tensors="pt")
    assert tuple(model(**tokens).logits.shape) == (2, tokens["input_ids"].shape[1], 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_tokenizer_is_the_same_after_loading(family: str, tmp_path: Path) -> None:
    tokenizer = microworld_tokenizer(of_family(family))
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = [running_text(document(index, seed=0, split="validation")) for index in range(20)]
    assert tokenizer(texts, truncation=True)["input_ids"] == loaded(texts, truncation=True)["input_ids"]
