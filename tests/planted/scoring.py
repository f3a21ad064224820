"""Bugs of entity scores and of perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from seqeval.metrics.sequence_labeling import get_entities

from tests.independent.perplexity import perplexity
from tests.independent.scoring import score_entities
from tests.planted.bug import planted

IGNORED = -100
Spans = Callable[[list[str]], list[tuple[str, int, int]]]


def scored_with(spans: Spans, predictions: Any, references: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Scores of the entities that `spans` reads off a sentence's names; accuracy and signature as they should be."""
    right = score_entities(predictions, references=references, **options)
    names = options["names"]
    found = []
    for rows in (predictions, references):
        sentences = []
        for row, gold in zip(rows, references, strict=True):
            kept = [names[label] for label, true in zip(row, gold, strict=True) if true != IGNORED]
            sentences.append([(kind, start, end, len(kept)) for kind, start, end in spans(kept)])
        found.append(sentences)
    kinds = sorted({entity[0] for sentences in found for entities in sentences for entity in entities})
    spelling = ["O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BIES")]

    def spelt(entities: Any, width: int) -> list[int]:
        row = ["O"] * width
        for kind, start, end, _ in entities:
            row[start : end + 1] = [f"I-{kind}"] * (end - start + 1)
            row[start], row[end] = f"B-{kind}", f"E-{kind}"
            if start == end:
                row[start] = f"S-{kind}"
        return [spelling.index(name) for name in row]

    widths = [sum(label != IGNORED for label in row) for row in references]
    encoded = [[spelt(es, width) for es, width in zip(side, widths, strict=True)] for side in found]
    wrong = score_entities(encoded[0], references=encoded[1], names=spelling, scheme="IOBES")
    return {**right, **{key: wrong[key] for key in ("precision", "recall", "f1", "number", "types")}}


# What an entity is -------------------------------------------------------------------------------------------------


@planted("score_entities", caught_by="S4", evidence="chakki-works/seqeval#23 chakki-works/seqeval#57")
def lenient_called_strict(predictions, *, mode="strict", **options):
    """Ill-formed entities count, although the mode says strict: I-X without B-X is one."""
    right = score_entities(predictions, mode=mode, **options)
    return {**score_entities(predictions, mode="lenient", **options), "signature": right["signature"]}


@planted("score_entities", caught_by="S5")
def strict_called_lenient(predictions, *, mode="strict", **options):
    """Ill-formed entities do not count, although the mode says lenient."""
    right = score_entities(predictions, mode=mode, **options)
    return {**score_entities(predictions, mode="strict", **options), "signature": right["signature"]}


@planted("score_entities", caught_by="S5", evidence="chakki-works/seqeval#56")
def scheme_left_to_seqeval(predictions, *, references, mode="strict", **options):
    """seqeval's default reading, which knows no L and no U: U U is one entity, of B L B L the first is lost."""
    if mode == "strict":
        return score_entities(predictions, references=references, mode=mode, **options)
    return scored_with(get_entities, predictions, references, {"mode": mode, **options})


@planted("score_entities", caught_by="S5", evidence="chakki-works/seqeval#56")
def unit_entities_merged(predictions, *, references, mode="strict", **options):
    """Neighbouring entities of one type and one word each are read as one in lenient mode."""
    if mode == "strict":
        return score_entities(predictions, references=references, mode=mode, **options)

    def spans(names: list[str]) -> list[tuple[str, int, int]]:
        alike = [name.replace("U-", "S-", 1).replace("L-", "E-", 1) if name[0] in "UL" else name for name in names]
        entities: list[tuple[str, int, int]] = []
        for kind, start, end in get_entities(alike):
            before = entities[-1] if entities else None
            if start == end and names[start][0] in "US" and before and (before[0], before[2]) == (kind, start - 1):
                entities[-1] = (kind, before[1], end)
            else:
                entities.append((kind, start, end))
        return entities

    return scored_with(spans, predictions, references, {"mode": mode, **options})


@planted("score_entities", caught_by="S1 S4")
def entities_of_one_word_lost(predictions, *, references, names, scheme="IOB2", **options):
    """Only B, I and what closes an entity are read: one of a single S or U word does not count."""
    rows = [[list(row) for row in side] for side in (predictions, references)]
    outside = list(names).index("O")
    right = score_entities(predictions, references=references, names=names, scheme=scheme, **options)
    for side in rows:
        for row in side:
            row[:] = [outside if label >= 0 and names[label][:2] in ("S-", "U-") else label for label in row]
    wrong = score_entities(rows[0], references=rows[1], names=names, scheme=scheme, **options)
    return {**wrong, "accuracy": right["accuracy"]}


