"""Compute ROUGE with rouge-score, split texts into sentences, and build the lead baseline from the first of them.

rouge-score lower-cases a text and keeps only the letters a to z and digits, so a text in another script scores 0. Words
of more than three letters are stemmed (Porter). ROUGE-L and -Lsum fill a table of reference words times predicted words
in plain Python: 100 pairs of 30 words took 0.45 s on one loaded core, and the time grows with the product of the two
lengths.

ROUGE-Lsum is meant for summaries of several sentences. It matches sentence by sentence, where sentences are separated
by line breaks. For texts without line breaks it equals ROUGE-L.

Source: Lin 2004; rouge-score 0.1.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from math import fsum
from typing import TypedDict

from touchstone.stages.extras import suite_extra

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")

CLOSING = "\"')]}»\N{RIGHT SINGLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}"
END = re.compile(rf"(?<![.!?…])[.!?…]+[{re.escape(CLOSING)}]*(?=\s|$)")
"""Closing marks, and quotes or brackets after them. The lookbehind keeps long runs linear: one match begins in each."""


class RougeScores(TypedDict):
    """The result of `rouge`."""

    rouge1: float
    rouge2: float
    rougeL: float
    rougeLsum: float
    number: int
    signature: str


def rouge(predictions: Sequence[str], *, references: Sequence[str], newline: str = "\n") -> RougeScores:
    """Compute ROUGE-1, -2, -L and -Lsum: the F-measure with stemming, averaged over N texts.

    >>> scores = rouge(["Ann sings"], references=["Ann sang and Bob sings"])
    >>> round(scores["rouge1"], 2), scores["rouge2"], round(scores["rougeL"], 2)
    (57.14, 0.0, 57.14)

    Args:
        predictions: N texts.
        references: N texts, one per example.
        newline: the separator of sentences, for ROUGE-Lsum (Pegasus uses `<n>`).

    Returns:
        `rouge1`, `rouge2`, `rougeL`, `rougeLsum` from 0 to 100, `number` (N), and the `signature`. A text without words
        scores 0. A text of a single word has a ROUGE-2 of 0, even against itself.

    Raises:
        ValueError: no texts, different lengths, an empty `newline`.
        ImportError: rouge-score is not installed.
    """
    with suite_extra("rouge", "rouge-score"):  # imported here: it imports all of NLTK, which takes long
        from rouge_score.rouge_scorer import RougeScorer

    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    if len(predictions) == 0:
        raise ValueError("no predictions: ROUGE needs at least one text")
    if not newline:
        raise ValueError("newline is empty: pass the separator of sentences")
    scorer = RougeScorer(list(KINDS), use_stemmer=True)
    scores = [
        scorer.score(_lines(reference, newline), _lines(prediction, newline))
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    # fsum is exact, so the order of examples does not change even the last bit.
    means = {kind: 100 * fsum(score[kind].fmeasure for score in scores) / len(scores) for kind in KINDS}
    return {
        "rouge1": means["rouge1"],
        "rouge2": means["rouge2"],
        "rougeL": means["rougeL"],
        "rougeLsum": means["rougeLsum"],
        "number": len(scores),
        "signature": f"rouge-score|measure:f|stemmer:porter|sentences:{newline!r}|version:{version('rouge-score')}",
    }


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences, without surrounding blanks.

    A sentence ends at a line break, and after `.`, `!`, `?` or `…` (with closing quotes or brackets after it) if blanks
    follow. The period of a single upper-case letter does not end it (`J. Smith`, `U.S. Army`). Abbreviations are not
    recognized: `Dr. Smith` is split in two.

    >>> split_sentences('J. Smith paid 3.50. "Why?" Nobody knows')
    ['J. Smith paid 3.50.', '"Why?"', 'Nobody knows']
    """
    sentences = []
    for line in text.splitlines():
        begin = 0
        for match in END.finditer(line):
            if match.group() == "." and _ends_initial(line[max(match.start() - 2, 0) : match.start()]):
                continue
            sentences.append(line[begin : match.end()].strip())
            begin = match.end()
        sentences.append(line[begin:].strip())
    return [sentence for sentence in sentences if sentence]


def lead(text: str, *, sentences: int = 3) -> str:
    """Return the first sentences of a text, one per line: the baseline that a summary of news has to beat.

    >>> lead("One. Two. Three.", sentences=2)
    'One.\\nTwo.'

    Raises:
        ValueError: `sentences < 1`.
    """
    if sentences < 1:
        raise ValueError(f"sentences is {sentences}: a lead needs at least one")
    return "\n".join(split_sentences(text)[:sentences])


def _ends_initial(before: str) -> bool:
    """Return whether the two characters before a period end in a single upper-case letter."""
    return before[-1:].isupper() and not (before[:-1].isalnum() or before[:-1] == "_")


def _lines(text: str, newline: str) -> str:
    """Return the text with line breaks between its sentences, and only there."""
    return "\n".join(" ".join(sentence.split("\n")) for sentence in text.split(newline))
