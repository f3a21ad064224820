"""Probes of masked language modelling: which tokens are chosen, replaced and labelled."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.pairs import (
    FALSE_ALARM,
    Pair,
    collated_pairs,
    labelled,
    name_of,
    named_value,
    observed_pairs,
    outputs_of,
    place_of,
    rows_of_split,
)
from touchstone.auditing.subject import IGNORED, Split, Subject, ints

TASKS = ("masked-lm",)
GROUP = "masked language modelling"
ROWS = 48
TOKENS = 40_000
SECONDS = 1.5
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
EVERYWHERE = 0.95
WHOLE = 0.9


@dataclass(frozen=True)
class Draws:
    """Several passes of the collator over the same rows.

    Args:
        passes: the rows of each pass.
        fixed: ids of tokens that mark borders or padding and are never chosen.
        mask: the id of the mask token.
    """

    passes: list[list[Pair]]
    fixed: frozenset[int]
    mask: int | None

    def pairs(self) -> list[Pair]:
        """Return the rows of all passes, or of the first one where the others repeat it."""
        return [pair for each in self.passes[: 1 if self._repeated else None] for pair in each]

    @cached_property
    def _repeated(self) -> bool:
        """The second pass has the same masks as the first, so that it tells nothing new."""
        return len(self.passes) > 1 and all(
            one.ids == two.ids and one.labels == two.labels
            for one, two in zip(self.passes[0], self.passes[1], strict=True)
        )

    def original(self, pair: Pair, place: int) -> int:
        """Return the token at a place before it was masked, also where the row was masked before the collator."""
        known = pair.original is not None and place < len(pair.original)
        if known and pair.original is not None and pair.original[place] != self.mask:
            return pair.original[place]
        return pair.labels[place] if pair.labels[place] != IGNORED else pair.ids[place]

    def candidates(self, pair: Pair) -> list[int]:
        """Return the places that may be chosen."""
        return [place for place in pair.real if self.original(pair, place) not in self.fixed]

    @cached_property
    def labelled_share(self) -> float:
        """The share of candidates that have a label."""
        labelled = total = 0
        for pair in self.pairs():
            places = self.candidates(pair)
            total += len(places)
            labelled += sum(pair.labels[place] != IGNORED for place in places)
        return labelled / max(total, 1)

    @property
    def everywhere(self) -> bool:
        """Labels are at all places, so they do not tell which places were chosen."""
        return self.labelled_share > EVERYWHERE


def draws_of(subject: Subject, split: Split) -> Draws:
    """Run the collator several times over the same rows of a split."""
    return subject.once(f"masked draws of {split.name}", lambda: _drawn(subject, split))


def _drawn(subject: Subject, split: Split) -> Draws:
    tokenizer = subject.need("tokenizer")
    fixed = frozenset(
        each
        for name in ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
        if (each := getattr(tokenizer, name, None)) is not None
    )
    mask = getattr(tokenizer, "mask_token_id", None)
    try:
        rows = rows_of_split(split, ROWS)
    except NotChecked:
        if not split.observed:
            raise
        return _with_labels(Draws([observed_pairs(split)], fixed, mask))
    if split.observed and not labelled(collated_pairs(split, rows[:2])):
        return _with_labels(Draws([observed_pairs(split)], fixed, mask))  # the loop masks, behind the collator
    passes: list[list[Pair]] = []
    seen, started = 0, time.monotonic()
    while len(passes) < 2 or (seen < TOKENS and time.monotonic() - started < SECONDS and len(passes) < 60):
        made = collated_pairs(split, rows)
        passes.append(made)
        seen += sum(len(pair.real) for pair in made)
    return _with_labels(Draws(passes, fixed, mask))


def _with_labels(draws: Draws) -> Draws:
    if not all(len(pair.labels) == len(pair.ids) for pair in draws.pairs()):
        raise NotChecked("batches have no labels, or not one for each token")
    return draws


def _training(subject: Subject) -> tuple[Draws, Split]:
    split = subject.need("train")
    return draws_of(subject, split), split


def _told_by_labels(draws: Draws) -> None:
    """Stop where labels do not tell which tokens were chosen."""
    if draws.everywhere:
        raise NotChecked("every token has a label, so labels do not tell which tokens are masked: see masks-labelled")
    if draws.labelled_share == 0:
        raise NotChecked("no token has a label: see masks-labelled")


def _example(subject: Subject, draws: Draws, pair: Pair, marked: list[int], caption: str) -> Example:
    middle = marked[0] if marked else 0
    places = range(max(0, middle - 8), min(len(pair.ids), middle + 12))
    original = subject.token_texts([draws.original(pair, place) for place in places])
    shown = subject.token_texts([pair.ids[place] for place in places])
    labels = [
        "-100" if pair.labels[place] == IGNORED else subject.token_texts([pair.labels[place]])[0] for place in places
    ]
    return Example(
        ("place", "token", "model input", "label"),
        list(zip(places, original, shown, labels, strict=True)),
        marked=[index for index, place in enumerate(places) if place in marked],
        caption=caption,
    )


def _outside(count: float, total: int, share: float, spread: float = 0.0) -> bool:
    """Say whether a count differs from its expectation by more than chance allows, at 1e-6."""
    deviation = max(math.sqrt(total * share * (1 - share)), spread)
    return abs(count - total * share) > FALSE_ALARM * deviation + 1


@probe(
    "masks-labelled",
    group=GROUP,
    says="Only chosen tokens have labels, and a label is the token before it was masked.",
    tasks=TASKS,
    budget="fast",
)
def masks_labelled(subject: Subject) -> Finding:
    """Compare labels with the tokens before the collator, and look for labels at tokens that were not chosen."""
    draws, split = _training(subject)
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
            example=_example(subject, draws, pairs[0], [], "a row of a training batch"),
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
            f"{_token(subject, draws.mask)}: mask once, and copy the labels before it",
            measured=round(masked / seen, 4),
            expected=0,
            example=_example(subject, draws, pair, places, "a row of a training batch"),
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
                example=_example(subject, draws, pair, off, "a row of a training batch"),
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


def _token(subject: Subject, id: int | None) -> str:
    return "no token" if id is None else subject.token_texts([id])[0]


@probe(
    "masks-hide-tokens",
    group=GROUP,
    says="The model's input does not hold the tokens that it must predict.",
    tasks=TASKS,
    budget="fast",
)
def masks_hide_tokens(subject: Subject) -> Finding:
    """Count how chosen tokens look in the model's input: mask token, another token, or unchanged."""
    draws, split = _training(subject)
    if draws.labelled_share == 0:
        raise NotChecked("no token has a label: see masks-labelled")
    counts, others = _shares(draws)
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
                example=_example(subject, draws, draws.pairs()[0], [], "a row of a training batch"),
            )
        raise NotChecked("every token has a label, so labels do not tell which tokens are masked: see masks-labelled")
    if counts["kept"] == total:
        inverted = _inverted(draws)
        if inverted:
            return fail(
                f"{inverted} masked tokens have no label, and all {total} tokens with a label stand unmasked",
                cause=f"the loss is over the tokens that were not chosen: set labels to -100 there instead{where}",
                measured=measured,
                example=_shown(subject, draws),
            )
        return fail(
            f"all {total} tokens with a label stand unmasked in the model's input",
            cause=f"the model sees each token that it must predict: replace the chosen tokens in input_ids{where}",
            measured=measured,
            example=_shown(subject, draws),
        )
    common, times = others.most_common(1)[0] if others else (None, 0)
    if common is not None and times > 0.2 * total and common != draws.mask:
        return fail(
            f"chosen tokens are replaced by {_token(subject, common)!r} (id {common}), which is not the mask token",
            cause=f"{times / total:.0%} of the chosen tokens become id {common}; the tokenizer's mask token is "
            f"{_token(subject, draws.mask)!r} (id {draws.mask}): use tokenizer.mask_token_id{where}",
            measured={**measured, "id": common},
            expected=draws.mask,
            example=_shown(subject, draws),
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
            example=_shown(subject, draws),
        )
    return passed(f"of {total} chosen tokens: {text}, as declared", measured=measured, expected=expected)