@planted("score_entities", caught_by="S8")
def sentences_read_as_one(predictions, *, references, **options):
    """All sentences are put in a row first, so an entity at the end of one continues in the next."""
    score_entities(predictions, references=references, **options)
    rows = [[label for row in side for label in row] for side in (predictions, references)]
    return score_entities([rows[0]], references=[rows[1]], **options)


@planted("score_entities", caught_by="S4")
def sentence_is_not_part_of_an_entity(predictions, *, references, **options):
    """Entities of different sentences are equal if type, start and end are: a set holds them once."""
    right = score_entities(predictions, references=references, **options)
    seen: set[Any] = set()
    kept = []
    for row, gold in zip(predictions, references, strict=True):
        key = tuple(int(label) for label in gold)
        if key not in seen:
            kept.append((row, gold))
        seen.add(key)
    wrong = score_entities([row for row, _ in kept], references=[gold for _, gold in kept], **options)
    return {**wrong, "accuracy": right["accuracy"]}


@planted("score_entities", caught_by="S4")
def types_not_compared(predictions, *, references, names, **options):
    """An entity counts as right if its start and end are, even if its type is wrong."""
    kinds = [name.partition("-")[2] for name in names if name != "O"]
    one = [f"{name[0]}-{kinds[0]}" if name != "O" else name for name in names]
    untyped = score_entities(predictions, references=references, names=one, **options)
    right = score_entities(predictions, references=references, names=names, **options)
    return {**right, **{key: untyped[key] for key in ("precision", "recall", "f1")}}


@planted("score_entities", caught_by="S4", evidence="chakki-works/seqeval#57")
def tokens_counted_as_entities(predictions, *, references, **options):
    """Precision, recall and F1 are of labels that are not O, not of entities."""
    right = score_entities(predictions, references=references, **options)

    def single(names: list[str]) -> list[tuple[str, int, int]]:
        return [(name, at, at) for at, name in enumerate(names) if name != "O"]

    wrong = scored_with(single, predictions, references, options)
    return {**right, **{key: wrong[key] for key in ("precision", "recall", "f1")}}


# Which positions count ---------------------------------------------------------------------------------------------


@planted("score_entities", caught_by="S2", evidence="jsbaan/transformer-from-scratch#7")
def accuracy_of_padding_too(predictions, *, references, **options):
    """Positions with the reference -100 count in the accuracy."""
    right = score_entities(predictions, references=references, **options)
    pairs = [pair for rows in zip(predictions, references, strict=True) for pair in zip(*rows, strict=True)]
    return {**right, "accuracy": sum(a == b for a, b in pairs) / len(pairs) if pairs else 0.0}


@planted("score_entities", caught_by="S2", evidence="chakki-works/seqeval#89")
def ignored_becomes_outside(predictions, *, references, names, **options):
    """-100 is read as O instead of being left out: it cuts entities whose later tokens carry no label."""
    if "O" not in names:
        return score_entities(predictions, references=references, names=names, **options)
    outside = list(names).index("O")
    right = score_entities(predictions, references=references, names=names, **options)
    guess = [
        [outside if true == IGNORED else label for label, true in zip(row, gold, strict=True)]
        for row, gold in zip(predictions, references, strict=True)
    ]
    true = [[outside if label == IGNORED else label for label in row] for row in references]
    return {**score_entities(guess, references=true, names=names, **options), "accuracy": right["accuracy"]}


@planted("score_entities", caught_by="S2")
def ignored_predictions_are_read(predictions, *, references, names, **options):
    """Only the references lose their -100; what is predicted there is read as text at the end of the sentence."""
    right = score_entities(predictions, references=references, names=names, **options)
    extra = [
        [label for label, true in zip(row, gold, strict=True) if true == IGNORED and 0 <= label < len(names)]
        for row, gold in zip(predictions, references, strict=True)
    ]
    guess, true = [], []
    for row, gold, tail in zip(predictions, references, extra, strict=True):
        guess.append([*row, *tail])
        true.append([*gold, *[list(names).index("O")] * len(tail)])
    wrong = score_entities(guess, references=true, names=names, **options)
    return {**wrong, "accuracy": right["accuracy"]}


@planted("score_entities", caught_by="S3 S4")
def width_of_the_first_sentence(predictions, *, references, **options):
    """All sentences are cut to the length of the first."""
    score_entities(predictions, references=references, **options)
    width = len(references[0]) if len(references) else 0
    cut = [[list(row)[:width] for row in side] for side in (predictions, references)]
    return score_entities(cut[0], references=cut[1], **options)


