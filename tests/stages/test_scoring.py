"""Scores by hand and against seqeval's report, and cases that seqeval alone gets wrong."""

import math
import socket
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from seqeval import scheme as seqeval_schemes
from seqeval.metrics import classification_report
from seqeval.metrics.sequence_labeling import get_entities

from touchstone.stages import perplexity, score_entities
from touchstone.stages.metrics import EntityScores, Perplexity

PREFIXES = {"IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU"}


def names_of(scheme: str, *types: str) -> list[str]:
    return ["O"] + [f"{prefix}-{kind}" for kind in types or ("X", "Y") for prefix in PREFIXES[scheme]]


def score_names(predicted: Sequence[str], gold: Sequence[str], **options: Any) -> Any:
    names = options.pop("names", None) or names_of(options.get("scheme", "IOB2"))

    def ids(sentences: Sequence[str]) -> list[list[int]]:
        return [[-100 if tag == "-" else names.index(tag) for tag in sentence.split()] for sentence in sentences]

    return score_entities(ids(predicted), references=ids(gold), names=names, **options)


def test_entity_scores_equal_a_count_by_hand() -> None:
    gold = ["B-X I-X O B-Y", "O B-X", ""]
    predicted = ["B-X I-X O B-X", "B-Y B-X", ""]
    expected = {
        "precision": 2 / 4,
        "recall": 2 / 3,
        "f1": 4 / 7,
        "accuracy": 4 / 6,
        "number": 3,
        "types": {
            "X": {"precision": 2 / 3, "recall": 1.0, "f1": 0.8, "number": 2},
            "Y": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 1},
        },
        "signature": f"seqeval|scheme:IOB2|mode:strict|version:{version('seqeval')}",
    }
    assert score_names(predicted, gold) == expected


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize(
    ("scheme", "gold", "number"),
    [
        ("IOB2", "B-X I-X B-X B-Y O", 3),
        ("IOBES", "S-X S-X B-X E-X B-X I-X E-X S-Y O", 5),
        ("BILOU", "U-X U-X B-X L-X B-X L-X U-Y O", 5),
    ],
)
def test_the_gold_standard_is_perfect_with_the_right_number_of_entities(
    mode: str, scheme: str, gold: str, number: int
) -> None:
    """seqeval's default mode alone counts 1 entity in `U-X U-X` and loses the first of `B-X L-X B-X L-X`."""
    scores = score_names([gold], [gold], scheme=scheme, mode=mode)
    assert tuple(scores[key] for key in ("precision", "recall", "f1", "accuracy", "number")) == (
        1.0,
        1.0,
        1.0,
        1.0,
        number,
    )


@pytest.mark.parametrize(
    ("scheme", "ill_formed", "well_formed"),
    [
        ("IOB2", "O I-X I-X", "O B-X I-X"),
        ("IOB2", "B-X I-Y O", "B-X B-Y O"),
        ("IOBES", "B-X I-X O", "B-X E-X O"),
        ("IOBES", "I-X E-X O", "B-X E-X O"),
        ("IOBES", "S-X E-X O", "S-X S-X O"),
        ("BILOU", "B-X I-X O", "B-X L-X O"),
        ("BILOU", "I-X U-X O", "U-X U-X O"),
    ],
)
def test_lenient_reads_ill_formed_entities_that_strict_leaves_out(
    scheme: str, ill_formed: str, well_formed: str
) -> None:
    assert score_names([ill_formed], [well_formed], scheme=scheme, mode="lenient")["f1"] == 1.0
    assert score_names([ill_formed], [well_formed], scheme=scheme, mode="strict")["f1"] < 1.0


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize("scheme", ["IOB2", "IOBES"])
@pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.UndefinedMetricWarning"
)  # seqeval's, where a type is not predicted
def test_entity_scores_equal_seqevals_report(scheme: str, mode: str) -> None:
    random = np.random.default_rng(11)
    names = names_of(scheme, "X", "Y", "Z")
    gold = [random.integers(len(names), size=size).tolist() for size in random.integers(1, 25, size=80)]
    predicted = [[tag if random.random() < 0.8 else int(random.integers(len(names))) for tag in row] for row in gold]
    scores: Any = score_entities(predicted, references=gold, names=names, scheme=scheme, mode=mode)
    report = classification_report(
        [[names[i] for i in row] for row in gold],
        [[names[i] for i in row] for row in predicted],
        output_dict=True,
        mode="strict" if mode == "strict" else None,
        scheme=getattr(seqeval_schemes, scheme) if mode == "strict" else None,
    )
    keys = {"precision": "precision", "recall": "recall", "f1": "f1-score", "number": "support"}
    for kind in ("X", "Y", "Z"):
        assert {key: pytest.approx(report[kind][theirs]) for key, theirs in keys.items()} == scores["types"][kind]
    assert [pytest.approx(report["micro avg"][theirs]) for theirs in keys.values()] == [scores[key] for key in keys]


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_bilou_scores_equal_iobes_scores(mode: str) -> None:
    random = np.random.default_rng(12)
    gold, predicted = ([random.integers(9, size=20).tolist() for _ in range(50)] for _ in range(2))
    bilou, iobes = (
        score_entities(predicted, references=gold, names=names_of(scheme), scheme=scheme, mode=mode)
        for scheme in ("BILOU", "IOBES")
    )
    assert iobes["number"] > 0
    assert dict(iobes) | {"signature": ""} == dict(bilou) | {"signature": ""}


