"""The contract as a table: every stage with its return shape, its batched version and the letter of its checks.

Arguments and defaults are those of the reference (`touchstone.stages`), read by `inspect.signature`. The checks are
those registered under suite/properties, numbered by their decorators. Everything else that lists stages or checks is
made from here:

    python -m touchstone.contract

writes the generated parts of docs/contract.md: the table of functions, their signatures and the tables of checks.
Importing this module imports neither torch nor the stages.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, ConfigDict, Strict
from typing_extensions import TypedDict

PAGE = Path(__file__).parents[1] / "docs" / "contract.md"

SECTIONS = {
    "A": "Alignment",
    "C": "Chunking",
    "M": "Masking",
    "P": "Collation",
    "S": "Scoring",
    "X": "Perplexity",
    "T": "Sequence to sequence",
    "D": "Decoding",
    "B": "BLEU",
    "R": "ROUGE",
    "K": "Causal language modelling",
    "W": "Windowing",
    "N": "Spans",
    "Q": "SQuAD scores",
    "F": "Packing",
}
"""The letters of the checks, in the contract's order, and what each group of checks is about."""

# Return shapes -------------------------------------------------------------------------------------------------------
#
# They describe plain values: before validation, arrays, tensors and tuples become lists (`properties.values.plain`).
# Validation is strict, so a float or a bool is not an integer. `Strict(False)` lets a list pass for a tuple. The text
# is how a failure and the documentation describe the shape.


def _not_nan(value: float) -> float:
    if math.isnan(value):
        raise ValueError("NaN is not a result")
    return value


class _WindowColumns(TypedDict):
    """The columns of `make_windows`. Columns beyond these are allowed."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]

    input_ids: list[list[int]]
    token_type_ids: list[list[int]]
    offsets: list[list[Annotated[tuple[int, int], Strict(False)] | None]]
    first: list[int]


NotNaN = Annotated[float, AfterValidator(_not_nan)]

Integers = Annotated[list[int], "a flat sequence of integers"]
IntegerRows = Annotated[list[list[int]], "a ragged array of integers"]
ColumnsOfRows = Annotated[dict[str, list[list[int | None]]], "a mapping of column to lists of integers"]
Masked = Annotated[tuple[list[int], list[int]], Strict(False), "a pair (input_ids, labels)"]
MaskedRows = Annotated[
    tuple[list[list[int]], list[list[int]]], Strict(False), "a pair (input_ids, labels) of ragged arrays"
]
Columns = Annotated[dict[str, Any], "a mapping of column to array"]
Scores = Annotated[dict[str, Any], "a mapping of name to score"]
Number = Annotated[NotNaN, "a number that is not NaN"]
Numbers = Annotated[list[NotNaN], "a flat sequence of numbers"]
Windows = Annotated[_WindowColumns, "a mapping with input_ids, token_type_ids, offsets and first"]
Position = Annotated[tuple[int, int], Strict(False), "a pair of integers (first, last)"]
Positions = Annotated[tuple[list[int], list[int]], Strict(False), "a pair (first, last) of flat integer sequences"]
Spans = Annotated[list[Annotated[tuple[int, int, int, float], Strict(False)]], "a list of (window, first, last, score)"]
Answer = Annotated[dict[str, Any], "a mapping with text, start, end and score"]
Answers = Annotated[list[dict[str, Any]], "a list of answers"]
Arrays = Annotated[list[Any], "a sequence of rows"]
Text = Annotated[str, "a text"]
Texts = Annotated[list[str], "a list of texts"]

# The table -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """One stage of the contract.

    Attributes:
        name: the function's name in every implementation.
        section: the letter of its checks, a key of `SECTIONS`.
        returns: the shape of its result.
        batch_returns: the shape of the batched version's result, None where there is no batched version.
    """

    name: str
    section: str
    returns: Any
    batch_returns: Any = None

    @property
    def batched(self) -> str | None:
        """The name of the batched version, None where there is none."""
        return None if self.batch_returns is None else f"{self.name}_batch"


STAGES = (
    Stage("align_labels", "A", Integers, batch_returns=IntegerRows),
    Stage("merge_labels", "A", Integers, batch_returns=IntegerRows),
    Stage("chunk", "C", ColumnsOfRows, batch_returns=ColumnsOfRows),
    Stage("chunk_batches", "C", ColumnsOfRows),
    Stage("mask_tokens", "M", Masked, batch_returns=MaskedRows),
    Stage("pad_batch", "P", Columns),
    Stage("score_entities", "S", Scores),
    Stage("perplexity", "X", Number),
    Stage("pad_seq2seq", "T", Columns),
    Stage("shift_right", "T", IntegerRows),
    Stage("clean_sequences", "D", IntegerRows),
    Stage("bleu", "B", Scores),
    Stage("rouge", "R", Scores),
    Stage("split_sentences", "R", Texts),
    Stage("lead", "R", Text),
    Stage("chunk_documents", "K", IntegerRows, batch_returns=IntegerRows),
    Stage("causal_labels", "K", IntegerRows),
    Stage("key_token_weights", "K", Numbers),
    Stage("make_windows", "W", Windows, batch_returns=Columns),
    Stage("answer_positions", "W", Position, batch_returns=Positions),
    Stage("best_spans", "N", Spans, batch_returns=Columns),
    Stage("pick_answer", "N", Answer, batch_returns=Answers),
    Stage("squad_scores", "Q", Scores),
    Stage("pack", "F", Columns, batch_returns=Columns),
    Stage("unpack", "F", Arrays),
    Stage("assign_bins", "F", IntegerRows, batch_returns=IntegerRows),
)
"""Every stage, in the contract's order."""