@planted("score_entities", caught_by="S11", evidence="huggingface/accelerate#226")
def longer_list_cut(predictions, *, references, **options):
    """`zip` ends with the shorter list: lengths that differ are not noticed."""
    pairs = [list(zip(*rows, strict=False)) for rows in zip(predictions, references, strict=False)]
    rows = [[[pair[side] for pair in row] for row in pairs] for side in (0, 1)]
    return score_entities(rows[0], references=rows[1], **options)


@planted("score_entities", caught_by="S11")
def negative_ids_count_from_the_end(predictions, *, references, names, **options):
    """`names[id]` with a negative id is a name: -1 is the last label."""
    rows = [[label + len(names) if -len(names) <= label < 0 else label for label in row] for row in predictions]
    return score_entities(rows, references=references, names=names, **options)


@planted("score_entities", caught_by="S7", evidence="chakki-works/seqeval#89")
def unknown_tags_are_outside(predictions, *, names, scheme="IOB2", **options):
    """A name that is no tag of the scheme is read as O: the digit 0 for the letter O goes unnoticed."""
    prefixes = {"IOB2": "BI", "IOBES": "BIES", "BILOU": "BILU"}.get(scheme, "")
    known = [n if n == "O" or (n[:1] in (*prefixes,) and n[1:2] == "-" and n[2:]) else "O" for n in names]
    return score_entities(predictions, names=known, scheme=scheme, **options)


@planted("score_entities", caught_by="S11")
def unknown_scheme_or_mode_is_the_default(predictions, *, scheme="IOB2", mode="strict", **options):
    """An unknown scheme or mode, such as `default`, is silently treated as IOB2 or strict."""
    scheme = scheme if scheme in ("IOBES", "BILOU") else "IOB2"
    return score_entities(predictions, scheme=scheme, mode="lenient" if mode == "lenient" else "strict", **options)


# What is made of the counts ----------------------------------------------------------------------------------------


@planted("score_entities", caught_by="S4")
def precision_and_recall_swapped(predictions, **options):
    """Precision is recall, and recall precision."""
    right = score_entities(predictions, **options)
    return {**right, "precision": right["recall"], "recall": right["precision"]}


@planted("score_entities", caught_by="S4")
def mean_over_types(predictions, **options):
    """The overall F1 is the mean of the types', so that a rare type weighs as much as a common one."""
    right = score_entities(predictions, **options)
    scores = [kind["f1"] for kind in right["types"].values()]
    return {**right, "f1": sum(scores) / len(scores) if scores else 0.0}


@planted("score_entities", caught_by="S10")
def number_of_labels(predictions, *, references, names, **options):
    """The overall number is that of labels that are not O."""
    right = score_entities(predictions, references=references, names=names, **options)
    return {**right, "number": sum(label != IGNORED and names[label] != "O" for row in references for label in row)}


@planted("score_entities", caught_by="S10 S4")
def number_of_predictions(predictions, *, references, **options):
    """`number` counts what was predicted in place of the gold entities."""
    right = score_entities(predictions, references=references, **options)
    blank = [
        [IGNORED if true == IGNORED else label for label, true in zip(row, gold, strict=True)]
        for row, gold in zip(predictions, references, strict=True)
    ]
    return {**right, "number": score_entities(blank, references=blank, **options)["number"]}


@planted("score_entities", caught_by="S9")
def nan_without_entities(predictions, **options):
    """0 / 0 is NaN: a model that predicts nothing has no F1."""
    right = score_entities(predictions, **options)
    return {**right, "f1": right["f1"] or math.nan, "precision": right["precision"] or math.nan}


@planted("score_entities", caught_by="S9")
def perfect_without_gold(predictions, **options):
    """If there is no gold entity, recall is 1."""
    right = score_entities(predictions, **options)
    return right if right["number"] else {**right, "recall": 1.0}


@planted("score_entities", caught_by="S9")
def error_without_predictions(predictions, *, references, names, **options):
    """A division by zero where nothing is predicted."""
    right = score_entities(predictions, references=references, names=names, **options)
    return {**right, "precision": right["precision"] * 1.0 if right["precision"] else 0 / right["recall"]}


@planted("score_entities", caught_by="S6", evidence="huggingface/evaluate#105")
def signature_says_nothing(predictions, **options):
    """The signature names neither scheme nor mode."""
    return {**score_entities(predictions, **options), "signature": "seqeval"}


@planted("score_entities", caught_by="S12")
def references_cleaned_in_place(predictions, *, references, names, **options):
    """-100 is replaced in the caller's references."""
    right = score_entities(predictions, references=references, names=names, **options)
    for row in references:
        if isinstance(row, list):
            row[:] = [0 if label == IGNORED else label for label in row]
    return right


