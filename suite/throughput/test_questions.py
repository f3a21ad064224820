"""Throughput of question answering: windows with answer positions, answers from logits, and scores."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from touchstone.pipelines.question_answering import pair_template
from touchstone.pipelines.tokenizing import tokenize_parts
from touchstone.records.timing import Goal
from touchstone.stages import (
    answer_positions_batch,
    best_spans_batch,
    make_windows_batch,
    pad_batch,
    pick_answer_batch,
    squad_scores,
)
from touchstone.stages.ragged import Array, Ragged
from touchstone.suite.throughput import course
from touchstone.suite.throughput.conftest import TimeStage
from touchstone.suite.throughput.data import Data, Questions
from touchstone.suite.throughput.measuring import Call, Method
from touchstone.suite.throughput.test_words import copy

MAX_LENGTH, STRIDE = 384, 128
COURSE_EXAMPLES = 200
"""Number of examples for the course's loop over answers, which takes about ten milliseconds per example."""


def tokenizer_on(questions: Questions) -> Method:
    """Tokenize every question with its context, as the course does, but without truncation."""
    pairs = [
        (question, questions.contexts[context])
        for question, context in zip(questions.questions, questions.context_of.tolist(), strict=True)
    ]
    rust = questions.tokenizer.backend_tokenizer

    def bare() -> object:
        rust.no_truncation()
        rust.no_padding()
        return rust.encode_batch(pairs)

    return Method("Tokenizer.encode_batch of the pairs", bare, pair_tokens(questions))


def pair_tokens(questions: Questions) -> int:
    """Count the tokens of all questions with their contexts."""
    contexts = questions.context_tokens["input_ids"].lengths[questions.context_of]
    return int(contexts.sum() + questions.question_tokens.lengths.sum())


def windows_of(
    questions: Questions, question_tokens: Ragged, context_of: Array, *, length: int = MAX_LENGTH
) -> dict[str, Any]:
    tokens = questions.context_tokens
    result: dict[str, Any] = make_windows_batch(
        tokens["input_ids"],
        starts=tokens["starts"],
        ends=tokens["ends"],
        questions=question_tokens,
        context_of=context_of,
        template=pair_template(questions.tokenizer).pieces,
        max_length=length,
        stride=STRIDE,
    )
    return result


def labelled_windows(questions: Questions, question_tokens: Ragged, rows: Array) -> dict[str, Any]:
    """Make the windows of these questions, with the positions of their answers."""
    windows = windows_of(questions, question_tokens, questions.context_of[rows])
    chosen = rows[windows["example"]]
    first, last = answer_positions_batch(
        questions.answer_starts.take(chosen),
        answer_ends=questions.answer_ends.take(chosen),
        starts=windows["starts"],
        ends=windows["ends"],
        cls=np.zeros(len(chosen), np.int64),
    )
    return {**windows, "start": first, "end": last}


def test_tokenize_and_window(time_stage: TimeStage, data: Data) -> None:
    """From text to labelled windows."""
    questions = data.questions
    tokenizer = questions.tokenizer
    rows = np.arange(len(questions.questions))

    def ours() -> object:
        tokens = tokenize_parts(tokenizer, questions.contexts, offsets=True)
        question_tokens = tokenize_parts(tokenizer, questions.questions, offsets=False)["input_ids"]
        assert len(tokens["input_ids"]) == len(questions.contexts)
        return labelled_windows(questions, question_tokens, rows)

    prepare = partial(course.prepare_training, tokenizer=tokenizer, max_length=MAX_LENGTH, stride=STRIDE)
    time_stage(
        "tokenize-and-window",
        ours=Method("tokenize_parts, make_windows_batch, answer_positions_batch", ours, pair_tokens(questions)),
        peers={
            "tokenizer": tokenizer_on(questions),
            "course": Method(
                "Dataset.map of prepare_training",
                lambda: course.mapped(lambda batch: prepare(batch), questions.data),
                pair_tokens(questions),
            ),
        },
    )


