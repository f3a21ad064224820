"""Probes of question answering: labelled spans, windows, the null place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.batches import batches_of, lists, padding
from touchstone.auditing.reading.windows import Chars, Window, Windows, read_windows, shown
from touchstone.auditing.reading.words import special_ids
from touchstone.auditing.subject import Batch, Subject, ints

TASK = ("question-answering",)
GROUP = "question answering"
SPANS = ("start_positions", "end_positions")
NOTABLE = 0.01
"""A share of answers from which their loss is a warning."""
FEW = 2
"""Answers that are lost between windows from which it is a fault: one may be an odd row."""
SCANNED = 5000
"""Rows whose labels alone are looked at."""
MOSTLY = 0.8
"""A cause is named if it explains this share of the wrong spans."""


def windows_of(subject: Subject) -> Windows:
    """Return the windows of the training data."""
    return read_windows(subject, subject.need("train"))


# Labels alone ---------------------------------------------------------------------------------------------------------


@probe(
    "spans-are-in-order",
    group=GROUP,
    says="No labelled span ends before it starts, or leaves its text.",
    tasks=TASK,
    budget="fast",
)
def spans_are_in_order(subject: Subject) -> Finding:
    """Look at labelled starts and ends alone: their order, and whether special tokens lie between them.

    Spans across special tokens are judged here only if their answers are not known.

    Fault: Labelled answers end before they start, or go across special tokens into the question. The loss trains start
    and end on places that no answer has.

    Causes: The search for the first or last token of the answer runs past the end of the context. Or start and end are
    exchanged, or counted from another place.

    Remedy: Stop the search at the last token of the context, which `sequence_ids()` tells, and check `start <= end`
    when labels are made.

    Warning: One label lies inside the row and the other outside. The loss ignores one and trains the other: give both
    to the null place.
    """
    special = special_ids(subject.need("tokenizer"))
    reversed_, crossing, half = [], [], []
    rows = 0
    for ids, start, end in _all_spans(subject):
        rows += 1
        size = len(ids)
        if (0 <= start < size) != (0 <= end < size):
            half.append((ids, start, end))
        elif not 0 <= start < size:
            continue
        elif end < start:
            reversed_.append((ids, start, end))
        elif start < end and any(ids[place] in special for place in range(start, end + 1)):
            crossing.append((ids, start, end))
    if reversed_:
        if _misplaced(subject):
            raise NotChecked("the labels are not the answers: see spans-hold-the-answer")
        behind = sum(ids[start] in special for ids, start, _ in reversed_)
        cause = (
            "the search for the first token runs past the end of the context: stop it at the context's last token (as "
            "written, transformers' run_qa.py does this where the answer is the last token of a window)"
            if behind
            else "start and end are exchanged, or the end is counted from another place than the start"
        )
        return _bad(subject, f"{len(reversed_)} of {rows} labelled spans end before they start", cause, reversed_)
    if crossing and not _readable(subject):
        cause = "a span leaves the context: positions are counted from another place than the row's first token"
        return _bad(subject, f"{len(crossing)} of {rows} labelled spans go across special tokens", cause, crossing)
    if half:
        return warn(
            f"{len(half)} of {rows} rows have one label inside the row, and the other outside",
            cause="the loss ignores the one outside and trains the other: give both labels to the null place",
            measured=len(half) / rows,
            expected=0,
        )
    return passed(f"{rows} labelled spans start before they end")


def _all_spans(subject: Subject) -> Iterator[tuple[list[int], int, int]]:
    """Yield the ids, start and end of some batches, of rows whose source was found, and of rows that end too early."""
    for batch in _batches(subject):
        yield from _spans(batch)
    dataset = subject.need("train").dataset
    if set(SPANS) <= set(getattr(dataset, "column_names", None) or ()) and hasattr(dataset, "select_columns"):
        columns = dataset.with_format(None).select_columns(list(SPANS))[:SCANNED]
        for index, (start, end) in enumerate(zip(*(columns[name] for name in SPANS), strict=True)):
            if isinstance(start, int) and isinstance(end, int) and end < start:
                yield ints(dataset[index]["input_ids"]), start, end
    try:
        windows = windows_of(subject).windows
    except NotChecked:
        return
    yield from ((each.ids, each.start, each.end) for each in windows)


def _readable(subject: Subject) -> bool:
    try:
        return bool(windows_of(subject).windows)
    except NotChecked:
        return False


def _misplaced(subject: Subject) -> bool:
    """Tell whether the labels are not the answers where these are whole."""
    try:
        return spans_hold_the_answer(subject).outcome == "fail"
    except NotChecked:
        return False


def _batches(subject: Subject) -> Iterator[Batch]:
    """Yield some batches that have labelled spans."""
    found = batches_of(subject.need("train"))
    if not all(set(SPANS) <= set(batch) for batch in found):
        raise NotChecked("the batches have no start_positions and end_positions")
    if any(len(batch[name].shape) != 1 for batch in found for name in SPANS):
        raise NotChecked("the labels are not one start and one end per row")
    yield from found


def _spans(batch: Batch) -> Iterator[tuple[list[int], int, int]]:
    yield from zip(batch["input_ids"].tolist(), *(batch[name].tolist() for name in SPANS), strict=True)


def _bad(subject: Subject, message: str, cause: str, wrong: list[tuple[list[int], int, int]]) -> Finding:
    ids, start, end = wrong[0]
    marks = [
        " ".join(name for name, at in (("start", start), ("end", end)) if at == place) for place in range(len(ids))
    ]
    cells = [*zip(range(len(ids)), subject.token_texts(ids), marks, strict=True)]
    table = Example(("position", "token", "label"), cells, marked=sorted({start, end}), caption="a training row")
    return fail(message, cause=cause, measured=len(wrong), expected=0, example=table)


@probe(
    "null-place-is-seen",
    group=GROUP,
    says="The token that stands for no answer is no padding.",
    tasks=TASK,
    budget="fast",
)
def null_place_is_seen(subject: Subject) -> Finding:
    """Look at which tokens spans of one token point to: special tokens stand for no answer, padding must not.

    Fault: Rows without an answer point to padding, which the model cannot see.

    Causes: The null place is written as index 0, and rows are padded on the left.

    Remedy: Use the place of the [CLS] token: `ids.index(tokenizer.cls_token_id)`, taken after padding.

    Warning: Rows without an answer point to different tokens. The score of no answer is read from one place, so use
    the same one in every row.
    """
    special = special_ids(subject.need("tokenizer"))
    places: Counter[str] = Counter()
    wrong = []
    for batch in _batches(subject):
        masks = lists(batch, "attention_mask")
        for row, (ids, start, end) in enumerate(_spans(batch)):
            if start != end or not 0 <= start < len(ids) or ids[start] not in special:
                continue
            hidden = padding(subject, ids, masks[row] if masks else None)
            places[subject.token_texts([ids[start]])[0]] += 1
            if start in hidden:
                wrong.append((ids, start, end))
    total = sum(places.values())
    if wrong:
        if _misplaced(subject):
            raise NotChecked("the labels are not the answers: see spans-hold-the-answer")
        return _bad(
            subject,
            f"{len(wrong)} of {total} rows without an answer point to padding",
            "the null place has no fixed index when rows are padded at the left: use input_ids.index(cls_token_id)",
            wrong,
        )
    if len(places) > 1:
        return warn(
            f"rows without an answer point to different tokens: {', '.join(places)}",
            cause="the score of no answer is read from one place: use that of the [CLS] token in every row",
        )
    if not places:
        return passed("no row that was looked at points to a special token")
    return passed(f"{total} rows without an answer point to {next(iter(places))}")


# Labels against answers -----------------------------------------------------------------------------------------------


def _fits(window: Window) -> bool:
    """Tell whether the label is right for an answer that is whole in the window.

    Where there are several answers, it may mean any of them, so no answer is wrong only if all of them are whole.
    """
    if window.null and any(window.tokens(answer) is None for answer in window.answers):
        return True
    for place in range(len(window.offsets)):
        for answer in window.answers:
            tokens = window.tokens(answer, place)
            if tokens == (window.start, window.end):
                return True
            labelled = window.text().strip()
            if tokens is not None and labelled and labelled == window.context[slice(*answer)].strip():
                return True
    return False


def _holds(window: Window) -> bool:
    """Tell whether an answer is whole in the window, wherever in the context the window may lie."""
    return all(
        any(window.tokens(answer, place) is not None for answer in window.answers)
        for place in range(len(window.offsets))
    )


def _disordered(window: Window) -> bool:
    return window.end < window.start


@probe(
    "spans-hold-the-answer",
    group=GROUP,
    says="The labelled tokens are the answer, wherever it is whole in the window.",
    tasks=TASK,
    budget="fast",
)
def spans_hold_the_answer(subject: Subject) -> Finding:
    """Compare labelled tokens with the answer's characters, by the offsets of the context tokenized anew.

    Fault: The labelled tokens are not the answer. The model learns to point elsewhere.

    Causes: The end is exclusive where the head expects the last token. Or labels are characters, count from the start
    of the context, were not moved by padding at the left, or belong to another example because the windows' example is
    not looked up.

    Remedy: Find tokens by `offset_mapping`, take the example by `overflow_to_sample_mapping[i]`, and print
    `tokenizer.decode(ids[start : end + 1])` beside the answer. The finding names what explains most rows.
    """
    found = windows_of(subject)
    held = [each for each in found.windows if _holds(each)]
    if not held:
        raise NotChecked("no answer is whole in the rows looked at")
    judged = [each for each in held if not _disordered(each)]
    wrong = [each for each in judged if not _fits(each)]
    if not wrong:
        if len(judged) < len(held) // 2:
            raise NotChecked("most spans end before they start: see spans-are-in-order")
        return passed(f"{len(judged)} labelled spans are the answers of their rows")
    missed = [each for each in wrong if each.null]
    example = wrong[0]
    answer = example.context[slice(*example.answers[0])]
    seen = "no answer" if example.null else repr(example.text() or "tokens outside the context")
    return fail(
        f"{len(wrong)} of {len(judged)} labels are not the answer in their window: {seen} instead of {answer!r}",
        cause=_why(found, [each for each in wrong if not each.null], missed) + found.at,
        measured=len(wrong),
        expected=0,
        example=shown(subject, example),
    )


def _why(found: Windows, stray: list[Window], missed: list[Window]) -> str:
    """Name what explains most of the wrong spans."""
    best, share = "", 0.0
    for cause, explains in _CAUSES.items() if stray else ():
        hits = sum(any(explains(found, each, tokens) for tokens in _right(each)) for each in stray) / len(stray)
        if hits > share:
            best, share = cause, hits
    if len(stray) * 4 >= len(missed) and share >= MOSTLY:
        return best
    if len(missed) > len(stray):
        return (
            f"{len(missed)} windows that hold their whole answer are labelled as having none: compare the answer's "
            "characters with the first and the last token of the context, not of the row"
        )
    return "the labelled tokens are not those of the answer: compare offsets with its characters"


def _right(window: Window) -> list[tuple[int, int]]:
    return [tokens for answer in window.answers if (tokens := window.tokens(answer)) is not None]


def _first(window: Window) -> int:
    """Return the position of the context's first token."""
    return next(place for place, pair in enumerate(window.offsets[0]) if pair is not None)


