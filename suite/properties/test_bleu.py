"""Checks B1-B9 of docs/contract.md: `bleu`."""

from __future__ import annotations

import math
import random
from typing import Any

from hypothesis import strategies as st

from touchstone.properties import oracles
from touchstone.properties.check import check
from touchstone.properties.domain import Scores, rounding
from touchstone.properties.failure import expect, expect_close, expect_that
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.prose import PLAIN, ScoredTexts, scored_texts
from touchstone.properties.subject import Subject

EXACT = 1e-9
"""Four logarithms and an exponential in double precision; the counts are exact."""

plain_texts = st.lists(st.lists(st.sampled_from(PLAIN), min_size=4, max_size=8, unique=True), min_size=1, max_size=4)


def score(implementation: Subject, predictions: list[str], references: Any) -> Scores:
    result = Scores(implementation.bleu(predictions, references=references))
    expect_that("bleu" in result, expected="a result with 'bleu'", came=f"{sorted(result)}")
    return result


def expect_counts(case: ScoredTexts, came: Scores) -> None:
    __tracebackhide__ = True
    expected = oracles.corpus_bleu(case.predictions, case.references)
    precisions = came["precisions"] if "precisions" in came else expected["precisions"]
    for n, (own, theirs) in enumerate(zip(expected["precisions"], precisions, strict=True), start=1):
        expect_close(own, theirs, relative=EXACT, absolute=rounding(), where=f"precision of {n}-grams in percent")
    for key in came.present("brevity_penalty", "bleu"):
        expect_close(expected[key], came[key], relative=EXACT, absolute=rounding(), where=key)
    if "number" in came:
        expect(len(case.predictions), came["number"], where="number")


@check("B1", needs="bleu", case=scored_texts(least=4))
def test_the_references_must_score_100_against_themselves(implementation: Subject, case: ScoredTexts) -> None:
    came = score(implementation, case.first, case.references)
    expect_close(100.0, came["bleu"], relative=EXACT, absolute=rounding(), where="bleu")
    expect_that(came["bleu"] <= 100, expected="at most 100", came=came["bleu"])
    for n, precision in enumerate(came.get("precisions", ()), start=1):
        expect_close(100.0, precision, relative=EXACT, absolute=rounding(), where=f"precision of {n}-grams")
    if "brevity_penalty" in came:
        expect(1.0, came["brevity_penalty"], where="brevity_penalty")


@check("B2", needs="bleu", case=scored_texts(texts=1))
def test_bleu_must_agree_with_an_independent_count(implementation: Subject, case: ScoredTexts) -> None:
    expect_counts(case, score(implementation, case.predictions, case.first))


@check("B3", needs="bleu", case=scored_texts())
def test_bleu_with_several_references_must_agree_with_an_independent_count(
    implementation: Subject, case: ScoredTexts
) -> None:
    expect_counts(case, score(implementation, case.predictions, case.references))


@check("B3", needs="bleu", case=scored_texts(texts=1))
def test_bleu_must_accept_a_reference_as_a_text_or_a_list_of_one(implementation: Subject, case: ScoredTexts) -> None:
    expect(
        score(implementation, case.predictions, case.first), score(implementation, case.predictions, case.references)
    )


@check("B4", needs="bleu", case=scored_texts(), order=st.randoms(use_true_random=False))
def test_bleu_must_not_depend_on_the_order_of_examples_or_references(
    implementation: Subject, case: ScoredTexts, order: random.Random
) -> None:
    places = list(range(len(case.predictions)))
    order.shuffle(places)
    predictions = [case.predictions[place] for place in places]
    references = [case.references[place][::-1] for place in places]
    before, after = (
        score(implementation, case.predictions, case.references),
        score(implementation, predictions, references),
    )
    expect_close(before["bleu"], after["bleu"], relative=EXACT, absolute=rounding(), where="bleu in another order")


@check("B5", needs="bleu", kind="form", case=scored_texts(texts=1), more=st.integers(1, 2))
def test_the_signature_of_bleu_must_state_its_settings(implementation: Subject, case: ScoredTexts, more: int) -> None:
    came = score(implementation, case.predictions, case.references)
    missing = [key for key in ("precisions", "brevity_penalty", "number", "signature") if key not in came]
    expect_that(not missing, expected=f"a result with {', '.join(missing)}", came=f"{sorted(came)}")
    signature = str(came["signature"])
    for part in ("nrefs:1", "case:mixed", "tok:13a", "smooth:exp", "version:"):
        expect_that(part in signature, expected=f"a signature with {part!r}", came=repr(signature))
    several = [texts * (1 + more) for texts in case.references]
    other = str(score(implementation, case.predictions, several)["signature"])
    expect_that(f"nrefs:{1 + more}" in other, expected=f"a signature with 'nrefs:{1 + more}'", came=repr(other))


