"""Checks S1-S12 of docs/contract.md: `score_entities`."""

from __future__ import annotations

import math
import random
from collections.abc import Collection
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from touchstone.properties import oracles
from touchstone.properties.check import check
from touchstone.properties.domain import Scores, rounding
from touchstone.properties.failure import Mismatch, expect, expect_close, expect_that
from touchstone.properties.oracles import IGNORED
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.tags import Sentences, misspelt_names, modes, schemes, scored_sentences
from touchstone.properties.subject import Subject

EXACT = 1e-9
"""Ratios of small counts in double precision: the order of operations changes only the last digits."""


def score(implementation: Subject, case: Sentences) -> Scores:
    implementation.remark(**case.remarks)
    result = Scores(implementation.score_entities(case.predictions, **case.arguments))
    expect_keys(result, "precision", "recall", "f1")
    return result


def expect_keys(result: Scores, *keys: str) -> None:
    __tracebackhide__ = True
    missing = [key for key in keys if key not in result]
    expect_that(not missing, expected=f"a result with {', '.join(missing)}", came=f"{sorted(result)}")


def ratios(gold: Collection[Any], predicted: Collection[Any]) -> dict[str, float]:
    """Return precision, recall and F1, 0.0 if undefined."""
    right = len(set(gold) & set(predicted))
    precision = right / len(predicted) if predicted else 0.0
    recall = right / len(gold) if gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "number": len(gold)}


def expect_counts(case: Sentences, came: Scores) -> None:
    """Compare the overall and per-type scores with an independent count. Types without entities may be missing."""
    __tracebackhide__ = True
    gold, predicted = case.entities("references"), case.entities("predictions")
    seen = f"gold {_listed(gold)}; predicted {_listed(predicted)}"
    _expect_ratios(ratios(gold, predicted), came, where=f"overall; {seen}")
    kinds = {entity.type for _, entity in gold | predicted} | set(came["types"]) if "types" in came else set()
    for kind in sorted(kinds):
        own = [{pair for pair in entities if pair[1].type == kind} for entities in (gold, predicted)]
        if kind not in came["types"]:
            expect_that(not own[0], expected=f"a score for type {kind!r}", came=sorted(came["types"]), where=seen)
            continue
        _expect_ratios(ratios(*own), came["types"][kind], where=f"type {kind!r}; {seen}")


def _expect_ratios(expected: dict[str, float], came: dict[str, Any], *, where: str) -> None:
    __tracebackhide__ = True
    expected = {key: value for key, value in expected.items() if key in came or key != "number"}
    got = {key: came.get(key, "missing") for key in expected}
    close = [
        isinstance(v, int | float) and math.isclose(expected[k], v, abs_tol=max(EXACT, rounding()))
        for k, v in got.items()
    ]
    if not all(close):
        raise Mismatch(expected=str(expected), came=str(got), where=where)


def _listed(entities: Collection[tuple[int, oracles.Entity]]) -> str:
    if not entities:
        return "none"
    return ", ".join(f"{e.type}[{e.first}:{e.last + 1}] in sentence {n}" for n, e in sorted(entities))


@check("S1", needs="score_entities", case=scored_sentences(valid=True, perfect=True, ignored=False))
def test_the_references_must_score_1_against_themselves(implementation: Subject, case: Sentences) -> None:
    came = score(implementation, case)
    number = len(case.entities("references"))
    perfect = 1.0 if number else 0.0
    _expect_ratios({"precision": perfect, "recall": perfect, "f1": perfect, "number": number}, came, where="overall")
    if any(case.references) and "accuracy" in came:
        expect_close(1.0, came["accuracy"], relative=EXACT, absolute=rounding(), where="accuracy")


@check("S2", needs="score_entities", case=scored_sentences(), order=st.randoms(use_true_random=False))
def test_predictions_at_ignored_positions_must_not_matter(
    implementation: Subject, case: Sentences, order: random.Random
) -> None:
    choices = [IGNORED, *range(len(case.names))]
    predictions = [
        [order.choice(choices) if gold == IGNORED else label for gold, label in zip(golds, labels, strict=True)]
        for golds, labels in zip(case.references, case.predictions, strict=True)
    ]
    expected = score(implementation, case)
    expect(expected, score(implementation, case.with_(predictions=predictions)))
    real = [
        (gold, label)
        for golds, labels in zip(case.references, case.predictions, strict=True)
        for gold, label in zip(golds, labels, strict=True)
        if gold != IGNORED
    ]
    if real and "accuracy" in expected:
        accuracy = sum(gold == label for gold, label in real) / len(real)
        expect_close(
            accuracy,
            expected["accuracy"],
            relative=EXACT,
            absolute=rounding(),
            where="accuracy over the labels that are not -100",
        )


