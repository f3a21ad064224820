"""What Python 3.10 cannot read and neither ruff nor mypy sees: regular expressions with what 3.11 brought."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    from re import _parser as parser
else:
    import sre_parse as parser

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path for room in ("reference", "touchstone", "suite", "tests/zoo") for path in (ROOT / room).rglob("*.py")
)


def patterns(text: str) -> Iterator[str]:
    """Yield the patterns that stand in calls such as `re.compile`. A name in an f-string is read as one letter."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re")), args=[ast.Constant(value=str(pattern)), *_]):
                yield pattern
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re")), args=[ast.JoinedStr(values=parts), *_]):
                yield "".join(part.value if isinstance(part, ast.Constant) else "x" for part in parts)


def needs_311(pattern: str) -> bool:
    return bool(re.search("POSSESSIVE_REPEAT|ATOMIC_GROUP", str(parser.parse(pattern))))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 refuses such a pattern itself")
def test_possessive_quantifiers_and_atomic_groups_are_recognized() -> None:
    (found,) = patterns('END = re.compile(rf"[.]++[{CLOSING}]*(?=x)")')
    assert needs_311(found)
    assert needs_311("a*+")
    assert needs_311("(?>a)")
    assert not needs_311("[*+]+")


def test_every_pattern_can_be_read_by_python_310() -> None:
    found = [(path, pattern) for path in FILES for pattern in patterns(path.read_text(encoding="utf-8"))]
    assert len(found) > 20
    assert [(str(path), pattern) for path, pattern in found if needs_311(pattern)] == []