def _exclusive(found: Windows, window: Window, right: tuple[int, int]) -> bool:
    return (window.start, window.end) == (right[0], right[1] + 1)


def _early(found: Windows, window: Window, right: tuple[int, int]) -> bool:
    return window.start == right[0] and window.end == right[1] - 1


def _start_off(found: Windows, window: Window, right: tuple[int, int]) -> bool:
    return window.end == right[1] and abs(window.start - right[0]) == 1


def _characters(found: Windows, window: Window, right: tuple[int, int]) -> bool:
    return any(window.start == begin and window.end in (end, end - 1) for begin, end in window.answers)


def _in_context(found: Windows, window: Window, right: tuple[int, int]) -> bool:
    first = _first(window)
    return (window.start + first, window.end + first) == right


def _in_batch(found: Windows, window: Window, right: tuple[int, int]) -> bool:
    """Tell whether labels made for the row without the padding at its left were not moved by it."""
    moved = len([place for place in window.hidden if place < _first(window)])
    return moved > 0 and (window.start + moved, window.end + moved) == right


def _in_question(found: Windows, window: Window, right: tuple[int, int]) -> bool:
    """Tell whether the labelled tokens are text, and no text of the context."""
    places = range(window.start, window.end + 1)
    return all(
        0 <= place < len(window.ids) and window.offsets[0][place] is None and place not in window.special
        for place in places
    )