@pytest.mark.parametrize("mode", ["strict", "lenient"])
def test_types_that_differ_by_a_hyphen_are_different_types(mode: str) -> None:
    """seqeval's strict mode reads `X`, `-X` and `X-` as one type."""
    names = names_of("IOB2", "X", "-X", "X-", "B-X", "_")
    for kind in ("-X", "X-", "B-X", "_"):
        scores = score_names([f"B-X O B-{kind}"], [f"B-{kind} O B-{kind}"], names=names, mode=mode)
        assert (scores["precision"], scores["recall"], scores["number"]) == (1 / 2, 1 / 2, 2)
        assert set(scores["types"]) == {"X", kind}


def test_predictions_at_ignored_positions_are_left_out() -> None:
    scores = score_names(["B-X I-Y I-X B-Y"], ["B-X - I-X -"])
    assert (scores["f1"], scores["accuracy"], scores["number"]) == (1.0, 1.0, 1)
    names = names_of("IOB2")
    assert score_entities([[1, -100, 999]], references=[[1, -100, -100]], names=names)["f1"] == 1.0


def test_no_entity_crosses_a_sentence_boundary() -> None:
    for mode in ("strict", "lenient"):
        scores = score_names(["B-X", "I-X"], ["B-X", "O"], mode=mode)
        assert (1 if mode == "strict" else 1 / 2) == scores["precision"]
        assert scores["recall"] == 1.0


def test_entity_scores_do_not_depend_on_the_order_of_sentences() -> None:
    gold, predicted = ["B-X I-X", "O", "B-Y", "I-X"], ["B-X O", "B-X", "B-Y", "I-X"]
    for mode in ("strict", "lenient"):
        assert score_names(predicted, gold, mode=mode) == score_names(predicted[::-1], gold[::-1], mode=mode)


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize(
    ("predicted", "gold", "accuracy"),
    [(["O O"], ["B-X O"], 0.5), (["B-X O"], ["O O"], 0.5), (["O"], ["O"], 1.0), ([""], [""], 0.0), ([], [], 0.0)],
)
def test_no_predicted_or_no_gold_entities_score_0_without_a_warning(
    mode: str, predicted: list[str], gold: list[str], accuracy: float
) -> None:
    scores = score_names(predicted, gold, mode=mode)
    assert [scores[key] for key in ("precision", "recall", "f1", "accuracy")] == [0.0, 0.0, 0.0, accuracy]


def test_the_signature_differs_if_scheme_or_mode_differs() -> None:
    signatures = {
        score_names(["O"], ["O"], scheme=scheme, mode=mode)["signature"]
        for scheme in PREFIXES
        for mode in ("strict", "lenient")
    }
    assert len(signatures) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["0", "B-X"]}, r"names\[0\] is '0'.*digit 0"),
        ({"names": ["O", "S-X"]}, r"names\[1\] is 'S-X', not a tag of IOB2"),
        ({"scheme": "IOB1"}, "scheme 'IOB1'"),
        ({"mode": "default"}, "mode 'default'"),
        ({"predictions": [[0, 1]]}, "1 sentences of predictions for 2 of references"),
        ({"predictions": [[0], [1, 0]]}, "sentence 1 has 2 predictions for 1 references"),
        ({"predictions": [[0], [-100]]}, r"predictions\[1\]\[0\] is -100"),
        ({"predictions": [[5], [0]]}, r"predictions\[0\]\[0\] is 5, outside the 2 names"),
        ({"references": [[0], [-1]]}, r"references\[1\]\[0\] is -1"),
    ],
)
def test_score_entities_refuses_invalid_input(change: dict[str, Any], message: str) -> None:
    right: dict[str, Any] = {"predictions": [[0], [1]], "references": [[0], [1]], "names": ["O", "B-X"]}
    wrong = right | change
    with pytest.raises(ValueError, match=message):
        score_entities(wrong.pop("predictions"), **wrong)