def _inverted(draws: Draws) -> int:
    """Return the number of masked tokens, if none of them has a label."""
    masked = [pair.labels[place] for pair in draws.pairs() for place in pair.real if pair.ids[place] == draws.mask]
    return len(masked) if all(label == IGNORED for label in masked) else 0


def labels_elsewhere(subject: Subject) -> bool:
    """Say whether labels stand at all tokens, or at those that were not chosen."""
    try:
        draws, _ = _training(subject)
    except NotChecked:
        return False
    return draws.everywhere or bool(_inverted(draws))


def _shown(subject: Subject, draws: Draws) -> Example:
    pair = max(draws.passes[0], key=lambda each: sum(each.labels[place] != IGNORED for place in each.real))
    marked = [place for place in pair.real if pair.labels[place] != IGNORED]
    return _example(subject, draws, pair, marked, "a row of a training batch")


def _shares(draws: Draws) -> tuple[Counter[str], Counter[int]]:
    """Count chosen tokens by what stands in their place, and the other tokens that stand there."""
    counts: Counter[str] = Counter()
    others: Counter[int] = Counter()
    for pair in draws.pairs():
        for place in pair.real:
            if pair.labels[place] == IGNORED:
                continue
            if pair.ids[place] == draws.mask:
                counts["mask"] += 1
            elif pair.ids[place] == pair.labels[place]:
                counts["kept"] += 1
            else:
                counts["other"] += 1
                others[pair.ids[place]] += 1
    return counts, others


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
        if abs(counts[key] - total * share) > slack and _outside(
            counts[key] + (slack if counts[key] < total * share else -slack), total, share
        ):
            return True
    return False


