"""Bugs of windows and of the answer's place in them."""

from __future__ import annotations

from typing import Any

import numpy as np

import touchstone.stages
from tests.independent.windowing import answer_positions, make_windows
from tests.planted.bug import planted

CONTEXT = "context"


def special_of(template: Any) -> int:
    return len(template) - 2


def real_tokens(offsets: Any) -> list[int]:
    return [position for position, pair in enumerate(offsets) if pair is not None and pair[0] < pair[1]]


# Windows -----------------------------------------------------------------------------------------------------------


@planted("make_windows", caught_by="W1")
def stride_is_the_step(context, *, offsets, question, template, max_length, stride):
    """`stride` is treated as the step from window to window, as in BERT's own `doc_stride`."""
    room = max_length - len(question) - special_of(template)
    shared = room - stride if 0 < stride < room else stride
    return make_windows(
        context, offsets=offsets, question=question, template=template, max_length=max_length, stride=shared
    )


@planted("make_windows", caught_by="W1 W6")
def windows_share_one_token_less(context, *, stride, **options):
    """Neighbours share one token less than declared, so that answers can fall between them."""
    return make_windows(context, stride=stride - 1 if stride > 0 else stride, **options)


@planted("make_windows", caught_by="W1")
def remainder_of_the_context_dropped(context, **options):
    """A last window that is not full is dropped, and with it the end of the context."""
    result = make_windows(context, **options)
    if len(result["input_ids"]) > 1 and len(result["input_ids"][-1]) < len(result["input_ids"][0]):
        result = {name: rows[:-1] for name, rows in result.items()}
    return result


@planted("make_windows", caught_by="W1")
def only_the_first_window(context, **options):
    """The context is truncated: without `return_overflowing_tokens` all windows but the first are lost."""
    return {name: rows[:1] for name, rows in make_windows(context, **options).items()}


@planted("make_windows", caught_by="W2")
def special_tokens_not_counted(context, *, template, max_length, **options):
    """The special tokens come on top of `max_length`."""
    right = make_windows(context, template=template, max_length=max_length, **options)
    wrong = make_windows(context, template=template, max_length=max_length + special_of(template), **options)
    return wrong if right else right


@planted("make_windows", caught_by="W2")
def windows_until_nothing_is_left(context, *, offsets, question, template, max_length, stride):
    """A window is made at every step below the end: the last ones hold only what the one before them held."""
    result = make_windows(
        context, offsets=offsets, question=question, template=template, max_length=max_length, stride=stride
    )
    room = max_length - len(question) - special_of(template)
    first = result["first"][-1] + room - stride
    while stride < room and first < len(context):
        more = make_windows(
            context[first:],
            offsets=offsets[first:],
            question=question,
            template=template,
            max_length=max_length,
            stride=stride,
        )
        for name in ("input_ids", "token_type_ids", "offsets"):
            result[name].append(more[name][0])
        result["first"].append(first)
        first += room - stride
    return result


@planted("make_windows", caught_by="W3")
def context_always_second(context, *, template, **options):
    """The question always comes before the context, whatever the template says."""
    names = {"question": "context", "context": "question"}
    order = [what for what, _ in template if isinstance(what, str)]
    if order == ["context", "question"]:
        template = [(names.get(what, what) if isinstance(what, str) else what, kind) for what, kind in template]
    return make_windows(context, template=template, **options)


@planted("make_windows", caught_by="W3")
def question_only_in_the_first_window(context, *, question, **options):
    """Further windows lack the question."""
    result = make_windows(context, question=question, **options)
    own = {int(token) for token in question}
    for row in range(1, len(result["input_ids"])):
        kept = [at for at, token in enumerate(result["input_ids"][row]) if token not in own]
        for name in ("input_ids", "token_type_ids", "offsets"):
            result[name][row] = [result[name][row][at] for at in kept]
    return result


@planted("make_windows", caught_by="W3")
def token_types_all_zero(context, **options):
    """The model does not know which tokens are the question."""
    result = make_windows(context, **options)
    return {**result, "token_type_ids": [[0] * len(row) for row in result["token_type_ids"]]}


@planted("make_windows", caught_by="W4", evidence="huggingface/notebooks#141")
def question_has_offsets(context, *, question, **options):
    """The question's tokens keep their offsets in the question, so that they can be an answer in the context."""
    result = make_windows(context, question=question, **options)
    own = {int(token): (place, place + 1) for place, token in enumerate(question)}
    for ids, offsets in zip(result["input_ids"], result["offsets"], strict=True):
        for at, token in enumerate(ids):
            offsets[at] = own.get(token, offsets[at])
    return result


