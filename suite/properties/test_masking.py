"""Checks M1-M14 of docs/contract.md, except M5-M7 and M11: `mask_tokens` and its batched version."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from functools import lru_cache
from typing import Any

import numpy as np
from hypothesis import strategies as st

from touchstone.properties.check import check
from touchstone.properties.failure import Mismatch, expect, expect_that
from touchstone.properties.oracles import IGNORED, expect_share
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.masking import (
    BERT,
    MASK_ID,
    VOCABULARY,
    Masking,
    Triple,
    chosen,
    confusable_draws,
    mask,
    masking_batches,
    maskings,
    neighbouring_draws,
    seeds,
    usual_replacement,
)
from touchstone.properties.subject import Subject
from touchstone.properties.values import Spelled
from touchstone.stages.ragged import Ragged


@check("M1", needs="mask_tokens", case=maskings())
def test_labels_must_be_the_original_tokens_where_chosen_and_other_tokens_must_not_change(
    implementation: Subject, case: Masking
) -> None:
    masked, labels = mask(implementation, case)
    sizes = f"{len(case.input_ids)} tokens and labels"
    expect_that(len(masked) == len(labels) == len(case.input_ids), expected=sizes, came=[masked, labels])
    for position, (original, token, label) in enumerate(zip(case.input_ids, masked, labels, strict=True)):
        if label == IGNORED:
            expect_that(
                token == original,
                expected=f"{original} unchanged at position {position}, where the label is -100",
                came=f"tokens {masked}, labels {labels}",
            )
        else:
            expect_that(
                label == original,
                expected=f"label {original} (the original token) or -100 at position {position}",
                came=f"labels {labels}",
            )


@check("M2", needs="mask_tokens", case=maskings(rate=1.0))
def test_special_tokens_must_never_be_chosen(implementation: Subject, case: Masking) -> None:
    masked, labels = mask(implementation, case)
    specials = [position for position, special in enumerate(case.special) if special]
    expect_that(
        all(labels[position] == IGNORED and masked[position] == case.input_ids[position] for position in specials),
        expected=f"-100 and the token itself at the special positions {specials}",
        came=f"tokens {masked}, labels {labels}",
    )


@check("M3", needs="mask_tokens", case=maskings(whole_words=True, rate=0.5))
def test_a_word_must_be_chosen_as_a_whole_or_not_at_all(implementation: Subject, case: Masking) -> None:
    _, labels = mask(implementation, case)
    hit = set(chosen(labels))
    for word in case.words:
        expect_that(
            len(hit & set(word)) in (0, len(word)),
            expected=f"all or none of the positions {word}, which are one word",
            came=f"chosen: {sorted(hit)}",
        )


GAPS: dict[str, tuple[list[int | None], list[bool]]] = {
    "a special token without a word": ([0, None, 0], [False, True, False]),
    "a special token with a word id": ([0, 0, 0], [False, True, False]),
    "a token without a word": ([0, None, 0], [False, False, False]),
    "two special tokens, where one document ends and the next begins": (
        [0, None, None, 0],
        [False, True, True, False],
    ),
    "another word": ([0, 1, 0], [False, False, False]),
}


@check("M4", needs="mask_tokens", cost=8, gap=st.sampled_from(sorted(GAPS)), tokens=st.integers(1, 3), seed=seeds)
def test_a_word_must_not_span_a_special_token_a_gap_or_two_documents(
    implementation: Subject, gap: str, tokens: int, seed: int
) -> None:
    words, special = GAPS[gap]
    n, size = 300, len(words) + 2 * (tokens - 1)
    pattern = [words[0]] * tokens + words[1:-1] + [words[-1]] * tokens
    flags = [special[0]] * tokens + special[1:-1] + [special[-1]] * tokens
    shift = ", ".join("None" if word is None else f"2 * i + {word}" for word in pattern)
    case = Masking(
        input_ids=Spelled(f"[10 + i % 50 for i in range({n * size})]"),
        special=Spelled(f"{flags} * {n}"),
        word_ids=Spelled(f"[w for i in range({n}) for w in [{shift}]]"),
        rate=0.5,
        replacement=usual_replacement(),
        seed=seed,
        epoch=0,
        example=0,
    )
    implementation.remark(gap=f"{gap}, between two words that have the same id")
    _, labels = mask(implementation, case)
    hit = [label != IGNORED for label in labels]
    agree = sum(hit[start] == hit[start + size - 1] for start in range(0, n * size, size))
    of = f"pairs of words on either side of {gap} that are both chosen or both not"
    expect_share(agree, n=n, probability=0.5, of=of)


@check("M8", needs="mask_tokens", case=maskings(), other=maskings(), state=seeds)
def test_a_draw_must_not_depend_on_other_draws_or_global_generators(
    implementation: Subject, case: Masking, other: Masking, state: int
) -> None:
    expected = mask(implementation, case)
    before = random.getstate(), np.random.get_state()
    try:
        mask(implementation, other)
        random.seed(state)
        np.random.seed(state % 2**32)
        if (torch := sys.modules.get("torch")) is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(state)
                came = mask(implementation, case)
        else:
            came = mask(implementation, case)
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
    expect(expected, came, where="the same arguments again, after another draw, with other global generators")


ELSEWHERE = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
target = importlib.import_module(sys.argv[2])
for name in filter(None, sys.argv[3].split(".")):
    target = getattr(target, name)
arguments = json.loads(sys.argv[4])
from touchstone.properties.values import plain
print(json.dumps([plain(target.mask_tokens(ids, **rest)) for ids, rest in arguments]))
"""