@planted("score_entities", caught_by="S12")
def memory_of_all_calls(predictions, *, references, **options):
    """A metric that is never reset: a call after the first counts what was added before."""
    added.extend((list(row), list(gold), options) for row, gold in zip(predictions, references, strict=False))
    del added[:-50]
    score_entities(predictions, references=references, **options)
    alike = [(row, gold) for row, gold, other in added if other == options]
    return score_entities([row for row, _ in alike], references=[gold for _, gold in alike], **options)


added: list[tuple[list[int], list[int], dict[str, Any]]] = []


# Perplexity --------------------------------------------------------------------------------------------------------


@planted("perplexity", caught_by="X1 X3", evidence="huggingface/transformers#39241 huggingface/transformers#24839")
def mean_of_batch_means(losses, *, tokens):
    """Every batch weighs the same, regardless of its number of tokens: the result depends on the batch size."""
    perplexity(losses, tokens=tokens)
    return perplexity(losses, tokens=[int(n > 0) for n in tokens])


@planted("perplexity", caught_by="X1 X3", evidence="course/3.mdx:952")
def weighted_with_padding(losses, *, tokens):
    """Batches are weighted by their width, including padding (here: rounded up to a multiple of 8)."""
    return perplexity(losses, tokens=[n + (-n % 8 if n > 0 else 0) for n in tokens])


@planted("perplexity", caught_by="X1 X3")
def mean_of_perplexities(losses, *, tokens):
    """The exponential is taken of each batch, and then the mean."""
    whole = perplexity(losses, tokens=tokens)
    if math.isinf(whole):
        return whole
    each = [perplexity([loss], tokens=[n]) * n for loss, n in zip(losses, tokens, strict=True) if n > 0]
    return sum(each) / sum(n for n in tokens if n > 0)


@planted("perplexity", caught_by="X2")
def two_to_the_nats(losses, *, tokens):
    """2 to the loss, although the loss is in nats."""
    return perplexity(losses, tokens=tokens) ** math.log(2)


@planted("perplexity", caught_by="X3")
def last_batch_dropped(losses, *, tokens):
    """The last batch, which is often smaller, is not counted."""
    whole = perplexity(losses, tokens=tokens)
    return perplexity(losses[:-1], tokens=tokens[:-1]) if sum(tokens[:-1]) > 0 else whole


@planted("perplexity", caught_by="X4")
def empty_batch_poisons(losses, *, tokens):
    """0 times NaN is NaN: a batch without a token, whose mean loss is NaN, makes the perplexity NaN."""
    whole = perplexity(losses, tokens=tokens)
    return math.nan if any(math.isnan(loss) for loss in losses) else whole


@planted("perplexity", caught_by="X4")
def overflow_is_an_error(losses, *, tokens):
    """`math.exp` raises OverflowError where the loss has diverged."""
    whole = perplexity(losses, tokens=tokens)
    if math.isinf(whole):
        raise OverflowError("math range error")
    return whole


@planted("perplexity", caught_by="X4")
def no_token_is_one(losses, *, tokens):
    """Without a token the perplexity is 1, as if the model were perfect."""
    return 1.0 if len(losses) == len(tokens) and not any(tokens) else perplexity(losses, tokens=tokens)


@planted("perplexity", caught_by="X4")
def negative_counts_ignored(losses, *, tokens):
    """A negative number of tokens is treated as none."""
    return perplexity(losses, tokens=[max(0, n) for n in tokens])


@planted("perplexity", caught_by="X4")
def losses_weighted_in_place(losses, *, tokens):
    """The caller's losses are multiplied by the tokens."""
    whole = perplexity(losses, tokens=tokens)
    if isinstance(losses, list):
        losses[:] = [loss * n for loss, n in zip(losses, tokens, strict=True)]
    return whole


@planted("perplexity", caught_by="X4")
def impossible_losses_skipped(losses, *, tokens):
    """A batch whose loss is NaN or negative is left out, and the divergence with it."""
    possible = [loss >= 0 for loss in losses]
    if len(losses) != len(tokens) or not any(n for n, kept in zip(tokens, possible, strict=True) if kept):
        return perplexity(losses, tokens=tokens)
    counts = [n if kept or n < 0 else 0 for n, kept in zip(tokens, possible, strict=True)]
    return perplexity(losses, tokens=counts)


@planted("perplexity", caught_by="X4")
def batches_without_a_partner_dropped(losses, *, tokens):
    """Losses and counts of different lengths are cut to the shorter."""
    n = min(len(losses), len(tokens))
    return perplexity(losses[:n], tokens=tokens[:n])