RETURNS: dict[str, Any] = {stage.name: stage.returns for stage in STAGES} | {
    stage.batched: stage.batch_returns for stage in STAGES if stage.batched is not None
}
"""Every function of the contract and the shape of its result: the stages, then their batched versions."""

NAMES = tuple(RETURNS)
"""The names of all functions of the contract."""


@dataclass(frozen=True)
class Choice:
    """A question on which the field has more than one correct convention.

    Attributes:
        name: the key in the attribute `choices` of an implementation.
        usual: the convention of the contract.
        others: the other accepted values; `int` stands for any whole number from 1.
        says: what is chosen.
    """

    name: str
    usual: Any
    others: tuple[Any, ...]
    says: str


CHOICES = (
    Choice("digits", None, (int,), "scores are rounded to this many digits after the decimal point"),
    Choice("ties", "first", ("any",), "which of several spans with the same score is the answer"),
    Choice("bins", "first fit", ("best fit",), "the bin that takes a sequence, longest sequences first"),
    Choice("remainder", "all", ("batch",), "whether `chunk_batches` cuts all documents, or each batch by itself"),
    Choice("no_answer", "v2.0", ("v1.1",), "whether `squad_scores` knows questions without an answer"),
    Choice("first_label", "kept", ("ignored",), "the label of a packed row's first token, which no token predicts"),
)
"""The conventions that an implementation may declare, in the attribute `choices`."""


def describe(shape: Any) -> str:
    """Return a shape in words, such as `a flat sequence of integers`."""
    return next(text for text in reversed(get_args(shape)) if isinstance(text, str))


@functools.cache
def signature(name: str) -> inspect.Signature:
    """Return the signature of a function of the contract: that of the reference."""
    return inspect.signature(getattr(importlib.import_module("touchstone.stages"), name))


def defaults(name: str) -> dict[str, Any]:
    """Return the arguments of a function that have a default, with that default."""
    parameters = signature(name).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def check_key(id: str) -> tuple[int, int]:
    """Return the sort key that puts check ids in the contract's order.

    Raises:
        ValueError: an id that is not a letter of `SECTIONS` followed by a number from 1.
    """
    letter, number = id[:1], id[1:]
    if letter not in SECTIONS or not re.fullmatch(r"[1-9]\d*", number):
        letters = ", ".join(SECTIONS)
        raise ValueError(f"{id!r} is not the id of a check: use one of the letters {letters} and a number, such as A4")
    return list(SECTIONS).index(letter), int(number)


def count_checks() -> int:
    """Return the number of numbered checks. It imports the checks, and so Hypothesis."""
    from touchstone.properties.check import ids

    return len(ids())


# The page ------------------------------------------------------------------------------------------------------------

