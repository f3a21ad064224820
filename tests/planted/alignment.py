"""Bugs of word labels to token labels and back."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

import touchstone.stages
from tests.independent.alignment import align_labels, merge_labels, positions_of_words
from tests.planted.bug import planted
from touchstone.stages.ragged import Ragged

IGNORED = -100


def later_tokens(word_ids: Any, options: dict[str, Any]) -> list[tuple[int, int]]:
    """(position, word) of every token that is not the first of its word."""
    words = positions_of_words(word_ids, options.get("sequence_ids"), options.get("sequence", 0), len(word_ids) + 10**6)
    return [(position, word) for word, positions in words.items() for position in positions[1:]]


def respelt(labels: Any, word_ids: Any, options: dict[str, Any], rule: Any) -> list[int]:
    """Aligned, but with `all` the later tokens of a word get `rule(label of the word)`, unless that is `None`."""
    aligned = align_labels(labels, word_ids=word_ids, **options)
    if options.get("strategy", "all") == "all":
        for position, word in later_tokens(word_ids, options):
            new = rule(int(labels[word]))
            aligned[position] = aligned[position] if new is None else new
    return aligned


# Which label the later tokens of a word get ------------------------------------------------------------------------


@planted("align_labels", caught_by="A4 A7", evidence="huggingface/notebooks#250 huggingface/transformers#14043")
def b_copied_to_later_tokens(labels, *, word_ids, **options):
    """Every token of a word gets the word's label: a split B word opens an entity with each token."""
    return respelt(labels, word_ids, options, lambda label: label)


@planted("align_labels", caught_by="A6", evidence="course/2.mdx:237")
def odd_ids_open_entities(labels, *, word_ids, **options):
    """Odd ids are treated as B tags and the next id as the I tag, as in the course's order of labels."""
    return respelt(labels, word_ids, options, lambda label: label + label % 2)


@planted("align_labels", caught_by="A6")
def inside_is_the_id_after_begin(labels, *, word_ids, names, **options):
    """B tags are found by their name, but the I tag is taken to be the next id."""
    rule = lambda label: label + 1 if names[label].startswith("B-") else None  # noqa: E731
    return respelt(labels, word_ids, {"names": names, **options}, rule)


@planted("align_labels", caught_by="A7", evidence="rungalileo/dataquality#506")
def only_b_is_respelt(labels, *, word_ids, names, **options):
    """Later tokens turn B into I and nothing else: a split U or S is several entities, a split L or E ill-formed."""
    rule = lambda label: names.index("I" + names[label][1:]) if names[label].startswith("B-") else label  # noqa: E731
    names = list(names)
    aligned = respelt(labels, word_ids, {"names": names, **options}, rule)
    if options.get("strategy", "all") == "all":
        for position, word in enumerate(word_ids):
            if aligned[position] != IGNORED and names[labels[word]][0] in "ELSU":
                aligned[position] = labels[word]
    return aligned


@planted("align_labels", caught_by="A7")
def split_entity_is_never_closed(labels, *, word_ids, names, scheme="IOB2", **options):
    """A split S or U word becomes B I I, as in IOB2: in IOBES and BILOU nothing closes the entity."""
    names = list(names)
    aligned = align_labels(labels, word_ids=word_ids, names=names, scheme=scheme, **options)
    if scheme != "IOB2" and options.get("strategy", "all") == "all":
        for position, word in later_tokens(word_ids, options):
            name = names[labels[word]]
            if name != "O":
                aligned[position] = names.index("I" + name[1:])
    return aligned


@planted("align_labels", caught_by="A7")
def any_inside_tag_will_do(labels, *, word_ids, names, **options):
    """Later tokens of an entity get the first I tag among the names, of any type."""
    inside = next((index for index, name in enumerate(names) if name.startswith("I-")), 0)
    rule = lambda label: inside if names[label].startswith("B-") else None  # noqa: E731
    return respelt(labels, word_ids, {"names": names, **options}, rule)


@planted("align_labels", caught_by="A10")
def prefix_replaced_wherever_it_stands(labels, *, word_ids, names, **options):
    """As in run_ner: `name.replace("B-", "I-")`, used only if that name exists. B-B-cell continues with B-B-cell."""

    def rule(label):
        inside = names[label].replace("B-", "I-")
        return (list(names).index(inside) if inside in names else label) if names[label].startswith("B-") else None

    return respelt(labels, word_ids, {"names": names, **options}, rule)


