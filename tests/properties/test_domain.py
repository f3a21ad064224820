"""What an implementation can be asked, read from its signatures and from what it states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings

from touchstone.properties.check import run_check
from touchstone.properties.domain import Domain, DomainError, OutsideDomain, choice, supported_values, within
from touchstone.properties.failure import CheckFailed


def perplexity(losses: Any, *, tokens: Any) -> float: ...


def align_iob2(labels: Any, word_ids: Any, names: Any, strategy: str = "all") -> Any: ...


def test_an_argument_that_a_function_lacks_is_dropped_at_its_default_and_outside_otherwise() -> None:
    domain = Domain.of(SimpleNamespace(align_labels=align_iob2))
    arguments = {"word_ids": [0], "names": ["O"], "scheme": "IOB2", "strategy": "first"}

    assert domain.arguments("align_labels", (), arguments) == {"word_ids": [0], "names": ["O"], "strategy": "first"}
    with pytest.raises(OutsideDomain):
        domain.arguments("align_labels", (), arguments | {"scheme": "BILOU"})


def test_a_supported_value_may_differ_from_the_default_that_a_function_lacks() -> None:
    domain = Domain.of(SimpleNamespace(align_labels=align_iob2, supports={"scheme": ["BILOU"]}))

    assert "scheme" not in domain.arguments("align_labels", (), {"scheme": "BILOU"})
    with pytest.raises(OutsideDomain):
        domain.arguments("align_labels", (), {"scheme": "IOB2"})
    with pytest.raises(OutsideDomain):
        domain.arguments("align_labels", (), {})


def test_a_test_of_a_value_gets_plain_values() -> None:
    supports = {"perplexity": {"tokens": lambda tokens: type(tokens) is list and len(tokens) < 3}}
    domain = Domain.of(SimpleNamespace(perplexity=perplexity, supports=supports))

    assert domain.arguments("perplexity", (), {"tokens": (1, 2)}) == {"tokens": (1, 2)}
    with pytest.raises(OutsideDomain):
        domain.arguments("perplexity", (), {"tokens": [1, 2, 3]})


def test_a_function_with_any_keyword_takes_every_argument() -> None:
    domain = Domain.of(SimpleNamespace(align_labels=lambda labels, **options: labels))

    assert domain.arguments("align_labels", (), {"scheme": "IOBES"}) == {"scheme": "IOBES"}


@pytest.mark.parametrize(
    ("stated", "says"),
    [
        ({"supports": ["IOB2"]}, "supports is list"),
        ({"supports": {"colour": ["red"]}}, "no function or argument"),
        ({"supports": {"scheme": "IOB2"}}, "write a list of values"),
        ({"supports": {"align_labels": ["IOB2"]}}, "a dictionary of argument"),
        ({"supports": {"align_labels": {"colour": [1]}}}, "no function or argument"),
        ({"choices": 3}, "choices is int"),
        ({"choices": {"colour": 1}}, "there is no such choice"),
        ({"choices": {"digits": 0}}, "a number from 1"),
        ({"choices": {"digits": True}}, "a number from 1"),
    ],
)
def test_a_statement_that_makes_no_sense_is_refused(stated: dict[str, Any], says: str) -> None:
    with pytest.raises(DomainError, match=says):
        Domain.of(SimpleNamespace(perplexity=perplexity, **stated))


def test_only_supported_values_are_drawn_for_the_functions_under_test() -> None:
    domain = Domain.of(SimpleNamespace(align_labels=align_iob2))
    drawn: set[str] = set()

    @given(supported_values("scheme", ["IOB2", "IOBES", "BILOU"]))
    @settings(max_examples=30, database=None)
    def draw(scheme: str) -> None:
        drawn.add(scheme)

    with within(domain, ("align_labels",)):
        draw()
    assert drawn == {"IOB2"}
    with within(domain, ("score_entities",)):
        draw()
    assert drawn == {"IOB2", "IOBES", "BILOU"}


def test_a_choice_is_that_of_the_contract_unless_another_is_declared() -> None:
    assert choice("ties") == "first"
    with within(Domain.of(SimpleNamespace(choices={"ties": "any"})), ()):
        assert choice("ties") == "any"
    assert choice("ties") == "first"


# --- declared conventions ---------------------------------------------------------------------------------------------


def rounded(digits: int) -> Any:
    from touchstone.stages import bleu

    def scorer(predictions: Any, *, references: Any) -> Any:
        scores = bleu(predictions, references=references)
        return {"bleu": round(scores["bleu"], digits)}

    return scorer


def test_a_rounded_score_without_extra_keys_passes_if_it_is_declared() -> None:
    declared = SimpleNamespace(bleu=rounded(4), choices={"digits": 4})
    for id in ("B1", "B2", "B3", "B4", "B6", "B7"):
        run_check(id, declared)

    with pytest.raises(CheckFailed):
        run_check("B2", SimpleNamespace(bleu=rounded(4)))
    with pytest.raises(CheckFailed):
        run_check("B2", SimpleNamespace(bleu=rounded(2), choices={"digits": 4}))


def best_fit(lengths: Any, *, capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -int(lengths[number])):
        size = int(lengths[number])
        fitting = [at for at, left in enumerate(room) if left >= size]
        if fitting:
            at = min(fitting, key=lambda at: room[at])
        else:
            at = len(bins)
            bins.append([])
            room.append(capacity)
        bins[at].append(number)
        room[at] -= size
    return [sorted(bin) for bin in bins]


def test_best_fit_passes_if_it_is_declared() -> None:
    for id in ("F13", "F14", "F15"):
        run_check(id, SimpleNamespace(assign_bins=best_fit, choices={"bins": "best fit"}))

    with pytest.raises(CheckFailed):
        run_check("F15", SimpleNamespace(assign_bins=best_fit), max_examples=300)


def test_the_no_answer_rule_of_squad_1_passes_if_it_is_declared() -> None:
    import touchstone.stages as stages

    def scorer(predictions: Any, *, references: Any) -> dict[str, float]:
        n = len(predictions)
        exact = stages.squad_scores(predictions, references=references)["exact_match"]
        f1 = 0.0
        for prediction, texts in zip(predictions, references, strict=True):
            plain = [stages.squad_scores([prediction], references=[[text]])["f1"] for text in texts]
            alone = [stages.squad_scores(["zz"], references=[[f"{text} zz"]])["f1"] == 100 for text in texts]
            f1 += max(0.0 if nothing else score for score, nothing in zip(plain, alone, strict=True))
        return {"exact_match": exact, "f1": f1 / n}

    for id in ("Q1", "Q2", "Q3", "Q4", "Q5", "Q6"):
        run_check(id, SimpleNamespace(squad_scores=scorer, choices={"no_answer": "v1.1"}))
    with pytest.raises(CheckFailed):
        run_check("Q5", SimpleNamespace(squad_scores=scorer))


def test_any_of_equally_good_answers_passes_if_it_is_declared() -> None:
    import touchstone.stages as stages

    def last_of_the_best(start_logits: Any, *, end_logits: Any, offsets: Any, context: str, **options: Any) -> Any:
        right = stages.pick_answer(start_logits, end_logits=end_logits, offsets=offsets, context=context, **options)
        limit = {name: value for name, value in options.items() if name == "max_answer_length"}
        every = stages.best_spans(start_logits, end_logits=end_logits, offsets=offsets, n_best=10**6, **limit)
        same = [span for span in every if span[3] == right["score"]]
        if not same or not right["text"]:
            return right
        window, first, last, score = same[-1]
        start, end = offsets[window][first][0], offsets[window][last][1]
        return {"text": context[start:end], "start": start, "end": end, "score": score}

    for id in ("N6", "N7", "N8"):
        run_check(
            id, SimpleNamespace(pick_answer=last_of_the_best, best_spans=stages.best_spans, choices={"ties": "any"})
        )
    with pytest.raises(CheckFailed):
        run_check("N7", SimpleNamespace(pick_answer=last_of_the_best), max_examples=200)