def _words(found: Windows, window: Window, right: tuple[int, int]) -> bool:
    """Tell whether the labels count the words before the answer, in the context alone or behind [CLS]."""
    for begin, end in window.answers:
        first = len(window.context[:begin].split())
        last = first + len(window.context[begin:end].split()) - 1
        if (window.start, window.end) in ((first, last), (first, last + 1), (first + 1, last + 1)):
            return True
    return False


def _length(found: Windows, window: Window, right: tuple[int, int]) -> bool:
    return window.start == right[0] and any(
        window.end - window.start in (end - begin, end - begin - 1) for begin, end in window.answers
    )


def _other(found: Windows, window: Window, right: tuple[int, int]) -> bool:
    """Tell whether the span is that of another example's answer, read in this window."""
    number, place, together = window.origin.number, window.origin.place, found.lineage.batch
    others = {number - 2, number - 1, number + 1, number + 2}
    if place is not None:
        others |= {place, place % together} if together else {place}
    for other in others - {number}:
        row = found.lineage.sources(other)
        for answer in (found.reader.answers(row) or ()) if row else ():
            if window.tokens(answer) == (window.start, window.end):
                return True
    return False


_CAUSES = {
    "the end is the token after the answer: label its last token, as the heads of transformers expect": _exclusive,
    "the end is one token before the answer's last one: compare with its end character, which is not included": _early,
    "the start is one token off: compare each token's first character with the answer's": _start_off,
    "the labels are characters of the context, not tokens of the row: find the tokens by offset_mapping": _characters,
    "the labels lie in the question, whose offsets count from 0 like those of the context: look only at tokens whose "
    "sequence id is that of the context": _in_question,
    "the end is the start plus the number of characters of the answer: find its token by offset_mapping": _length,
    "the labels count words, not tokens of the row: find the tokens by offset_mapping": _words,
    "the labels count tokens from the start of the context: add the tokens before it": _in_context,
    "the labels were not moved by the padding at the left: pad before labels are made, or add its length": _in_batch,
    "the labels are those of another example's answer: find a window's example by overflow_to_sample_mapping": _other,
}


