"""Independent computations that the checks compare an implementation with. They share no code with an implementation.

Tags: Ratinov and Roth, "Design Challenges and Misconceptions in Named Entity Recognition", CoNLL 2009, section 3 (BIO
and BILOU); IOBES is BILOU with E for L and S for U. Lenient reading: conlleval (CoNLL-2000 shared task, `endOfChunk`
and `startOfChunk`). The entity counts test every span. This takes cubic time, but is easy to verify.

Texts: Papineni et al. 2002, with the smoothing of mteval-v13a (Chen and Cherry 2014, method 3); Lin 2004. Only what the
scores define by a program comes from that program: the 13a tokenizer of sacreBLEU, and Porter's stemmer of NLTK.

Counts of random draws: exact two-sided binomial bounds.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from touchstone.properties.failure import Mismatch

# Tags -----------------------------------------------------------------------------------------------------------------

IGNORED = -100
OUTSIDE = "O"


class Prefixes(NamedTuple):
    """The prefixes of a scheme. `end` and `single` are `None` if the scheme lacks them."""

    begin: str
    inside: str
    end: str | None
    single: str | None


SCHEMES = {
    "IOB2": Prefixes("B", "I", None, None),
    "IOBES": Prefixes("B", "I", "E", "S"),
    "BILOU": Prefixes("B", "I", "L", "U"),
}


class Entity(NamedTuple):
    type: str
    first: int
    last: int


def split_tag(tag: str) -> tuple[str, str]:
    """Split `B-X` into `("B", "X")` and `O` into `("O", "")` at the first hyphen."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def tags_of(types: Sequence[str], *, scheme: str) -> list[str]:
    """Return `O` and every tag of the types."""
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in SCHEMES[scheme] if prefix)]


def spell(kind: str, length: int, *, scheme: str) -> list[str]:
    """Return the tags of one entity of `length` words."""
    begin, inside, end, single = SCHEMES[scheme]
    if length == 1:
        return [f"{single or begin}-{kind}"]
    return [f"{begin}-{kind}", *[f"{inside}-{kind}"] * (length - 2), f"{end or inside}-{kind}"]


def respell(tag: str, n_tokens: int, *, scheme: str) -> list[str]:
    """Return the tags of a word's tokens under strategy `all` (the table in docs/contract.md)."""
    if tag == OUTSIDE or n_tokens == 1:
        return [tag] * n_tokens
    prefix, kind = split_tag(tag)
    begin, inside, end, single = SCHEMES[scheme]
    first = begin if prefix in (begin, single) else inside
    last = end if end and prefix in (end, single) else inside
    return [f"{first}-{kind}", *[f"{inside}-{kind}"] * (n_tokens - 2), f"{last}-{kind}"]


def merge(first: str | None, last: str | None, *, scheme: str) -> str:
    """Return a word's tag, given the tags of its first and last token (`None`: -100, or there is no token)."""
    begin, inside, end, single = SCHEMES[scheme]
    if first is None:
        return OUTSIDE
    if first == OUTSIDE or last is None or end is None:
        return first
    prefix, kind = split_tag(first)
    starts = prefix in (begin, single)
    ends = split_tag(last)[0] in (end, single)
    return f"{single if starts and ends else begin if starts else end if ends else inside}-{kind}"


def is_valid(tags: Sequence[str], *, scheme: str) -> bool:
    """Return True if the sequence is valid in the scheme."""
    begin, inside, end, _ = SCHEMES[scheme]
    open_type: str | None = None  # of the entity that may (IOB2) or must (IOBES, BILOU) continue
    for tag in tags:
        prefix, kind = split_tag(tag)
        continues = prefix in (inside, end)
        if continues and kind != open_type:
            return False
        if not continues and end and open_type is not None:
            return False
        open_type = kind if prefix in (begin, inside) else None
    return not (end and open_type is not None)


def strict_entities(tags: Sequence[str], *, scheme: str) -> set[Entity]:
    """Return the well-formed entities: in IOB2 a B and all I of its type that follow, otherwise S or B I ... I E."""
    found = set()
    for first in range(len(tags)):
        for last in range(first, len(tags)):
            kind = split_tag(tags[first])[1]
            whole = list(tags[first : last + 1]) == spell(kind, last - first + 1, scheme=scheme) and tags[first] != "O"
            goes_on = scheme == "IOB2" and list(tags[last + 1 : last + 2]) == [f"I-{kind}"]
            if whole and not goes_on:
                found.add(Entity(kind, first, last))
    return found


