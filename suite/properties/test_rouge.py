"""Checks R1-R15 of docs/contract.md: `rouge`, `split_sentences`, `lead`."""

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
from touchstone.properties.strategies.prose import Prose, ScoredTexts, Summary, prose, scored_texts, signs, summaries
from touchstone.properties.subject import Subject

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
EXACT = 1e-9
"""A few divisions and a sum in double precision; the counts are exact."""


def score(implementation: Subject, predictions: list[str], references: list[str], **options: Any) -> Scores:
    result = Scores(implementation.rouge(predictions, references=references, **options))
    return result


def expect_mean(kind: str, expected: list[float], came: dict[str, Any]) -> None:
    __tracebackhide__ = True
    mean = math.fsum(expected) / len(expected)
    expect_close(
        mean,
        came[kind],
        relative=EXACT,
        absolute=rounding(),
        where=f"{kind} in percent, the mean over {len(expected)} texts",
    )


# ROUGE ----------------------------------------------------------------------------------------------------------------


@check("R1", needs="rouge", texts=st.lists(summaries(), min_size=1, max_size=3))
def test_the_references_must_score_100_against_themselves(implementation: Subject, texts: list[Summary]) -> None:
    references = ["\n".join(summary.reference) for summary in texts]
    came = score(implementation, references, references)
    for kind in KINDS:
        expect_close(100.0, came[kind], relative=EXACT, absolute=rounding(), where=kind)
    if "number" in came:
        expect(len(texts), came["number"], where="number")


@check("R2", needs="rouge", case=scored_texts(texts=1))
def test_rouge_1_and_rouge_2_must_agree_with_an_independent_count(implementation: Subject, case: ScoredTexts) -> None:
    came = score(implementation, case.predictions, case.first)
    for n in (1, 2):
        pairs = zip(case.predictions, case.first, strict=True)
        expect_mean(f"rouge{n}", [oracles.rouge_n(*pair, n) for pair in pairs], came)


@check("R3", needs="rouge", case=scored_texts(texts=1))
def test_rouge_l_must_agree_with_an_independent_count(implementation: Subject, case: ScoredTexts) -> None:
    came = score(implementation, case.predictions, case.first)
    expect_mean("rougeL", [oracles.rouge_l(*pair) for pair in zip(case.predictions, case.first, strict=True)], came)


@check("R3", needs="rouge", case=summaries())
def test_rouge_l_must_ignore_sentence_boundaries(implementation: Subject, case: Summary) -> None:
    predictions, references = ["\n".join(case.prediction)], ["\n".join(case.reference)]
    came = score(implementation, predictions, references)
    expect_mean("rougeL", [oracles.rouge_l(predictions[0], references[0])], came)


@check("R4", needs="rouge", case=summaries())
def test_rouge_lsum_must_compare_each_sentence_with_all_sentences(implementation: Subject, case: Summary) -> None:
    came = score(implementation, ["\n".join(case.prediction)], ["\n".join(case.reference)])
    sizes = [sum(len(sentence.split()) for sentence in text) for text in (case.prediction, case.reference)]
    expect_mean("rougeLsum", [oracles.f_measure(case.hits, *sizes)], came)


@check("R5", needs="rouge", case=scored_texts(texts=1))
def test_rouge_lsum_must_equal_rouge_l_for_texts_without_line_breaks(
    implementation: Subject, case: ScoredTexts
) -> None:
    """With one sentence on each side both scores use the same longest common subsequence."""
    came = score(implementation, case.predictions, case.first)
    expect_close(came["rougeL"], came["rougeLsum"], relative=EXACT, absolute=rounding(), where="rougeL and rougeLsum")


@check("R5", needs="rouge", case=summaries(), newline=st.sampled_from(["<n>", " ||| ", "<q>", "\r"]))
def test_newline_must_separate_sentences_like_a_line_break_and_not_count_as_a_word(
    implementation: Subject, case: Summary, newline: str
) -> None:
    usual = score(implementation, ["\n".join(case.prediction)], ["\n".join(case.reference)])
    other = [newline.join(text) for text in (case.prediction, case.reference)]
    came = score(implementation, other[:1], other[1:], newline=newline)
    for kind in KINDS:
        expect_close(
            usual[kind],
            came[kind],
            relative=EXACT,
            absolute=rounding(),
            where=f"{kind} with line breaks, and with {newline!r}",
        )


@check("R6", needs="rouge", case=scored_texts(texts=1), order=st.randoms(use_true_random=False))
def test_rouge_must_be_the_mean_over_texts_in_any_order(
    implementation: Subject, case: ScoredTexts, order: random.Random
) -> None:
    places = list(range(len(case.predictions)))
    order.shuffle(places)
    came = score(implementation, [case.predictions[i] for i in places], [case.first[i] for i in places])
    alone = [score(implementation, [a], [b]) for a, b in zip(case.predictions, case.first, strict=True)]
    for kind in KINDS:
        expect_mean(kind, [each[kind] for each in alone], came)


@check("R7", needs="rouge", case=scored_texts(texts=1))
def test_the_f_measure_must_be_symmetric(implementation: Subject, case: ScoredTexts) -> None:
    """Precision and recall are not symmetric. Neither is ROUGE-Lsum: its unions are taken over the reference."""
    there, back = (
        score(implementation, *texts) for texts in ((case.predictions, case.first), (case.first, case.predictions))
    )
    for kind in KINDS[:3]:
        expect_close(
            there[kind],
            back[kind],
            relative=EXACT,
            absolute=rounding(),
            where=f"{kind}, predictions and references exchanged",
        )


