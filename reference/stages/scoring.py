"""Score entities with seqeval, and compute perplexity.

seqeval is the standard scorer of the field. The code here keeps it from misreading its input:

- Its default mode knows only the prefixes B, I, E and S: it reads `U-ORG U-ORG` as one entity, and loses the first
  entity of `B L B L`. So BILOU is passed as IOBES.
- Its strict mode strips hyphens off both ends of a type (`B-X-` becomes `B-X`), and its default mode only warns about
  unknown tags (`0` for `O`). So names are parsed here, and seqeval sees numbers as types.
- It warns that precision is undefined if no entity is predicted. So it only finds the entities, and they are counted
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

from touchstone.stages.extras import suite_extra
from touchstone.stages.ragged import IGNORED, Ragged
from touchstone.stages.tags import OUTSIDE, SCHEMES, Tag, parse_names

MODES = ("strict", "lenient")


class TypeScores(TypedDict):
    """Scores of one entity type, or of all of them; `number` counts the gold entities."""

    precision: float
    recall: float
    f1: float
    number: int


class EntityScores(TypedDict):
    """The result of `score_entities`."""

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
    """Compute precision, recall and F1 of entities. An entity is correct if its type, start and end are.

    >>> scores = score_entities([[0, 1, 2, 1]], references=[[0, 1, 2, -100]], names=["O", "B-PER", "I-PER"])
    >>> scores["precision"], scores["recall"], scores["f1"], scores["accuracy"], scores["number"]
    (1.0, 1.0, 1.0, 1.0, 1)

    Args:
        predictions: N sentences of label ids, sentence i (T_i,).
        references: the gold label ids, in the same shape. Positions with -100 are left out, whatever is predicted.
        names: (L,) the name of each label id.
        scheme: `IOB2`, `IOBES` or `BILOU`.
        mode: `strict` counts only well-formed entities; `lenient` reads ill-formed sequences as conlleval does.

    Returns:
        `precision`, `recall`, `f1` in [0, 1] (0.0 where undefined), `accuracy` of the labels, `number` of gold
        entities, `types` with the scores of each type among the gold or predicted entities, and the `signature`.

    Raises:
        ValueError: different lengths, an id outside `names`, a name that is not a tag of the scheme, an unknown scheme
            or mode.
        ImportError: seqeval is not installed.
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
    """Compute the exponential of the mean negative log-likelihood of all tokens.

    >>> perplexity([0.0, 1.0], tokens=[1, 3])  # exp(3 / 4)
    2.117...

    Args:
        losses: (N,) the mean over the tokens of each batch, in nats.
        tokens: (N,) the number of tokens in each batch. The loss of a batch without tokens is ignored.

    Returns:
        A number of at least 1, or `inf` if exp overflows.

    Raises:
        ValueError: different lengths, a negative count, no tokens at all, a NaN or negative loss in a batch that has
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
        # fsum is exact, so the order of batches does not change even the last bit.
        return math.exp(math.fsum(parts) / total)
    except OverflowError:
        return math.inf


def _scored_positions(
    predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]], *, n_names: int
) -> tuple[Ragged, Ragged]:
    """Return predicted and gold ids without the positions that the references ignore."""
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
    """Return the tag in a form that seqeval reads correctly: its type is a number."""
    if tag == OUTSIDE:
        return "O"
    prefixes = {meaning: prefix for prefix, meaning in SCHEMES[scheme].items()}
    return f"{prefixes[tag.opens, tag.closes]}-{types.index(tag.type)}"


def _entities(ids: Ragged, spelled: npt.NDArray[Any], *, scheme: str, mode: str) -> set[tuple[int, int, int]]:
    """Return (number of the type, start, end) of every entity, with positions in the concatenated sentences."""
    with suite_extra("score_entities", "seqeval"):  # imported here: it imports scikit-learn, which takes a second
        import seqeval.scheme
        from seqeval.metrics.sequence_labeling import get_entities

    tags = [row.tolist() for row in (spelled[ids[i]] for i in range(len(ids)))]
    if mode == "lenient":
        return {(int(kind), start, end) for kind, start, end in get_entities(tags)}
    per_sentence = seqeval.scheme.Entities(tags, getattr(seqeval.scheme, scheme)).entities
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
