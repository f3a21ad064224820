"""Bugs of finding the answer in logits."""

from __future__ import annotations

from typing import Any

import touchstone.stages
from tests.independent.spans import best_spans, pick_answer
from tests.planted.bug import planted

EVERYTHING = 10**6


def all_spans(start_logits: Any, options: Any) -> list[tuple[int, int, int, float]]:
    """Every valid span, the best first."""
    return best_spans(start_logits, **{**options, "n_best": EVERYTHING})


def likeliest(values: Any, count: int) -> set[int]:
    return set(sorted(range(len(values)), key=lambda at: -values[at])[:count])


# Which spans -------------------------------------------------------------------------------------------------------


@planted("best_spans", caught_by="N2")
def likeliest_starts_and_ends_only(start_logits, *, n_best=20, **options):
    """Only the `n_best` likeliest starts and ends of a window are used: other good pairs are missed, and if all these
    pairs are invalid, there is no answer."""
    best_spans(start_logits, n_best=n_best, **options)
    ends = options["end_logits"]
    top = [(likeliest(s, n_best), likeliest(e, n_best)) for s, e in zip(start_logits, ends, strict=True)]
    found = all_spans(start_logits, options)
    return [span for span in found if span[1] in top[span[0]][0] and span[2] in top[span[0]][1]][:n_best]


@planted("best_spans", caught_by="N1 N2")
def end_may_stand_before_the_start(start_logits, *, n_best=20, **options):
    """Starts and ends are chosen without regard to each other: an answer may end before it begins."""
    found = all_spans(start_logits, options)
    backwards = [
        (window, last, first, float(start_logits[window][last]) + float(options["end_logits"][window][first]))
        for window, first, last, _ in found
        if first < last
    ]
    return sorted([*found, *backwards], key=lambda span: (-span[3], span))[:n_best]


@planted("best_spans", caught_by="N2")
def answers_one_token_too_long(start_logits, *, max_answer_length=30, **options):
    """`last - first <= max_answer_length`: an answer may have one token too many."""
    best_spans(start_logits, max_answer_length=max_answer_length, **options)
    return best_spans(start_logits, max_answer_length=max_answer_length + 1, **options)


@planted("best_spans", caught_by="N2")
def answers_one_token_too_short(start_logits, *, max_answer_length=30, **options):
    """`last - first < max_answer_length - 1`: the longest answers that are allowed are not found."""
    best_spans(start_logits, max_answer_length=max_answer_length, **options)
    return best_spans(start_logits, max_answer_length=max(max_answer_length - 1, 1), **options)


@planted("best_spans", caught_by="N1 N2")
def tokens_outside_the_context_answer(start_logits, *, offsets, n_best=20, **options):
    """Tokens of the question, and special ones, can be an answer."""
    whole = [[(0, 1) if pair is None else pair for pair in row] for row in offsets]
    return best_spans(start_logits, offsets=whole, n_best=n_best, **options)


@planted("best_spans", caught_by="N1 N5", evidence="huggingface/notebooks#141")
def tokens_without_characters_answer(start_logits, *, offsets, **options):
    """Tokens without characters can be an answer, whose text is then empty."""
    whole = [[pair and (pair[0], max(pair[1], pair[0] + 1)) for pair in row] for row in offsets]
    return best_spans(start_logits, offsets=whole, **options)


@planted("best_spans", caught_by="N2")
def best_of_each_window_only(start_logits, *, n_best=20, **options):
    """Only one span of each window is kept."""
    best_spans(start_logits, n_best=n_best, **options)
    seen: set[int] = set()
    kept = [span for span in all_spans(start_logits, options) if not (span[0] in seen or seen.add(span[0]))]
    return kept[:n_best]


@planted("best_spans", caught_by="N2")
def last_window_only(start_logits, **options):
    """The windows of an example overwrite each other: the last one's spans remain."""
    found = all_spans(start_logits, options)
    return [span for span in found if span[0] == len(start_logits) - 1][: options.get("n_best", 20)]


@planted("best_spans", caught_by="N2 N4")
def scores_multiplied(start_logits, *, end_logits, n_best=20, **options):
    """Scores are products of logits, not sums: two bad ones make a good one."""
    right = all_spans(start_logits, {"end_logits": end_logits, **options})
    scored = [(w, f, t, float(start_logits[w][f]) * float(end_logits[w][t])) for w, f, t, _ in right]
    best_spans(start_logits, end_logits=end_logits, n_best=n_best, **options)
    return sorted(scored, key=lambda span: (-span[3], span))[:n_best]


@planted("best_spans", caught_by="N4")
def negative_scores_dropped(start_logits, **options):
    """The best score starts at 0, so that spans with a negative score are never found."""
    return [span for span in best_spans(start_logits, **options) if span[3] > 0]


@planted("best_spans", caught_by="N3")
def ties_by_the_latest(start_logits, *, n_best=20, **options):
    """The last of equal scores is taken, as if sorted in ascending order and reversed."""
    best_spans(start_logits, n_best=n_best, **options)
    found = all_spans(start_logits, options)
    return sorted(found, key=lambda span: (span[3], span), reverse=True)[:n_best]


