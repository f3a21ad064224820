"""Probes of masked language modelling: which tokens are chosen, how many, and whether anew in each pass."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.draws import (
    Draws,
    beyond_chance,
    draws_of,
    masked_row,
    misplaced,
    replacements,
    token_name,
    told_by_labels,
    training_draws,
    typical_row,
)
from touchstone.auditing.reading.pairs import Pair, name_of, named_value, outputs_of, place_of, rows_of_split
from touchstone.auditing.subject import IGNORED, Subject, ints

TASKS = ("masked-lm",)
GROUP = "masked language modelling"
RATE_NAMES = (
    "mlm_probability",
    "mlm_prob",
    "wwm_probability",
    "mask_probability",
    "masking_probability",
    "mask_prob",
    "masking_rate",
    "mask_rate",
    "mask_ratio",
)
WORD_SWITCHES = ("whole_word_mask", "whole_word_masking", "whole_word", "whole_words", "wwm")
USUAL = (0.05, 0.60)
"""Masking rates that are used in practice: BERT's 15%, up to 40% (Wettig et al. 2023) and a little more."""
WHOLE = 0.9


@probe(
    "mask-rate",
    group=GROUP,
    says="The share of chosen tokens is the declared masking rate.",
    tasks=TASKS,
    budget="fast",
)
def mask_rate(subject: Subject) -> Finding:
    """Compare the share of chosen tokens with the declared rate, within what chance allows at 1e-6.

    Fault: The share of chosen tokens differs from the rate that the collator declares, by more than chance allows.

    Causes: The rate is applied twice, or to all places before some are taken back. In whole-word masking, it is
    applied to tokens where words are chosen.

    Remedy: Draw once for each token that may be chosen: `torch.bernoulli(torch.full(shape, rate))`, with probability 0
    at special tokens and padding.

    Warning: The collator declares no rate, and the one that is measured is below 5% or above 60%. Look for a factor of
    ten.
    """
    draws, split = training_draws(subject)
    told_by_labels(draws)
    unknown = getattr(subject.tokenizer, "unk_token_id", None)
    words = _means_words(split.collate)
    kind = "words" if words else "tokens"
    counts = []
    for pair in draws.pairs():
        if words:
            groups = _words(subject, draws, pair)
            chosen = sum(any(pair.labels[place] != IGNORED for place in places) for places in groups)
            counts.append((chosen, len(groups), len(groups)))
            continue
        places = draws.candidates(pair)
        known = [place for place in places if draws.original(pair, place) != unknown]
        chosen = sum(pair.labels[place] != IGNORED for place in places)
        counts.append((chosen, len(places), len(known)))
    chosen, total = sum(each[0] for each in counts), sum(each[1] for each in counts)
    rate = chosen / total
    declared = named_value(split.collate, RATE_NAMES)
    if declared is None:
        if USUAL[0] <= rate <= USUAL[1]:
            return passed(f"{rate:.1%} of {total} {kind} are chosen", measured=round(rate, 4))
        return warn(
            f"{rate:.1%} of {total} {kind} are chosen; {USUAL[0]:.0%} to {USUAL[1]:.0%} are usual",
            cause="the collator declares no rate to compare with: check the rate that it is made with",
            measured=round(rate, 4),
            expected=list(USUAL),
        )
    name, expected = declared
    # Words are chosen whole and rows may be rounded to whole tokens, so the spread is also taken between rows. Some
    # collators never choose the unknown token: either count may fit.
    spread = math.sqrt(sum((each[0] - expected * each[1]) ** 2 for each in counts))
    fits = [
        not beyond_chance(chosen, of, expected, spread if len(counts) > 30 else 0)
        for of in (total, sum(each[2] for each in counts))
    ]
    rounded = abs(chosen - expected * total) <= len(counts)
    if any(fits) or rounded:
        return passed(
            f"{rate:.1%} of {total} {kind} are chosen, {name} is {expected:g}",
            measured=round(rate, 4),
            expected=expected,
        )
    if words:
        _need_whole(subject)
    where = place_of(split.collate)
    return fail(
        f"{rate:.1%} of {total} {kind} are chosen, but {name} is {expected:g}",
        cause=f"chance does not explain the difference (probability below 1e-6): {name_of(split.collate)} chooses "
        f"{rate / expected if expected else math.inf:.2f} times as many {kind} as declared"
        + (f" ({where})" if where else ""),
        measured=round(rate, 4),
        expected=expected,
    )


