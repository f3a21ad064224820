"""Join French words: elision (l'accord, d'Alton, qu'Alton), contraction (du, des, au, aux), spaces and punctuation.

Words do not elide within a name, before letters of other scripts, or before the H of a name.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache


def join(words: Iterable[str]) -> str:
    """Return words as text. A name with spaces is one word, so the rules do not apply to a `de` or `le` in it."""
    joined: list[str] = []
    for word in words:
        before = joined[-1] if joined else ""
        if before in ("le", "la", "de", "que", "se") and begins_with_vowel(word):
            joined[-1] = before[:-1] + "'"
        joined.append(word)
        _contract(joined)
    text = ""
    for word in joined:
        glued = not text or word in (",", ".") or text[-1] == "'"
        text += word if glued else f" {word}"
    return text


_CONTRACTED = {("de", "le"): "du", ("de", "les"): "des", ("à", "le"): "au", ("à", "les"): "aux"}


def _contract(joined: list[str]) -> None:
    """Contract the two words before the last, now that an article among them has been elided if necessary."""
    if len(joined) < 3:
        return
    contracted = _CONTRACTED.get((joined[-3], joined[-2]))
    if contracted:
        joined[-3:-1] = [contracted]
    elif joined[-3] == "de" and joined[-2] == "des":  # the indefinite plural: parler de films
        joined[-3:-1] = ["d'" if begins_with_vowel(joined[-1]) else "de"]


_ASPIRATED = ("haut",)


@cache
def begins_with_vowel(word: str) -> bool:
    """Return whether a word begins with a vowel as it is spoken: hôtel does, haut and the H of a name do not."""
    if word.startswith("h"):
        return not word.startswith(_ASPIRATED)
    return unicodedata.normalize("NFD", word[:1]).lower()[:1] in tuple("aeiouœ")
