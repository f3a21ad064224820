"""BLEU of a corpus, by sacreBLEU, with the signature that says which BLEU it is.

BLEU depends on how texts are tokenized more than most systems differ. sacreBLEU tokenizes them itself, so it is to be
given texts as people write them, not tokens joined by blanks.

Sources: Papineni et al. 2002; Post 2018, "A Call for Clarity in Reporting BLEU Scores".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from sacrebleu.metrics.bleu import BLEU


class BleuScores(TypedDict):
    bleu: float
    precisions: list[float]
    brevity_penalty: float
    number: int
    signature: str


def bleu(predictions: Sequence[str], *, references: Sequence[str] | Sequence[Sequence[str]]) -> BleuScores:
    """Corpus BLEU with sacreBLEU's defaults: 13a tokenization, cased, 4-grams, exponential smoothing.

    Args:
        predictions: N detokenised texts.
        references: N texts, or N lists of equally many texts: example i has `references[i]`. (sacreBLEU's own order is
            the other one: a list of each example's first reference, a list of its second.)

    Returns:
        `bleu` from 0 to 100, the smoothed `precisions` of 1- to 4-grams (0 to 100), `brevity_penalty` (0 to 1),
        `number` (N) and sacreBLEU's `signature`. A corpus without any 4-gram scores 0, even against itself.

    Raises:
        ValueError: no texts, lengths that differ, examples with differing numbers of references, an example without.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    if len(predictions) == 0:
        raise ValueError("no predictions: the BLEU of no texts is undefined")
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
                raise ValueError(f"example {index} holds {text!r}: predictions and references are texts")
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