@planted("best_spans", caught_by="N9")
def not_a_number_is_little(start_logits, *, end_logits, **options):
    """NaN is treated as a very small number: a diverged model still answers."""
    usable = [[-1e9 if value != value else min(value, 1e9) for value in row] for row in end_logits]
    return best_spans(start_logits, end_logits=usable, **options)


@planted("best_spans", caught_by="N9")
def at_least_one_span(start_logits, *, n_best=20, max_answer_length=30, **options):
    """Limits below 1 are silently raised to 1."""
    return best_spans(start_logits, n_best=max(n_best, 1), max_answer_length=max(max_answer_length, 1), **options)


@planted("best_spans", caught_by="N10")
def logits_masked_in_place(start_logits, *, end_logits, offsets, **options):
    """The logits outside the context are set to a very small number in the caller's lists."""
    found = best_spans(start_logits, end_logits=end_logits, offsets=offsets, **options)
    for row, pairs in zip(start_logits, offsets, strict=True):
        for at, pair in enumerate(pairs):
            if pair is None and not isinstance(row, tuple):
                row[at] = -1e4
    return found


# The text ----------------------------------------------------------------------------------------------------------


def answered(right: Any, context: Any, start: int, end: int) -> dict[str, Any]:
    return {**right, "text": context[start:end], "start": start, "end": end}


@planted("pick_answer", caught_by="N5", evidence="huggingface/notebooks#141")
def the_word_empty(start_logits, **options):
    """If there is no valid span, the answer is the word "empty"."""
    right = pick_answer(start_logits, **options)
    valid = best_spans(start_logits, end_logits=options["end_logits"], offsets=options["offsets"], n_best=1)
    return right if valid else {**right, "text": "empty"}


@planted("pick_answer", caught_by="N5", evidence="huggingface/optimum-graphcore#44")
def index_error_without_a_span(start_logits, *, end_logits, offsets, **options):
    """The first of the valid spans is taken without checking that it exists."""
    best_spans(start_logits, end_logits=end_logits, offsets=offsets, n_best=1)[0]
    return pick_answer(start_logits, end_logits=end_logits, offsets=offsets, **options)


@planted("pick_answer", caught_by="N7")
def likeliest_twenty_only(start_logits, *, end_logits, offsets, context, **options):
    """Only the 20 likeliest starts and ends of a window are paired: the best span may be made of neither."""
    right = pick_answer(start_logits, end_logits=end_logits, offsets=offsets, context=context, **options)
    low = float("-inf")
    starts, ends = (
        [[value if at in likeliest(row, 20) else low for at, value in enumerate(row)] for row in rows]
        for rows in (start_logits, end_logits)
    )
    limit = {name: value for name, value in options.items() if name == "max_answer_length"}
    best = best_spans(starts, end_logits=ends, offsets=offsets, n_best=1, **limit)
    if best and best[0][3] == low:
        return {"text": "", "start": 0, "end": 0, "score": 0.0}
    return pick_answer(starts, end_logits=ends, offsets=offsets, context=context, **options) if best else right


@planted("pick_answer", caught_by="N7")
def answers_of_fifteen_tokens_by_default(start_logits, *, max_answer_length=15, **options):
    """The default of `max_answer_length` is another one."""
    return pick_answer(start_logits, max_answer_length=max_answer_length, **options)


@planted("best_spans", caught_by="N2")
def spans_of_fifty_tokens_by_default(start_logits, *, max_answer_length=50, **options):
    """The default of `max_answer_length` is another one."""
    return best_spans(start_logits, max_answer_length=max_answer_length, **options)


@planted("pick_answer", caught_by="N6 N7")
def last_character_lost(start_logits, *, context, **options):
    """The end is treated as the index of the last character, and that is left out."""
    right = pick_answer(start_logits, context=context, **options)
    return answered(right, context, right["start"], max(right["end"] - 1, right["start"]))


@planted("pick_answer", caught_by="N6 N7")
def one_character_too_many(start_logits, *, context, **options):
    """The end is treated as the index of the last character, and the next one is read too."""
    right = pick_answer(start_logits, context=context, **options)
    return right if right["end"] == 0 else answered(right, context, right["start"], right["end"] + 1)


@planted("pick_answer", caught_by="N7")
def text_stripped_but_not_its_place(start_logits, *, context, **options):
    """The text loses the blanks at its ends and no longer matches its characters."""
    right = pick_answer(start_logits, context=context, **options)
    return {**right, "text": right["text"].strip(" ,.()\n")}


@planted("pick_answer", caught_by="N7")
def tokens_joined_by_blanks(start_logits, *, context, end_logits, offsets, **options):
    """The text is put together from its tokens with a blank between them: neither case nor blanks are the context's."""
    right = pick_answer(start_logits, context=context, end_logits=end_logits, offsets=offsets, **options)
    return {**right, "text": " ".join(right["text"].replace(",", " ,").split())}


