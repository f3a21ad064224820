"""Perplexity in exact rational arithmetic, except for the exponential."""

import math
from collections.abc import Sequence
from fractions import Fraction


def perplexity(losses: Sequence[float], *, tokens: Sequence[int]) -> float:
    """See `docs/contract.md`."""
    if len(losses) != len(tokens):
        raise ValueError(f"{len(losses)} losses but {len(tokens)} tokens")
    total = Fraction(0)
    count = 0
    infinite = False
    for index, (loss, n) in enumerate(zip(losses, tokens, strict=True)):
        if n < 0:
            raise ValueError(f"tokens[{index}] = {n} is negative")
        if n == 0:
            continue
        if math.isnan(loss) or loss < 0:
            raise ValueError(f"losses[{index}] = {loss} is not a mean negative log-likelihood")
        count += int(n)
        if math.isinf(loss):
            infinite = True
        else:
            total += Fraction(float(loss)) * int(n)
    if count == 0:
        raise ValueError("there are no tokens")
    try:
        return math.inf if infinite else math.exp(total / count)
    except OverflowError:
        return math.inf
