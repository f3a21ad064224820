"""Probes of masked language modelling: what stands in place of a chosen token, and what its label is."""

from __future__ import annotations

from collections import Counter
from typing import Any

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.draws import (
    Draws,
    beyond_chance,
    masked_row,
    misplaced,
    replacements,
    token_name,
    training_draws,
    typical_row,
)
from touchstone.auditing.reading.pairs import Pair, name_of, named_value, place_of
from touchstone.auditing.subject import IGNORED, Subject, ints

TASKS = ("masked-lm",)
GROUP = "masked language modelling"


@probe(
    "masks-labelled",
    group=GROUP,
    says="Only chosen tokens have labels, and a label is the token before it was masked.",
    tasks=TASKS,
    budget="fast",
)
def masks_labelled(subject: Subject) -> Finding:
    """Compare labels with the tokens before the collator, and look for labels at tokens that were not chosen.

    Fault: Labels are not those of masked language modelling: no token has one, every token has one, or the label is
    not the token that was there. With labels everywhere, the model mostly learns to copy.

    Causes: A collator of your own masks before it copies the labels, or never sets the labels of the other tokens to
    -100. Or the result of masking is computed and not assigned.

    Remedy: In this order: `labels = input_ids.clone()`, choose the places, `labels[~chosen] = -100`, and only then
    replace tokens in input_ids. `DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)` does all of it.
    """
    draws, split = training_draws(subject)
    pairs = draws.pairs()
    if draws.labelled_share == 0:
        if any(each != IGNORED for pair in pairs for each in pair.labels):
            raise NotChecked("labels stand only where attention_mask is 0: see mask-marks-padding")
        return fail(
            "no token of the training batches has a label",
            cause="nothing is masked, so there is nothing to learn: use DataCollatorForLanguageModeling(tokenizer, "
            "mlm_probability=0.15), or set labels at the masked tokens",
            measured=0,
        )
    if draws.everywhere:
        changed = sum(
            pair.ids[place] != draws.original(pair, place) for pair in pairs for place in draws.candidates(pair)
        )
        total = sum(len(draws.candidates(pair)) for pair in pairs)
        if not changed and not any(pair.ids[place] == draws.mask for pair in pairs for place in pair.real):
            raise NotChecked("no token is masked: see masks-hide-tokens")
        where = place_of(split.collate)
        return fail(
            f"{draws.labelled_share:.0%} of the tokens have a label, not only the masked ones",
            cause=f"{changed / total:.0%} of the tokens are replaced, but the loss is over all, and copying the "
            "visible ones dominates it: set labels to -100 where nothing was chosen" + (f" ({where})" if where else ""),
            measured=round(draws.labelled_share, 4),
            expected=round(changed / total, 4),
            example=masked_row(subject, draws, pairs[0], [], "a row of a training batch"),
        )
    wrong: list[tuple[Pair, list[int]]] = []
    seen = masked = 0
    for pair in pairs:
        places = [place for place in pair.real if pair.labels[place] != IGNORED]
        seen += len(places)
        masked += sum(pair.labels[place] == draws.mask for place in places)
        if pair.original is not None:
            off = [place for place in places if pair.labels[place] != pair.original[place]]
            if off:
                wrong.append((pair, off))
    if seen and masked / seen > 0.02:
        pair = next(each for each in pairs if draws.mask in each.labels)
        places = [place for place in pair.real if pair.labels[place] == draws.mask]
        return fail(
            f"{masked / seen:.0%} of the labels are the mask token itself",
            cause="the tokens were masked before the labels were copied from them, so the model learns to predict "
            f"{token_name(subject, draws.mask)}: mask once, and copy the labels before it",
            measured=round(masked / seen, 4),
            expected=0,
            example=masked_row(subject, draws, pair, places, "a row of a training batch"),
        )
    if wrong:
        pair, off = wrong[0]
        count = sum(len(each) for _, each in wrong)
        if not _already_masked(draws, wrong):
            return fail(
                f"{count} of {seen} labels are not the token that was there before the collator",
                cause="labels are not copied from the same places of the unmasked row: make labels of input_ids before "
                "any token is replaced, and keep their order",
                measured=count,
                expected=0,
                example=masked_row(subject, draws, pair, off, "a row of a training batch"),
            )
    if not any(pair.original is not None for pair in pairs):
        return passed(
            f"{draws.labelled_share:.1%} of the tokens have labels; rows have no token ids to compare them with"
        )
    return passed(f"{seen} labels are the tokens before masking, and {draws.labelled_share:.1%} of the tokens have one")


def _already_masked(draws: Draws, wrong: list[tuple[Pair, list[int]]]) -> bool:
    """Say whether the rows were masked before the collator got them, so that their ids are not the originals."""
    if all(IGNORED in ints((pair.row or {}).get("labels", ())) for pair, _ in wrong):
        return True
    before = [pair.original[place] for pair, off in wrong for place in off if pair.original is not None]
    return sum(each == draws.mask for each in before) > 0.5 * len(before)