@check("S2", needs="score_entities", case=scored_sentences())
def test_removing_ignored_positions_must_not_change_the_scores(implementation: Subject, case: Sentences) -> None:
    kept = [[place for place, gold in enumerate(row) if gold != IGNORED] for row in case.references]
    without = case.with_(
        references=[[row[place] for place in places] for row, places in zip(case.references, kept, strict=True)],
        predictions=[[row[place] for place in places] for row, places in zip(case.predictions, kept, strict=True)],
    )
    expect(score(implementation, without), score(implementation, case), where="without the positions at -100, and with")


@check("S3", needs="score_entities", case=scored_sentences(), order=st.randoms(use_true_random=False))
def test_the_order_of_sentences_must_not_matter(implementation: Subject, case: Sentences, order: random.Random) -> None:
    places = list(range(len(case.references)))
    order.shuffle(places)
    shuffled = case.with_(
        references=[case.references[place] for place in places],
        predictions=[case.predictions[place] for place in places],
    )
    expect(score(implementation, case), score(implementation, shuffled))


@check("S4", needs="score_entities", case=scored_sentences(mode="strict"))
def test_strict_scores_must_agree_with_an_independent_count(implementation: Subject, case: Sentences) -> None:
    expect_counts(case, score(implementation, case))


@check("S4", needs="score_entities", case=scored_sentences())
def test_repeating_all_sentences_must_double_the_counts_and_keep_the_scores(
    implementation: Subject, case: Sentences
) -> None:
    once = score(implementation, case)
    case = case.with_(references=case.references * 2, predictions=case.predictions * 2)
    twice = score(implementation, case)
    for key in once.present("precision", "recall", "f1", "accuracy"):
        expect_close(
            once[key],
            twice[key],
            relative=EXACT,
            absolute=rounding(),
            where=f"{key} of the same sentences once and twice",
        )
    expect(2 * once["number"], twice["number"], where="number of entities in the same sentences once and twice")


@check("S5", needs="score_entities", case=scored_sentences(mode="lenient"))
def test_lenient_scores_must_agree_with_a_count_by_the_rules_of_conlleval(
    implementation: Subject, case: Sentences
) -> None:
    expect_counts(case, score(implementation, case))


@check("S6", needs="score_entities", kind="form", case=scored_sentences(), scheme=schemes, mode=modes)
def test_the_signature_must_state_scheme_and_mode_and_differ_if_they_differ(
    implementation: Subject, case: Sentences, scheme: str, mode: str
) -> None:
    came = score(implementation, case)
    expect_keys(came, "accuracy", "number", "types", "signature")
    signature = str(came["signature"])
    expect_that(
        case.scheme in signature and case.mode in signature,
        expected=f"a signature with {case.scheme!r} and {case.mode!r}",
        came=repr(signature),
    )
    names = oracles.tags_of(["X"], scheme=scheme)
    other = str(score(implementation, Sentences(names, [[0]], [[0]], scheme, mode))["signature"])
    same = (scheme, mode) == (case.scheme, case.mode)
    expect_that(
        (signature == other) == same,
        expected=f"{'the same signature' if same else 'different signatures'} for {case.scheme}, {case.mode} and "
        f"{scheme}, {mode}",
        came=f"{signature!r} and {other!r}",
    )


@st.composite
def misspelt_sentences(draw: DrawFn) -> tuple[Sentences, int]:
    """Sentences with a label name that is not a tag of the scheme, and the index of that name."""
    case = draw(scored_sentences())
    names, index = draw(misspelt_names(case.names, scheme=case.scheme))
    shift = {label: label + (label >= index) for label in range(len(case.names))} | {IGNORED: IGNORED}
    references, predictions = (
        [[shift[label] for label in row] for row in rows] for rows in (case.references, case.predictions)
    )
    return case.with_(names=names, references=references, predictions=predictions), index


@check("S7", needs="score_entities", kind="refusal", pair=misspelt_sentences())
def test_score_entities_must_refuse_an_unknown_tag(implementation: Subject, pair: tuple[Sentences, int]) -> None:
    case, index = pair
    mentions = (index, case.names[index])
    implementation.expect_refusal("score_entities", case.predictions, mentions=mentions, **case.arguments)


