"""Bugs of token and whole-word masking."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Any

import touchstone.stages
from tests.independent.masking import mask_tokens, units
from tests.planted.bug import planted
from touchstone.stages.ragged import Ragged

IGNORED = -100


def mask_groups(input_ids: Any, groups: Any, options: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Mask other words than the right ones: each group of positions is chosen with probability `rate`."""
    mask_tokens(input_ids, **options)  # refuses what is invalid
    random = Random(f"groups {options['seed']} {options['epoch']} {options['example']}")
    rate = options.get("rate", 0.15)
    return mask_positions(input_ids, {p for group in groups if random.random() < rate for p in group}, options)


def mask_positions(input_ids: Any, chosen: set[int], options: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Mask exactly these positions, each with the right replacement."""
    never = [position not in chosen for position in range(len(input_ids))]
    return mask_tokens(input_ids, **{**options, "special": never, "word_ids": None, "rate": 1.0})


# What a draw depends on --------------------------------------------------------------------------------------------

shared = Random(0)


@planted("mask_tokens", caught_by="M8", evidence="huggingface/transformers#1633")
def drawn_from_a_shared_generator(input_ids, **options):
    """One generator for all: the masks depend on everything drawn before, and evaluation masks change each epoch."""
    return mask_tokens(input_ids, **{**options, "seed": shared.getrandbits(64)})


@planted("mask_tokens", caught_by="M8")
def seeded_with_the_hash_of_a_text(input_ids, *, seed, epoch, example, **options):
    """The seed uses `hash` of a text, which Python salts in every process: workers and later runs draw other masks."""
    place = hash(f"{seed} {epoch} {example}")
    return mask_tokens(input_ids, seed=place, epoch=0, example=0, **options)


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


@planted("mask_tokens", caught_by="M9 M11")
def neighbouring_examples_share_a_draw(input_ids, *, example, **options):
    """Two examples in a row are masked alike, as by workers that start from one seed."""
    return mask_tokens(input_ids, example=example // 2, **options)


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


@planted("mask_tokens", caught_by="M11")
def exactly_the_share(input_ids, **options):
    """`round(rate * n)` candidates are drawn, as in BERT's data preparation: where one is chosen, another is not."""
    mask_tokens(input_ids, **options)
    found = units(options["special"], options.get("word_ids"))
    random = Random(f"exactly {options['seed']} {options['epoch']} {options['example']}")
    drawn = random.sample(found, round(options.get("rate", 0.15) * len(found)))
    return mask_positions(input_ids, {position for unit in drawn for position in unit}, options)


@planted("mask_tokens", caught_by="M10 M5")
def at_least_one(input_ids, **options):
    """`max(1, ...)`, as in BERT's data preparation: also a rate of 0 chooses a token."""
    masked, labels = mask_tokens(input_ids, **options)
    found = units(options["special"], options.get("word_ids"))
    if found and all(label == IGNORED for label in labels):
        return mask_positions(input_ids, set(found[0]), options)
    return masked, labels


@planted("mask_tokens", caught_by="M10")
def first_token_never_chosen(input_ids, *, special, **options):
    """Position 0 is treated as [CLS], whether or not it is one."""
    return mask_tokens(input_ids, special=[True, *special[1:]][: len(special)], **options)


@planted("mask_tokens", caught_by="M5")
def rate_is_of_the_unchosen(input_ids, **options):
    """rate / (1 - rate) instead of rate: the odds are treated as the probability."""
    rate = options.get("rate", 0.15)
    return mask_tokens(input_ids, **{**options, "rate": rate if rate >= 0.5 else rate / (1 - rate)})


# Words -------------------------------------------------------------------------------------------------------------


@planted("mask_tokens", caught_by="M3")
def only_the_first_token_of_a_word(input_ids, **options):
    """A word that is chosen loses its first token only."""
    mask_tokens(input_ids, **options)
    return mask_groups(input_ids, [unit[:1] for unit in units(options["special"], options.get("word_ids"))], options)


@planted("mask_tokens", caught_by="M3")
def tokens_of_a_word_drawn_one_by_one(input_ids, *, word_ids=None, **options):
    """The word ids are ignored: whole-word masking is token masking."""
    mask_tokens(input_ids, word_ids=word_ids, **options)
    never = [bool(special) for special in options.pop("special")]
    if word_ids is not None:
        never = [special or word is None for special, word in zip(never, word_ids, strict=True)]
    return mask_tokens(input_ids, special=never, **options)


@planted("mask_tokens", caught_by="M5")
def one_token_pulls_its_word_along(input_ids, **options):
    """Tokens are chosen, then their words: a word of k tokens is chosen with probability 1 - (1 - rate)^k."""
    _, labels = mask_tokens(input_ids, **{**options, "word_ids": None})
    mask_tokens(input_ids, **options)
    groups = units(options["special"], options.get("word_ids"))
    chosen = {p for group in groups if any(labels[q] != IGNORED for q in group) for p in group}
    return mask_positions(input_ids, chosen, options)


@planted("mask_tokens", caught_by="M4", evidence="course/3.mdx:490-498")
def words_end_only_where_the_id_changes(input_ids, **options):
    """The word before is not forgotten at special tokens: the last word of a document and the first of the next are one
    word if they have one number."""
    word_ids, special = options.get("word_ids"), options["special"]
    if word_ids is None:
        return mask_tokens(input_ids, **options)
    groups: list[list[int]] = []
    current = None
    for position, (word, never) in enumerate(zip(word_ids, special, strict=False)):
        if word is not None and not never:
            if word != current:
                groups.append([])
                current = word
            groups[-1].append(position)
    return mask_groups(input_ids, groups, options)


@planted("mask_tokens", caught_by="M4")
def equal_ids_are_one_word(input_ids, **options):
    """Tokens are grouped by word id at any place, so the third words of all documents in a chunk are one word."""
    if options.get("word_ids") is None:
        return mask_tokens(input_ids, **options)
    groups = defaultdict(list)
    for position, (word, never) in enumerate(zip(options["word_ids"], options["special"], strict=False)):
        if word is not None and not never:
            groups[word].append(position)
    return mask_groups(input_ids, groups.values(), options)


@planted("mask_tokens", caught_by="M11", evidence="huggingface/transformers#39485")
def words_that_touch_are_one(input_ids, **options):
    """Words without a gap between them are one: a Chinese sentence, or `state-of-the-art`, is masked whole or not."""
    if options.get("word_ids") is None:
        return mask_tokens(input_ids, **options)
    merged = [None if word is None else 0 for word in options["word_ids"]]
    return mask_tokens(input_ids, **{**options, "word_ids": merged})


@planted("mask_tokens", caught_by="M10")
def word_zero_is_never_chosen(input_ids, **options):
    """`if word_id:` instead of `is not None`."""
    if options.get("word_ids") is None:
        return mask_tokens(input_ids, **options)
    return mask_tokens(input_ids, **{**options, "word_ids": [word or None for word in options["word_ids"]]})


@planted("mask_tokens", caught_by="M10")
def tokens_between_words_are_a_word(input_ids, **options):
    """`None` counts as a word id like any other: tokens that belong to no word are chosen."""
    if options.get("word_ids") is None:
        return mask_tokens(input_ids, **options)
    other = max((word for word in options["word_ids"] if word is not None), default=0) + 1
    named = [other if word is None else word for word in options["word_ids"]]
    return mask_tokens(input_ids, **{**options, "word_ids": named})


# What takes a token's place, and what is the label -----------------------------------------------------------------


@planted("mask_tokens", caught_by="M6", evidence="huggingface/transformers#39485")
def always_the_mask(input_ids, **options):
    """All chosen tokens become [MASK], whatever the shares."""
    masked, labels = mask_tokens(input_ids, **options)
    mask = options["mask_id"]
    return [mask if label != IGNORED else token for token, label in zip(masked, labels, strict=True)], labels


@planted("mask_tokens", caught_by="M6")
def tenth_of_the_rest(input_ids, **options):
    """The share of random tokens is taken of what is left after [MASK], 2 % instead of 10 %."""
    mask, random, _ = options.get("replacement", (0.8, 0.1, 0.1))
    mask_tokens(input_ids, **options)
    random *= 1 - mask
    return mask_tokens(input_ids, **{**options, "replacement": (mask, random, 1 - mask - random)})


@planted("mask_tokens", caught_by="M6")
def random_over_the_mask(input_ids, **options):
    """Random tokens are written over some of the [MASK]s: the draw forgets `and not yet replaced`."""
    mask, random, unchanged = options.get("replacement", (0.8, 0.1, 0.1))
    mask_tokens(input_ids, **options)
    over = mask * random
    return mask_tokens(input_ids, **{**options, "replacement": (mask - over, random + over, unchanged)})


@planted("mask_tokens", caught_by="M7", evidence="huggingface/transformers#15342")
def random_tokens_from_zero_on(input_ids, **options):
    """Random tokens are drawn from all ids up to the largest, special ones such as [PAD] among them."""
    upward = range(max(options["vocabulary"], default=-1) + 1)
    return mask_tokens(input_ids, **{**options, "vocabulary": upward})


@planted("mask_tokens", caught_by="M7")
def last_of_the_vocabulary_never_drawn(input_ids, **options):
    """The end is treated as inclusive, but is exclusive."""
    vocabulary = options["vocabulary"]
    return mask_tokens(input_ids, **{**options, "vocabulary": vocabulary[: max(1, len(vocabulary) - 1)]})


@planted("mask_tokens", caught_by="M2 M10", evidence="huggingface/course#291")
def labels_everywhere(input_ids, **options):
    """The labels are the input, also where nothing was chosen."""
    masked, _ = mask_tokens(input_ids, **options)
    return masked, [int(token) for token in input_ids]


@planted("mask_tokens", caught_by="M1")
def labels_taken_too_late(input_ids, **options):
    """The labels are read after the tokens are replaced, so [MASK] is to be predicted from [MASK]."""
    masked, labels = mask_tokens(input_ids, **options)
    return masked, [IGNORED if label == IGNORED else token for token, label in zip(masked, labels, strict=True)]


@planted("mask_tokens", caught_by="M1")
def unchosen_labels_are_zero(input_ids, **options):
    """The label of tokens that were not chosen is 0, which the loss treats as a token."""
    masked, labels = mask_tokens(input_ids, **options)
    return masked, [0 if label == IGNORED else label for label in labels]


# Manners -----------------------------------------------------------------------------------------------------------


@planted("mask_tokens", caught_by="M12")
def rate_cut_to_its_range(input_ids, **options):
    """A rate of 15, meant as per cent, is treated as 1."""
    return mask_tokens(input_ids, **{**options, "rate": min(1.0, max(0.0, options.get("rate", 0.15)))})


@planted("mask_tokens", caught_by="M12")
def shares_divided_by_their_sum(input_ids, **options):
    """Shares that do not sum to 1 are made to."""
    shares = [max(0.0, share) for share in options.get("replacement", (0.8, 0.1, 0.1))]
    return mask_tokens(input_ids, **{**options, "replacement": [share / sum(shares) for share in shares]})


@planted("mask_tokens", caught_by="M12")
def mask_where_the_vocabulary_is_empty(input_ids, *, vocabulary, mask_id, **options):
    """Without a vocabulary the random tokens are [MASK]."""
    own = vocabulary if len(vocabulary) else [mask_id]
    return mask_tokens(input_ids, vocabulary=own, mask_id=mask_id, **options)


@planted("mask_tokens", caught_by="M12")
def missing_flags_are_false(input_ids, *, special, word_ids=None, **options):
    """Flags and word ids that are too short are filled up, too long ones cut."""
    n = len(input_ids)
    special = [*special, *[False] * n][:n]
    word_ids = None if word_ids is None else [*word_ids, *[None] * n][:n]
    return mask_tokens(input_ids, special=special, word_ids=word_ids, **options)


@planted("mask_tokens", caught_by="M13", evidence="course/3.mdx:487-509")
def masked_in_place(input_ids, **options):
    """The caller's tokens are masked in place, so the next epoch masks them again."""
    masked, labels = mask_tokens(input_ids, **options)
    if isinstance(input_ids, list):
        input_ids[:] = masked
    return masked, labels


@planted("mask_tokens_batch", caught_by="M14", base=touchstone.stages)
def twin_counts_rows(input_ids, *, examples, **options):
    """The batched version draws by the row in the batch, not by the example."""
    return touchstone.stages.mask_tokens_batch(input_ids, examples=range(len(examples)), **options)


@planted("mask_tokens_batch", caught_by="M14", base=touchstone.stages)
def twin_joins_rows(input_ids, *, examples, **options):
    """The batched version masks the flat array as one example."""
    flat = dict(options)
    for name in ("special", "word_ids"):
        if flat.get(name) is not None:
            flat[name] = Ragged(flat[name].values, input_ids.offsets[[0, -1]])
    one = Ragged(input_ids.values, input_ids.offsets[[0, -1]])
    masked, labels = touchstone.stages.mask_tokens_batch(one, examples=list(examples)[:1] or [0], **flat)
    return input_ids.with_values(masked.values), input_ids.with_values(labels.values)
