"""Names of metrics: which are scores, what their best is, and which is better."""

from __future__ import annotations

import re
from collections.abc import Mapping

KNOWN = frozenset(
    {
        *("accuracy", "acc", "f1", "precision", "recall", "em", "exact", "match", "bleu", "sacrebleu", "score", "chrf"),
        *("rouge1", "rouge2", "rougel", "rougelsum"),
        *("pearson", "pearsonr", "spearman", "spearmanr", "r2", "mcc", "matthews", "correlation"),
    }
)
QUALIFIERS = frozenset({"overall", "micro", "token", "tokens", "word", "entity", "seqeval", "strict", "eval", "mean"})
ERRORS = frozenset({"loss", "perplexity", "ppl", "wer", "cer", "ter", "error", "mse", "mae", "rmse", "nll", "bpc"})
OTHERWISE = frozenset(
    {"top", "at", "all", "raw", "full", "total", "pad", "padded", "padding", "random", "baseline", "majority"}
)
"""Words that say that a metric counts in another way."""
PART = {"precision": "precision", "recall": "recall", "f1": "f1", "accuracy": "accuracy", "acc": "accuracy"}


def words(name: str) -> list[str]:
    """Return the words of a metric's name.

    >>> words("eval_overallF1"), words("rougeL")
    (['eval', 'overall', 'f1'], ['rougel'])
    """
    found = []
    for part in re.split(r"[^A-Za-z0-9]+", name):
        whole = [part] if part.lower() in KNOWN else re.split(r"(?<=[a-z])(?=[A-Z][a-z0-9])", part)
        found += [each.lower() for each in whole if each]
    return found


def is_score(name: str) -> bool:
    """Return whether a metric is a score whose best is 1 or 100: larger is better, and nothing qualifies it.

    >>> is_score("overall_f1"), is_score("PER_f1"), is_score("f1_macro"), is_score("loss")
    (True, False, False, False)
    """
    parts = words(name)
    return any(part in KNOWN for part in parts) and all(part in KNOWN or part in QUALIFIERS for part in parts)


def is_part(name: str) -> bool:
    """Return whether a metric is a score of a part or a kind, such as `PER_f1`, `f1_macro` or `slot_acc`.

    >>> is_part("f1_macro"), is_part("slot_acc"), is_part("top5_acc"), is_part("acc_with_padding"), is_part("gen_len")
    (True, True, False, False, False)
    """
    parts = [re.sub(r"\d+$", "", part) or part for part in words(name)]
    return not OTHERWISE & set(parts) and any(part in KNOWN for part in (*parts, *words(name)))


def is_error(name: str) -> bool:
    """Return whether smaller is better, by the name of the metric.

    >>> is_error("eval_loss"), is_error("perplexity"), is_error("f1")
    (True, True, False)
    """
    return any(part in ERRORS for part in words(name)) and not is_score(name)


def part_of(name: str) -> str | None:
    """Return `precision`, `recall`, `f1` or `accuracy` if the metric is one of them."""
    found = [PART[word] for word in words(name) if word in PART]
    return found[0] if is_score(name) and len(found) == 1 else None


def best(value: float) -> bool:
    """Return whether a score is at its best, 1 or 100, up to rounding."""
    return abs(value - 1) < 1e-3 or abs(value - 100) < 0.05


def is_best(name: str, value: float) -> bool:
    """Return whether a score is at its best, or an error at 0."""
    return abs(value) < 1e-4 if is_error(name) else best(value)


def scale(value: float) -> float:
    """Return what a score counts as its best: 100 if it is larger than 1, and 1 otherwise."""
    return 100.0 if value > 1.0 + 1e-6 else 1.0


def shown(scores: Mapping[str, float]) -> str:
    """Return scores as text."""
    return ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
