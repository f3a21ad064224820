"""Alignment and merging: the re-spelling table by hand, real tokenizers, and the batched versions."""

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from touchstone.stages import align_labels, align_labels_batch, merge_labels, merge_labels_batch
from touchstone.stages.ragged import Ragged

WORDS = ["Wolfgang", "Amadeus", "visited", "São-Paulo", ",", "東京", "and", "🙂", "in", "Llanfairpwllgwyngyll"]
PREFIXES = {"IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU"}


def names_of(scheme: str, *types: str) -> list[str]:
    return ["O"] + [f"{prefix}-{kind}" for kind in types or ("X", "Y") for prefix in PREFIXES[scheme]]


def align_names(tags: str, *, word_ids: list[int | None], names: list[str], **options: Any) -> str:
    labels = [names.index(tag) for tag in tags.split()]
    aligned = align_labels(labels, word_ids=word_ids, names=names, **options)
    return " ".join("-" if label == -100 else names[label] for label in aligned)


def merge_names(tags: str, *, word_ids: list[int | None], names: list[str], n_words: int, **options: Any) -> str:
    labels = [-100 if tag == "-" else names.index(tag) for tag in tags.split()]
    merged = merge_labels(labels, word_ids=word_ids, names=names, n_words=n_words, **options)
    return " ".join(names[label] for label in merged)


RESPELT = [
    ("IOB2", "O", "O", "O O", "O O O"),
    ("IOB2", "B-X", "B-X", "B-X I-X", "B-X I-X I-X"),
    ("IOB2", "I-X", "I-X", "I-X I-X", "I-X I-X I-X"),
    ("IOBES", "O", "O", "O O", "O O O"),
    ("IOBES", "B-X", "B-X", "B-X I-X", "B-X I-X I-X"),
    ("IOBES", "I-X", "I-X", "I-X I-X", "I-X I-X I-X"),
    ("IOBES", "E-X", "E-X", "I-X E-X", "I-X I-X E-X"),
    ("IOBES", "S-X", "S-X", "B-X E-X", "B-X I-X E-X"),
    ("BILOU", "O", "O", "O O", "O O O"),
    ("BILOU", "B-X", "B-X", "B-X I-X", "B-X I-X I-X"),
    ("BILOU", "I-X", "I-X", "I-X I-X", "I-X I-X I-X"),
    ("BILOU", "L-X", "L-X", "I-X L-X", "I-X I-X L-X"),
    ("BILOU", "U-X", "U-X", "B-X L-X", "B-X I-X L-X"),
]


@pytest.mark.parametrize(("scheme", "word", "one", "two", "three"), RESPELT)
def test_a_split_word_is_respelt_as_in_the_contract_and_merges_back(
    scheme: str, word: str, one: str, two: str, three: str
) -> None:
    names = names_of(scheme)
    for count, expected in enumerate((one, two, three), start=1):
        word_ids = [None] + [0] * count + [None]
        assert align_names(word, word_ids=word_ids, names=names, scheme=scheme) == f"- {expected} -"
        assert merge_names(f"- {expected} -", word_ids=word_ids, names=names, scheme=scheme, n_words=1) == word


def test_the_strategy_first_labels_only_the_first_token_with_the_label_of_its_word() -> None:
    names = names_of("IOBES")
    word_ids = [None, 0, 0, 1, 2, 2, 2, None]
    expected = "- S-X - O B-X - - -"
    assert align_names("S-X O B-X", word_ids=word_ids, names=names, scheme="IOBES", strategy="first") == expected
    assert merge_names(expected, word_ids=word_ids, names=names, scheme="IOBES", n_words=3) == "S-X O B-X"


def test_align_labels_gives_the_same_names_for_ids_in_alphabetical_order() -> None:
    """The course continues a word with `label + 1` if the id is odd, which is right only for its order of ids."""
    for names in (
        ["O", "B-X", "I-X", "B-Y", "I-Y"],
        ["B-X", "B-Y", "I-X", "I-Y", "O"],
        ["I-Y", "I-X", "O", "B-Y", "B-X"],
    ):
        assert align_names("B-Y I-Y O", word_ids=[0, 0, 1, 2, 2], names=names) == "B-Y I-Y I-Y O O"


