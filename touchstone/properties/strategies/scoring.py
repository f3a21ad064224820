"""Cases for `score_entities`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis.strategies import SearchStrategy

from touchstone.properties import rules
from touchstone.properties.strategies.choices import Choices, drawn
from touchstone.properties.strategies.defaults import without_defaults
from touchstone.properties.strategies.text import any_tags, label_names, type_names, valid_tags


@dataclass(frozen=True)
class Sentences:
    """Arguments of `score_entities`."""

    names: list[str]
    references: list[list[int]]
    predictions: list[list[int]]
    scheme: str
    mode: str
    brief: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        reading = without_defaults({"scheme": self.scheme, "mode": self.mode}, brief=self.brief)
        return {"references": self.references, "names": self.names, **reading}

    @property
    def remarks(self) -> dict[str, str]:
        """The sentences as tags."""
        known = {rules.IGNORED: "-", **dict(enumerate(self.names))}
        rows = {"gold": self.references, "predicted": self.predictions}
        return {
            name: " | ".join(" ".join(known.get(label, "?") for label in row) or "(empty)" for row in sentences)
            for name, sentences in rows.items()
        }

    def entities(self, which: str) -> set[tuple[int, rules.Entity]]:
        """(sentence, entity) of `references` or `predictions`, positions without a reference left out."""
        found = set()
        for number, (reference, row) in enumerate(zip(self.references, getattr(self, which), strict=True)):
            tags = [self.names[b] for a, b in zip(reference, row, strict=True) if a != rules.IGNORED]
            found |= {(number, entity) for entity in rules.entities(tags, scheme=self.scheme, mode=self.mode)}
        return found

    def with_(self, **changes: Any) -> Sentences:
        return replace(self, **changes)


def sentences(
    choose: Choices, *, mode: str | None = None, valid: bool = False, perfect: bool = False, ignored: bool = True
) -> Sentences:
    scheme, mode, brief = choose.of(list(rules.SCHEMES)), mode or choose.of(["strict", "lenient"]), choose.flip()
    types = type_names(choose)
    names = label_names(choose, types, scheme=scheme)
    references, predictions = [], []
    for _ in choose.several(1, 4):
        if valid or choose.flip():
            tags = valid_tags(choose, types, scheme=scheme, max_entities=3)
        else:
            tags = any_tags(choose, types, scheme=scheme)
        gold = [names.index(tag) for tag in tags]
        predicted = list(gold)
        for _ in range(0 if perfect or not gold else choose.below(4)):
            predicted[choose.below(len(gold))] = choose.below(len(names))
        for _ in range(choose.below(3) if ignored and gold else 0):
            gold[choose.below(len(gold))] = rules.IGNORED
        references.append(gold)
        predictions.append(predicted)
    return Sentences(names, references, predictions, scheme, mode, brief)


def scored_sentences(
    *, mode: str | None = None, valid: bool = False, perfect: bool = False, ignored: bool = True
) -> SearchStrategy[Sentences]:
    """One to four sentences with predictions: some right, some nearly; half the references ill-formed.

    Args:
        valid: the references are sequences the scheme can spell.
        perfect: predictions are the references.
        ignored: some references are -100.
    """
    return drawn(lambda choose: sentences(choose, mode=mode, valid=valid, perfect=perfect, ignored=ignored))
