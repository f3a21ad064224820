"""Checks Q1-Q9 of docs/contract.md: `squad_scores`."""

from __future__ import annotations

import string
from itertools import groupby
from typing import Any

from hypothesis import strategies as st

from touchstone.properties.check import check
from touchstone.properties.domain import Scores, choice, rounding
from touchstone.properties.failure import expect, expect_close, expect_that
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.answers import Examples, squad_examples
from touchstone.properties.subject import Subject

EXACT = 1e-9
"""Means of a few ratios in double precision: the order of operations changes only the last digits."""

PLAIN = ("cat", "dog", "theatre", "banana", "answer", "cats")


def score(implementation: Subject, case: Examples) -> Scores:
    result = Scores(implementation.squad_scores(case.predictions, **case.arguments))
    for key in ("exact_match", "f1"):
        expect_that(key in result, expected=f"a result with {key!r}", came=f"{sorted(result)}")
    return result


def expect_scores(exact: float, f1: float, came: dict[str, Any], *, where: str = "") -> None:
    __tracebackhide__ = True
    expect_close(
        exact, came["exact_match"], relative=EXACT, absolute=rounding(), where=f"exact_match{where and f'; {where}'}"
    )
    expect_close(f1, came["f1"], relative=EXACT, absolute=rounding(), where=f"f1{where and f'; {where}'}")


def words(text: str) -> list[str]:
    """Normalise like the official script, character by character: without articles, ASCII punctuation and blanks."""
    letters = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    runs = ("".join(run) for _, run in groupby(letters, key=str.isalnum))
    return "".join(" " if run in ("a", "an", "the") else run for run in runs).split()


def overlap(ours: list[str], theirs: list[str]) -> float:
    """Return the F1 of two bags of words, by removing the words of one from the other.

    The script of version 1.1 knows no empty answers: no words in common is 0, even if there are none on both sides.
    """
    if not ours or not theirs:
        return float(ours == theirs and choice("no_answer") == "v2.0")
    rest = list(theirs)
    for word in ours:
        if word in rest:
            rest.remove(word)
    same = len(theirs) - len(rest)
    precision, recall = same / len(ours), same / len(theirs)
    return 2 * precision * recall / (precision + recall) if same else 0.0


def counted(case: Examples) -> tuple[float, float]:
    exact = f1 = 0.0
    for prediction, references in zip(case.predictions, case.references, strict=True):
        pairs = [(words(prediction), words(reference)) for reference in references or [""]]
        exact += max(ours == theirs for ours, theirs in pairs)
        f1 += max(overlap(ours, theirs) for ours, theirs in pairs)
    n = len(case.predictions)
    return 100 * exact / n, 100 * f1 / n


@check("Q1", needs="squad_scores", case=squad_examples(), at=st.integers(0, 3))
def test_a_prediction_equal_to_a_reference_must_score_100(implementation: Subject, case: Examples, at: int) -> None:
    references = [
        [*row[:at], prediction, *row[at:]] for row, prediction in zip(case.references, case.predictions, strict=True)
    ]
    came = score(implementation, case.with_(references=references))
    without = sum(not words(prediction) for prediction in case.predictions) if choice("no_answer") == "v1.1" else 0
    expect_scores(100.0, 100.0 * (1 - without / len(case.predictions)), came)


@check(
    "Q2",
    needs="squad_scores",
    text=st.lists(st.sampled_from(PLAIN), min_size=1, max_size=4),
    change=st.sampled_from(["case", "punctuation", "articles", "blanks"]),
    at=st.integers(0, 4),
)
def test_case_punctuation_articles_and_blanks_must_not_matter(
    implementation: Subject, text: list[str], change: str, at: int
) -> None:
    other = list(text)
    if change == "case":
        other = [word.title() for word in other]
    elif change == "punctuation":
        other[at % len(other)] = f"({other[at % len(other)][0]}-{other[at % len(other)][1:]}.)!"
    elif change == "articles":
        other.insert(at, ("a", "an", "the", "An", "The")[at])
    shown = ("  " if change == "blanks" else " ").join(other) + ("\t" if change == "blanks" else "")
    case = Examples([shown], [[" ".join(text)]])
    expect_scores(100.0, 100.0, score(implementation, case), where=f"{change} of {shown!r}")
    turned = Examples([" ".join(text)], [[shown]])
    expect_scores(100.0, 100.0, score(implementation, turned), where=f"{change} of the reference {shown!r}")
    more = Examples([" ".join([*text, "more"])], [[" ".join(text)]])
    f1 = 100 * 2 * len(text) / (2 * len(text) + 1)
    expect_scores(0.0, f1, score(implementation, more), where="with one more word")


@check("Q3", needs="squad_scores", case=squad_examples(least=1))
def test_squad_scores_must_agree_with_an_independent_count(implementation: Subject, case: Examples) -> None:
    expect_scores(*counted(case), score(implementation, case))