@planted("make_windows", caught_by="W4")
def special_tokens_have_empty_offsets(context, **options):
    """The offsets outside the context are (0, 0), as tokenizers give it, and not `None`."""
    result = make_windows(context, **options)
    return {**result, "offsets": [[(0, 0) if pair is None else pair for pair in row] for row in result["offsets"]]}


@planted("make_windows", caught_by="W4")
def offsets_count_from_the_window(context, **options):
    """In every window the characters are counted from its first token."""
    result = make_windows(context, **options)
    for row in result["offsets"]:
        base = min((pair[0] for pair in row if pair is not None), default=0)
        row[:] = [None if pair is None else (pair[0] - base, pair[1] - base) for pair in row]
    return result


@planted("make_windows", caught_by="W5")
def no_window_for_an_empty_context(context, **options):
    """An empty context has no window, and its example vanishes from the data."""
    result = make_windows(context, **options)
    return result if len(context) else {name: [] for name in result}


@planted("make_windows", caught_by="W5")
def stride_checked_where_none_is_needed(context, *, question, template, max_length, stride, **options):
    """A stride as large as the room is refused also for a context that fits one window."""
    if stride >= max_length - len(question) - special_of(template):
        raise ValueError(f"stride {stride} is too large")
    return make_windows(context, question=question, template=template, max_length=max_length, stride=stride, **options)


@planted("make_windows", caught_by="W7")
def question_cut_without_a_word(context, *, offsets, question, template, max_length, stride):
    """A question that leaves no room is cut."""
    most = max(max_length - special_of(template) - 1, 0)
    return make_windows(
        context,
        offsets=offsets,
        question=question[:most],
        template=template,
        max_length=max(max_length, special_of(template) + 1),
        stride=stride,
    )


@planted("make_windows", caught_by="W7")
def stride_made_to_fit(context, *, stride, question, template, max_length, **options):
    """A stride that is too large or negative is silently changed to fit."""
    room = max_length - len(question) - special_of(template)
    fitting = min(max(stride, 0), max(room - 1, 0))
    return make_windows(context, question=question, template=template, max_length=max_length, stride=fitting, **options)


@planted("make_windows", caught_by="W8")
def windows_share_their_offsets(context, **options):
    """The pairs are the caller's lists, and those of the next window too."""
    result = make_windows(context, **options)
    own = {(int(pair[0]), int(pair[1])): pair for pair in options["offsets"]}
    return {**result, "offsets": [[pair and own[pair] for pair in row] for row in result["offsets"]]}


@planted("make_windows", caught_by="W8")
def lists_added_up(context, *, question, **options):
    """The question is added to a list: a tuple cannot be, and an array adds its numbers to the ids."""
    result = make_windows(context, question=question, **options)
    _ = [0] + question  # noqa: RUF005 - the bug
    return result


@planted("make_windows_batch", caught_by="W9", base=touchstone.stages)
def twin_makes_room(contexts, *, max_length, questions, template, stride, **options):
    """The batched version silently raises a length that leaves no room and lowers a stride that does not fit."""
    most = int(questions.lengths.max()) if len(questions) else 0
    fitting = max(max_length, most + special_of(template) + 1)
    return touchstone.stages.make_windows_batch(
        contexts,
        questions=questions,
        template=template,
        max_length=fitting,
        stride=min(stride, fitting - most - special_of(template) - 1),
        **options,
    )


@planted("make_windows_batch", caught_by="W9", base=touchstone.stages)
def first_context_for_all(contexts, *, context_of, **options):
    """Every question is paired with the first context."""
    right = touchstone.stages.make_windows_batch(contexts, context_of=context_of, **options)
    wrong = touchstone.stages.make_windows_batch(contexts, context_of=context_of * 0, **options)
    return wrong if len(context_of) else right


# The answer's place ------------------------------------------------------------------------------------------------


@planted("answer_positions", caught_by="W10", evidence="huggingface/course#26 huggingface/notebooks#168")
def answer_partly_outside_labelled(answers, *, offsets, cls):
    """Only answers entirely outside are null: if the window cuts an answer, its remaining part is labelled."""
    answer_positions(answers, offsets=offsets, cls=cls)
    for start, end in answers:
        inside = [at for at in real_tokens(offsets) if offsets[at][0] < end and start < offsets[at][1]]
        if inside:
            return inside[0], inside[-1]
    return cls, cls