@probe(
    "mask-rate",
    group=GROUP,
    says="The share of chosen tokens is the declared masking rate.",
    tasks=TASKS,
    budget="fast",
)
def mask_rate(subject: Subject) -> Finding:
    """Compare the share of chosen tokens with the declared rate, within what chance allows at 1e-6."""
    draws, split = _training(subject)
    _told_by_labels(draws)
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
        not _outside(chosen, of, expected, spread if len(counts) > 30 else 0)
        for of in (total, sum(each[2] for each in counts))
    ]
    rounded = abs(chosen - expected * total) <= len(counts)
    if any(fits) or rounded:
        return passed(
            f"{rate:.1%} of {total} {kind} are chosen, {name} is {expected:g}",
            measured=round(rate, 4),
            expected=expected,
        )
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
    """Look for labels and masks at special tokens and at padding."""
    draws, split = _training(subject)
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
                kinds["padding" if place not in real else _token(subject, original)] += 1
                if found is None:
                    found = pair, [place]
    if not chosen or found is None:
        return passed(f"none of {seen} special and padding tokens is chosen", measured=0)
    if chosen == padding and not replaced:
        raise NotChecked("padding has labels, but is never masked: see padding-unlabelled")
    if _inverted(draws):
        raise NotChecked("labels stand at the tokens that were not chosen: see masks-hide-tokens")
    names = ", ".join(f"{name} {count} times" for name, count in kinds.most_common(4))
    where = place_of(split.collate)
    return fail(
        f"{chosen} of {seen} special and padding tokens are chosen for masking ({names})",
        cause="the model learns to predict tokens that mark borders and padding instead of text: give the collator "
        "special_tokens_mask, or leave out tokens in tokenizer.all_special_ids" + (f" ({where})" if where else ""),
        measured=chosen,
        expected=0,
        example=_example(subject, draws, found[0], found[1], "a row of a training batch"),
    )


@probe(
    "mask-whole-words",
    group=GROUP,
    says="Where whole words are meant, all pieces of a word are chosen together.",
    tasks=TASKS,
    budget="fast",
)
def mask_whole_words(subject: Subject) -> Finding:
    """Count words of several pieces of which only some are chosen."""
    draws, split = _training(subject)
    _told_by_labels(draws)
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
        example=_example(subject, draws, found[0], found[1], "a row of a training batch"),
    )


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
    """Compare the masks of two passes over the same training rows."""
    draws, split = _training(subject)
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
    """Compare the masks of two passes over the evaluation rows, and measure what they do to the loss."""
    split = subject.need("evaluation")
    draws = draws_of(subject, split)
    hidden = sum(_shares(draws)[0][key] for key in ("mask", "other"))
    if not hidden:
        if not sum(_shares(draws_of(subject, subject.need("train")))[0][key] for key in ("mask", "other")):
            raise NotChecked("no token is masked in training either: see masks-hide-tokens")
        return fail(
            "no token of the evaluation batches is masked",
            cause="the model sees the tokens that it is scored on, so its loss and perplexity say nothing: "
            "evaluate with the masking collator, or with masks fixed beforehand",
            example=_shown(subject, draws),
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
