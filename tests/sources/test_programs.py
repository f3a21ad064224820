"""The microworld's programs: valid, about one thing, and with names that the other split has not seen."""

from __future__ import annotations

import ast
import builtins
import os
import re
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import pytest

from touchstone.sources import MicroworldCheckpoint, MicroworldData, fingerprint, open_source
from touchstone.sources.microworld.names import Split, split_of
from touchstone.sources.microworld.program_words import NOTES, SUBJECTS, VERBS
from touchstone.sources.microworld.programs import Program, program

ROWS = 600
SPLITS: tuple[Split, ...] = ("train", "validation")
GPT2 = MicroworldCheckpoint(architecture="gpt2", layers=1, hidden=32, heads=2, tokenizer="byte-bpe")


@cache
def programs(split: Split, *, seed: int = 0, count: int = ROWS) -> list[Program]:
    return [program(index, seed=seed, split=split) for index in range(count)]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("seed", range(6))
def test_every_program_compiles_without_a_warning(split: Split, seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index, made in enumerate(programs(split, seed=seed, count=100 if seed else ROWS)):
            compile(made.text, f"program {index} of {split}, seed {seed}", "exec")


@pytest.mark.parametrize("split", SPLITS)
def test_every_name_that_is_read_is_defined_and_every_import_is_used(split: Split) -> None:
    for made in programs(split):
        nodes = list(ast.walk(ast.parse(made.text)))
        imported = {
            alias.asname or alias.name for n in nodes if isinstance(n, ast.Import | ast.ImportFrom) for alias in n.names
        }
        read = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        assigned = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        arguments = {n.arg for n in nodes if isinstance(n, ast.arg)}
        functions = {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
        assert read - imported - assigned - arguments - functions - set(dir(builtins)) == set(), made.text
        assert imported - read == set(), made.text
        assert functions <= read, f"a function that nobody calls:\n{made.text}"


def test_columns_come_back_after_they_were_named() -> None:
    """In code, comments and titles: a model that remembers them gains."""
    counts = sorted(
        sum(len(re.findall(rf"\b{re.escape(form)}\b", made.text.lower())) for form in (name, name.replace("_", " ")))
        for made in programs("train")
        for name in made.names
        if f'"{name}"' in made.text
    )
    assert counts[len(counts) // 2] >= 3
    assert sum(count > 1 for count in counts) / len(counts) > 0.8


def test_no_name_of_validation_occurs_in_training() -> None:
    names = {split: {name for made in programs(split) for name in made.names} for split in SPLITS}
    assert names["train"] & names["validation"] == set()
    assert all(split_of(name) == split for split in SPLITS for name in names[split])
    text = {split: set().union(*(words(made.text) for made in programs(split))) for split in SPLITS}
    assert names["validation"] & text["train"] == set()
    assert len(names["validation"] & text["validation"]) > 300


def test_what_names_are_made_of_and_all_other_words_occur_in_both() -> None:
    text = {split: set().union(*(words(made.text.lower()) for made in programs(split))) for split in SPLITS}
    held_out = {name for made in programs("validation") for name in made.names}
    rare = set().union(*(words(note.lower()) for note in NOTES))
    assert {word for word in text["validation"] - text["train"] - held_out - rare if not word.isdigit()} == set()
    parts = {part for name in held_out for part in name.split("_")}
    assert {part for word in text["train"] for part in word.split("_")} >= parts


@pytest.mark.parametrize("split", SPLITS)
def test_a_program_keeps_to_its_subject(split: Split) -> None:
    for made in programs(split):
        verbs = {verb for verbs in VERBS.values() for verb in verbs}
        about = {*made.subject.measures, *made.subject.groups, *made.subject.files, made.subject.row}
        assert all(set(name.split("_")) & about for name in made.names if name.split("_")[0] not in verbs)
    assert {made.subject for made in programs(split)} == set(SUBJECTS)


def test_some_programs_are_longer_than_any_window_and_most_are_not() -> None:
    lengths = sorted(len(made.text) for made in programs("train"))
    assert 600 < lengths[len(lengths) // 2] < 1200
    assert lengths[-1] > 2500
    assert 0 < sum(length > 2500 for length in lengths) < 0.05 * ROWS


AWKWARD = {
    "other scripts": lambda text: not text.isascii(),
    "two blanks of indentation": lambda text: re.search(r"^  \S", text, re.MULTILINE) is not None,
    "no line break at the end": lambda text: not text.endswith("\n"),
    "functions": lambda text: "\ndef " in text,
    "a main guard": lambda text: '\nif __name__ == "__main__":\n' in text,
    "nested blocks": lambda text: "            result" in text,
}


@pytest.mark.parametrize("case", AWKWARD)
@pytest.mark.parametrize("split", SPLITS)
def test_awkward_cases_are_there_and_not_the_rule(case: str, split: Split) -> None:
    share = sum(AWKWARD[case](made.text) for made in programs(split)) / ROWS
    assert 0.001 < share < 0.75


# The same everywhere


def test_a_program_does_not_depend_on_how_many_are_drawn() -> None:
    few = open_source(MicroworldData(train=5, validation=3), GPT2).examples("train", columns=("code",))
    many = open_source(MicroworldData(train=40, validation=9), GPT2).examples("train", columns=("code",))
    assert few[:] == many[:5]
    assert programs("train", count=3)[2].text == few[2]["code"]


def test_seeds_and_splits_and_indices_give_other_programs() -> None:
    made = [program(index, seed=seed, split=split).text for index in range(5) for seed in range(3) for split in SPLITS]
    assert len(made) == len(set(made))


def test_a_negative_index_is_no_program() -> None:
    with pytest.raises(IndexError, match="program -1"):
        program(-1, seed=0, split="train")


def digest() -> str:
    source = open_source(MicroworldData(train=100, validation=50), GPT2)
    return "-".join(fingerprint(source.examples(split, columns=("code",))) for split in SPLITS)


def test_programs_are_the_same_in_another_process_with_another_hash_seed() -> None:
    code = f"import {__name__} as t; print(t.digest())"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    assert digest() == done.stdout.strip()


def test_programs_are_those_that_expectations_were_measured_on() -> None:
    """Spelled out, so that no change of the grammar passes unseen: expectations must then be measured again."""
    expected = (
        "5ff54549070fdef75d65c9799d0e3e6ba9a17253ecb97a0698ec49cec5158d5f"
        "-903cdcc0a4037d54794401c94e15bc33e3141a8d82657e72df32493fa9ddf619"
    )
    assert digest() == expected