@probe(
    "cut-answers-have-no-span",
    group=GROUP,
    says="A window without the whole answer is labelled as having none.",
    tasks=TASK,
    budget="fast",
)
def cut_answers_have_no_span(subject: Subject) -> Finding:
    """Look at the labels of windows that do not hold an answer, or only a part of it.

    Fault: Windows that hold no answer, or a part of it, are labelled with a span. The model learns fragments as
    answers.

    Causes: Characters outside the window are clipped to its ends instead of being treated as no answer.

    Remedy: Label such windows with the null place for start and end, or leave them out.
    """
    found = windows_of(subject)
    without = [
        each
        for each in found.windows
        if not any(each.tokens(answer, place) for answer in each.answers for place in range(len(each.offsets)))
    ]
    wrong = [each for each in without if not each.null and not _disordered(each)]
    half = [each for each in wrong if not (0 <= each.start < len(each.ids) and 0 <= each.end < len(each.ids))]
    wrong = [each for each in wrong if each not in half]
    if wrong and _misplaced(subject):
        raise NotChecked("the labels are not the answers: see spans-hold-the-answer")
    if not wrong:
        return passed(f"{len(without)} windows without a whole answer are labelled as having none")
    example = wrong[0]
    seen = repr(example.text() or "tokens outside the context")
    return fail(
        f"{len(wrong)} of {len(without)} windows that do not hold the whole answer have a span: {seen}",
        cause="the span is a part of the answer or another text: label such windows with the null place, or leave them "
        f"out{found.at}",
        measured=len(wrong),
        expected=0,
        example=shown(subject, example),
    )


