"""Scores that say what they are: entities (seqeval) with scheme and mode, and perplexity.

seqeval is the field's scorer; what stands around it here keeps it from misreading its input:

- Its default mode knows the prefixes B, I, E and S only: `U-ORG U-ORG` is one entity to it, and the first of `B L B L`
  is lost. So BILOU is handed over as IOBES.
- Its strict mode strips hyphens off both ends of a type (`B-X-` and `B-X` become one), and its default mode only warns
  at tags it does not know (`0` for `O`). So names are parsed here, and seqeval sees numbers for types.
- Where nothing is predicted it warns that precision is undefined. So it is asked for the entities, and they are counted
  here.

Sources: seqeval 1.2.2; conlleval (Tjong Kim Sang and Buchholz 2000), which seqeval's default mode follows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import seqeval.scheme
from seqeval.metrics.sequence_labeling import get_entities

from touchstone.stages.ragged import IGNORED, Ragged
from touchstone.stages.tags import OUTSIDE, SCHEMES, Tag, parse_names

MODES = ("strict", "lenient")
SEQEVAL_SCHEMES = {"IOB2": seqeval.scheme.IOB2, "IOBES": seqeval.scheme.IOBES}


class TypeScores(TypedDict):
    precision: float
    recall: float
    f1: float
    number: int


class EntityScores(TypedDict):
    precision: float
    recall: float
    f1: float
    accuracy: float
    number: int
    types: dict[str, TypeScores]
    signature: str


def score_entities(
    predictions: Sequence[Sequence[int]],
    *,
    references: Sequence[Sequence[int]],
    names: Sequence[str],
    scheme: str = "IOB2",
    mode: str = "strict",
) -> EntityScores:
    """Entity-level precision, recall and F1 over sentences: an entity is right if type, start and end are.

    Args:
        predictions: N sentences of label ids, sentence i (T_i,).
        references: the gold label ids, in the same shape. Positions with -100 are left out, whatever is predicted.
        names: (L,) the name of each label id.
        scheme: `IOB2`, `IOBES` or `BILOU`.
        mode: `strict` counts well-formed entities only; `lenient` reads ill-formed sequences as conlleval does.

    Returns:
        `precision`, `recall`, `f1` in [0, 1] (0.0 where undefined), `accuracy` of the labels, `number` of gold
        entities, `types` with the same for each type that is among the gold or predicted entities, and the `signature`.

    Raises:
        ValueError: lengths that differ, an id outside `names`, a name that is not a tag of the scheme, an unknown
            scheme or mode.
    """
    tag_set = parse_names(names, scheme=scheme)
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is unknown: use one of {', '.join(MODES)}")
    predicted, gold = _scored_positions(predictions, references, n_names=len(tag_set.names))

    types = sorted({tag.type for tag in tag_set.tags if tag != OUTSIDE})
    target = "IOBES" if scheme == "BILOU" else scheme
    spelled = np.array([_spell(tag, types, target) for tag in tag_set.tags], dtype=object)
    found = _entities(predicted, spelled, scheme=target, mode=mode)
    right = _entities(gold, spelled, scheme=target, mode=mode)
    n_found, n_right = (Counter(types[kind] for kind, *_ in entities) for entities in (found, right))
    n_hits = Counter(types[kind] for kind, *_ in found & right)

    by_type = {kind: _scores(n_hits[kind], n_found[kind], n_right[kind]) for kind in sorted(n_found | n_right)}
    n_labels = len(gold.values)
    return {
        **_scores(n_hits.total(), n_found.total(), n_right.total()),
        "accuracy": int((predicted.values == gold.values).sum()) / n_labels if n_labels else 0.0,
        "types": by_type,
        "signature": f"seqeval|scheme:{scheme}|mode:{mode}|version:{version('seqeval')}",
    }


def perplexity(losses: Sequence[float], *, tokens: Sequence[int]) -> float:
    """exp of the mean negative log-likelihood of all tokens.

    Args:
        losses: (N,) the mean over each batch, in nats.
        tokens: (N,) how many tokens each mean is over. A batch with none counts for nothing, whatever its loss.

    Returns:
        A number from 1 on; `inf` where exp overflows.

    Raises:
        ValueError: lengths that differ, a negative count, no token at all, a NaN or negative loss in a batch that has
            tokens.
    """
    if len(losses) != len(tokens):
        raise ValueError(f"{len(losses)} losses for {len(tokens)} counts of tokens")
    total = 0
    parts = []
    for batch, (loss, count) in enumerate(zip(losses, tokens, strict=True)):
        if count < 0:
            raise ValueError(f"tokens[{batch}] is {count}: a count is 0 or more")
        if count == 0:
            continue
        if not loss >= 0:  # also true of NaN
            raise ValueError(f"losses[{batch}] is {loss}: a mean negative log-likelihood is 0 or more")
        total += int(count)
        parts.append(float(loss) * int(count))
    if total == 0:
        raise ValueError(f"no tokens in {len(tokens)} batches: perplexity is undefined")
    try:
        # fsum is exact, so that the order of batches does not matter even in the last bit.
        return math.exp(math.fsum(parts) / total)
    except OverflowError:
        return math.inf


def _scored_positions(
    predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]], *, n_names: int
) -> tuple[Ragged, Ragged]:
    """Predicted and gold ids without the positions that the references ignore."""
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} sentences of predictions for {len(references)} of references")
    rows: tuple[list[npt.NDArray[np.int64]], list[npt.NDArray[np.int64]]] = ([], [])
    for sentence, (predicted, gold) in enumerate(zip(predictions, references, strict=True)):
        if len(predicted) != len(gold):
            raise ValueError(f"sentence {sentence} has {len(predicted)} predictions for {len(gold)} references")
        rows[0].append(np.asarray(predicted, dtype=np.int64))
        rows[1].append(np.asarray(gold, dtype=np.int64))
    all_predicted, all_gold = Ragged.from_arrays(rows[0]), Ragged.from_arrays(rows[1])
    keep = all_gold.values != IGNORED
    for what, ids in (("predictions", all_predicted), ("references", all_gold)):
        wrong = np.flatnonzero(keep & ((ids.values < 0) | (ids.values >= n_names)))
        if wrong.size:
            sentence = int(ids.rows[wrong[0]])
            position = int(wrong[0] - ids.offsets[sentence])
            raise ValueError(f"{what}[{sentence}][{position}] is {ids.values[wrong[0]]}, outside the {n_names} names")
    lengths = np.bincount(all_gold.rows[keep], minlength=len(all_gold))
    return (
        Ragged.from_lengths(all_predicted.values[keep], lengths=lengths),
        Ragged.from_lengths(all_gold.values[keep], lengths=lengths),
    )


def _spell(tag: Tag, types: Sequence[str], scheme: str) -> str:
    """The tag as seqeval reads it without harm: its type is a number."""
    if tag == OUTSIDE:
        return "O"
    prefixes = {meaning: prefix for prefix, meaning in SCHEMES[scheme].items()}
    return f"{prefixes[tag.opens, tag.closes]}-{types.index(tag.type)}"


def _entities(ids: Ragged, spelled: npt.NDArray[Any], *, scheme: str, mode: str) -> set[tuple[int, int, int]]:
    """(number of the type, start, end) of every entity; positions count on through the sentences."""
    tags = [row.tolist() for row in (spelled[ids[i]] for i in range(len(ids)))]
    if mode == "lenient":
        return {(int(kind), start, end) for kind, start, end in get_entities(tags)}
    per_sentence = seqeval.scheme.Entities(tags, SEQEVAL_SCHEMES[scheme]).entities
    starts = ids.offsets.tolist()
    return {
        (int(entity.tag), starts[entity.sent_id] + entity.start, starts[entity.sent_id] + entity.end)
        for sentence in per_sentence
        for entity in sentence
    }


def _scores(hits: int, found: int, right: int) -> TypeScores:
    precision = hits / found if found else 0.0
    recall = hits / right if right else 0.0
    f1 = 2 * hits / (found + right) if found + right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "number": right}