def lenient_entities(tags: Sequence[str]) -> set[Entity]:
    """Return the entities as conlleval reads them.

    I, E or L after B or I of the same type continues an entity. Any other tag except O opens one.
    """

    def goes_on(position: int) -> bool:
        if not 0 < position < len(tags):
            return False
        (before, kind_before), (prefix, kind) = split_tag(tags[position - 1]), split_tag(tags[position])
        return before in "BI" and prefix in "IEL" and kind == kind_before

    found = set()
    for first in range(len(tags)):
        if tags[first] == OUTSIDE or goes_on(first):
            continue
        for last in range(first, len(tags)):
            if all(goes_on(k) for k in range(first + 1, last + 1)) and not goes_on(last + 1):
                found.add(Entity(split_tag(tags[first])[1], first, last))
    return found


def entities(tags: Sequence[str], *, scheme: str, mode: str) -> set[Entity]:
    return strict_entities(tags, scheme=scheme) if mode == "strict" else lenient_entities(tags)


def first_and_last(word_ids: Sequence[int | None], *, among: Sequence[bool]) -> dict[int, tuple[int, int]]:
    """Map each word to the positions of its first and last token. Tokens where `among` is False are skipped."""
    spans: dict[int, tuple[int, int]] = {}
    for position, word in enumerate(word_ids):
        if word is not None and among[position]:
            spans[word] = (spans.get(word, (position, position))[0], position)
    return spans


# BLEU and ROUGE -------------------------------------------------------------------------------------------------------

Words = tuple[str, ...]


@cache
def words_of_13a(text: str) -> Words:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer = Tokenizer13a()  # type: ignore[no-untyped-call]
    return tuple(str(tokenizer(text.rstrip())).split())


def ngrams(words: Words, n: int) -> Counter[Words]:
    return Counter(words[start : start + n] for start in range(len(words) - n + 1))


def corpus_bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return `bleu`, `precisions` (smoothed) and `brevity_penalty`. `references[i]` are the references of example i."""
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
    """Return the runs of a-z and 0-9 in lower case. Those longer than three characters are stemmed."""
    return tuple(_stem(word) if len(word) > 3 else word for word in re.findall("[a-z0-9]+", text.lower()))


@cache
def _stem(word: str) -> str:
    return str(_stemmer().stem(word))


@cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


def f_measure(hits: int, found: int, wanted: int) -> float:
    """Return the F-measure in percent, 0 if it is undefined."""
    return 200 * hits / (found + wanted) if hits else 0.0


def rouge_n(prediction: str, reference: str, n: int) -> float:
    found, wanted = ngrams(words_of_rouge(prediction), n), ngrams(words_of_rouge(reference), n)
    return f_measure((found & wanted).total(), found.total(), wanted.total())


def rouge_l(prediction: str, reference: str) -> float:
    a, b = words_of_rouge(prediction), words_of_rouge(reference)
    return f_measure(longest_common(a, b), len(a), len(b))


def longest_common(a: Words, b: Words) -> int:
    """Return the length of the longest common subsequence, by its recursive definition."""

    @cache
    def of_the_rest(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return 0
        if a[i] == b[j]:
            return 1 + of_the_rest(i + 1, j + 1)
        return max(of_the_rest(i + 1, j), of_the_rest(i, j + 1))

    return of_the_rest(0, 0)


# Counts of random draws -----------------------------------------------------------------------------------------------

ALPHA = 1e-14
"""Probability that one count of a correct implementation is outside its bounds.

A check makes at most 100,000 comparisons (M7 under the profile `deep` makes 200 examples of 50 ids, the others far
fewer), so the probability of a false alarm is below 1e-9. The draws are functions of their seeds: a check that has
passed on an implementation will always pass on it.
"""


def expect_share(count: int, *, n: int, probability: float, of: str) -> None:
    """Require that `count` of `n` independent draws with this probability each is within its exact bounds."""
    __tracebackhide__ = True
    from scipy.stats import binom  # imported here because it takes most of a second

    tail = min(binom.cdf(count, n, probability), binom.sf(count - 1, n, probability))
    if tail < ALPHA / 2:
        low, high = (int(binom.ppf(q, n, probability)) for q in (ALPHA / 2, 1 - ALPHA / 2))
        raise Mismatch(
            expected=f"{low} to {high} of {n} {of} (independent draws with probability {probability:g})",
            came=f"{count} ({count / n:.4f})" if n else f"{count}",
        )
