"""Compute the BLEU of a corpus with sacreBLEU, and the signature that identifies the variant of BLEU.

The tokenization of the texts changes BLEU more than most systems differ. sacreBLEU tokenizes them itself, so pass texts
as people write them, not tokens joined by blanks.

Sources: Papineni et al. 2002; Post 2018, "A Call for Clarity in Reporting BLEU Scores".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from touchstone.stages.extras import suite_extra


class BleuScores(TypedDict):
    """The result of `bleu`."""

    bleu: float
    precisions: list[float]
    brevity_penalty: float
    number: int
    signature: str


def bleu(predictions: Sequence[str], *, references: Sequence[str] | Sequence[Sequence[str]]) -> BleuScores:
    """Compute corpus BLEU with sacreBLEU's defaults: 13a tokenization, cased, 4-grams, exponential smoothing.

    >>> scores = bleu(["the cat sat on a mat"], references=["the cat sat on the mat"])
    >>> round(scores["bleu"], 2), [round(precision, 1) for precision in scores["precisions"]]
    (53.73, [83.3, 60.0, 50.0, 33.3])

    Args:
        predictions: N detokenized texts.
        references: N texts, or N lists of equally many texts; `references[i]` belongs to example i. (sacreBLEU itself
            takes the transpose: a list of all first references, a list of all second references.)

    Returns:
        `bleu` from 0 to 100, the smoothed `precisions` of 1- to 4-grams (0 to 100), `brevity_penalty` (0 to 1),
        `number` (N) and sacreBLEU's `signature`. A corpus without any 4-gram scores 0, even against itself.

    Raises:
        ValueError: no texts, different lengths, examples with different numbers of references, an example without
            references.
        ImportError: sacreBLEU is not installed.
    """
    with suite_extra("bleu", "sacrebleu"):
        from sacrebleu.metrics.bleu import BLEU

    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    if len(predictions) == 0:
        raise ValueError("no predictions: BLEU needs at least one text")
    lists = [[item] if isinstance(item, str) else list(item) for item in references]
    for index, (prediction, texts) in enumerate(zip(predictions, lists, strict=True)):
        if not texts:
            raise ValueError(f"references[{index}] is empty: an example needs at least one reference")
        if len(texts) != len(lists[0]):
            raise ValueError(
                f"references[{index}] has {len(texts)} texts, references[0] has {len(lists[0])}: all examples need "
                "the same number of references"
            )
        for text in (prediction, *texts):
            if not isinstance(text, str):
                raise ValueError(f"example {index} holds {text!r}: predictions and references must be texts")
    metric = BLEU()
    score = metric.corpus_score(list(predictions), [list(column) for column in zip(*lists, strict=True)])
    return {
        # The geometric mean of four hundreds is 100.00000000000004.
        "bleu": min(float(score.score), 100.0),
        "precisions": [float(precision) for precision in score.precisions],
        "brevity_penalty": float(score.bp),
        "number": len(predictions),
        "signature": str(metric.get_signature()),
    }