@probe(
    "mask-special-tokens",
    group=GROUP,
    says="Special tokens and padding are never chosen for masking.",
    tasks=TASKS,
    budget="fast",
)
def mask_special_tokens(subject: Subject) -> Finding:
    """Look for labels and masks at special tokens and at padding.

    Fault: Tokens that mark borders, or padding, are chosen for masking. The model learns to predict [SEP] and padding
    instead of text.

    Causes: A collator of your own draws over all places of the row. Or padding is added before the choice.

    Remedy: Set the probability to 0 where `tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)` is
    1; that covers padding as well.
    """
    draws, split = training_draws(subject)
    if draws.labelled_share == 0:
        raise NotChecked("no token has a label: see masks-labelled")
    seen = chosen = padding = replaced = 0
    found: tuple[Pair, list[int]] | None = None
    kinds: Counter[str] = Counter()
    for pair in draws.pairs():
        real = set(pair.real)
        for place in range(len(pair.ids)):
            original = draws.original(pair, place)
            if place in real and original not in draws.fixed:
                continue
            seen += 1
            masked = pair.ids[place] == draws.mask
            replaced += masked
            # A label of another token than the one it stands at is misplaced: masks-labelled judges it.
            own = pair.labels[place] == original or place not in real
            if masked if draws.everywhere else masked or (own and pair.labels[place] != IGNORED):
                chosen += 1
                padding += place not in real
                kinds["padding" if place not in real else token_name(subject, original)] += 1
                if found is None:
                    found = pair, [place]
    if not chosen or found is None:
        return passed(f"none of {seen} special and padding tokens is chosen", measured=0)
    if chosen == padding and not replaced:
        raise NotChecked("padding has labels, but is never masked: see padding-unlabelled")
    if misplaced(draws):
        raise NotChecked("labels stand at the tokens that were not chosen: see masks-hide-tokens")
    names = ", ".join(f"{name} {count} times" for name, count in kinds.most_common(4))
    where = place_of(split.collate)
    return fail(
        f"{chosen} of {seen} special and padding tokens are chosen for masking ({names})",
        cause="the model learns to predict tokens that mark borders and padding instead of text: give the collator "
        "special_tokens_mask, or leave out tokens in tokenizer.all_special_ids" + (f" ({where})" if where else ""),
        measured=chosen,
        expected=0,
        example=masked_row(subject, draws, found[0], found[1], "a row of a training batch"),
    )


@probe(
    "mask-whole-words",
    group=GROUP,
    says="Where whole words are meant, all pieces of a word are chosen together.",
    tasks=TASKS,
    budget="fast",
)
def mask_whole_words(subject: Subject) -> Finding:
    """Count words of several pieces of which only some are chosen.

    Fault: The collator's name or settings promise whole words, but pieces of a word are chosen apart. The visible
    piece gives the rest away.

    Causes: The words are grouped by the row's word ids, but these belong to another row, or were cut differently when
    rows were joined into chunks.

    Remedy: Keep `word_ids` as a column through the chunking, and choose words first, then all of their tokens. Make
    word ids of joined rows differ from each other.
    """
    draws, split = training_draws(subject)
    told_by_labels(draws)
    whole = part = 0
    found: tuple[Pair, list[int]] | None = None
    for pair in draws.pairs():
        for places in _words(subject, draws, pair):
            if len(places) == 1:
                continue
            chosen = [place for place in places if pair.labels[place] != IGNORED]
            if len(chosen) == len(places):
                whole += 1
            elif chosen:
                part += 1
                found = found or (pair, places)
    if whole + part < 20:
        raise NotChecked(f"only {whole + part} words of several pieces are chosen")
    share = whole / (whole + part)
    collator = split.collate
    meant = _means_words(collator)
    if share > WHOLE and not meant:
        return passed(f"{share:.0%} of {whole + part} chosen words of several pieces are chosen whole", measured=share)
    if not meant:
        return passed("tokens are chosen one by one: whole words are not meant", measured=round(share, 4))
    if part / (whole + part) <= 0.02 or found is None:
        return passed(f"all pieces of {whole} chosen words are chosen", measured=round(share, 4))
    where = place_of(collator)
    return fail(
        f"{part} of {whole + part} chosen words of several pieces are chosen in part only",
        cause=f"{name_of(collator)} means whole words, but pieces of a word are chosen apart, so the rest of "
        "the word gives it away: choose words, then all their pieces; word ids must belong to the same row"
        + (f" ({where})" if where else ""),
        measured=round(share, 4),
        expected=1.0,
        example=masked_row(subject, draws, found[0], found[1], "a row of a training batch"),
    )


def _need_whole(subject: Subject) -> None:
    """Leave it to the probe of whole words if these are chosen in part, so that more of them count as chosen."""
    try:
        part = mask_whole_words(subject).outcome == "fail"
    except NotChecked:
        return
    if part:
        raise NotChecked("words are chosen in part only: see mask-whole-words")


def _means_words(collator: Any) -> bool:
    """Say whether a collator's name or settings promise whole words."""
    said = name_of(collator).lower().replace("_", "")
    promised = any(getattr(collator, name, False) is True for name in WORD_SWITCHES)
    return promised or "wholeword" in said or "wwm" in said or named_value(collator, ["wwm_probability"]) is not None


def _words(subject: Subject, draws: Draws, pair: Pair) -> list[list[int]]:
    """Return the places of each word, as the row or the tokens themselves tell it."""
    row = pair.row or {}
    word_ids = row.get("word_ids")
    words: list[list[int]] = []
    if word_ids is not None and pair.original is not None and len(word_ids) == len(pair.original):
        before: Any = None
        for place, word in enumerate(word_ids):
            if word is not None and word == before:
                words[-1].append(place)
            elif word is not None:
                words.append([place])
            before = word
    else:
        tokens = subject.token_texts([max(draws.original(pair, place), 0) for place in pair.real])
        starts = _starts(tokens)
        for index, place in enumerate(pair.real):
            if draws.original(pair, place) in draws.fixed:
                continue
            if starts[index] or not words or words[-1][-1] != place - 1:
                words.append([place])
            else:
                words[-1].append(place)
    return words