def test_align_labels_rewrites_only_the_prefix_for_any_type() -> None:
    names = ["O", "B-B-cell", "I-B-cell", "B-I-O", "I-I-O", "B-O", "I-O", "B--", "I--"]
    for kind in ("B-cell", "I-O", "O", "-"):
        assert align_names(f"B-{kind} I-{kind}", word_ids=[0, 0, 1], names=names) == f"B-{kind} I-{kind} I-{kind}"


def test_tokens_of_the_other_sequence_are_ignored() -> None:
    names = names_of("IOBES")
    word_ids = [None, 0, 1, None, 0, 1, 1, 2, None]
    sequence_ids = [None, 0, 0, None, 1, 1, 1, 1, None]
    first = align_names("O S-X", word_ids=word_ids, names=names, scheme="IOBES", sequence_ids=sequence_ids)
    assert first == "- O S-X - - - - - -"  # word 1 is one token here, though its id stands on two more
    second = align_names(
        "B-Y E-Y O", word_ids=word_ids, names=names, scheme="IOBES", sequence_ids=sequence_ids, sequence=1
    )
    assert second == "- - - - B-Y I-Y E-Y O -"
    assert (
        merge_names(
            "O O S-X O B-Y I-Y E-Y O O",
            word_ids=word_ids,
            names=names,
            scheme="IOBES",
            sequence_ids=sequence_ids,
            n_words=2,
        )
        == "O S-X"
    )


def test_truncation_leaves_a_prefix_and_lost_words_come_back_as_o() -> None:
    names = names_of("IOB2")
    assert align_names("B-X I-X B-Y", word_ids=[None, 0, 0], names=names) == "- B-X I-X"
    assert merge_names("- B-X I-X", word_ids=[None, 0, 0], names=names, n_words=3) == "B-X O O"


def test_a_cut_through_a_word_respells_it_from_the_tokens_that_are_left() -> None:
    names = names_of("IOBES")
    assert align_names("S-X", word_ids=[0, 0, 0], names=names, scheme="IOBES") == "B-X I-X E-X"
    assert align_names("S-X", word_ids=[0, 0], names=names, scheme="IOBES") == "B-X E-X"


def test_a_word_whose_characters_the_tokenizer_drops_contributes_nothing() -> None:
    names = names_of("IOB2")
    assert align_names("B-X B-Y I-X", word_ids=[0, 2], names=names) == "B-X I-X"
    assert merge_names("B-X I-X", word_ids=[0, 2], names=names, n_words=3) == "B-X O I-X"


def test_an_empty_sentence_has_no_labels() -> None:
    names = names_of("IOB2")
    assert align_labels([], word_ids=[], names=names) == []
    assert align_labels([], word_ids=[None, None], names=names) == [-100, -100]
    assert merge_labels([], word_ids=[], n_words=0, names=names) == []
    assert merge_labels([], word_ids=[], n_words=2, names=names) == [0, 0]


@pytest.mark.parametrize(
    ("tokens", "word"),
    [
        ("B-X E-X", "S-X"),
        ("S-X S-Y", "S-X"),  # the last token decides that it ends, the first decides the type
        ("S-X O", "B-X"),
        ("B-X I-Y", "B-X"),
        ("I-X S-X", "E-X"),
        ("E-X I-X", "I-X"),
        ("E-X O", "I-X"),
        ("O E-X", "O"),
        ("O S-X", "O"),
        ("- S-X", "O"),
        ("S-X -", "S-X"),
        ("E-X -", "E-X"),
    ],
)
def test_first_and_last_token_decide_a_word_in_iobes(tokens: str, word: str) -> None:
    assert merge_names(tokens, word_ids=[0, 0], names=names_of("IOBES"), scheme="IOBES", n_words=1) == word