@probe(
    "masks-hide-tokens",
    group=GROUP,
    says="The model's input does not hold the tokens that it must predict.",
    tasks=TASKS,
    budget="fast",
)
def masks_hide_tokens(subject: Subject) -> Finding:
    """Count how chosen tokens look in the model's input: mask token, another token, or unchanged.

    Fault: The model sees the tokens that it must predict, or the share of masked, random and unchanged tokens is not
    the declared one. A model that sees the answer learns to copy it, with a loss near 0.

    Causes: `DataCollatorForLanguageModeling` is made with mlm=False. Or labels are set and the tokens are not
    replaced, or they are replaced by another token than the tokenizer's mask.

    Remedy: Use `DataCollatorForLanguageModeling(tokenizer, mlm=True)`, or replace the chosen tokens by
    `tokenizer.mask_token_id`.

    Warning: The collator declares no shares, and they are neither BERT's (80% masked, 10% random, 10% unchanged) nor
    all masked. Fine if it is meant.
    """
    draws, split = training_draws(subject)
    if draws.labelled_share == 0:
        raise NotChecked("no token has a label: see masks-labelled")
    counts, others = replacements(draws)
    total = sum(counts.values())
    collator = split.collate
    where = f" ({place_of(collator)})" if place_of(collator) else ""
    measured = {key: round(counts[key] / total, 4) for key in ("mask", "other", "kept")}
    if draws.everywhere:
        hidden = counts["mask"] + counts["other"]
        if hidden == 0:
            hint = (
                "mlm=False makes labels for a causal model"
                if getattr(collator, "mlm", None) is False
                else "nothing is masked"
            )
            return fail(
                "no token of the model's input is masked, and every token has itself as its label",
                cause=f"{hint}, so the model learns to copy what it sees: use "
                f"DataCollatorForLanguageModeling(tokenizer, mlm=True), or mask before the model{where}",
                measured=measured,
                example=masked_row(subject, draws, draws.pairs()[0], [], "a row of a training batch"),
            )
        raise NotChecked("every token has a label, so labels do not tell which tokens are masked: see masks-labelled")
    if counts["kept"] == total:
        if missed := misplaced(draws):
            return fail(
                f"{missed} masked tokens have no label, and all {total} tokens with a label stand unmasked",
                cause=f"the loss is over the tokens that were not chosen: set labels to -100 there instead{where}",
                measured=measured,
                example=typical_row(subject, draws),
            )
        return fail(
            f"all {total} tokens with a label stand unmasked in the model's input",
            cause=f"the model sees each token that it must predict: replace the chosen tokens in input_ids{where}",
            measured=measured,
            example=typical_row(subject, draws),
        )
    common, times = others.most_common(1)[0] if others else (None, 0)
    if common is not None and times > 0.2 * total and common != draws.mask:
        return fail(
            f"chosen tokens are replaced by {token_name(subject, common)!r} (id {common}), which is not the mask token",
            cause=f"{times / total:.0%} of the chosen tokens become id {common}; the tokenizer's mask token is "
            f"{token_name(subject, draws.mask)!r} (id {draws.mask}): use tokenizer.mask_token_id{where}",
            measured={**measured, "id": common},
            expected=draws.mask,
            example=typical_row(subject, draws),
        )
    size = len(subject.need("tokenizer")) or 1
    declared = _declared_shares(collator)
    text = f"{measured['mask']:.1%} masked, {measured['other']:.1%} another token, {measured['kept']:.1%} unchanged"
    if declared is None:
        for shares in ((0.8, 0.1, 0.1), (1.0, 0.0, 0.0)):
            if not _differs(counts, total, shares, size):
                return passed(f"of {total} chosen tokens: {text}", measured=measured)
        return warn(
            f"of {total} chosen tokens: {text}; BERT's shares are 80%, 10%, 10%",
            cause="the collator declares no shares (mask_replace_prob, random_replace_prob) to compare with" + where,
            measured=measured,
            expected={"mask": 0.8, "other": 0.1, "kept": 0.1},
        )
    expected = dict(zip(("mask", "other", "kept"), declared, strict=True))
    if _differs(counts, total, declared, size):
        return fail(
            f"of {total} chosen tokens: {text}; declared are {declared[0]:.0%}, {declared[1]:.0%}, {declared[2]:.0%}",
            cause=f"the difference is beyond chance (probability below 1e-6): {name_of(collator)} does not do what its "
            f"mask_replace_prob and random_replace_prob say{where}",
            measured=measured,
            expected=expected,
            example=typical_row(subject, draws),
        )
    return passed(f"of {total} chosen tokens: {text}, as declared", measured=measured, expected=expected)


def _declared_shares(collator: Any) -> tuple[float, float, float] | None:
    masked, random = named_value(collator, ["mask_replace_prob"]), named_value(collator, ["random_replace_prob"])
    if masked is None or random is None:
        return None
    if masked[1] >= 1:
        return 1.0, 0.0, 0.0
    return masked[1], random[1], max(0.0, 1 - masked[1] - random[1])


def _differs(counts: Counter[str], total: int, shares: tuple[float, float, float], size: int) -> bool:
    # A random token is the right one, or the mask token, once in a vocabulary.
    slack = 2 * total * shares[1] / size
    for key, share in zip(("mask", "other", "kept"), shares, strict=True):
        if abs(counts[key] - total * share) > slack and beyond_chance(
            counts[key] + (slack if counts[key] < total * share else -slack), total, share
        ):
            return True
    return False