def _starts(tokens: list[str]) -> list[bool]:
    """Say of each token whether it begins a word, by the mark that its vocabulary uses."""
    if any(token.startswith("##") for token in tokens):
        return [not token.startswith("##") for token in tokens]
    if any(token.startswith(("Ġ", "▁")) for token in tokens):
        marks = ("Ġ", "▁", "Ċ")
        return [token.startswith(marks) or not any(letter.isalnum() for letter in token) for token in tokens]
    raise NotChecked("the vocabulary does not mark where words begin, and rows have no word_ids")


@probe(
    "training-masks-differ",
    group=GROUP,
    says="Training rows are masked anew in each pass.",
    tasks=TASKS,
    budget="fast",
)
def training_masks_differ(subject: Subject) -> Finding:
    """Compare the masks of two passes over the same training rows.

    Warning: Every pass over the data shows the same masks (static masking). The model sees fewer different ones, and
    overfits sooner in a run of many epochs.

    Remedy: Mask in the collator instead of in map, and do not seed a generator within the collator.
    """
    draws, split = training_draws(subject)
    same, total = _same(draws)
    if not total:
        raise NotChecked("no token is masked: see masks-hide-tokens and masks-labelled")
    if same < total:
        return passed(f"{total - same} of {total} rows have other masks in the second pass")
    made = [each.where for each in subject.maps if each.where]
    return warn(
        f"all {total} rows have the same masks in every pass",
        cause="each epoch shows the same masks, so the model sees fewer of them (static masking): "
        + (
            "mask in the collator instead of in map"
            if split.rows(1)
            and any(each != IGNORED for each in ints(split.rows(1)[0].get("labels", [])))
            and IGNORED in ints(split.rows(1)[0].get("labels", []))
            else "do not seed the random generator in the collator"
        )
        + (f" ({made[-1]})" if made else ""),
        measured=same,
        expected=0,
    )


def _same(draws: Draws) -> tuple[int, int]:
    """Return how many rows look the same in the first two passes, of those with a mask."""
    if len(draws.passes) < 2:
        raise NotChecked("the rows were seen once only")
    same = total = 0
    for first, second in zip(draws.passes[0], draws.passes[1], strict=True):
        chosen = [place for place in first.real if first.labels[place] != IGNORED]
        if draws.everywhere:
            chosen = [place for place in first.real if first.ids[place] != draws.original(first, place)]
        if chosen:
            total += 1
            same += first.ids == second.ids and first.labels == second.labels
    return same, total


@probe(
    "evaluation-masks-same",
    group=GROUP,
    says="Evaluation rows have the same masks in every evaluation.",
    tasks=TASKS,
)
def evaluation_masks_same(subject: Subject) -> Finding:
    """Compare the masks of two passes over the evaluation rows, and measure what they do to the loss.

    Fault: No token of the evaluation batches is masked, so the model sees what it is scored on. The loss and the
    perplexity say nothing.

    Causes: The evaluation has a collator without masking, such as `default_data_collator`, on rows that were not
    masked beforehand.

    Remedy: Mask the evaluation data once, with map and a fixed seed, and evaluate with `default_data_collator` on
    that.

    Warning: Each evaluation draws other masks, as every stock Trainer does. The losses of two checkpoints then differ
    by chance; the finding shows by how much for a few rows.
    """
    split = subject.need("evaluation")
    draws = draws_of(subject, split)
    hidden = sum(replacements(draws)[0][key] for key in ("mask", "other"))
    if not hidden:
        if not sum(replacements(draws_of(subject, subject.need("train")))[0][key] for key in ("mask", "other")):
            raise NotChecked("no token is masked in training either: see masks-hide-tokens")
        return fail(
            "no token of the evaluation batches is masked",
            cause="the model sees the tokens that it is scored on, so its loss and perplexity say nothing: "
            "evaluate with the masking collator, or with masks fixed beforehand",
            example=typical_row(subject, draws),
        )
    same, total = _same(draws)
    if same == total:
        return passed(f"all {total} rows have the same masks in both passes")
    model = subject.quiet_model
    rows = rows_of_split(split, 16)
    losses = []
    for _ in range(3):
        loss = outputs_of(model, split.batch(rows)).get("loss")
        if loss is None:
            break
        losses.append(float(loss))
    size = f"; the loss of {len(rows)} rows was {', '.join(f'{each:.3f}' for each in losses)}" if losses else ""
    return warn(
        f"{total - same} of {total} evaluation rows have other masks in each pass{size}",
        cause="each evaluation scores other tokens, so losses of two epochs or two runs differ by chance: mask the "
        "evaluation data once, or give its collator a seed (every stock Trainer has this)",
        measured=max(losses) - min(losses) if losses else None,
        expected=0,
    )
