"""BLEU by scanning characters: the rules of 13a are applied to one character at a time, n-grams are joined strings."""

import math
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

PUNCTUATION = set('{|}~[\\]^_` !"#$%&()*+:;<=>?@/')
ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


def bleu(predictions: Sequence[str], *, references: Sequence[Any]) -> dict[str, Any]:
    """See `docs/contract.md`."""
    if len(predictions) != len(references) or len(predictions) == 0:
        raise ValueError(f"{len(predictions)} predictions, {len(references)} references")
    rows = [(text,) if isinstance(text, str) else tuple(text) for text in references]
    for index, row in enumerate(rows):
        if not row or len(row) != len(rows[0]):
            raise ValueError(f"example {index} has {len(row)} references, example 0 has {len(rows[0])}")

    found, possible = [0] * 4, [0] * 4
    sizes = [0, 0]
    for prediction, row in zip(predictions, rows, strict=True):
        tokens, others = tokenize(prediction), [tokenize(text) for text in row]
        sizes[0] += len(tokens)
        sizes[1] += sorted((abs(len(other) - len(tokens)), len(other)) for other in others)[0][1]
        for order in range(4):
            pool = [grams(other, order + 1) for other in others]
            for gram in grams(tokens, order + 1):
                possible[order] += 1
                hit = [gram in grams_left for grams_left in pool]
                found[order] += any(hit)
                for grams_left, there in zip(pool, hit, strict=True):
                    if there:
                        grams_left.remove(gram)

    short = sizes[0] < sizes[1]
    penalty = 1.0 if not short else math.exp(1 - sizes[1] / sizes[0]) if sizes[0] else 0.0
    precisions, share = [0.0] * 4, 1.0
    if sum(found):
        for order in range(4):
            if possible[order] and not found[order]:
                share /= 2
            precisions[order] = 100 * (found[order] or share) / possible[order] if possible[order] else 0.0
    product = math.prod(precision / 100 for precision in precisions)
    return {
        "bleu": 100 * penalty * product**0.25,
        "precisions": precisions,
        "brevity_penalty": penalty,
        "number": len(rows),
        "signature": f"nrefs:{len(rows[0])}|case:mixed|eff:no|tok:13a|smooth:exp|version:{version('sacrebleu')}",
    }


def grams(tokens: list[str], order: int) -> list[str]:
    """Return all n-grams of this order, each joined by blanks."""
    return [" ".join(tokens[start : start + order]) for start in range(len(tokens) - order + 1)]


def tokenize(text: str) -> list[str]:
    """Tokenize as 13a does: punctuation is a separate token, and so are periods and commas not between digits."""
    text = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in ENTITIES:
        text = text.replace(entity, character)
    text = f" {text} "
    out = ""
    for place, character in enumerate(text):
        before, after = text[place - 1 : place], text[place + 1 : place + 2]
        apart = character in PUNCTUATION or (character == "-" and before in set("0123456789") and before)
        if character in ".,":
            apart = not (before and after and before in "0123456789" and after in "0123456789")
        out += f" {character} " if apart else character
    return out.split()