@check("R8", needs="rouge", kind="form", case=scored_texts(texts=1), newline=st.sampled_from(["<n>", "<q>"]))
def test_the_signature_of_rouge_must_state_its_settings(
    implementation: Subject, case: ScoredTexts, newline: str
) -> None:
    came = score(implementation, case.predictions, case.first)
    missing = [key for key in (*KINDS, "number", "signature") if key not in came]
    expect_that(not missing, expected=f"a result with {', '.join(missing)}", came=f"{sorted(came)}")
    signature = str(came["signature"])
    for part in ("stemmer:", "sentences:", "version:"):
        expect_that(part in signature, expected=f"a signature with {part!r}", came=repr(signature))
    other = str(score(implementation, case.predictions, case.first, newline=newline)["signature"])
    expect_that(newline in other, expected=f"a signature with {newline!r}", came=repr(other))


@check(
    "R9", needs="rouge", case=scored_texts(texts=1), what=st.sampled_from(["", " ", "...", "東京"]), side=st.booleans()
)
def test_texts_without_words_must_score_0_without_an_error(
    implementation: Subject, case: ScoredTexts, what: str, side: bool
) -> None:
    predictions, references = [what, *case.predictions], [*(["the end"] if side else [what]), *case.first]
    came = score(implementation, predictions, references)
    rest = score(implementation, case.predictions, case.first)
    for kind in KINDS:
        expect_mean(kind, [0.0, *[rest[kind]] * len(case.predictions)], came)
    if "number" in came:
        expect(len(predictions), came["number"], where="number")


@check(
    "R10",
    needs="rouge",
    kind="refusal",
    case=scored_texts(texts=1),
    fault=st.sampled_from(["nothing", "more", "fewer"]),
)
def test_rouge_must_refuse_invalid_texts(implementation: Subject, case: ScoredTexts, fault: str) -> None:
    predictions = [*case.predictions, "more"] if fault == "more" else case.predictions[:-1]
    mentions: tuple[object, ...] = (len(predictions), len(case.first))
    if fault == "nothing":
        implementation.expect_refusal("rouge", [], references=[])
    else:
        implementation.expect_refusal("rouge", predictions, references=case.first, mentions=mentions)


@check("R11", needs="rouge", kind="form", case=scored_texts(texts=1))
def test_rouge_must_be_pure(implementation: Subject, case: ScoredTexts) -> None:
    expect_pure(implementation, "rouge", case.predictions, references=case.first)
    expect_same_for_tuples_and_arrays(implementation, "rouge", case.predictions, references=case.first)


# Sentences ------------------------------------------------------------------------------------------------------------


def without_blanks(text: str) -> str:
    return "".join(text.split())


@check("R12", needs="split_sentences", text=signs())
def test_the_sentences_must_contain_every_character_except_blanks(implementation: Subject, text: str) -> None:
    sentences = implementation.split_sentences(text)
    expect(without_blanks(text), without_blanks("".join(sentences)), where="all characters except blanks")


@check("R12", needs="split_sentences", text=signs())
def test_sentences_must_be_single_lines_that_are_stripped_and_not_empty(implementation: Subject, text: str) -> None:
    sentences = implementation.split_sentences(text)
    bad = [sentence for sentence in sentences if sentence.splitlines() != [sentence.strip()]]
    expect_that(not bad, expected="sentences of one line without blanks around them", came=bad)


@check("R13", needs="split_sentences", case=prose())
def test_sentences_must_end_exactly_at_sentence_boundaries(implementation: Subject, case: Prose) -> None:
    expect(case.sentences, implementation.split_sentences(case.text))


@check("R14", needs="lead split_sentences", text=signs(), count=st.integers(1, 6))
def test_the_lead_must_be_the_first_sentences_one_per_line(implementation: Subject, text: str, count: int) -> None:
    sentences = implementation.split_sentences(text)
    expect("\n".join(sentences[:count]), implementation.lead(text, sentences=count))
    expect("\n".join(sentences[:3]), implementation.lead(text), where="three sentences by default")


@check("R14", needs="lead", case=prose(), count=st.integers(1, 6))
def test_the_lead_must_be_the_beginning_of_the_text(implementation: Subject, case: Prose, count: int) -> None:
    came = implementation.lead(case.text, sentences=count)
    begins = without_blanks(case.text).startswith(without_blanks(came))
    expect_that(begins, expected="the beginning of the text", came=came)
    expect(min(count, len(case.sentences)), len(came.splitlines()), where="lines")


@check("R15", needs="lead", kind="refusal", case=prose(), count=st.integers(-3, 0))
def test_lead_must_refuse_a_number_of_sentences_below_one(implementation: Subject, case: Prose, count: int) -> None:
    implementation.expect_refusal("lead", case.text, sentences=count, mentions=(count,))


@check("R15", needs="split_sentences", kind="form", case=prose())
def test_split_sentences_must_be_pure(implementation: Subject, case: Prose) -> None:
    expect_pure(implementation, "split_sentences", case.text)
    first, second = (implementation.raw("split_sentences", case.text) for _ in range(2))
    expect_that(first is not second, expected="a new list for each call", came="the same list twice")