@planted("align_labels", caught_by="A10")
def type_is_what_follows_the_last_hyphen(labels, *, word_ids, names, **options):
    """`name.split("-")[-1]` is the type: B-B-cell would continue with I-cell, which does not exist, and so with O."""

    def rule(label):
        inside = f"I-{names[label].split('-')[-1]}"
        if not names[label].startswith("B-"):
            return None
        return list(names).index(inside) if inside in names else list(names).index("O")

    return respelt(labels, word_ids, {"names": list(names), **options}, rule)


@planted("align_labels", caught_by="A2")
def first_strategy_leaves_later_tokens_outside(labels, *, word_ids, names, **options):
    """With `first`, later tokens are O instead of -100: the loss teaches that entities end inside words."""
    aligned = align_labels(labels, word_ids=word_ids, names=names, **options)
    if options.get("strategy") == "first" and "O" in names:
        for position, _ in later_tokens(word_ids, options):
            aligned[position] = list(names).index("O")
    return aligned


@planted("align_labels", caught_by="A2 A3")
def last_token_stands_for_the_word(labels, *, word_ids, **options):
    """With `first`, the last token of a word is labelled instead of its first."""
    aligned = align_labels(labels, word_ids=word_ids, **options)
    if options.get("strategy") == "first":
        for position, word in later_tokens(word_ids, options):
            for earlier in range(position):
                if word_ids[earlier] == word and aligned[earlier] != IGNORED:
                    aligned[position], aligned[earlier] = aligned[earlier], IGNORED
    return aligned


# Which tokens belong to a word -------------------------------------------------------------------------------------


@planted("align_labels", caught_by="A2")
def special_tokens_are_outside(labels, *, word_ids, **options):
    """Special tokens get label 0 instead of -100."""
    aligned = align_labels(labels, word_ids=word_ids, **options)
    return [0 if word is None else label for label, word in zip(aligned, word_ids, strict=True)]


@planted("align_labels", caught_by="A1")
def special_tokens_forgotten(labels, *, word_ids, **options):
    """Only tokens of words get a label: the list is shorter than the tokens."""
    aligned = align_labels(labels, word_ids=word_ids, **options)
    return [label for label, word in zip(aligned, word_ids, strict=True) if word is not None]


@planted("align_labels", caught_by="A1")
def word_labels_padded_to_the_tokens(labels, *, word_ids, **options):
    """The result is never shorter than the words: a truncated sentence keeps the labels of all its words."""
    aligned = align_labels(labels, word_ids=word_ids, **options)
    return aligned + [IGNORED] * (len(labels) - len(aligned))


@planted("align_labels", caught_by="A2 A3")
def shifted_by_the_first_special_token(labels, *, word_ids, **options):
    """The labels are one token too far right, as if another special token came first."""
    return [IGNORED, *align_labels(labels, word_ids=word_ids, **options)][: len(word_ids)]


@planted("align_labels", caught_by="A8")
def last_token_taken_for_a_separator(labels, *, word_ids, **options):
    """The last token is always -100, although it is a word's where the sentence was cut."""
    return [*align_labels(labels, word_ids=word_ids, **options)[:-1], *[IGNORED] * bool(len(word_ids))]


@planted("align_labels", caught_by="A8")
def entity_at_the_end_is_blanked(labels, *, word_ids, names, **options):
    """An entity that reaches the last token is set to O, because it may have been truncated."""
    aligned = align_labels(labels, word_ids=word_ids, names=names, **options)
    for position in reversed(range(len(aligned))):
        if aligned[position] == IGNORED or names[aligned[position]] == "O":
            break
        aligned[position] = list(names).index("O")
    return aligned


@planted("align_labels", caught_by="A2 A3")
def word_zero_is_no_word(labels, *, word_ids, **options):
    """`if word_id:` instead of `is not None`: the first word is treated as a special token."""
    aligned = align_labels(labels, word_ids=word_ids, **options)
    return [label if word else IGNORED for label, word in zip(aligned, word_ids, strict=True)]


@planted("align_labels", caught_by="A3")
def equal_neighbours_are_one_word(labels, *, word_ids, names, **options):
    """A word with the same label as the word before is treated as its continuation: B-X B-X becomes B-X I-X."""
    aligned = align_labels(labels, word_ids=word_ids, names=names, **options)
    names = list(names)
    for position in range(1, len(aligned)):
        here, before = word_ids[position], word_ids[position - 1]
        if None not in (here, before) and IGNORED not in (aligned[position], aligned[position - 1]) and here != before:
            name = names[labels[here]]
            if labels[here] == labels[before] and name.startswith("B-") and "I" + name[1:] in names:
                aligned[position] = names.index("I" + name[1:])
    return aligned


