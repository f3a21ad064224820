"""Entity scores without seqeval: entities are read from left to right, then counted."""

from collections import Counter
from collections.abc import Sequence

from tests.independent.ignored import IGNORED
from tests.independent.tags import Tag, check_ids, read_names

Entity = tuple[int, int, int, str]  # sentence, first position, last position, type


def score_entities(
    predictions: Sequence[Sequence[int]],
    *,
    references: Sequence[Sequence[int]],
    names: Sequence[str],
    scheme: str = "IOB2",
    mode: str = "strict",
) -> dict[str, object]:
    """See `docs/contract.md`."""
    tags = read_names(names, scheme)
    if mode not in ("strict", "lenient"):
        raise ValueError(f"mode {mode!r} is neither 'strict' nor 'lenient'")
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions but {len(references)} references")

    gold: set[Entity] = set()
    found: set[Entity] = set()
    equal = total = 0
    for sentence, (predicted, reference) in enumerate(zip(predictions, references, strict=True)):
        if len(predicted) != len(reference):
            raise ValueError(f"sentence {sentence}: {len(predicted)} predictions but {len(reference)} references")
        kept = [position for position, label in enumerate(reference) if label != IGNORED]
        true = check_ids([reference[p] for p in kept], len(tags), f"references[{sentence}]")
        guess = check_ids([predicted[p] for p in kept], len(tags), f"predictions[{sentence}]")
        equal += sum(a == b for a, b in zip(true, guess, strict=True))
        total += len(kept)
        for ids, entities in ((true, gold), (guess, found)):
            spans = strict_spans if mode == "strict" else lenient_spans
            entities |= {(sentence, *span) for span in spans([tags[i] for i in ids], scheme)}

    kinds = sorted({entity[-1] for entity in gold | found})
    count = {
        which: Counter(e[-1] for e in es) for which, es in (("gold", gold), ("found", found), ("right", gold & found))
    }
    return {
        **rates(len(gold & found), len(found), len(gold)),
        "accuracy": equal / total if total else 0.0,
        "types": {k: rates(count["right"][k], count["found"][k], count["gold"][k]) for k in kinds},
        "signature": f"independent|scheme:{scheme}|mode:{mode}|version:1",
    }


def rates(right: int, found: int, gold: int) -> dict[str, float]:
    """Return precision, recall, F1 and the number of gold entities."""
    return {
        "precision": right / found if found else 0.0,
        "recall": right / gold if gold else 0.0,
        "f1": 2 * right / (found + gold) if found + gold else 0.0,
        "number": gold,
    }


def strict_spans(tags: list[Tag], scheme: str) -> list[tuple[int, int, str]]:
    """Return well-formed entities. IOB2: B and all following I of its type. Else: S, or B, any I and E of one type."""
    spans = []
    for start, tag in enumerate(tags):
        if tag is None or tag[0] not in "BS":
            continue
        kind = tag[1]
        end = start
        if tag[0] == "B":
            while end + 1 < len(tags) and tags[end + 1] == ("I", kind):
                end += 1
            if scheme != "IOB2":
                if end + 1 == len(tags) or tags[end + 1] != ("E", kind):
                    continue
                end += 1
        spans.append((start, end, kind))
    return spans


def lenient_spans(tags: list[Tag], scheme: str) -> list[tuple[int, int, str]]:
    """Return entities as conlleval does: every tag except O is in one, and I or E continues a B or I of its type."""
    spans: list[tuple[int, int, str]] = []
    for position, tag in enumerate(tags):
        if tag is None:
            continue
        before = tags[position - 1] if position else None
        if before is not None and before[0] in "BI" and tag[0] in "IE" and before[1] == tag[1]:
            spans[-1] = (spans[-1][0], position, tag[1])
        else:
            spans.append((position, position, tag[1]))
    return spans
