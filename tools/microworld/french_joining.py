"""How French words stand together: l'accord, d'Alton, qu'Alton; du, des, au, aux; spaces and punctuation.

A name never elides within itself, and letters of other scripts and a name's H elide nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache


def join(words: Iterable[str]) -> str:
    """Elisions, contractions, and spaces where they belong. A name is one word, spaces and all, and so is never the
    `de` or `le` that these rules are about.
    """
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
    """The two words before the last: by now it is known whether an article among them is elided."""
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
    """As a word is spoken: hôtel does, haut does not; a name's H counts as a consonant."""
    if word.startswith("h"):
        return not word.startswith(_ASPIRATED)
    return unicodedata.normalize("NFD", word[:1]).lower()[:1] in tuple("aeiouœ")
