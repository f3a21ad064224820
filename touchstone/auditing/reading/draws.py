"""Several passes of a masking collator over the same rows, and what they choose."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from touchstone.auditing.finding import Example, NotChecked
from touchstone.auditing.reading.pairs import FALSE_ALARM, Pair, collated_pairs, labelled, observed_pairs, rows_of_split
from touchstone.auditing.subject import IGNORED, Split, Subject

ROWS = 48
TOKENS = 40_000
SECONDS = 1.5
EVERYWHERE = 0.95


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


def training_draws(subject: Subject) -> tuple[Draws, Split]:
    split = subject.need("train")
    return draws_of(subject, split), split


def told_by_labels(draws: Draws) -> None:
    """Stop where labels do not tell which tokens were chosen."""
    if draws.everywhere:
        raise NotChecked("every token has a label, so labels do not tell which tokens are masked: see masks-labelled")
    if draws.labelled_share == 0:
        raise NotChecked("no token has a label: see masks-labelled")


def masked_row(subject: Subject, draws: Draws, pair: Pair, marked: list[int], caption: str) -> Example:
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


def beyond_chance(count: float, total: int, share: float, spread: float = 0.0) -> bool:
    """Say whether a count differs from its expectation by more than chance allows, at 1e-6."""
    deviation = max(math.sqrt(total * share * (1 - share)), spread)
    return abs(count - total * share) > FALSE_ALARM * deviation + 1


def token_name(subject: Subject, id: int | None) -> str:
    return "no token" if id is None else subject.token_texts([id])[0]


def misplaced(draws: Draws) -> int:
    """Return the number of masked tokens, if none of them has a label."""
    masked = [pair.labels[place] for pair in draws.pairs() for place in pair.real if pair.ids[place] == draws.mask]
    return len(masked) if all(label == IGNORED for label in masked) else 0


def labels_elsewhere(subject: Subject) -> bool:
    """Say whether labels stand at all tokens, or at those that were not chosen."""
    try:
        draws, _ = training_draws(subject)
    except NotChecked:
        return False
    return draws.everywhere or bool(misplaced(draws))


def typical_row(subject: Subject, draws: Draws) -> Example:
    pair = max(draws.passes[0], key=lambda each: sum(each.labels[place] != IGNORED for place in each.real))
    marked = [place for place in pair.real if pair.labels[place] != IGNORED]
    return masked_row(subject, draws, pair, marked, "a row of a training batch")


def replacements(draws: Draws) -> tuple[Counter[str], Counter[int]]:
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