@lru_cache(maxsize=64)
def drawn_elsewhere(module: str, attribute: str, arguments: str) -> Any:
    """Make the same calls in another process with another `hash` of strings."""
    environment = {**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    command = [sys.executable, "-c", ELSEWHERE, json.dumps(sys.path), module, attribute, arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise Mismatch(expected="the same calls to work in another process", came=done.stderr.strip()[-300:])
    return json.loads(done.stdout)


@check("M8", needs="mask_tokens", cost=1000, seed=st.just(3))
def test_a_draw_must_be_the_same_in_another_process(implementation: Subject, seed: int) -> None:
    if not implementation.module:  # another process cannot import this object by name
        return
    token = Masking(list(range(10, 60)), [False] * 50, None, 0.5, usual_replacement(), seed, 1, 4)
    word = token.with_(word_ids=[i // 2 for i in range(50)])
    calls = [(case.input_ids, case.with_(example=number).arguments) for case in (token, word) for number in (0, 1)]
    here = [implementation.mask_tokens(ids, **arguments) for ids, arguments in calls]
    there = drawn_elsewhere(implementation.module, implementation.attribute, json.dumps(calls))
    expect([list(pair) for pair in here], there, where="here, and in a process with another PYTHONHASHSEED")


def expect_different(implementation: Subject, pair: tuple[Triple, Triple], *, words: bool) -> None:
    """Require different draws. 128 fair coins agree by chance with probability 2**-128."""
    __tracebackhide__ = True
    word_ids = Spelled("[i for i in range(128)]") if words else None
    ids, special = Spelled("[10 + i for i in range(128)]"), Spelled("[False] * 128")
    one, two = (Masking(ids, special, word_ids, 0.5, usual_replacement(), *triple) for triple in pair)
    first, second = chosen(mask(implementation, one)[1]), chosen(mask(implementation, two)[1])
    expect_that(
        first != second,
        expected=f"(seed, epoch, example) = {pair[1]} to choose other tokens than {pair[0]}",
        came=f"{first} from both",
    )


@check("M9", needs="mask_tokens", pair=neighbouring_draws(), words=st.booleans())
def test_another_seed_epoch_or_example_must_give_another_draw(
    implementation: Subject, pair: tuple[Triple, Triple], words: bool
) -> None:
    expect_different(implementation, pair, words=words)


@check("M9", needs="mask_tokens", pair=confusable_draws(), words=st.booleans())
def test_seed_epoch_and_example_must_not_be_confused(
    implementation: Subject, pair: tuple[Triple, Triple], words: bool
) -> None:
    expect_different(implementation, pair, words=words)


@check("M10", needs="mask_tokens", case=maskings(rate=0.0))
def test_rate_zero_must_choose_nothing(implementation: Subject, case: Masking) -> None:
    masked, labels = mask(implementation, case)
    expect((case.input_ids, [IGNORED] * len(case.input_ids)), (masked, labels))


@check("M10", needs="mask_tokens", case=maskings(rate=1.0))
def test_rate_one_must_choose_everything_that_may_be_chosen(implementation: Subject, case: Masking) -> None:
    expected = [position for word in case.words for position in word]
    expect(expected, chosen(mask(implementation, case)[1]), where="positions chosen")


@check("M12", needs="mask_tokens", kind="refusal", case=maskings(), rate=st.sampled_from([-0.1, 1.5, 15, float("nan")]))
def test_mask_tokens_must_refuse_a_rate_that_is_not_a_probability(
    implementation: Subject, case: Masking, rate: float
) -> None:
    implementation.expect_refusal("mask_tokens", case.input_ids, mentions=(rate,), **case.arguments | {"rate": rate})


BAD_REPLACEMENTS = [(0.8, 0.1), (0.8, 0.1, 0.05, 0.05), (0.8, 0.3, -0.1), (0.8, 0.1, 0.2), (80, 10, 10), (0.0,) * 3]


@check("M12", needs="mask_tokens", kind="refusal", case=maskings(), replacement=st.sampled_from(BAD_REPLACEMENTS))
def test_mask_tokens_must_refuse_a_replacement_that_is_not_three_probabilities(
    implementation: Subject, case: Masking, replacement: tuple[float, ...]
) -> None:
    implementation.expect_refusal("mask_tokens", case.input_ids, **case.arguments | {"replacement": replacement})


@check(
    "M12",
    needs="mask_tokens",
    kind="refusal",
    case=maskings(rate=1.0),
    replacement=st.sampled_from([BERT, (0.0, 1.0, 0.0)]),
)
def test_mask_tokens_must_refuse_an_empty_vocabulary_if_random_tokens_are_needed(
    implementation: Subject, case: Masking, replacement: tuple[float, float, float]
) -> None:
    case = case.with_(input_ids=[*case.input_ids, 9], special=[*case.special, False], replacement=replacement)
    if case.word_ids is not None:
        case = case.with_(word_ids=[*case.word_ids, 99])
    implementation.expect_refusal("mask_tokens", case.input_ids, **case.arguments | {"vocabulary": []})


@check("M12", needs="mask_tokens", kind="refusal", case=maskings(), longer=st.booleans(), words=st.booleans())
def test_mask_tokens_must_refuse_different_lengths(
    implementation: Subject, case: Masking, longer: bool, words: bool
) -> None:
    if not case.input_ids:
        longer = True
    if words and case.word_ids is not None:
        changed: Any = [*case.word_ids, None] if longer else case.word_ids[:-1]
        case = case.with_(word_ids=changed)
    else:
        changed = [*case.special, True] if longer else case.special[:-1]
        case = case.with_(special=changed)
    sizes = len(case.input_ids), len(changed)
    implementation.expect_refusal("mask_tokens", case.input_ids, mentions=sizes, **case.arguments)


@check("M13", needs="mask_tokens", kind="form", case=maskings())
def test_mask_tokens_must_be_pure(implementation: Subject, case: Masking) -> None:
    expect_pure(implementation, "mask_tokens", case.input_ids, **case.arguments)


@check("M13", needs="mask_tokens", kind="form", case=maskings())
def test_mask_tokens_must_accept_tuples_and_arrays(implementation: Subject, case: Masking) -> None:
    expect_same_for_tuples_and_arrays(implementation, "mask_tokens", case.input_ids, **case.arguments)


@check("M14", needs="mask_tokens mask_tokens_batch", cases=masking_batches(), order=st.randoms(use_true_random=False))
def test_mask_tokens_batch_must_equal_mask_tokens_in_any_order(
    implementation: Subject, cases: list[Masking], order: random.Random
) -> None:
    if not cases:
        empty = Ragged.from_lists([])
        shared = {"mask_id": MASK_ID, "vocabulary": VOCABULARY, "seed": 1, "epoch": 0}
        came = implementation.mask_tokens_batch(empty, special=empty, examples=[], **shared)
        expect(([], []), came)
        return
    order.shuffle(cases)
    pairs = [mask(implementation, case) for case in cases]
    arguments = cases[0].shared | {
        "special": Ragged.from_lists([[int(flag) for flag in case.special] for case in cases]),
        "examples": [case.example for case in cases],
    }
    if cases[0].word_ids is not None:
        arguments["word_ids"] = Ragged.from_lists([case.word_ids or [] for case in cases])
    input_ids = Ragged.from_lists([case.input_ids for case in cases])
    expected = [masked for masked, _ in pairs], [labels for _, labels in pairs]
    expect(expected, implementation.mask_tokens_batch(input_ids, **arguments))
    expect_pure(implementation, "mask_tokens_batch", input_ids, **arguments)