@check("B6", needs="bleu", texts=plain_texts, mark=st.sampled_from([".", ",", "!", "?", ")"]))
def test_bleu_must_tokenize_the_texts(implementation: Subject, texts: list[list[str]], mark: str) -> None:
    references = [" ".join(text) + mark for text in texts]
    apart = [" ".join([*text, mark]) for text in texts]
    came = score(implementation, apart, references)
    expect_close(
        100.0,
        came["bleu"],
        relative=EXACT,
        absolute=rounding(),
        where=f"bleu with a blank before {mark!r} in the predictions",
    )


@check("B6", needs="bleu", texts=plain_texts, spoil=st.sampled_from(["pieces", "case"]))
def test_pieces_of_words_and_words_in_another_case_must_count_as_other_words(
    implementation: Subject, texts: list[list[str]], spoil: str
) -> None:
    """The predictions share no word with the references."""
    references = [" ".join(text) for text in texts]
    spoilt = [[word.upper() if spoil == "case" else f"{word[:2]} {word[2:]}" for word in text] for text in texts]
    came = score(implementation, [" ".join(text) for text in spoilt], references)
    expect(0.0, came["bleu"], where=f"bleu of {'upper case' if spoil == 'case' else 'words in two pieces'}")


@check("B7", needs="bleu", case=scored_texts(least=4), which=st.sampled_from(["all", "first", "references"]))
def test_empty_texts_must_score_0_without_an_error(implementation: Subject, case: ScoredTexts, which: str) -> None:
    if which == "all":
        case = case.with_(predictions=[""] * len(case.predictions))
    elif which == "first":
        case = case.with_(predictions=["", *case.predictions[1:]])
    else:
        case = case.with_(references=[[""] * len(texts) for texts in case.references])
    expect_counts(case, score(implementation, case.predictions, case.references))


@check("B7", needs="bleu", texts=plain_texts, kept=st.integers(1, 3))
def test_predictions_that_are_too_short_must_be_penalised(
    implementation: Subject, texts: list[list[str]], kept: int
) -> None:
    """Some predictions are empty and the others are perfect, so all precisions are 100."""
    texts = texts * (kept + 1)
    references = [" ".join(text) for text in texts]
    predictions = [reference if row < len(texts) // (kept + 1) else "" for row, reference in enumerate(references)]
    came = score(implementation, predictions, references)
    expected = math.exp(1 - (kept + 1))
    if "brevity_penalty" in came:
        expect_close(expected, came["brevity_penalty"], relative=EXACT, absolute=rounding(), where="brevity_penalty")
    expect_close(100 * expected, came["bleu"], relative=EXACT, absolute=rounding(), where="bleu")


@check(
    "B8",
    needs="bleu",
    kind="refusal",
    case=scored_texts(),
    fault=st.sampled_from(["nothing", "more", "fewer", "uneven", "none"]),
)
def test_bleu_must_refuse_invalid_texts(implementation: Subject, case: ScoredTexts, fault: str) -> None:
    predictions: list[str] = list(case.predictions)
    references: list[Any] = [list(texts) for texts in case.references]
    last = len(references)
    mentions: tuple[object, ...] = ()
    if fault == "nothing":
        predictions, references = [], []
    elif fault == "more":
        predictions.append("more")
        mentions = (len(predictions), len(references))
    elif fault == "fewer":
        predictions.pop()
        mentions = (len(predictions), len(references))
    else:
        predictions.append("the end")
        references.append([] if fault == "none" else [*references[0], "the end"])
        mentions = (last,)
    implementation.expect_refusal("bleu", predictions, references=references, mentions=mentions)


@check("B9", needs="bleu", kind="form", case=scored_texts())
def test_bleu_must_be_pure(implementation: Subject, case: ScoredTexts) -> None:
    expect_pure(implementation, "bleu", case.predictions, references=case.references)
    expect_same_for_tuples_and_arrays(implementation, "bleu", case.predictions, references=case.references)
