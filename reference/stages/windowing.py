"""A question and a context that is too long for the model, as overlapping windows.

Source: Devlin et al. 2019, "BERT", section 4.2, with the sliding windows of github.com/google-research/bert,
run_squad.py (`doc_stride` there is the step from window to window; here `stride` is what two neighbours share, as in
transformers' tokenizers).

Every run of at most `stride + 1` tokens of the context is whole in at least one window; one of `stride + 2` need not
be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from touchstone.stages.ragged import MISSING, Array, Ragged
from touchstone.stages.twins import check_row_counts, rows_of_other_length

QUESTION, CONTEXT = "question", "context"

Template = Sequence[tuple["int | str", int]]
"""What a whole input looks like: pairs of (a special token's id, `"question"` or `"context"`; its token type id)."""
Offset = tuple[int, int]
"""Characters (start, end) of the context, end not included."""


def make_windows(
    context: Sequence[int],
    *,
    offsets: Sequence[Sequence[int]],
    question: Sequence[int],
    template: Template,
    max_length: int,
    stride: int,
) -> dict[str, list[Any]]:
    """The windows of one question and its context.

    Args:
        context: (C,) token ids, without special tokens.
        offsets: (C,) the characters (start, end) of the context that each of its tokens stands for.
        question: (Q,) token ids, without special tokens. It is whole in every window.
        template: BERT's is `((cls, 0), ("question", 0), (sep, 0), ("context", 1), (sep, 1))`.
        max_length: tokens of a window at most, special tokens included.
        stride: tokens of the context that two neighbouring windows share.

    Returns:
        One row a window: `input_ids`, `token_type_ids`, `offsets` (`None` outside the context), `first` (one integer:
        the index in `context` of the window's first context token; 0 for an empty context).

    Raises:
        ValueError: no room for a token of the context; a stride that is negative, or not below the room where the
            context does not fit one window; `context` and `offsets` of different lengths; a template without exactly
            one question and one context.
    """
    if len(offsets) != len(context):
        raise ValueError(f"offsets has length {len(offsets)}, context {len(context)}")
    room = _room(template, max_length=max_length, question=len(question))
    _check_stride(stride, room=room, context=len(context))
    windows: dict[str, list[Any]] = {"input_ids": [], "token_type_ids": [], "offsets": [], "first": []}
    first = 0
    while True:
        end = min(first + room, len(context))
        pieces: list[tuple[Sequence[int], Sequence[Offset | None], int]] = []
        for what, type_id in template:
            if what == CONTEXT:
                pairs = [(int(start), int(stop)) for start, stop in offsets[first:end]]
                pieces.append((context[first:end], pairs, type_id))
            else:
                ids: Sequence[int] = question if what == QUESTION else [int(what)]
                pieces.append((ids, [None] * len(ids), type_id))
        windows["input_ids"].append([int(token) for ids, _, _ in pieces for token in ids])
        windows["token_type_ids"].append([int(type_id) for ids, _, type_id in pieces for _ in ids])
        windows["offsets"].append([pair for _, pairs, _ in pieces for pair in pairs])
        windows["first"].append(first)
        if end == len(context):
            return windows
        first += room - stride


def special_count(template: Template) -> int:
    """Special tokens of a window.

    Raises:
        ValueError: a template without exactly one question and one context.
    """
    names = [what for what, _ in template if isinstance(what, str)]
    if sorted(names) != [CONTEXT, QUESTION]:
        raise ValueError(f"template names {names}: exactly one {QUESTION!r} and one {CONTEXT!r} are needed")
    return len(template) - len(names)


def _room(template: Template, *, max_length: int, question: int) -> int:
    special = special_count(template)
    room = max_length - question - special
    if room < 1:
        raise ValueError(
            f"max_length {max_length} leaves no room for the context beside {question} tokens of the question and "
            f"{special} special tokens: raise it or cut the question"
        )
    return room


def _check_stride(stride: int, *, room: int, context: int) -> None:
    if stride < 0 or (stride >= room and context > room):
        raise ValueError(
            f"stride is {stride}: windows with room for {room} tokens of a context of {context} can share 0 to "
            f"{room - 1} of them"
        )


# The batched twin -----------------------------------------------------------------------------------------------------


def make_windows_batch(
    contexts: Ragged,
    *,
    starts: Ragged,
    ends: Ragged,
    questions: Ragged,
    context_of: Array,
    template: Template,
    max_length: int,
    stride: int,
) -> dict[str, Ragged | Array]:
    """`make_windows` of N questions about M contexts: a context that many questions share is tokenized and held once.

    Args:
        contexts: (M, C_i) token ids of the contexts.
        starts, ends: (M, C_i) the characters of each of their tokens.
        questions: (N, Q_i) token ids of the questions.
        context_of: (N,) the context of each question.
        template, max_length, stride: as in `make_windows`.

    Returns:
        One row a window, those of question 0 first: `input_ids`, `token_type_ids`, `starts`, `ends` (`Ragged`; -1
        outside the context), `first` and `example` (arrays; `example` is the window's question).

    Raises:
        ValueError: as `make_windows`, naming the row; a context that is not there.
    """
    special = special_count(template)
    context_of = np.asarray(context_of, dtype=np.int64)
    check_row_counts(len(contexts), starts=starts, ends=ends)
    if len(context_of) != len(questions):
        raise ValueError(f"{len(context_of)} values of context_of for {len(questions)} questions")
    if (odd := np.flatnonzero((context_of < 0) | (context_of >= len(contexts)))).size:
        raise ValueError(f"context_of[{odd[0]}] is {context_of[odd[0]]}: there are {len(contexts)} contexts")
    if (unlike := np.flatnonzero(rows_of_other_length(contexts, starts, ends))).size:
        row = unlike[0]
        raise ValueError(f"row {row}: offsets has length {starts.lengths[row]}, context {contexts.lengths[row]}")

    lengths = contexts.lengths[context_of]
    room = max_length - questions.lengths - special
    if (wrong := np.flatnonzero((room < 1) | (stride < 0) | ((stride >= room) & (lengths > room)))).size:
        _refuse_windows(int(wrong[0]), contexts, questions, context_of, template, max_length, stride)

    step = np.maximum(room - stride, 1)
    count = 1 + np.maximum(-(-(lengths - room) // step), 0)
    example = np.repeat(np.arange(len(questions), dtype=np.int64), count)
    first = (np.arange(len(example)) - np.repeat(np.cumsum(count) - count, count)) * step[example]
    held = np.minimum(room[example], lengths[example] - first)

    # One pool of all that windows are made of; each window is a few runs of it, so one gather makes a whole column.
    tokens = [int(what) for what, _ in template if not isinstance(what, str)]
    pool = np.concatenate([np.asarray(tokens, dtype=np.int64), questions.values, contexts.values])
    outside = np.full(len(tokens) + len(questions.values), MISSING, dtype=np.int64)
    sizes = np.ones((len(example), len(template)), dtype=np.int64)
    sources = np.zeros_like(sizes)
    used = 0
    for column, (what, _) in enumerate(template):
        if what == QUESTION:
            sizes[:, column] = questions.lengths[example]
            sources[:, column] = len(tokens) + questions.offsets[example]
        elif what == CONTEXT:
            sizes[:, column] = held
            sources[:, column] = len(outside) + contexts.offsets[context_of[example]] + first
        else:
            sources[:, column] = used
            used += 1
    runs = sizes.ravel()
    ends_of_runs = np.cumsum(runs)
    shift = np.repeat(sources.ravel() - (ends_of_runs - runs), runs)
    places = np.arange(len(shift), dtype=np.int64) + shift
    offsets = np.concatenate([[0], np.cumsum(sizes.sum(1))]).astype(np.int64)
    types = np.tile(np.asarray([type_id for _, type_id in template], dtype=np.int64), len(example))
    return {
        "input_ids": Ragged(pool[places], offsets.copy()),
        "token_type_ids": Ragged(np.repeat(types, runs), offsets.copy()),
        "starts": Ragged(np.concatenate([outside, starts.values])[places], offsets.copy()),
        "ends": Ragged(np.concatenate([outside, ends.values])[places], offsets),
        "first": first,
        "example": example,
    }


def _refuse_windows(
    row: int,
    contexts: Ragged,
    questions: Ragged,
    context_of: Array,
    template: Template,
    max_length: int,
    stride: int,
) -> NoReturn:
    """The plain definition knows what is wrong with a row, and says so."""
    context = contexts[int(context_of[row])]
    try:
        make_windows(
            context.tolist(),
            offsets=[(0, 0)] * len(context),
            question=questions[row].tolist(),
            template=template,
            max_length=max_length,
            stride=stride,
        )
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from None
    raise AssertionError(f"row {row} is wrong to the batched twin and right to make_windows")  # a bug of the twin


def positions_of(what: int, *, template: Template, windows: Mapping[str, Any]) -> Array:
    """(W,) where the special token number `what` of the template (its index there) stands in each window."""
    before = [name for name, _ in template[:what]]
    place = np.full(len(windows["first"]), len(before), dtype=np.int64)
    held = windows["starts"]
    of_context = np.concatenate([[0], np.cumsum(held.values >= 0)])
    inside = of_context[held.offsets[1:]] - of_context[held.offsets[:-1]]
    for name in before:
        if name == CONTEXT:
            place += inside - 1
        elif name == QUESTION:
            place += held.lengths - inside - special_count(template) - 1
    return place


# Where an answer stands in the windows of its question: from characters of the context to tokens. Source: Devlin et
# al. 2019, "BERT", section 4.2; a window that does not hold an answer points to the token that stands for "no
# answer".


def answer_positions(
    answers: Sequence[Sequence[int]], *, offsets: Sequence[Sequence[int] | None], cls: int
) -> tuple[int, int]:
    """The answer's first and last token in a window, both included.

    Args:
        answers: pairs (start, end) of characters of the context, end not included; none where there is no answer.
        offsets: (T,) of a window, as `make_windows` gives them.
        cls: the index in the window of the token that stands for "no answer".

    Returns:
        Of the first answer that is in the window, the first and the last token whose characters overlap its own; else
        `(cls, cls)`. An answer is in the window if the first context token that has characters begins at or before
        its start and the last one ends at or after its end.

    Raises:
        ValueError: an answer with `end <= start` or `start < 0`, `cls` outside the window.
    """
    if not 0 <= cls < len(offsets):
        raise ValueError(f"cls is {cls}: the window has the tokens 0 to {len(offsets) - 1}")
    for number, (start, end) in enumerate(answers):
        if start < 0 or end <= start:
            raise ValueError(f"answers[{number}] is ({start}, {end}): it has characters, the first at 0 or later")
    tokens = [(position, *pair) for position, pair in enumerate(offsets) if pair is not None and pair[0] < pair[1]]
    for start, end in answers:
        if not tokens or tokens[0][1] > start or tokens[-1][2] < end:
            continue
        inside = [position for position, begins, ends in tokens if begins < end and start < ends]
        if inside:
            return inside[0], inside[-1]
    return int(cls), int(cls)


# The batched twin -----------------------------------------------------------------------------------------------------


def answer_positions_batch(
    answer_starts: Ragged, *, answer_ends: Ragged, starts: Ragged, ends: Ragged, cls: Array
) -> tuple[Array, Array]:
    """`answer_positions` of W windows.

    Args:
        answer_starts, answer_ends: (W, A_i) characters of each window's acceptable answers.
        starts, ends: (W, T_i) as `make_windows_batch` gives them.
        cls: (W,) the index of each window's "no answer".

    Returns:
        (W,) first and (W,) last token of the answer.

    Raises:
        ValueError: as `answer_positions`, naming the row; numbers of rows that differ.
    """
    cls = np.asarray(cls, dtype=np.int64)
    check_row_counts(len(starts), answer_starts=answer_starts, answer_ends=answer_ends, ends=ends)
    if len(cls) != len(starts):
        raise ValueError(f"{len(cls)} values of cls for {len(starts)} windows")
    unlike = rows_of_other_length(starts, ends) | rows_of_other_length(answer_starts, answer_ends)
    if unlike.any():
        raise ValueError(f"row {np.flatnonzero(unlike)[0]}: starts and ends differ in length")
    _refuse_answers(answer_starts, answer_ends, starts, cls)

    tokens = np.flatnonzero((starts.values >= 0) & (starts.values < ends.values))
    low = np.searchsorted(tokens, starts.offsets[:-1])
    high = np.searchsorted(tokens, starts.offsets[1:])
    begins, stops = starts.values[tokens], ends.values[tokens]
    first, last = cls.copy(), cls.copy()
    open_rows = np.flatnonzero((low < high) & (answer_starts.lengths > 0))
    number = 0  # of the answer: few examples have many, and most are decided by their first
    while open_rows.size:
        start = answer_starts.values[answer_starts.offsets[open_rows] + number]
        end = answer_ends.values[answer_ends.offsets[open_rows] + number]
        found = np.zeros(len(open_rows), np.bool_)
        near = np.flatnonzero((begins[low[open_rows]] <= start) & (end <= stops[high[open_rows] - 1]))
        if near.size:
            rows = open_rows[near]
            sizes = high[rows] - low[rows]
            offsets = np.concatenate([[0], np.cumsum(sizes)])
            at = np.arange(offsets[-1]) + np.repeat(low[rows] - offsets[:-1], sizes)
            overlaps = np.flatnonzero(
                (begins[at] < np.repeat(end[near], sizes)) & (np.repeat(start[near], sizes) < stops[at])
            )
            left, right = np.searchsorted(overlaps, offsets[:-1]), np.searchsorted(overlaps, offsets[1:])
            hit = left < right
            first[rows[hit]] = tokens[at[overlaps[left[hit]]]] - starts.offsets[rows[hit]]
            last[rows[hit]] = tokens[at[overlaps[right[hit] - 1]]] - starts.offsets[rows[hit]]
            found[near[hit]] = True
        number += 1
        open_rows = open_rows[~found & (answer_starts.lengths[open_rows] > number)]
    return first, last


def _refuse_answers(answer_starts: Ragged, answer_ends: Ragged, starts: Ragged, cls: Array) -> None:
    wrong = (cls < 0) | (cls >= starts.lengths)
    odd = (answer_starts.values < 0) | (answer_ends.values <= answer_starts.values)
    wrong[answer_starts.rows[odd]] = True
    if not wrong.any():
        return
    row = int(np.flatnonzero(wrong)[0])
    answers = list(zip(answer_starts[row].tolist(), answer_ends[row].tolist(), strict=True))
    try:
        answer_positions(answers, offsets=[None] * len(starts[row]), cls=int(cls[row]))
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from None
    raise AssertionError(f"row {row} is wrong to the batched twin and right to answer_positions")  # a bug of the twin