@planted("align_labels", caught_by="A9")
def both_sequences_of_a_pair_labelled(labels, *, word_ids, sequence_ids=None, sequence=0, **options):
    """The sequence ids are ignored: the words of the other sequence get labels of this one."""
    known = [word if word is None or word < len(labels) else None for word in word_ids] if sequence_ids else word_ids
    return align_labels(labels, word_ids=known, **options)


@planted("align_labels", caught_by="A9")
def word_remembered_across_sequences(labels, *, word_ids, sequence_ids=None, sequence=0, **options):
    """The word before is not forgotten between the sequences of a pair: where both its neighbours across the separator
    have one number, the second sequence's first token counts as a later token."""
    aligned = align_labels(labels, word_ids=word_ids, sequence_ids=sequence_ids, sequence=sequence, **options)
    previous = None
    for position, word in enumerate(word_ids):
        if word is None:
            continue
        if previous is not None and word == word_ids[previous] and aligned[previous] == IGNORED != aligned[position]:
            aligned[position] = IGNORED
        previous = position
    return aligned


# Manners -----------------------------------------------------------------------------------------------------------


@planted("align_labels", caught_by="A11")
def invalid_input_is_ignored(labels, *, word_ids, **options):
    """Any invalid input gives -100 everywhere."""
    try:
        return align_labels(labels, word_ids=word_ids, **options)
    except ValueError:
        return [IGNORED] * len(word_ids)


@planted("align_labels", caught_by="A11")
def error_names_nothing(labels, *, word_ids, **options):
    """The error does not name the wrong value."""
    try:
        return align_labels(labels, word_ids=word_ids, **options)
    except ValueError:
        raise ValueError("invalid labels") from None


@planted("align_labels", caught_by="A12")
def labels_grow_by_one(labels, *, word_ids, **options):
    """-100 is appended to the caller's labels, so that the index -1 gives the label of special tokens."""
    aligned = align_labels(labels, word_ids=word_ids, **options)
    if isinstance(labels, list):
        labels.append(IGNORED)
    return aligned


@planted("align_labels", caught_by="A12")
def arrays_are_asked_whether_they_are_true(labels, *, word_ids, **options):
    """`if not labels`, meant for the empty list, raises for an array of labels."""
    if not labels:
        return [IGNORED] * len(word_ids)
    return align_labels(labels, word_ids=word_ids, **options)


@planted("align_labels_batch", caught_by="A13", base=touchstone.stages)
def twin_does_not_look_at_the_labels(labels, *, names, **options):
    """The batched version cuts label ids to the range of the names instead of refusing them."""
    inside = labels.with_values(labels.values.clip(0, len(names) - 1))
    return touchstone.stages.align_labels_batch(inside, names=names, **options)


@planted("align_labels_batch", caught_by="A13", base=touchstone.stages)
def missing_word_is_the_last(labels, *, word_ids, **options):
    """-1, which means no word, is used as an index: special tokens get the label of the row's last word."""
    aligned = touchstone.stages.align_labels_batch(labels, word_ids=word_ids, **options)
    last = np.array([row[-1] if len(row) else IGNORED for row in labels], dtype=np.int64)
    values = np.where(word_ids.values == -1, last[word_ids.rows], aligned.values)
    return aligned.with_values(values)


# The way back ------------------------------------------------------------------------------------------------------


@planted("merge_labels", caught_by="A15")
def majority_decides(token_labels, *, word_ids, **options):
    """A word gets the label that most of its tokens have."""
    voted = list(token_labels)
    words = positions_of_words(word_ids, options.get("sequence_ids"), options.get("sequence", 0), options["n_words"])
    for positions in words.values():
        if token_labels[positions[0]] != IGNORED:
            votes = Counter(token_labels[p] for p in positions if token_labels[p] != IGNORED)
            winner = votes.most_common(1)[0][0]
            for position in positions:
                voted[position] = winner
    return merge_labels(voted, word_ids=word_ids, **options)


@planted("merge_labels", caught_by="A15")
def last_token_decides(token_labels, *, word_ids, **options):
    """A dictionary from word to label, filled in order, keeps the last token's label."""
    merged = merge_labels(token_labels, word_ids=word_ids, **options)
    words = positions_of_words(word_ids, options.get("sequence_ids"), options.get("sequence", 0), options["n_words"])
    for word, positions in words.items():
        if token_labels[positions[-1]] != IGNORED:
            merged[word] = int(token_labels[positions[-1]])
    return merged


