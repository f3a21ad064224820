"""ROUGE by removing matched words from a list; common subsequences are built from the places where words match."""

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from nltk.stem.porter import PorterStemmer

LETTERS = set("abcdefghijklmnopqrstuvwxyz0123456789")


def rouge(predictions: Sequence[str], *, references: Sequence[str], newline: str = "\n") -> dict[str, Any]:
    """See `docs/contract.md`."""
    if len(predictions) != len(references) or len(predictions) == 0 or not newline:
        raise ValueError(f"{len(predictions)} predictions, {len(references)} references, newline {newline!r}")
    totals = [0.0] * 4
    for prediction, reference in zip(predictions, references, strict=True):
        ours, theirs = ([words(part) for part in text.split(newline)] for text in (prediction, reference))
        flat, gold = list(itertools.chain(*ours)), list(itertools.chain(*theirs))
        pairs = list(itertools.pairwise(flat)), list(itertools.pairwise(gold))
        totals[0] += f1(shared(flat, gold), len(flat), len(gold))
        totals[1] += f1(shared(*pairs), len(pairs[0]), len(pairs[1]))
        totals[2] += f1(len(common(gold, flat)), len(flat), len(gold))
        united = [sentence[i] for sentence in theirs for i in set().union(*(common(sentence, own) for own in ours))]
        totals[3] += f1(shared(united, flat), len(flat), len(gold))
    means = [100 * total / len(predictions) for total in totals]
    return {
        **dict(zip(("rouge1", "rouge2", "rougeL", "rougeLsum"), means, strict=True)),
        "number": len(predictions),
        "signature": f"stemmer:porter|sentences:{newline}|version:{version('nltk')}",
    }


def f1(hits: int, found: int, wanted: int) -> float:
    """Return the harmonic mean of precision and recall."""
    precision, recall = hits / max(found, 1), hits / max(wanted, 1)
    return 2 * precision * recall / (precision + recall) if hits else 0.0


def shared(found: Sequence[Any], wanted: Sequence[Any]) -> int:
    """Return the size of the intersection of two bags."""
    left = list(wanted)
    for item in found:
        if item in left:
            left.remove(item)
    return len(wanted) - len(left)


def common(sentence: Sequence[str], other: Sequence[str]) -> set[int]:
    """Return the places in `sentence` of one longest common subsequence (Hunt and Szymanski 1977)."""
    ends: list[int] = []  # the least place in `other` where a common subsequence of this length ends
    chains: list[tuple[Any, int]] = []
    for place, word in enumerate(sentence):
        for match in reversed([j for j, each in enumerate(other) if each == word]):
            size = bisect_left(ends, match)
            link = (chains[size - 1] if size else None, place)
            ends[size : size + 1], chains[size : size + 1] = [match], [link]
    chain = chains[-1] if chains else None
    result = set()
    while chain:
        chain, place = chain
        result.add(place)
    return result


def words(text: str) -> list[str]:
    """Return the stemmed words of a text."""
    kept = "".join(letter if letter in LETTERS else " " for letter in text.lower())
    return [stem(word) if len(word) > 3 else word for word in kept.split()]


@cache
def stem(word: str) -> str:
    """Return the Porter stem of a word."""
    return str(PorterStemmer().stem(word))


def split_sentences(text: str) -> list[str]:
    """See `docs/contract.md`."""
    return [part.strip() for part in cut(text) if part.strip()]


def cut(text: str) -> Iterator[str]:
    """Yield the sentences of a text, with surrounding blanks."""
    part, ended, initial = "", False, False
    for before, letter in zip(" " + text, text + " ", strict=True):
        if letter.splitlines() == [""] or (ended and not initial and letter.isspace()):
            yield part
            part, ended, initial = "", False, False
        elif letter in ".!?…":
            alone = len(part) < 2 or not (part[-2].isalnum() or part[-2] == "_")
            initial = letter == "." and not ended and before.isupper() and alone
            ended = True
        elif not (ended and letter in "\"')]}»\u2019\u201d"):
            ended = initial = False
        elif initial:
            initial = False
        part += letter
    yield part


def lead(text: str, *, sentences: int = 3) -> str:
    """See `docs/contract.md`."""
    if sentences < 1:
        raise ValueError(f"a lead of {sentences} sentences is empty")
    return "\n".join(sentence for sentence, _ in zip(split_sentences(text), range(sentences), strict=False))