@planted("pick_answer", caught_by="N6 N7")
def first_windows_offsets(start_logits, *, offsets, context, **options):
    """The best span's tokens are looked up in the first window, whichever it is in."""
    right = pick_answer(start_logits, offsets=offsets, context=context, **options)
    limits = {name: options[name] for name in ("end_logits", "max_answer_length") if name in options}
    best = best_spans(start_logits, offsets=offsets, n_best=1, **limits)
    if not best or right["end"] == 0 or not max(best[0][1:3]) < len(offsets[0]):
        return right
    left, last = offsets[0][best[0][1]], offsets[0][best[0][2]]
    return answered(right, context, left[0], last[1]) if left and last else right


# No answer ---------------------------------------------------------------------------------------------------------


@planted("pick_answer", caught_by="N8", evidence="huggingface/transformers#1282")
def null_score_at_zero(start_logits, *, end_logits, cls=None, **options):
    """The score of "no answer" is read at position 0, although the CLS may be elsewhere."""
    right = pick_answer(start_logits, end_logits=end_logits, cls=cls, **options)
    if cls is None or not len(cls):
        return right
    return pick_answer(start_logits, end_logits=end_logits, cls=[0] * len(cls), **options)


@planted("pick_answer", caught_by="N8")
def null_score_of_the_first_window(start_logits, *, end_logits, offsets, cls=None, **options):
    """ "No answer" competes with its score in the first window, not with the smallest."""
    right = pick_answer(start_logits, end_logits=end_logits, offsets=offsets, cls=cls, **options)
    if cls is None or not len(cls):
        return right
    kept = {name: value for name, value in options.items() if name != "null_threshold"}
    best = pick_answer(start_logits, end_logits=end_logits, offsets=offsets, **kept)
    null = float(start_logits[0][cls[0]]) + float(end_logits[0][cls[0]])
    wins = best["end"] == 0 or null - best["score"] > options.get("null_threshold", 0.0)
    return {"text": "", "start": 0, "end": 0, "score": null} if wins else best


@planted("pick_answer", caught_by="N8")
def threshold_ignored(start_logits, *, null_threshold=0.0, **options):
    """The threshold is left at 0."""
    return pick_answer(start_logits, **options)


@planted("pick_answer", caught_by="N6 N8")
def no_answer_wins_ties(start_logits, *, null_threshold=0.0, **options):
    """ "No answer" wins if it is not below the best span by more than 20: nearly always."""
    return pick_answer(start_logits, null_threshold=null_threshold - 20, **options)


@planted("pick_answer", caught_by="N9")
def text_cut_at_the_contexts_end(start_logits, *, context, **options):
    """Offsets of another context are not noticed: slicing never fails."""
    padded = str(context) + " " * 1000
    right = pick_answer(start_logits, context=padded, **options)
    end = min(right["end"], len(context))
    return {**right, "text": context[right["start"] : end], "end": end}


@planted("pick_answer", caught_by="N10")
def cls_used_up(start_logits, *, cls=None, **options):
    """The caller's list of `cls` is emptied."""
    right = pick_answer(start_logits, cls=cls, **options)
    if isinstance(cls, list):
        cls.clear()
    return right


@planted("best_spans_batch", caught_by="N11", base=touchstone.stages)
def twin_crosses_windows(start_logits, *, end_logits, starts, ends, **options):
    """The batched version lets an answer end in the next window."""
    right = touchstone.stages.best_spans_batch(start_logits, end_logits=end_logits, starts=starts, ends=ends, **options)
    joined = [type(side).from_lists([side.values.tolist()]) for side in (starts, ends)]
    whole = touchstone.stages.best_spans_batch(
        start_logits, end_logits=end_logits, starts=joined[0], ends=joined[1], **options
    )
    if not len(right["score"]) or whole["first"][0] < 0:
        return right
    row = int(starts.rows[whole["first"][0]])
    for name in ("first", "last"):
        right[name][row] = whole[name][0] - starts.offsets[row]
    right["score"][row] = whole["score"][0]
    return right


@planted("best_spans_batch", caught_by="N11", base=touchstone.stages)
def twin_takes_infinity(start_logits, *, end_logits, **options):
    """The batched version lets NaN and infinity pass."""
    usable = end_logits.copy()
    usable[~(usable < float("inf"))] = 0.0
    return touchstone.stages.best_spans_batch(start_logits, end_logits=usable, **options)


@planted("pick_answer_batch", caught_by="N11", base=touchstone.stages)
def twin_takes_the_first_window(spans, *, example, **options):
    """The batched version answers from the first window of each example, not from the best."""
    right = touchstone.stages.pick_answer_batch(spans, example=example, **options)
    first_rows = {int(number): row for row, number in reversed(list(enumerate(example)))}
    level = spans["score"].copy()
    for row in first_rows.values():
        level[row] = max(level[row], 100.0) if spans["first"][row] >= 0 else level[row]
    wrong = touchstone.stages.pick_answer_batch({**spans, "score": level}, example=example, **options)
    return [{**w, "score": r["score"]} for w, r in zip(wrong, right, strict=True)]