@check("Q4", needs="squad_scores", case=squad_examples(least=1))
def test_the_best_reference_must_count(implementation: Subject, case: Examples) -> None:
    for prediction, references in zip(case.predictions, case.references, strict=True):
        alone = [score(implementation, Examples([prediction], [[reference]])) for reference in references]
        came = score(implementation, Examples([prediction], [references]))
        exact, f1 = (max(one[name] for one in alone) for name in ("exact_match", "f1"))
        expect_scores(exact, f1, came, where=f"{prediction!r} against {references!r}")


@check(
    "Q5",
    needs="squad_scores",
    empty=st.sampled_from(["", " ", "the", "A.", "!?", "an the"]),
    text=st.sampled_from(["cat", "the cat", "theatre", "東京"]),
)
def test_an_empty_answer_must_score_only_against_a_reference_without_words(
    implementation: Subject, empty: str, text: str
) -> None:
    if choice("no_answer") == "v2.0":
        expect_scores(100.0, 100.0, score(implementation, Examples([empty], [[]])), where="no answer, none given")
        expect_scores(100.0, 100.0, score(implementation, Examples([empty], [[""]])), where="an empty reference")
        expect_scores(0.0, 0.0, score(implementation, Examples([text], [[]])), where="no answer, one given")
        two = score(implementation, Examples([empty, text], [[], []]))
        expect_scores(50.0, 50.0, two, where="two without an answer")
    expect_scores(0.0, 0.0, score(implementation, Examples([empty], [[text]])), where="an answer, none given")


@check("Q6", needs="squad_scores", case=squad_examples(), order=st.randoms(use_true_random=False))
def test_the_order_must_not_matter_and_all_examples_must_weigh_the_same(
    implementation: Subject, case: Examples, order: Any
) -> None:
    expected = score(implementation, case)
    pairs = list(zip(case.predictions, case.references, strict=True))
    order.shuffle(pairs)
    rows = [order.sample(row, len(row)) for _, row in pairs]
    came = score(implementation, Examples([prediction for prediction, _ in pairs], rows))
    expect_scores(expected["exact_match"], expected["f1"], came, where="after shuffling")
    alone = [score(implementation, Examples([prediction], [row])) for prediction, row in pairs]
    for name in ("exact_match", "f1"):
        mean = sum(one[name] for one in alone) / len(alone)
        expect_close(
            mean, expected[name], relative=EXACT, absolute=rounding(), where=f"{name} as the mean over examples"
        )


@check("Q7", needs="squad_scores", case=squad_examples())
def test_scores_must_be_percentages_and_exact_match_at_most_f1(implementation: Subject, case: Examples) -> None:
    came = score(implementation, case)
    slack = 100 * EXACT + rounding()
    exact, f1 = came["exact_match"], came["f1"]
    if choice("no_answer") == "v1.1":  # two texts without words are equal, and have an F1 of 0
        between = all(-slack <= value <= 100 + slack for value in (exact, f1))
        expect_that(between, expected="percentages from 0 to 100", came=f"{exact}, {f1}")
    else:
        ordered = -slack <= exact <= f1 + slack <= 100 + 2 * slack
        expect_that(ordered, expected="0 <= exact match <= f1 <= 100", came=f"{exact}, {f1}")


@check("Q7", needs="squad_scores", kind="form", case=squad_examples())
def test_squad_scores_must_state_the_number_of_examples_and_a_signature(
    implementation: Subject, case: Examples
) -> None:
    came = score(implementation, case)
    for key in ("number", "signature"):
        expect_that(key in came, expected=f"a result with {key!r}", came=f"{sorted(came)}")
    expect(len(case.predictions), came["number"], where="number")
    expect_that(bool(came["signature"]), expected="a signature", came=repr(came["signature"]))


@check(
    "Q8",
    needs="squad_scores",
    kind="refusal",
    case=squad_examples(),
    fault=st.sampled_from(["more", "fewer", "none", "text"]),
)
def test_squad_scores_must_refuse_invalid_input(implementation: Subject, case: Examples, fault: str) -> None:
    references: list[Any] = [*case.references]
    mentions: tuple[object, ...] = (len(references),)
    if fault == "more":
        references.append(["cat"])
    elif fault == "fewer":
        references.pop()
    elif fault == "none":
        case, references, mentions = case.with_(predictions=[]), [], ()
    else:
        references[-1] = "a cat"
        mentions = (len(references) - 1, "a cat")
    implementation.expect_refusal("squad_scores", case.predictions, references=references, mentions=mentions)


@check("Q9", needs="squad_scores", kind="form", case=squad_examples())
def test_squad_scores_must_be_pure(implementation: Subject, case: Examples) -> None:
    expect_pure(implementation, "squad_scores", case.predictions, **case.arguments)
    expect_same_for_tuples_and_arrays(implementation, "squad_scores", case.predictions, **case.arguments)
