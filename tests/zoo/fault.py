"""A fault of the zoo: a small edit of a clean script, and the probe that must find it."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path

from tests.zoo import faults

CLEAN = Path(__file__).parent / "clean"


@dataclass(frozen=True)
class Fault:
    """One faulty script.

    Args:
        id: a name in lower case with hyphens.
        script: the clean script it is made of, such as "ner_trainer".
        says: what is wrong, in one plain sentence.
        edits: pairs of old and new text; every old text occurs exactly once in the clean script.
        probes: the probes that fail, all of which name the cause.
        cause: a regular expression that the message or cause of each of these findings matches.
        seen: the upstream thread or the page where it was seen in the wild, or "".
        budget: the smallest budget that finds it.
        warns: the probes that warn of it and name the cause, where the script alone does not prove that it is meant
            otherwise. A fault with neither probes nor warns is a known miss.
    """

    id: str
    script: str
    says: str
    edits: tuple[tuple[str, str], ...]
    probes: tuple[str, ...]
    cause: str
    seen: str = ""
    budget: str = "default"
    warns: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the faulty script.

        Raises:
            ValueError: an old text does not occur exactly once.
        """
        text = (CLEAN / f"{self.script}.py").read_text(encoding="utf-8")
        for old, new in self.edits:
            if text.count(old) != 1:
                raise ValueError(f"{self.id}: {old!r} occurs {text.count(old)} times in clean/{self.script}.py")
            text = text.replace(old, new)
        return text


def all_faults() -> list[Fault]:
    """Return the faults of all groups."""
    found: list[Fault] = []
    for module in sorted(each.name for each in pkgutil.iter_modules(faults.__path__)):
        found += importlib.import_module(f"tests.zoo.faults.{module}").FAULTS
    return found


def clean_scripts() -> list[Path]:
    """Return the paths of the clean scripts."""
    return sorted(CLEAN.glob("*.py"))