@planted("merge_labels", caught_by="A15", evidence="huggingface/transformers#10263")
def any_token_makes_an_entity(token_labels, *, word_ids, names, **options):
    """If the first token is O, the first later token that is not O decides."""
    changed = list(token_labels)
    for position, word in reversed(later_tokens(word_ids, options)):
        first = next(p for p, other in enumerate(word_ids) if other == word)
        if changed[first] != IGNORED and names[changed[first]] == "O" and token_labels[position] != IGNORED:
            changed[first] = token_labels[position]
    return merge_labels(changed, word_ids=word_ids, names=names, **options)


@planted("merge_labels", caught_by="A14", evidence="huggingface/transformers#18050")
def truncated_words_dropped(token_labels, *, word_ids, **options):
    """Only words with a token are returned: truncated gold entities are missing from the denominator of recall."""
    merged = merge_labels(token_labels, word_ids=word_ids, **options)
    present = positions_of_words(word_ids, options.get("sequence_ids"), options.get("sequence", 0), options["n_words"])
    return [label for word, label in enumerate(merged) if word in present]


@planted("merge_labels", caught_by="A14", evidence="ThilinaRajapakse/simpletransformers#1279")
def truncated_words_ignored(token_labels, *, word_ids, **options):
    """Words without a token get -100 instead of O, and are left out of the score."""
    merged = merge_labels(token_labels, word_ids=word_ids, **options)
    present = positions_of_words(word_ids, options.get("sequence_ids"), options.get("sequence", 0), options["n_words"])
    return [label if word in present else IGNORED for word, label in enumerate(merged)]


@planted("merge_labels", caught_by="A14 A15")
def unlabelled_first_token_is_skipped(token_labels, *, word_ids, **options):
    """If the first token has no label, the next labelled one decides."""
    kept = [None if label == IGNORED else word for label, word in zip(token_labels, word_ids, strict=True)]
    return merge_labels(token_labels, word_ids=kept, **options)


@planted("merge_labels", caught_by="A5")
def closing_tag_is_not_looked_at(token_labels, *, word_ids, names, **options):
    """In IOBES and BILOU only the first token decides: a split S word is returned as B, and nothing closes it."""
    merged = merge_labels(token_labels, word_ids=word_ids, names=names, **options)
    words = positions_of_words(word_ids, options.get("sequence_ids"), options.get("sequence", 0), options["n_words"])
    for word, positions in words.items():
        if token_labels[positions[0]] != IGNORED:
            merged[word] = int(token_labels[positions[0]])
    return merged


@planted("merge_labels", caught_by="A16")
def label_out_of_range_becomes_outside(token_labels, *, names, **options):
    """A label id that no name belongs to is read as O."""
    known = [label if label == IGNORED or 0 <= label < len(names) else list(names).index("O") for label in token_labels]
    return merge_labels(known, names=names, **options)


@planted("merge_labels", caught_by="A16")
def word_beyond_the_sentence_skipped(token_labels, *, word_ids, n_words, **options):
    """A word id outside the sentence is treated as `None`."""
    known = [word if word is None or word < n_words else None for word in word_ids]
    return merge_labels(token_labels, word_ids=known, n_words=n_words, **options)


@planted("merge_labels", caught_by="A16")
def unknown_scheme_is_iob2(token_labels, *, scheme="IOB2", **options):
    """If the scheme is unknown, the first token decides, as in IOB2."""
    scheme = scheme if scheme in ("IOBES", "BILOU") else "IOB2"
    return merge_labels(token_labels, scheme=scheme, **options)


@planted("merge_labels", caught_by="A16")
def longer_of_two_lists_cut(token_labels, *, word_ids, **options):
    """Labels and word ids of different lengths are cut to the shorter."""
    n = min(len(token_labels), len(word_ids))
    return merge_labels(token_labels[:n], word_ids=word_ids[:n], **options)


@planted("merge_labels", caught_by="A16")
def ignored_labels_overwritten(token_labels, *, names, **options):
    """-100 is replaced by O in the caller's list."""
    merged = merge_labels(token_labels, names=names, **options)
    if isinstance(token_labels, list):
        token_labels[:] = [list(names).index("O") if label == IGNORED else label for label in token_labels]
    return merged


@planted("merge_labels_batch", caught_by="A16", base=touchstone.stages)
def absent_word_is_like_the_one_before(token_labels, *, n_words, **options):
    """A word without a token repeats the label of the word before it in the flat array."""
    merged = touchstone.stages.merge_labels_batch(token_labels, n_words=n_words, **options)
    values = merged.values.copy()
    for row in range(len(merged)):
        present = set(options["word_ids"][row].tolist())
        for word in range(int(n_words[row])):
            at = int(merged.offsets[row]) + word
            if word not in present and at > 0:
                values[at] = values[at - 1]
    return Ragged(values, merged.offsets)