def test_arrays_are_scored_like_lists_and_not_changed() -> None:
    names = names_of("IOB2")
    predicted, gold = np.array([[1, 2, 0], [3, 0, 0]]), np.array([[1, 2, 0], [1, -100, -100]])
    copies = predicted.copy(), gold.copy()
    assert score_entities(predicted.tolist(), references=gold.tolist(), names=names) == score_entities(
        predicted, references=gold, names=names
    )
    assert all(np.array_equal(copy, array) for copy, array in zip(copies, (predicted, gold), strict=True))


def test_seqeval_still_misreads_what_score_entities_corrects() -> None:
    """If one of these fails, seqeval has been fixed and reference/stages/scoring.py can be simplified."""
    assert _quietly(lambda: get_entities(["U-X", "U-X"])) == [("X", 0, 1)]
    assert _quietly(lambda: get_entities(["B-X", "L-X", "B-X", "L-X"])) == [("X", 2, 3)]
    assert seqeval_schemes.Entities([["B-X-"]], seqeval_schemes.IOB2).entities[0][0].tag == "X"


def _quietly(work: Callable[[], Any]) -> Any:
    with pytest.warns(UserWarning, match="seems not to be NE tag"):
        return work()


# Perplexity ------------------------------------------------------------------------------------------


def test_perplexity_weights_batches_by_their_tokens() -> None:
    assert math.exp((3 * 1.0 + 1 * 2.0) / 4) == pytest.approx(perplexity([1.0, 2.0], tokens=[3, 1]))
    assert perplexity([math.log(1000)] * 3, tokens=[5, 1, 7]) == pytest.approx(1000)
    assert perplexity([0.0], tokens=[1]) == 1.0


def test_perplexity_ignores_a_batch_without_tokens() -> None:
    for loss in (math.nan, math.inf, -1.0, 5.0):
        assert math.exp(2) == pytest.approx(perplexity([loss, 2.0], tokens=[0, 3]))


def test_perplexity_is_infinite_if_exp_overflows() -> None:
    for losses in ([710.0], [math.inf], [1e308, 1e308], [1.0, math.inf]):
        assert perplexity(losses, tokens=[10] * len(losses)) == math.inf


def test_perplexity_does_not_depend_on_the_order_of_batches() -> None:
    random = np.random.default_rng(0)
    losses, tokens = random.random(50) * 10, random.integers(0, 99, size=50)
    order = random.permutation(50)
    assert perplexity(losses, tokens=tokens) == perplexity(losses[order], tokens=tokens[order])


@pytest.mark.parametrize(
    ("losses", "tokens", "message"),
    [
        ([1.0], [1, 2], "1 losses for 2 counts"),
        ([1.0, 1.0], [1, -1], r"tokens\[1\] is -1"),
        ([1.0], [0], "no tokens"),
        ([], [], "no tokens"),
        ([1.0, math.nan], [1, 1], r"losses\[1\] is nan"),
        ([-0.5], [1], r"losses\[0\] is -0.5"),
    ],
)
def test_perplexity_refuses_invalid_losses(losses: list[float], tokens: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        perplexity(losses, tokens=tokens)


# evaluate.Metric ------------------------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["memory", "file"])
def buffer(request: pytest.FixtureRequest, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return how a metric buffers its examples; network access fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("a metric needs the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return {"keep_in_memory": request.param, "cache_dir": str(tmp_path)}


def test_the_evaluate_metric_equals_score_entities_at_once_and_in_batches(buffer: dict[str, Any]) -> None:
    names = names_of("IOBES")
    predicted, gold = [[4, 0], [1, 2, 3], [], [4]], [[4, 0], [1, -100, 3], [], [0]]
    options = {"names": names, "scheme": "IOBES", "mode": "lenient"}
    expected = score_entities(predicted, references=gold, **options)
    metric = EntityScores(**buffer)
    assert metric.compute(predictions=predicted, references=gold, **options) == expected
    for start in (0, 2):
        metric.add_batch(predictions=predicted[start : start + 2], references=gold[start : start + 2])
    assert metric.compute(**options) == expected


def test_the_evaluate_metric_equals_perplexity_at_once_and_in_batches(buffer: dict[str, Any]) -> None:
    expected = {"perplexity": perplexity([1.0, 2.0, 3.0], tokens=[3, 1, 2]), "tokens": 6}
    metric = Perplexity(**buffer)
    assert metric.compute(losses=[1.0, 2.0, 3.0], tokens=[3, 1, 2]) == expected
    metric.add_batch(losses=[1.0, 2.0], tokens=[3, 1])
    metric.add(losses=3.0, tokens=2)
    assert metric.compute() == expected
