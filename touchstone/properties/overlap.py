"""BLEU and ROUGE counted once more, from the papers' definitions and sharing no code with a scorer.

Only what the scores define by a program is taken from it: sacreBLEU's 13a tokenizer, and Porter's stemmer as NLTK has
it. The longest common subsequence is its recursive definition.

Sources: Papineni et al. 2002, with the smoothing of mteval-v13a (Chen and Cherry 2014, method 3); Lin 2004.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

Words = tuple[str, ...]


@cache
def words_of_13a(text: str) -> Words:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer = Tokenizer13a()  # type: ignore[no-untyped-call]
    return tuple(str(tokenizer(text.rstrip())).split())


def ngrams(words: Words, n: int) -> Counter[Words]:
    return Counter(words[start : start + n] for start in range(len(words) - n + 1))


def corpus_bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """`bleu`, `precisions` (smoothed) and `brevity_penalty` of example i against `references[i]`."""
    matches, totals = [0] * 4, [0] * 4
    length = reference_length = 0
    for prediction, texts in zip(predictions, references, strict=True):
        words, others = words_of_13a(prediction), [words_of_13a(text) for text in texts]
        length += len(words)
        reference_length += min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        for n in range(1, 5):
            found = ngrams(words, n)
            totals[n - 1] += found.total()
            for ngram, count in found.items():
                matches[n - 1] += min(count, max(ngrams(other, n)[ngram] for other in others))
    penalty = 0.0 if length == 0 else min(1.0, math.exp(1 - reference_length / length))
    if not any(matches):
        return {"bleu": 0.0, "precisions": [0.0] * 4, "brevity_penalty": penalty}
    precisions, halvings = [], 0
    for match, total in zip(matches, totals, strict=True):
        halvings += total > 0 and match == 0
        precisions.append(0.0 if total == 0 else 100 * (match or 0.5**halvings) / total)
    mean = math.exp(math.fsum(map(math.log, precisions)) / 4) if all(precisions) else 0.0
    return {"bleu": penalty * mean, "precisions": precisions, "brevity_penalty": penalty}


@cache
def words_of_rouge(text: str) -> Words:
    """Runs of a-z and 0-9 in lower case; those of more than three are stemmed."""
    return tuple(_stem(word) if len(word) > 3 else word for word in re.findall("[a-z0-9]+", text.lower()))


@cache
def _stem(word: str) -> str:
    return str(_stemmer().stem(word))


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


def f_measure(hits: int, found: int, wanted: int) -> float:
    """In percent; 0 where undefined."""
    return 200 * hits / (found + wanted) if hits else 0.0


def rouge_n(prediction: str, reference: str, n: int) -> float:
    found, wanted = ngrams(words_of_rouge(prediction), n), ngrams(words_of_rouge(reference), n)
    return f_measure((found & wanted).total(), found.total(), wanted.total())


def rouge_l(prediction: str, reference: str) -> float:
    a, b = words_of_rouge(prediction), words_of_rouge(reference)
    return f_measure(longest_common(a, b), len(a), len(b))


def longest_common(a: Words, b: Words) -> int:
    @cache
    def of_the_rest(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return 0
        if a[i] == b[j]:
            return 1 + of_the_rest(i + 1, j + 1)
        return max(of_the_rest(i + 1, j), of_the_rest(i, j + 1))

    return of_the_rest(0, 0)