FUNCTIONS_BLOCK = ("<!-- functions: written by python -m touchstone.contract -->", "<!-- end of functions -->")
CHOICES_BLOCK = ("<!-- choices: written by python -m touchstone.contract -->", "<!-- end of choices -->")
CHECKS_BLOCK = (
    "<!-- checks: written by python -m touchstone.contract, which keeps the column `property` -->",
    "<!-- end of checks -->",
)


def page(text: str) -> str:
    """Return docs/contract.md with its generated parts brought up to date.

    The generated parts are the tables of choices, of functions and of checks, and the signature that opens each
    function's description. The wording of a property is kept from `text`; a check that is new there gets its test's
    sentence.
    """
    from touchstone.properties.check import all_checks

    checks = all_checks()
    text = _replace_block(text, CHOICES_BLOCK, _choices_table())
    text = _replace_block(text, FUNCTIONS_BLOCK, _functions_table(checks))
    text = _replace_block(text, CHECKS_BLOCK, _checks_tables(checks, text))
    return re.sub(r"^(###|\*) `(\w+)\([^`]*`", _signature_line, text, flags=re.MULTILINE)


def _replace_block(text: str, block: tuple[str, str], content: str) -> str:
    begin, end = block
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"docs/contract.md must hold the lines {begin!r} and {end!r} once each")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def _choices_table() -> str:
    lines = ["| choice | the contract's | also correct | what it is about |", "| --- | --- | --- | --- |"]
    for choice in CHOICES:
        others = ", ".join("a number" if other is int else f"`{_spell(other)}`" for other in choice.others)
        lines.append(f"| `{choice.name}` | `{_spell(choice.usual)}` | {others} | {choice.says} |")
    return "\n".join(lines)


def _functions_table(checks: Any) -> str:
    lines = ["| function | returns | defaults | batched version | checks |", "| --- | --- | --- | --- | --- |"]
    for stage in STAGES:
        given = ", ".join(f"`{name}={_spell(value)}`" for name, value in defaults(stage.name).items())
        ids = _ranges(list(dict.fromkeys(check.id for check in checks if stage.name in check.needs)))
        batched = f"`{stage.batched}`" if stage.batched else ""
        lines.append(f"| `{stage.name}` | {describe(stage.returns)} | {given} | {batched} | {ids} |")
    return "\n".join(lines)


def _ranges(ids: list[str]) -> str:
    """Return ids in a row as ranges, such as `A5, A14-A16`."""
    runs: list[list[str]] = []
    for id in ids:
        if runs and check_key(id) == (check_key(runs[-1][-1])[0], check_key(runs[-1][-1])[1] + 1):
            runs[-1].append(id)
        else:
            runs.append([id])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _checks_tables(checks: Any, text: str) -> str:
    wording = dict(re.findall(r"^\| ([A-Z]\d+) \| (.+?) \|", text, flags=re.MULTILINE))
    sentences: dict[str, list[str]] = {}
    needs: dict[str, dict[str, None]] = {}
    for check in checks:
        sentences.setdefault(check.id, []).append(check.sentence)
        needs.setdefault(check.id, {}).update(dict.fromkeys(check.needs))
    parts = []
    for letter, title in SECTIONS.items():
        lines = [f"### {title}", "", "| id | property | functions |", "| --- | --- | --- |"]
        for id in (id for id in sentences if id[0] == letter):
            functions = ", ".join(f"`{name}`" for name in needs[id])
            lines.append(f"| {id} | {wording.get(id, '; '.join(sentences[id]))} | {functions} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _signature_line(match: re.Match[str]) -> str:
    mark, name = match.groups()
    if name not in RETURNS:
        raise ValueError(f"docs/contract.md describes {name}, which is not a function of the contract")
    words = []
    starred = False
    for each in signature(name).parameters.values():
        if each.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            words.append("*")
            starred = True
        words.append(each.name if each.default is each.empty else f"{each.name}={_spell(each.default)}")
    return f"{mark} `{name}({', '.join(words)})`"


def _spell(value: Any) -> str:
    """Return a default as Python source, texts in double quotes."""
    return '"' + repr(value)[1:-1] + '"' if isinstance(value, str) else repr(value)


def main() -> None:
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"docs/{PAGE.name}: {len(STAGES)} stages, {count_checks()} checks")


if __name__ == "__main__":
    main()