@check("S8", needs="score_entities", case=scored_sentences())
def test_an_entity_must_not_cross_a_sentence_boundary(implementation: Subject, case: Sentences) -> None:
    halves = [  # split every sentence in two, sometimes inside an entity
        [part for row in rows for part in (row[: len(row) // 2], row[len(row) // 2 :])]
        for rows in (case.references, case.predictions)
    ]
    case = case.with_(references=halves[0], predictions=halves[1])
    outside = case.names.index("O")
    between = case.with_(
        references=[[*row, outside] for row in case.references],
        predictions=[[*row, outside] for row in case.predictions],
    )
    came, apart = score(implementation, case), score(implementation, between)
    keys = came.present("precision", "recall", "f1", "number", "types")
    expected, got = ({key: result[key] for key in keys} for result in (apart, came))
    expect(expected, got, where="with an O after each sentence, and without")
    gold = case.entities("references")
    expect_that(came["number"] == len(gold), expected=f"{len(gold)} entities: {_listed(gold)}", came=came["number"])


NOTHING = st.sampled_from(["gold", "predicted", "both", "ignored", "no sentences", "no words"])


@check("S9", needs="score_entities", case=scored_sentences(valid=True, perfect=True), empty=NOTHING)
def test_sentences_without_predicted_or_reference_entities_must_score_0(
    implementation: Subject, case: Sentences, empty: str
) -> None:
    outside = case.names.index("O")
    nothing = [[outside] * len(row) for row in case.references]
    if empty in ("gold", "both"):
        case = case.with_(references=nothing)
    if empty in ("predicted", "both"):
        case = case.with_(predictions=nothing)
    if empty == "ignored":
        case = case.with_(references=[[IGNORED] * len(row) for row in case.references])
    if empty == "no sentences":
        case = case.with_(references=[], predictions=[])
    if empty == "no words":
        case = case.with_(references=[[]], predictions=[[]])
    came = score(implementation, case)
    zero = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": len(case.entities("references"))}
    _expect_ratios(zero, came, where=f"{empty} empty")
    if "accuracy" in came:
        expect_that(math.isfinite(came["accuracy"]), expected="an accuracy that is a number", came=came["accuracy"])


@check("S10", needs="score_entities", case=scored_sentences())
def test_overall_counts_must_be_the_sums_over_the_types(implementation: Subject, case: Sentences) -> None:
    came = score(implementation, case)
    types = came["types"].values()
    expect(sum(each["number"] for each in types), came["number"], where="number: sum over types, overall")
    right = sum(each["recall"] * each["number"] for each in types)
    expect_close(
        right,
        came["recall"] * came["number"],
        relative=EXACT,
        absolute=rounding(),
        where="right: sum over types, overall",
    )


@check("S11", needs="score_entities", kind="refusal", case=scored_sentences(), data=st.data())
def test_score_entities_must_refuse_different_lengths(implementation: Subject, case: Sentences, data: Any) -> None:
    if data.draw(st.booleans()):
        case = case.with_(predictions=[*case.predictions, []])
        mentions: tuple[object, ...] = (len(case.references), len(case.predictions))
    else:
        row = data.draw(st.integers(0, len(case.references) - 1))
        predictions = list(case.predictions)
        predictions[row] = [*predictions[row], case.names.index("O")]
        case = case.with_(predictions=predictions)
        mentions = (row, len(case.references[row]), len(predictions[row]))
    implementation.expect_refusal("score_entities", case.predictions, mentions=mentions, **case.arguments)


@check("S11", needs="score_entities", kind="refusal", case=scored_sentences(), gold=st.booleans(), data=st.data())
def test_score_entities_must_refuse_an_id_outside_the_names(
    implementation: Subject, case: Sentences, gold: bool, data: Any
) -> None:
    row = data.draw(st.integers(0, len(case.references) - 1))
    place = data.draw(st.integers(0, len(case.references[row])))
    bad = data.draw(st.sampled_from([-1, len(case.names), len(case.names) + 7]))
    outside = case.names.index("O")
    references, predictions = ([list(labels) for labels in rows] for rows in (case.references, case.predictions))
    references[row].insert(place, bad if gold else outside)
    predictions[row].insert(place, outside if gold else bad)
    case = case.with_(references=references, predictions=predictions)
    implementation.expect_refusal("score_entities", case.predictions, mentions=(row, bad), **case.arguments)


WRONG_READINGS = st.tuples(st.sampled_from(["scheme", "mode"]), st.sampled_from(["default", "BIO", "Strict", "iob2"]))


@check("S11", needs="score_entities", kind="refusal", case=scored_sentences(), wrong=WRONG_READINGS)
def test_score_entities_must_refuse_an_unknown_scheme_or_mode(
    implementation: Subject, case: Sentences, wrong: tuple[str, str]
) -> None:
    which, bad = wrong
    arguments = case.arguments | {which: bad}
    implementation.expect_refusal("score_entities", case.predictions, mentions=(bad,), **arguments)


@check("S12", needs="score_entities", kind="form", case=scored_sentences())
def test_score_entities_must_be_pure(implementation: Subject, case: Sentences) -> None:
    expect_pure(implementation, "score_entities", case.predictions, **case.arguments)
    expect_same_for_tuples_and_arrays(implementation, "score_entities", case.predictions, **case.arguments)
