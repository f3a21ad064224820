"""Cut a long context into overlapping windows, and find an answer's tokens in each of them.

A question and its context may be too long for the model. So the context is cut into windows that each hold the whole
question, and neighbouring windows share `stride` tokens of the context. Every run of at most `stride + 1` tokens is
whole in at least one window; a run of `stride + 2` may not be. A window that does not hold an answer points to the
token that stands for "no answer".

Source: Devlin et al. 2019, "BERT", section 4.2, with the sliding windows of github.com/google-research/bert,
run_squad.py. (`doc_stride` there is the step from window to window; here `stride` is the number of tokens that
neighbours share, as in transformers' tokenizers.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from touchstone.stages.batched import check_row_counts, raise_like, rows_of_other_length, rows_with
from touchstone.stages.ragged import MISSING, Array, Ragged

QUESTION, CONTEXT = "question", "context"

Template = Sequence[tuple["int | str", int]]
"""The form of a whole input: pairs of (a special token's id, `"question"` or `"context"`; its token type id)."""
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
    """Cut the context of a question into windows.

    >>> windows = make_windows(
    ...     [11, 12, 13], offsets=[(0, 2), (3, 5), (6, 8)], question=[7],
    ...     template=[(101, 0), ("question", 0), (102, 0), ("context", 1), (102, 1)], max_length=6, stride=1,
    ... )
    >>> windows["input_ids"]
    [[101, 7, 102, 11, 12, 102], [101, 7, 102, 12, 13, 102]]
    >>> windows["offsets"][0]
    [None, None, None, (0, 2), (3, 5), None]
    >>> windows["first"]
    [0, 1]

    Args:
        context: (C,) token ids, without special tokens.
        offsets: (C,) the characters (start, end) of the context that each token stands for.
        question: (Q,) token ids, without special tokens. Every window holds all of them.
        template: BERT's is `((cls, 0), ("question", 0), (sep, 0), ("context", 1), (sep, 1))`.
        max_length: the largest number of tokens in a window, special tokens included.
        stride: tokens of the context that two neighbouring windows share.

    Returns:
        One row per window: `input_ids`, `token_type_ids`, `offsets` (`None` outside the context) and `first` (one
        integer: the index in `context` of the window's first context token; 0 for an empty context).

    Raises:
        ValueError: no room for a token of the context; a negative stride, or one that is not below the room although
            the context needs several windows; `context` and `offsets` of different lengths; a template without exactly
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


def answer_positions(
    answers: Sequence[Sequence[int]], *, offsets: Sequence[Sequence[int] | None], cls: int
) -> tuple[int, int]:
    """Find the first and last token of an answer in a window, both included.

    An answer is in the window if the first context token that has characters begins at or before the answer's start,
    and the last one ends at or after its end.

    >>> offsets = [None, None, None, (0, 2), (3, 5), None]
    >>> answer_positions([(3, 5)], offsets=offsets, cls=0)
    (4, 4)
    >>> answer_positions([(6, 8)], offsets=offsets, cls=0)  # not in this window
    (0, 0)

    Args:
        answers: pairs (start, end) of characters of the context, end not included; empty if there is no answer.
        offsets: (T,) of a window, as `make_windows` returns them.
        cls: the index in the window of the token that stands for "no answer".

    Returns:
        For the first answer that is in the window, the first and the last token whose characters overlap it; otherwise
        `(cls, cls)`.

    Raises:
        ValueError: an answer with `end <= start` or `start < 0`, or `cls` outside the window.
    """
    if not 0 <= cls < len(offsets):
        raise ValueError(f"cls is {cls}: the window has the tokens 0 to {len(offsets) - 1}")
    for number, (start, end) in enumerate(answers):
        if start < 0 or end <= start:
            raise ValueError(f"answers[{number}] is ({start}, {end}): it needs 0 <= start < end")
    tokens = [(position, *pair) for position, pair in enumerate(offsets) if pair is not None and pair[0] < pair[1]]
    for start, end in answers:
        if not tokens or tokens[0][1] > start or tokens[-1][2] < end:
            continue
        inside = [position for position, begins, ends in tokens if begins < end and start < ends]
        if inside:
            return inside[0], inside[-1]
    return int(cls), int(cls)


def count_special(template: Template) -> int:
    """Return the number of special tokens in a window.

    Raises:
        ValueError: a template without exactly one question and one context.
    """
    names = [what for what, _ in template if isinstance(what, str)]
    if sorted(names) != [CONTEXT, QUESTION]:
        raise ValueError(f"template names {names}: exactly one {QUESTION!r} and one {CONTEXT!r} are needed")
    return len(template) - len(names)


def _room(template: Template, *, max_length: int, question: int) -> int:
    special = count_special(template)
    room = max_length - question - special
    if room < 1:
        raise ValueError(
            f"max_length {max_length} leaves no room for the context: the question has {question} tokens and the "
            f"template {special} special tokens; raise max_length or cut the question"
        )
    return room


def _check_stride(stride: int, *, room: int, context: int) -> None:
    if stride < 0 or (stride >= room and context > room):
        raise ValueError(
            f"stride is {stride}: windows with room for {room} tokens of a context of {context} can share 0 to "
            f"{room - 1} of them"
        )


# The batched versions -------------------------------------------------------------------------------------------------


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
    """Apply `make_windows` to N questions about M contexts. Questions about one context share its tokens.

    Args:
        contexts: (M, C_i) token ids of the contexts.
        starts, ends: (M, C_i) the characters of each of their tokens.
        questions: (N, Q_i) token ids of the questions.
        context_of: (N,) the index of each question's context.
        template, max_length, stride: as in `make_windows`.

    Returns:
        One row per window, those of question 0 first: `input_ids`, `token_type_ids`, `starts`, `ends` (`Ragged`; -1
        outside the context), `first` and `example` (arrays; `example` is the index of the window's question).

    Raises:
        ValueError: as in `make_windows`, with the number of the row; an index in `context_of` that no context has.
    """
    context_of = np.asarray(context_of, dtype=np.int64)
    room = _check_windows(contexts, starts, ends, questions, context_of, template, max_length, stride)
    lengths = contexts.lengths[context_of]
    step = np.maximum(room - stride, 1)
    count = 1 + np.maximum(-(-(lengths - room) // step), 0)
    example = np.repeat(np.arange(len(questions), dtype=np.int64), count)
    first = (np.arange(len(example)) - np.repeat(np.cumsum(count) - count, count)) * step[example]
    held = np.minimum(room[example], lengths[example] - first)

    # All windows are gathered from one pool: the special tokens, then all questions, then all contexts. A window is
    # one run of the pool per piece of the template. The example of `make_windows` (cls = 101, sep = 102):
    #
    #     pool     101 102 102 | 7 | 11 12 13       (places 0-2, 3, 4-6)
    #     sizes    1   1   1   2   1                of window 0: cls, question, sep, context, sep
    #     sources  0   3   1   4   2                where each of these runs begins in the pool
    #     places   0   3   1   4 5 2                -> 101 7 102 11 12 102
    #
    # Window 1 differs only in its context's source, 4 + first = 5: -> 101 7 102 12 13 102.
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
    places = _expand(sources.ravel(), runs)
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


def answer_positions_batch(
    answer_starts: Ragged, *, answer_ends: Ragged, starts: Ragged, ends: Ragged, cls: Array
) -> tuple[Array, Array]:
    """Apply `answer_positions` to W windows.

    Args:
        answer_starts, answer_ends: (W, A_i) the characters of each window's acceptable answers.
        starts, ends: (W, T_i) as `make_windows_batch` returns them.
        cls: (W,) the index of each window's "no answer" token.

    Returns:
        (W,) the first and (W,) the last token of the answer.

    Raises:
        ValueError: as in `answer_positions`, with the number of the row; different numbers of rows.
    """
    cls = np.asarray(cls, dtype=np.int64)
    _check_answers(answer_starts, answer_ends, starts, ends, cls)

    # `tokens` are the flat indices of context tokens with characters; those of window w are tokens[low[w]:high[w]].
    # The two windows of `make_windows`' example, with the answer "characters 3 to 5" in both:
    #
    #     starts   -1 -1 -1  0  3 -1 | -1 -1 -1  3  6 -1
    #     ends     -1 -1 -1  2  5 -1 | -1 -1 -1  5  8 -1
    #     tokens    3  4  9 10         low = 0, 2   high = 2, 4
    #     begins    0  3  3  6         stops = 2, 5, 5, 8
    #
    # Both windows are near: begins[low] is 0 and 3, at or before 3; stops[high - 1] is 5 and 8, at or after 5. The
    # tokens that overlap the answer are tokens[1] = 4 and tokens[2] = 9, so token 4 of window 0 and 9 - 6 = 3 of
    # window 1.
    tokens = np.flatnonzero((starts.values >= 0) & (starts.values < ends.values))
    low = np.searchsorted(tokens, starts.offsets[:-1])
    high = np.searchsorted(tokens, starts.offsets[1:])
    begins, stops = starts.values[tokens], ends.values[tokens]
    first, last = cls.copy(), cls.copy()
    open_rows = np.flatnonzero((low < high) & (answer_starts.lengths > 0))
    number = 0  # of the answer: most windows are decided by their first, so the loop is short
    while open_rows.size:
        start = answer_starts.values[answer_starts.offsets[open_rows] + number]
        end = answer_ends.values[answer_ends.offsets[open_rows] + number]
        found = np.zeros(len(open_rows), np.bool_)
        near = np.flatnonzero((begins[low[open_rows]] <= start) & (end <= stops[high[open_rows] - 1]))
        if near.size:
            rows = open_rows[near]
            sizes = high[rows] - low[rows]
            offsets = np.concatenate([[0], np.cumsum(sizes)])
            at = _expand(low[rows], sizes)
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


def positions_of(what: int, *, template: Template, windows: Mapping[str, Any]) -> Array:
    """Return (W,) the position in each window of the special token `template[what]`."""
    before = [name for name, _ in template[:what]]
    place = np.full(len(windows["first"]), len(before), dtype=np.int64)
    held = windows["starts"]
    of_context = np.concatenate([[0], np.cumsum(held.values >= 0)])
    inside = of_context[held.offsets[1:]] - of_context[held.offsets[:-1]]
    for name in before:
        if name == CONTEXT:
            place += inside - 1
        elif name == QUESTION:
            place += held.lengths - inside - count_special(template) - 1
    return place


def _expand(begins: Array, sizes: Array) -> Array:
    """Return the places of all runs, one after the other: run i has `sizes[i]` places from `begins[i]` on."""
    ends = np.cumsum(sizes)
    shift = np.repeat(begins - (ends - sizes), sizes)
    places: Array = np.arange(len(shift), dtype=np.int64) + shift
    return places


def _check_windows(
    contexts: Ragged,
    starts: Ragged,
    ends: Ragged,
    questions: Ragged,
    context_of: Array,
    template: Template,
    max_length: int,
    stride: int,
) -> Array:
    """Return (N,) the room for the context beside each question, or raise ValueError for the first invalid row."""
    special = count_special(template)
    check_row_counts(len(contexts), starts=starts, ends=ends)
    if len(context_of) != len(questions):
        raise ValueError(f"{len(context_of)} values of context_of for {len(questions)} questions")
    if (odd := np.flatnonzero((context_of < 0) | (context_of >= len(contexts)))).size:
        raise ValueError(f"context_of[{odd[0]}] is {context_of[odd[0]]}: there are {len(contexts)} contexts")
    if (unlike := np.flatnonzero(rows_of_other_length(contexts, starts, ends))).size:
        row = unlike[0]
        raise ValueError(f"row {row}: offsets has length {starts.lengths[row]}, context {contexts.lengths[row]}")
    room: Array = max_length - questions.lengths - special
    wrong = (room < 1) | (stride < 0) | ((stride >= room) & (contexts.lengths[context_of] > room))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        context = contexts[int(context_of[row])].tolist()
        raise_like(
            make_windows,
            row,
            context,
            offsets=[(0, 0)] * len(context),
            question=questions[row].tolist(),
            template=template,
            max_length=max_length,
            stride=stride,
        )
    return room


def _check_answers(answer_starts: Ragged, answer_ends: Ragged, starts: Ragged, ends: Ragged, cls: Array) -> None:
    check_row_counts(len(starts), answer_starts=answer_starts, answer_ends=answer_ends, ends=ends)
    if len(cls) != len(starts):
        raise ValueError(f"{len(cls)} values of cls for {len(starts)} windows")
    unlike = rows_of_other_length(starts, ends) | rows_of_other_length(answer_starts, answer_ends)
    if unlike.any():
        raise ValueError(f"row {np.flatnonzero(unlike)[0]}: starts and ends differ in length")
    odd = (answer_starts.values < 0) | (answer_ends.values <= answer_starts.values)
    wrong = (cls < 0) | (cls >= starts.lengths) | rows_with(odd, answer_starts)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        answers = list(zip(answer_starts[row].tolist(), answer_ends[row].tolist(), strict=True))
        raise_like(answer_positions, row, answers, offsets=[None] * len(starts[row]), cls=int(cls[row]))
