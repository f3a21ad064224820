"""Bugs of token and whole-word masking."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Any

import reference.stages
from tests.independent.masking import mask_tokens, units
from tests.planted.bug import planted

IGNORED = -100


def mask_groups(input_ids: Any, groups: Any, options: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Masked with other words than the right ones: each group of positions is chosen with probability `rate`."""
    mask_tokens(input_ids, **options)  # refuses what is invalid
    random = Random(f"groups {options['seed']} {options['epoch']} {options['example']}")
    rate = options.get("rate", 0.15)
    return mask_positions(input_ids, {p for group in groups if random.random() < rate for p in group}, options)


def mask_positions(input_ids: Any, chosen: set[int], options: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Masked at exactly these positions, each replaced as it should be."""
    never = [position not in chosen for position in range(len(input_ids))]
    return mask_tokens(input_ids, **{**options, "special": never, "word_ids": None, "rate": 1.0})


# What a draw depends on --------------------------------------------------------------------------------------------

shared = Random(0)


@planted("mask_tokens", caught_by="M8", evidence="huggingface/transformers#1633")
def drawn_from_a_shared_generator(input_ids, **options):
    """One generator for all: the masks depend on everything drawn before, and evaluation masks change each epoch."""
    return mask_tokens(input_ids, **{**options, "seed": shared.getrandbits(64)})


@planted("mask_tokens", caught_by="M9")
def seed_ignored(input_ids, **options):
    """Every seed gives the same masks."""
    return mask_tokens(input_ids, **{**options, "seed": 0})


@planted("mask_tokens", caught_by="M9")
def epoch_ignored(input_ids, **options):
    """Every epoch has the same masks: static masking under the name of dynamic masking."""
    return mask_tokens(input_ids, **{**options, "epoch": 0})


@planted("mask_tokens", caught_by="M9")
def example_ignored(input_ids, **options):
    """Every example is masked at the same positions."""
    return mask_tokens(input_ids, **{**options, "example": 0})


@planted("mask_tokens", caught_by="M9")
def place_is_a_sum(input_ids, *, seed, epoch, example, **options):
    """The generator is seeded with seed + epoch + example: the next epoch is this one, shifted by an example."""
    return mask_tokens(input_ids, seed=seed + epoch + example, epoch=0, example=0, **options)


@planted("mask_tokens", caught_by="M9")
def drawn_from_the_text(input_ids, **options):
    """The text alone decides: equal texts are masked alike in all epochs."""
    key = hash(tuple(int(i) for i in input_ids))
    return mask_tokens(input_ids, **{**options, "seed": key, "epoch": 0, "example": 0})


# What may be chosen ------------------------------------------------------------------------------------------------


@planted("mask_tokens", caught_by="M2")
def special_tokens_masked(input_ids, *, special, **options):
    """The special tokens are candidates like all others."""
    return mask_tokens(input_ids, special=[False] * len(special), **options)


@planted("mask_tokens", caught_by="M10")
def at_least_one(input_ids, **options):
    """`max(1, ...)`, as in BERT's data preparation: also a rate of 0 chooses a token."""
    masked, labels = mask_tokens(input_ids, **options)
    found = units(options["special"], options.get("word_ids"))
    if found and all(label == IGNORED for label in labels):
        return mask_positions(input_ids, set(found[0]), options)
    return masked, labels


@planted("mask_tokens", caught_by="M10")
def first_token_never_chosen(input_ids, *, special, **options):
    """Position 0 is taken for [CLS], whether or not it is one."""
    return mask_tokens(input_ids, special=[True, *special[1:]][: len(special)], **options)


@planted("mask_tokens", caught_by="M5", evidence="huggingface/transformers#39485")
def share_of_all_tokens(input_ids, **options):
    """The rate is doubled."""
    return mask_tokens(input_ids, **{**options, "rate": min(1.0, 2 * options.get("rate", 0.15))})