@planted("answer_positions", caught_by="W10")
def end_is_not_included(answers, *, offsets, cls):
    """The last position is one after the answer's last token."""
    first, last = answer_positions(answers, offsets=offsets, cls=cls)
    return (first, last) if (first, last) == (cls, cls) else (first, min(last + 1, len(offsets) - 1))


@planted("answer_positions", caught_by="W12")
def tokens_that_begin_in_the_answer(answers, *, offsets, cls):
    """A token counts if it begins within the answer: one that the answer begins in the middle of is left out."""
    first, last = answer_positions(answers, offsets=offsets, cls=cls)
    if (first, last) == (cls, cls):
        return cls, cls
    begins = {start for start, _ in answers}
    if last > first and offsets[first][0] not in begins:
        first += 1
    return first, last


@planted("answer_positions", caught_by="W11", evidence="huggingface/transformers#1282 course/7.mdx:406")
def null_is_zero(answers, *, offsets, cls):
    """The null label is 0, although the CLS is elsewhere (at the end, or after padding)."""
    first, last = answer_positions(answers, offsets=offsets, cls=cls)
    return (0, 0) if (first, last) == (cls, cls) else (first, last)


@planted("answer_positions", caught_by="W11 W12", evidence="course/7.mdx:391-400")
def first_answer_read_blindly(answers, *, offsets, cls):
    """`answers[0]` is read without checking that it exists, and no other is."""
    return answer_positions([answers[0]], offsets=offsets, cls=cls)


@planted("answer_positions", caught_by="W12")
def only_the_first_answer(answers, *, offsets, cls):
    """If the first of several answers is not in the window, the window has none."""
    right = answer_positions(answers, offsets=offsets, cls=cls)
    return answer_positions(answers[:1], offsets=offsets, cls=cls) if right else right


@planted("answer_positions", caught_by="W12", evidence="course/7.mdx:391-400")
def walks_to_the_next_special_token(answers, *, offsets, cls):
    """The context is assumed to end at the next special token: if there is none, this is an IndexError."""
    if answers and any(offsets):
        at = next(at for at, pair in enumerate(offsets) if pair is not None)
        while offsets[at] is not None:
            at += 1
    return answer_positions(answers, offsets=offsets, cls=cls)


@planted("answer_positions", caught_by="W12", evidence="EuroEval/EuroEval#81")
def walks_back_beyond_the_start(answers, *, offsets, cls):
    """`while offsets[end][1] >= end_char: end -= 1`: an answer within one token ends before it begins."""
    first, last = answer_positions(answers, offsets=offsets, cls=cls)
    if (first, last) == (cls, cls):
        return cls, cls
    inside = [(s, e) for s, e in answers if offsets[first][0] <= s and e < offsets[last][1] and first == last]
    return (first, last - 1) if inside else (first, last)


@planted("answer_positions", caught_by="W12")
def empty_tokens_bound_the_window(answers, *, offsets, cls):
    """A last token of no characters, whose offsets are (0, 0), makes the window end before it begins."""
    right = answer_positions(answers, offsets=offsets, cls=cls)
    context = [pair for pair in offsets if pair is not None]
    empty = any(start == end for start, end in [*context[:1], *context[-1:]])
    return (cls, cls) if empty else right


@planted("answer_positions", caught_by="W13")
def invalid_answers_are_null(answers, *, offsets, cls):
    """An answer that ends before it begins is treated as no answer, without an error."""
    kept = [pair for pair in answers if 0 <= pair[0] < pair[1]]
    return answer_positions(kept, offsets=offsets, cls=min(max(cls, 0), len(offsets) - 1))


@planted("answer_positions_batch", caught_by="W13", base=touchstone.stages)
def twin_reads_one_answer(answer_starts, *, answer_ends, **options):
    """The batched version looks at the first answer only."""
    touchstone.stages.answer_positions_batch(answer_starts, answer_ends=answer_ends, **options)
    sides = [[row[:1].tolist() for row in side] for side in (answer_starts, answer_ends)]
    starts, ends = (type(answer_starts).from_lists(side) for side in sides)
    return touchstone.stages.answer_positions_batch(starts, answer_ends=ends, **options)


@planted("answer_positions_batch", caught_by="W13", base=touchstone.stages)
def twin_takes_any_cls(answer_starts, *, starts, cls, **options):
    """The batched version accepts a null position outside the window and moves it to the last token."""
    sizes = [len(row) for row in starts]
    inside = [min(int(at), size - 1) for at, size in zip(cls, sizes, strict=True)]
    return touchstone.stages.answer_positions_batch(
        answer_starts, starts=starts, cls=np.array(inside, dtype=np.int64), **options
    )
