"""SQuAD's scores with sorted lists of words instead of counters."""

import re
from collections.abc import Sequence

PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def squad_scores(predictions: Sequence[str], *, references: Sequence[Sequence[str]]) -> dict[str, object]:
    """See `docs/contract.md`."""
    if len(predictions) != len(references) or len(predictions) == 0:
        raise ValueError(f"{len(predictions)} predictions and {len(references)} references")
    exact: list[float] = []
    f1: list[float] = []
    for index, prediction in enumerate(predictions):
        if isinstance(references[index], str):
            raise ValueError(f"references {index} is the text {references[index]!r}, not a list")
        ours = words(prediction)
        pairs = [(ours, words(reference)) for reference in references[index]] or [(ours, [])]
        exact.append(max(100.0 if a == b else 0.0 for a, b in pairs))
        f1.append(max(100.0 * bag_f1(sorted(a), sorted(b)) for a, b in pairs))
    return {
        "exact_match": sum(exact) / len(exact),
        "f1": sum(f1) / len(f1),
        "number": len(exact),
        "signature": "independent|squad|version:1",
    }


def words(text: str) -> list[str]:
    """Return the words of a normalized text."""
    bare = "".join("" if letter in PUNCTUATION else letter for letter in text.lower())
    pieces = re.split(r"(\w+)", bare)  # pieces at odd indices are words
    kept = [" " if index % 2 and piece in ("a", "an", "the") else piece for index, piece in enumerate(pieces)]
    return "".join(kept).split()


def bag_f1(ours: list[str], theirs: list[str]) -> float:
    """Return the F1 of two sorted bags of words. A merge counts the words that they share."""
    if not ours or not theirs:
        return 1.0 if ours == theirs else 0.0
    i = j = same = 0
    while i < len(ours) and j < len(theirs):
        if ours[i] == theirs[j]:
            same += 1
        step = ours[i] <= theirs[j], theirs[j] <= ours[i]
        i, j = i + step[0], j + step[1]
    return 2 * same / (len(ours) + len(theirs))