def test_window(time_stage: TimeStage, data: Data) -> None:
    questions = data.questions
    question_tokens = questions.question_tokens
    rows = np.arange(len(questions.questions))
    windows = labelled_windows(questions, question_tokens, rows)
    each = pair_tokens(questions) / len(rows)

    def at(tokens: int) -> tuple[Call, int]:
        some = np.resize(rows, max(round(tokens / each), 1))
        more = question_tokens.take(some)
        contexts = questions.context_tokens["input_ids"].lengths[questions.context_of[some]]
        return lambda: labelled_windows(questions, more, some), int(contexts.sum() + more.lengths.sum())

    time_stage(
        "window",
        ours=Method(
            "make_windows_batch, answer_positions_batch",
            lambda: labelled_windows(questions, question_tokens, rows),
            pair_tokens(questions),
        ),
        peers={
            "tokenizer": tokenizer_on(questions),
            "copy": copy({name: windows[name] for name in ("input_ids", "token_type_ids", "starts", "ends")}),
        },
        goal=Goal(peer="tokenizer", most=0.1),
        growth=at,
    )


def answers_of(
    questions: Questions, windows: dict[str, Any], logits: tuple[Array, Array], contexts: list[str]
) -> list[Any]:
    spans = best_spans_batch(
        logits[0], end_logits=logits[1], starts=windows["starts"], ends=windows["ends"], max_answer_length=30
    )
    return list(
        pick_answer_batch(
            spans, example=windows["example"], starts=windows["starts"], ends=windows["ends"], contexts=contexts
        )
    )


def test_answer(time_stage: TimeStage, data: Data) -> None:
    questions = data.questions
    question_tokens = questions.question_tokens
    rows = np.arange(len(questions.questions))
    windows = labelled_windows(questions, question_tokens, rows)
    contexts = [questions.contexts[index] for index in questions.context_of.tolist()]
    generator = np.random.default_rng(0)
    logits = tuple(generator.normal(size=(2, len(windows["starts"].values))).astype(np.float32))

    some = int(np.searchsorted(windows["example"], min(COURSE_EXAMPLES, len(rows))))
    shape = windows["starts"].take(np.arange(some))
    padded = [
        pad_batch([{"word_ids": part} for part in column.take(np.arange(some))], pad_id=0)["word_ids"]
        for column in (windows["starts"], windows["ends"])
    ]
    places = [
        [None if start < 0 else (start, end) for start, end in zip(*pair, strict=True)]
        for pair in zip(*(array.tolist() for array in padded), strict=True)
    ]
    flat = np.full((2, *padded[0].shape), -1e9, np.float32)
    within = shape.places
    for number in range(2):
        flat[number][shape.rows, within] = logits[number][: len(shape.values)]
    of_example: dict[int, list[int]] = {example: [] for example in range(COURSE_EXAMPLES)}
    for window, example in enumerate(windows["example"][:some].tolist()):
        of_example[example].append(window)
    examples = min(COURSE_EXAMPLES, len(rows))

    def at(tokens: int) -> tuple[Call, int]:
        chosen = np.resize(rows, max(round(tokens / max(len(windows["starts"].values) / len(rows), 1)), 1))
        more = labelled_windows(questions, question_tokens.take(chosen), chosen)
        own = tuple(generator.normal(size=(2, len(more["starts"].values))).astype(np.float32))
        texts = [contexts[row] for row in chosen.tolist()]
        return lambda: answers_of(questions, more, own, texts), len(more["starts"].values)

    time_stage(
        "answer",
        ours=Method(
            "best_spans_batch, pick_answer_batch",
            lambda: answers_of(questions, windows, logits, contexts),
            len(windows["starts"].values),
        ),
        peers={
            "tokenizer": tokenizer_on(questions),
            "course": Method(
                f"20 starts times 20 ends, {examples} examples",
                lambda: course.best_answers(
                    flat[0], flat[1], offsets=places, windows_of=of_example, contexts=contexts[:examples]
                ),
                len(shape.values),
            ),
        },
        goal=Goal(peer="tokenizer", most=0.1),
        growth=at,
    )


def test_score_answers(time_stage: TimeStage, data: Data) -> None:
    """Tokens are counted as for the other stages: those of questions and contexts."""
    questions = data.questions
    texts = [row[0] if row else "" for row in questions.answers]
    predictions = [text if number % 2 else f"the {text} of it" for number, text in enumerate(texts)]
    time_stage(
        "score-answers",
        ours=Method(
            "squad_scores", lambda: squad_scores(predictions, references=questions.answers), pair_tokens(questions)
        ),
        peers={"tokenizer": tokenizer_on(questions)},
    )