@pytest.mark.parametrize("scheme", PREFIXES)
@pytest.mark.parametrize("family", ["wordpiece", "byte-level"])
def test_entities_survive_words_to_tokens_to_words_with_a_real_tokenizer(scheme: str, family: str) -> None:
    spans = {"IOB2": "B I O B O B O O O B", "IOBES": "B E O S O S O O O S", "BILOU": "B L O U O U O O O U"}[scheme]
    tags = " ".join(prefix if prefix == "O" else f"{prefix}-X" for prefix in spans.split())
    encoded = trained_tokenizer(family)(WORDS, is_split_into_words=True)
    word_ids, names = encoded.word_ids(), names_of(scheme, "X")
    assert len(word_ids) > len(WORDS) + 2, "no word was split: the test would show nothing"
    for strategy in ("all", "first"):
        tokens = align_names(tags, word_ids=word_ids, names=names, scheme=scheme, strategy=strategy)
        assert merge_names(tokens, word_ids=word_ids, names=names, scheme=scheme, n_words=len(WORDS)) == tags


def trained_tokenizer(family: str) -> PreTrainedTokenizerFast:
    if family == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=80, special_tokens=["[UNK]"], show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"labels": [1, 9]}, r"labels\[1\] is 9"),
    ({"labels": [1, -100]}, r"labels\[1\] is -100"),
    ({"word_ids": [None, 0, 2, None]}, r"word_ids\[2\] is 2"),
    ({"word_ids": [None, 0, -3, None]}, r"word_ids\[2\] is -3"),
    ({"sequence_ids": [0, 0]}, "2 sequence_ids for 4 word_ids"),
    ({"strategy": "last"}, "strategy 'last'"),
    ({"scheme": "IOB1"}, "scheme 'IOB1'"),
    ({"names": ["0", "B-X", "I-X"]}, r"names\[0\] is '0'.*digit 0"),
    ({"names": ["O", "B-X", "E-X"]}, r"names\[2\] is 'E-X', not a tag of IOB2"),
    ({"names": ["O", "B", "I-X"]}, r"names\[1\] is 'B'"),
    ({"names": ["O", "B-", "I-X"]}, r"names\[1\] is 'B-'"),
    ({"names": ["O", "BX", "I-X"]}, r"names\[1\] is 'BX'"),
    ({"names": ["O", "B-X", "B-X"]}, r"names\[2\] is 'B-X', and so is names\[1\]"),
    ({"names": ["O", "B-X", "I-Y"]}, "word 0 needs the label 'I-X'"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_align_labels_and_its_batched_version_refuse_invalid_input(change: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {"labels": [1, 0], "word_ids": [None, 0, 0, None], "names": ["O", "B-X", "I-X"]}
    plain = right | change
    with pytest.raises(ValueError, match=message):
        align_labels(plain.pop("labels"), **plain)
    good, bad = right, right | change
    if "sequence_ids" in bad:
        good = good | {"sequence_ids": [0, 0, 0, 0]}
    ragged = {
        key: Ragged.from_lists([good[key], bad[key]]) for key in ("labels", "word_ids", "sequence_ids") if key in bad
    }
    options = {key: value for key, value in bad.items() if key not in ragged}
    in_row = "row 0: " if change.get("names", [""])[-1] == "I-Y" else "row 1: " if change.keys() & ragged.keys() else ""
    with pytest.raises(ValueError, match=in_row + message):
        align_labels_batch(ragged.pop("labels"), **ragged, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_labels": [0, 7]}, r"token_labels\[1\] is 7"),
        ({"token_labels": [0, -1]}, r"token_labels\[1\] is -1"),
        ({"token_labels": [0]}, "1 token_labels for 2 word_ids"),
        ({"word_ids": [0, 1]}, r"word_ids\[1\] is 1, outside the 1 words"),
        ({"n_words": -1}, "n_words is -1"),
        ({"names": ["B-X", "I-X"]}, "lack 'O', the label of words without a token"),
        ({"names": ["O", "B-X", "E-X"], "scheme": "IOBES", "token_labels": [1, 2]}, "word 0 needs the label 'S-X'"),
    ],
)
def test_merge_labels_and_its_batched_version_refuse_invalid_input(change: dict[str, Any], message: str) -> None:
    wrong: dict[str, Any] = {"token_labels": [0, 0], "word_ids": [0, 0], "n_words": 1, "names": ["O", "B-X"]}
    wrong |= change
    options = {key: wrong[key] for key in ("names", "scheme") if key in wrong}
    with pytest.raises(ValueError, match=message):
        merge_labels(wrong["token_labels"], word_ids=wrong["word_ids"], n_words=wrong["n_words"], **options)
    labels = Ragged.from_lists([[], wrong["token_labels"]])
    word_ids = Ragged.from_lists([[], wrong["word_ids"]])
    in_row = "" if "lack 'O'" in message else "row 1: "
    with pytest.raises(ValueError, match=in_row + message):
        merge_labels_batch(labels, word_ids=word_ids, n_words=[0, wrong["n_words"]], **options)


def test_batches_with_different_numbers_of_rows_are_refused() -> None:
    one, two = Ragged.from_lists([[0]]), Ragged.from_lists([[0], [0]])
    with pytest.raises(ValueError, match="word_ids has 2 rows where 1 are expected"):
        align_labels_batch(one, word_ids=two, names=["O"])
    with pytest.raises(ValueError, match="token_labels has 1 rows where 2 are expected"):
        merge_labels_batch(one, word_ids=two, n_words=[1, 1], names=["O"])


@pytest.mark.parametrize("scheme", PREFIXES)
@pytest.mark.parametrize("pairs", [False, True])
def test_the_batched_versions_equal_the_plain_stages_on_random_input(scheme: str, pairs: bool) -> None:
    """Word ids may be out of order, repeated after a gap, or missing: words are identified by id, not by run."""
    random = np.random.default_rng(7)
    names = list(random.permutation(names_of(scheme, "X", "Y-Z", "B-X")))
    n_words = random.integers(0, 9, size=300)
    labels = [random.integers(0, len(names), size=n).tolist() for n in n_words]
    word_ids, sequence_ids = [], []
    for n in n_words:
        ids = random.integers(-1, n, size=random.integers(0, 14))
        ids = np.sort(ids) if random.random() < 0.7 else ids
        word_ids.append([None if i < 0 else int(i) for i in ids])
        sequence_ids.append([None if i < 0 else int(random.integers(2)) for i in ids])
    ragged = {"word_ids": Ragged.from_lists(word_ids)}
    if pairs:
        ragged["sequence_ids"] = Ragged.from_lists(sequence_ids)

    def of_row(row: int) -> dict[str, Any]:
        return {"word_ids": word_ids[row], "sequence_ids": sequence_ids[row] if pairs else None, "sequence": int(pairs)}

    options: dict[str, Any] = {"names": names, "scheme": scheme}
    for strategy in ("all", "first"):
        plain = [align_labels(row, strategy=strategy, **of_row(i), **options) for i, row in enumerate(labels)]
        batched = align_labels_batch(
            Ragged.from_lists(labels), strategy=strategy, sequence=int(pairs), **ragged, **options
        )
        assert batched.to_lists() == plain
    predicted = [random.choice([-100, *range(len(names))], size=len(ids)).tolist() for ids in word_ids]
    merged = [merge_labels(row, n_words=n_words[i], **of_row(i), **options) for i, row in enumerate(predicted)]
    batched = merge_labels_batch(
        Ragged.from_lists(predicted), n_words=n_words, sequence=int(pairs), **ragged, **options
    )
    assert batched.to_lists() == merged


def test_the_batched_versions_accept_a_batch_without_rows() -> None:
    none = Ragged.from_lists([])
    assert align_labels_batch(none, word_ids=none, names=["O"]).to_lists() == []
    assert merge_labels_batch(none, word_ids=none, n_words=[], names=["O"]).to_lists() == []


def test_alignment_does_not_change_its_input_or_share_memory_with_it() -> None:
    labels, word_ids = Ragged.from_lists([[1, 0]]), Ragged.from_lists([[None, 0, 0, 1]])
    aligned = align_labels_batch(labels, word_ids=word_ids, names=["O", "B-X", "I-X"])
    merged = merge_labels_batch(aligned, word_ids=word_ids, n_words=[2], names=["O", "B-X", "I-X"])
    for result in (aligned, merged):
        result.values[:] = 77
        result.offsets[:] = 0
    assert labels.to_lists() == [[1, 0]]
    assert word_ids.to_lists() == [[-1, 0, 0, 1]]


def test_numpy_input_gives_plain_integers() -> None:
    aligned = align_labels(np.array([1]), word_ids=np.array([None, 0], dtype=object), names=np.array(["O", "B-X"]))
    assert aligned == [-100, 1]
    assert [type(label) for label in aligned] == [int, int]