@probe(
    "answers-lie-in-a-window",
    group=GROUP,
    says="Every answer is whole in at least one window.",
    tasks=TASK,
    budget="fast",
)
def answers_lie_in_a_window(subject: Subject) -> Finding:
    """Count the answers that no window of their question holds.

    Fault: Answers that would fit into a window begin in one window and end in the next, and these share no token. Their
    questions are trained as having no answer.

    Causes: `stride` is not passed to the tokenizer, whose default is 0, or windows are cut by hand side by side.

    Warning: More than 1% of the answers are whole in no window, because texts are cut off, or windows overlap by fewer
    tokens than the answers have.

    Remedy: Raise `stride` to at least the length of the longest answer, raise `max_length`, or cut contexts into
    windows with `return_overflowing_tokens=True`.
    """
    found = windows_of(subject)
    groups: dict[int, list[Window]] = {}
    for window in found.windows:
        groups.setdefault(window.origin.number, []).append(window)
    asked = 0
    lost: list[Window] = []
    between: list[Window] = []
    for number, group in groups.items():
        if number not in found.lineage.complete or not group[0].answers:
            continue
        asked += 1
        if not any(each.tokens(answer) for each in group for answer in each.answers):
            lost.append(group[0])
            border = _at_a_border(group)
            if border is not None:
                between.append(border)
    if not asked:
        raise NotChecked("no question with an answer was found with all its windows")
    message = f"{len(lost)} of {asked} answers are whole in no window, so their questions are trained as having none"
    parts: dict[str, Any] = {"measured": len(lost) / asked, "expected": 0}
    if len(between) >= FEW and len(between) > NOTABLE * asked:
        return fail(
            message,
            cause=f"{len(between)} of them would fit, but begin in one window and end in the next, and these windows "
            f"share no token: let windows overlap by the length of the longest answer (stride=...){found.at}",
            **parts,
            example=shown(subject, between[0]),
        )
    if len(lost) > NOTABLE * asked:
        windows = max(len(group) for group in groups.values())
        how = (
            "raise the stride to the length of the longest answer"
            if windows > 1
            else ("raise max_length, or cut contexts into windows (return_overflowing_tokens=True, stride=...)")
        )
        return warn(message, cause=f"truncation cuts them: {how}{found.at}", **parts, example=shown(subject, lost[0]))
    return passed(f"{asked - len(lost)} of {asked} answers are whole in a window")


def _at_a_border(group: Sequence[Window]) -> Window | None:
    """Return the window in which an answer begins that ends in the next one, if these share no token and it would fit.

    Windows that overlap too little are a choice. Windows that do not overlap lose answers of any length, and to cut a
    context into windows is to say that none should be lost.
    """
    held: list[tuple[Window, list[Chars]]] = []
    for window in group:
        if len(window.offsets) != 1:
            return None  # the same tokens stand at several places of the context
        held.append((window, [pair for pair in window.offsets[0] if pair is not None and pair[0] < pair[1]]))
    held = sorted((each for each in held if each[1]), key=lambda each: each[1][0])
    for (first, before), (_, after) in pairwise(held):
        if before[-1][1] > after[0][0]:
            continue
        for begin, end in first.answers:
            tokens = [pair for pair in (*before, *after) if pair[0] < end and begin < pair[1]]
            inside = before[0][0] <= begin < before[-1][1] and after[0][0] < end <= after[-1][1]
            if inside and len(tokens) <= len(before):
                return first
    return None
