"""How figures are told to a person: as many digits as mean something, in units that need no counting of zeros."""

from __future__ import annotations


def figure(value: float | None) -> str:
    """Four significant digits: F1 0.8637, perplexity 12.31."""
    if value is None:
        return "-"
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.4g}"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def share(fraction: float | None) -> str:
    """Two significant digits where it is small: 62%, 4.1%."""
    if fraction is None:
        return "-"
    return f"{fraction:.1%}" if fraction < 0.0995 else f"{fraction:.0%}"


def size(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
