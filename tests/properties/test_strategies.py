"""The strategies draw only valid cases (`always`) and reach each awkward case (`sometimes`)."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from itertools import chain, pairwise
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, find, given, seed, settings
from hypothesis.strategies import SearchStrategy

from touchstone.properties import oracles
from touchstone.properties.strategies.alignment import (
    Alignment,
    alignment_batches,
    alignments,
    pair_alignments,
    predictions,
    sentences_and_pairs,
)
from touchstone.properties.strategies.chunking import PAD, Documents, documents, spread_documents
from touchstone.properties.strategies.collation import Batch, alike_batches, batches, labelled_features
from touchstone.properties.strategies.masking import (
    VOCABULARY,
    Masking,
    confusable_draws,
    masking_batches,
    maskings,
    neighbouring_draws,
)
from touchstone.properties.strategies.tags import (
    AWKWARD_WORDS,
    Sentences,
    label_names,
    misspelt_names,
    scored_sentences,
    word_lists,
)
from touchstone.properties.tokenizer_families import FAMILIES, encode, tokenizer_of

T = TypeVar("T")

QUIET = settings(max_examples=200, database=None, deadline=None, suppress_health_check=list(HealthCheck))
SEARCH = settings(QUIET, max_examples=1000, phases=[Phase.generate])  # without shrinking


def always(strategy: SearchStrategy[T], holds: Callable[[T], object]) -> None:
    @seed(5)
    @settings(QUIET, phases=[Phase.generate, Phase.shrink])
    @given(strategy)
    def test(value: T) -> None:
        assert holds(value), value

    test()


def sometimes(strategy: SearchStrategy[T], holds: Callable[[T], object]) -> None:
    """Require that it holds for one of 1000 examples; otherwise `find` raises `NoSuchExample`."""
    find(strategy, lambda value: bool(holds(value)), settings=SEARCH, random=Random(5))


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trait",
    [
        pytest.param(lambda words: not words, id="no words"),
        pytest.param(lambda words: any(len(word) == 1 for word in words), id="one character"),
        pytest.param(lambda words: any(len(word) > 100 for word in words), id="very long"),
        pytest.param(lambda words: any(a == b for a, b in pairwise(words)), id="equal neighbours"),
        pytest.param(lambda words: any(ord(c) > 0x1F000 for word in words for c in word), id="emoji"),
        pytest.param(lambda words: any("CJK" in unicodedata.name(c, "") for word in words for c in word), id="CJK"),
        pytest.param(lambda words: any(unicodedata.combining(c) for word in words for c in word), id="combining mark"),
        pytest.param(lambda words: any(unicodedata.bidirectional(c) == "R" for w in words for c in w), id="Hebrew"),
        pytest.param(lambda words: any(unicodedata.bidirectional(c) == "AL" for w in words for c in w), id="Arabic"),
    ],
)
def test_word_lists_have_every_awkward_kind_of_word(trait: Callable[[tuple[str, ...]], bool]) -> None:
    sometimes(word_lists(), trait)


def test_label_names_come_in_every_order_and_are_complete() -> None:
    names = label_names(["PER", "LOC"], scheme="IOB2")
    complete = {"O", "B-PER", "I-PER", "B-LOC", "I-LOC"}

    always(names, lambda drawn: set(drawn) == complete and len(drawn) == 5)
    sometimes(names, lambda drawn: drawn == sorted(drawn))
    sometimes(names, lambda drawn: drawn[0] == "O")
    sometimes(names, lambda drawn: drawn.index("I-PER") not in (drawn.index("B-PER") + 1, drawn.index("B-PER") - 1))


@pytest.mark.parametrize("scheme", oracles.SCHEMES)
def test_a_misspelt_name_is_not_a_tag_of_its_scheme(scheme: str) -> None:
    tags = oracles.tags_of(["PER"], scheme=scheme)

    names = misspelt_names(tags, scheme=scheme)
    always(names, lambda drawn: drawn[0][drawn[1]] not in tags and len(drawn[0]) == len(tags) + 1)
    sometimes(names, lambda drawn: "0" in drawn[0])


# --- alignment -------------------------------------------------------------------------------------------------------


def is_well_formed(case: Alignment) -> bool:
    """Return True if ids are in range, words are in order and each is one run of tokens."""
    own = [word for word, ours in zip(case.word_ids, case.ours, strict=True) if ours]
    kinds = {kind for _, kind in map(oracles.split_tag, case.names) if kind}
    return (
        all(0 <= label < len(case.names) for label in case.labels)
        and all(word is not None and 0 <= word < len(case.labels) for word in own)
        and own == sorted(own, key=lambda word: word or 0)
        and set(oracles.tags_of(sorted(kinds), scheme=case.scheme)) == set(case.names)
    )


def test_alignments_are_well_formed() -> None:
    always(sentences_and_pairs(), is_well_formed)
    always(pair_alignments(), lambda case: len(case.sequence_ids or []) == len(case.word_ids))


def test_valid_alignments_are_valid_and_complete_ones_complete() -> None:
    always(alignments(valid=True), lambda case: oracles.is_valid(case.tags, scheme=case.scheme))
    always(alignments(complete=True), lambda case: len(case.spans) == len(case.labels))


@pytest.mark.parametrize("scheme", oracles.SCHEMES)
@pytest.mark.parametrize("strategy", ["all", "first"])
@pytest.mark.parametrize(
    "trait",
    [
        pytest.param(lambda case: not case.labels, id="no words"),
        pytest.param(lambda case: len(case.spans) < len(case.labels), id="a word without tokens"),
        pytest.param(lambda case: any(b - a >= 3 for a, b in case.spans.values()), id="a word of four tokens"),
        pytest.param(lambda case: None not in case.word_ids and case.word_ids, id="no special tokens"),
        pytest.param(lambda case: case.origin, id="a real tokenizer"),
        pytest.param(lambda case: case.brief, id="arguments left out"),
        pytest.param(lambda case: not oracles.is_valid(case.tags, scheme=case.scheme), id="ill-formed words"),
    ],
)
def test_alignments_have_every_awkward_trait(scheme: str, strategy: str, trait: Callable[[Alignment], object]) -> None:
    sometimes(alignments(strategy=strategy), lambda case: case.scheme == scheme and trait(case))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tokenizer_family_is_used(family: str) -> None:
    sometimes(alignments(), lambda case: case.origin.endswith(f"({family})"))


def test_pairs_are_adjacent_or_apart_and_label_either_sequence() -> None:
    def touches(case: Alignment) -> bool:
        ids = case.sequence_ids or []
        return any({a, b} == {0, 1} for a, b in pairwise(ids))

    sometimes(pair_alignments(), touches)
    sometimes(pair_alignments(), lambda case: case.sequence == 1 and case.spans and not touches(case))
    sometimes(pair_alignments(), lambda case: case.sequence == 0 and case.spans and case.origin)


def test_predictions_fit_their_case() -> None:
    always(predictions(), lambda pair: len(pair[1]) == len(pair[0].word_ids))
    sometimes(predictions(), lambda pair: oracles.IGNORED in pair[1])


def test_a_batch_of_alignments_shares_the_arguments_of_the_batched_version() -> None:
    always(
        alignment_batches(),
        lambda cases: len({(tuple(c.names), c.scheme, c.strategy, c.sequence_ids is None) for c in cases}) <= 1,
    )
    always(alignment_batches(), lambda cases: all(map(is_well_formed, cases)))
    sometimes(alignment_batches(), lambda cases: not cases)
    sometimes(alignment_batches(), lambda cases: len(cases) > 2 and any(not case.labels for case in cases))


# --- tokenizers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pair", [None, ("Anna", "東京都庁", "don't")])
def test_word_ids_are_those_of_a_fast_tokenizer(family: str, pair: tuple[str, ...] | None) -> None:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer_of(family))  # type: ignore[no-untyped-call]
    theirs = fast(list(AWKWARD_WORDS), None if pair is None else list(pair), is_split_into_words=True)
    ours = encode(family, AWKWARD_WORDS, pair)

    assert theirs.word_ids() == list(ours.word_ids)
    assert theirs.sequence_ids() == list(ours.sequence_ids)
    assert list(ours.ids) == theirs["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_truncation_is_that_of_a_fast_tokenizer(family: str) -> None:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer_of(family))  # type: ignore[no-untyped-call]
    theirs = fast(list(AWKWARD_WORDS), is_split_into_words=True, truncation=True, max_length=8)
    fast.backend_tokenizer.no_truncation()

    assert theirs.word_ids() == list(encode(family, AWKWARD_WORDS, max_tokens=8).word_ids)


def test_some_tokenizer_drops_a_word_and_some_splits_words() -> None:
    kept = {family: set(encode(family, AWKWARD_WORDS).word_ids) for family in FAMILIES}

    assert any(len(words - {None}) < len(AWKWARD_WORDS) for words in kept.values())
    assert all(len(encode(family, ("unaffable",)).ids) > 3 for family in FAMILIES)


# --- chunking --------------------------------------------------------------------------------------------------------


def test_documents_have_columns_of_equal_lengths_and_unique_cells() -> None:
    always(documents(), lambda case: all([len(d) for d in column] == case.lengths for column in case.columns.values()))
    always(documents(words=False), lambda case: _cells(case) == len(set(_all_cells(case))))
    always(documents(words=False), lambda case: not set(_all_cells(case)) & set(PAD.values()))


def _all_cells(case: Documents) -> list[Any]:
    return [value for column in case.columns.values() for document in column for value in document]


def _cells(case: Documents) -> int:
    return case.total * len(case.columns)


@pytest.mark.parametrize("tail", ["drop", "keep", "pad"])
@pytest.mark.parametrize(
    "trait",
    [
        pytest.param(lambda case: not case.lengths, id="no documents"),
        pytest.param(lambda case: case.lengths and not case.total, id="nothing but empty documents"),
        pytest.param(lambda case: 0 in case.lengths and case.total, id="an empty document among others"),
        pytest.param(lambda case: 0 < case.total < case.length, id="fewer tokens than a chunk"),
        pytest.param(lambda case: case.total and case.total % case.length == 0, id="nothing left over"),
        pytest.param(lambda case: case.total > case.length and case.total % case.length, id="something left over"),
        pytest.param(lambda case: any(size > 2 * case.length for size in case.lengths), id="longer than two chunks"),
        pytest.param(lambda case: "word_ids" in case.columns and len(case.lengths) > 1, id="word ids"),
    ],
)
def test_documents_have_every_awkward_trait(tail: str, trait: Callable[[Documents], object]) -> None:
    sometimes(documents(tail=tail), trait)


def test_spread_documents_are_the_same_documents() -> None:
    always(
        spread_documents(),
        lambda pair: all(
            list(chain(*(b[name] for b in pair[1]))) == column for name, column in pair[0].columns.items()
        ),
    )
    sometimes(spread_documents(), lambda pair: len(pair[1]) > 2 and pair[0].total)
    sometimes(spread_documents(), lambda pair: pair[0].total and any(not batch["input_ids"] for batch in pair[1]))


# --- masking ---------------------------------------------------------------------------------------------------------


def test_the_vocabulary_and_the_tokens_are_disjoint() -> None:
    always(maskings(), lambda case: not set(case.input_ids) & set(VOCABULARY))


def test_words_are_maximal_runs() -> None:
    case = Masking([1] * 9, [False, True, *[False] * 7], [0, 0, 0, 0, None, 0, 1, 1, 2], 0.5, (1.0, 0.0, 0.0), 0, 0, 0)

    assert case.words == [[0], [2, 3], [5], [6, 7], [8]]
    assert case.with_(word_ids=None, special=[False, True, False, False]).words == [[0], [2], [3]]


@pytest.mark.parametrize(
    "trait",
    [
        pytest.param(lambda case: not case.input_ids, id="no tokens"),
        pytest.param(lambda case: case.input_ids and not case.words, id="nothing that may be chosen"),
        pytest.param(lambda case: any(len(word) > 2 for word in case.words), id="a word of three tokens"),
        pytest.param(lambda case: _comes_again(case), id="a word that is cut and comes again"),
        pytest.param(
            lambda case: any(s and w is not None for s, w in zip(case.special, case.word_ids, strict=True)),
            id="a special token with a word id",
        ),
        pytest.param(
            lambda case: any(not s and w is None for s, w in zip(case.special, case.word_ids, strict=True)),
            id="a token without a word",
        ),
    ],
)
def test_masking_has_every_awkward_trait(trait: Callable[[Masking], object]) -> None:
    sometimes(maskings(whole_words=True), trait)


def _comes_again(case: Masking) -> bool:
    ids = [case.word_ids[word[0]] for word in case.words] if case.word_ids else []
    return len(ids) > len(set(ids))


def test_draws_to_compare_differ_and_often_have_the_same_sum() -> None:
    always(neighbouring_draws(), lambda pair: sum(a != b for a, b in zip(*pair, strict=True)) == 1)
    always(confusable_draws(), lambda pair: pair[0] != pair[1])
    sometimes(confusable_draws(), lambda pair: sum(pair[0]) == sum(pair[1]))
    sometimes(confusable_draws(), lambda pair: sorted(pair[0]) == sorted(pair[1]))
    sometimes(confusable_draws(), lambda pair: pair[0][1:] == (1, 0) and pair[1][1:] == (0, 1000))


def test_a_masking_batch_shares_the_arguments_of_the_batched_version() -> None:
    always(masking_batches(), lambda cases: len({repr(case.shared) for case in cases}) <= 1)
    always(masking_batches(), lambda cases: len({case.word_ids is None for case in cases}) <= 1)
    sometimes(masking_batches(), lambda cases: len({case.example for case in cases}) > 2)


# --- collation -------------------------------------------------------------------------------------------------------


def test_features_without_a_mask_do_not_end_with_padding() -> None:
    def is_open(case: Batch) -> bool:
        edge = -1 if case.side == "right" else 0
        return all(not f["input_ids"] or f["input_ids"][edge] != case.pad_id for f in case.features)

    always(batches(mask=False), is_open)
    sometimes(batches(mask=True), lambda case: not is_open(case))


def test_columns_of_a_feature_have_one_length() -> None:
    always(
        batches(),
        lambda case: all(len({len(v) for v in f.values() if isinstance(v, list)}) == 1 for f in case.features),
    )
    always(labelled_features(), lambda features: all(f["input_ids"] for f in features))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    "trait",
    [
        pytest.param(lambda case: 0 in case.lengths and max(case.lengths) > 0, id="an empty feature"),
        pytest.param(lambda case: case.width > max(case.lengths) > 0, id="wider than the longest"),
        pytest.param(lambda case: len(set(case.lengths)) > 2, id="many lengths"),
        pytest.param(lambda case: case.pad_id in case.features[0]["input_ids"], id="the padding id in the text"),
        pytest.param(lambda case: 0 in case.features[0].get("attention_mask", []), id="a mask with holes"),
        pytest.param(lambda case: "example" in case.features[0], id="a column of single integers"),
        pytest.param(lambda case: "word_ids" in case.features[0], id="word ids"),
    ],
)
def test_batches_have_every_awkward_trait(side: str, trait: Callable[[Batch], object]) -> None:
    sometimes(batches(scalars=True), lambda case: case.side == side and trait(case))


def test_alike_batches_have_equal_rows() -> None:
    always(alike_batches(), lambda case: len({repr(list(feature.values())) for feature in case.features}) == 1)


# --- scoring ---------------------------------------------------------------------------------------------------------


def test_sentences_are_well_formed() -> None:
    def fits(case: Sentences) -> bool:
        pairs = list(zip(case.references, case.predictions, strict=True))
        known = range(len(case.names))
        return all(
            len(gold) == len(guess)
            and all(label in known or label == oracles.IGNORED for label in gold)
            and all(label in known for label in guess)
            for gold, guess in pairs
        )

    always(scored_sentences(), fits)
    always(scored_sentences(perfect=True, ignored=False), lambda case: case.references == case.predictions)
    always(scored_sentences(ignored=False), lambda case: all(oracles.IGNORED not in row for row in case.references))
    always(
        scored_sentences(valid=True, ignored=False),
        lambda case: all(oracles.is_valid([case.names[i] for i in row], scheme=case.scheme) for row in case.references),
    )


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize("scheme", oracles.SCHEMES)
@pytest.mark.parametrize(
    "trait",
    [
        pytest.param(lambda gold, guess: gold & guess and gold - guess and guess - gold, id="partly right"),
        pytest.param(lambda gold, guess: not gold and guess, id="no gold"),
        pytest.param(lambda gold, guess: len({entity.type for _, entity in gold}) > 1, id="several types"),
    ],
)
def test_scored_sentences_are_partly_right(
    scheme: str, mode: str, trait: Callable[[set[Any], set[Any]], object]
) -> None:
    sometimes(
        scored_sentences(mode=mode),
        lambda case: case.scheme == scheme and trait(case.entities("references"), case.entities("predictions")),
    )


def test_strict_and_lenient_entities_differ_in_some_case() -> None:
    sometimes(
        scored_sentences(mode="strict"),
        lambda case: case.entities("references") != case.with_(mode="lenient").entities("references"),
    )


# --- oracles ---------------------------------------------------------------------------------------------------------

CONLLEVAL = [  # tags, and the entities that conlleval.pl (and seqeval by default) reads
    ("B-X I-X O B-X", [("X", 0, 1), ("X", 3, 3)]),
    ("I-X I-X", [("X", 0, 1)]),
    ("I-X I-Y", [("X", 0, 0), ("Y", 1, 1)]),
    ("B-X B-X", [("X", 0, 0), ("X", 1, 1)]),
    ("S-X S-X", [("X", 0, 0), ("X", 1, 1)]),
    ("E-X I-X E-X", [("X", 0, 0), ("X", 1, 2)]),
    ("B-X E-X I-X", [("X", 0, 1), ("X", 2, 2)]),
    ("B-X L-X U-X", [("X", 0, 1), ("X", 2, 2)]),
]


@pytest.mark.parametrize(("tags", "expected"), CONLLEVAL)
def test_lenient_entities_are_conllevals(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert oracles.lenient_entities(tags.split()) == set(expected)


STRICT = [
    ("IOB2", "B-X I-X O I-X", [("X", 0, 1)]),
    ("IOB2", "B-X I-Y", [("X", 0, 0)]),
    ("IOB2", "I-X I-X", []),
    ("IOBES", "B-X E-X S-X", [("X", 0, 1), ("X", 2, 2)]),
    ("IOBES", "B-X I-X O", []),
    ("IOBES", "B-X E-Y", []),
    ("IOBES", "B-X B-X E-X", [("X", 1, 2)]),
    ("BILOU", "B-X I-X L-X U-Y", [("X", 0, 2), ("Y", 3, 3)]),
]


@pytest.mark.parametrize(("scheme", "tags", "expected"), STRICT)
def test_strict_entities_are_the_well_formed_ones(scheme: str, tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert oracles.strict_entities(tags.split(), scheme=scheme) == set(expected)


def test_entities_agree_with_seqeval_in_its_schemes() -> None:
    import seqeval.scheme
    from seqeval.metrics.sequence_labeling import get_entities

    def agrees(case: Sentences) -> bool:
        if case.scheme == "BILOU":
            return True
        rows = [[case.names[label] for label in row] for row in case.predictions]
        scheme = getattr(seqeval.scheme, case.scheme)
        return all(
            set(map(tuple, get_entities(row))) == oracles.lenient_entities(row)
            and {(e.tag, e.start, e.end - 1) for e in seqeval.scheme.Tokens(row, scheme).entities}
            == oracles.strict_entities(row, scheme=case.scheme)
            for row in rows
        )

    always(scored_sentences(), agrees)


TABLE = [  # word, tokens, scheme, the table of docs/contract.md
    ("B-X", 3, "IOB2", "B-X I-X I-X"),
    ("I-X", 2, "IOB2", "I-X I-X"),
    ("O", 2, "IOB2", "O O"),
    ("B-X", 3, "IOBES", "B-X I-X I-X"),
    ("I-X", 2, "IOBES", "I-X I-X"),
    ("E-X", 3, "IOBES", "I-X I-X E-X"),
    ("S-X", 3, "IOBES", "B-X I-X E-X"),
    ("S-X", 1, "IOBES", "S-X"),
    ("U-X", 2, "BILOU", "B-X L-X"),
    ("L-X", 2, "BILOU", "I-X L-X"),
]


@pytest.mark.parametrize(("word", "n_tokens", "scheme", "tokens"), TABLE)
def test_respelling_is_the_table_of_the_contract(word: str, n_tokens: int, scheme: str, tokens: str) -> None:
    assert tokens.split() == oracles.respell(word, n_tokens, scheme=scheme)
    assert oracles.merge(tokens.split()[0], tokens.split()[-1], scheme=scheme) == word


VALIDITY = [
    ("IOB2", "B-X I-X B-X O", True),
    ("IOB2", "O I-X", False),
    ("IOB2", "B-X I-Y", False),
    ("IOBES", "B-X I-X E-X S-X O", True),
    ("IOBES", "B-X", False),
    ("IOBES", "B-X O", False),
    ("IOBES", "S-X E-X", False),
    ("BILOU", "B-X L-X U-X", True),
    ("BILOU", "B-X B-X L-X", False),
]


@pytest.mark.parametrize(("scheme", "tags", "valid"), VALIDITY)
def test_validity_is_that_of_the_scheme(scheme: str, tags: str, valid: bool) -> None:
    assert oracles.is_valid(tags.split(), scheme=scheme) == valid
