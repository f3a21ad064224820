"""The generator in `tools/microworld` still produces the files that are stored in the package."""

from __future__ import annotations

import gzip

import pytest
from tokenizers import Tokenizer

from tools.microworld.draws import Draws
from tools.microworld.generate import MAKERS, ROWS, line
from tools.microworld.tokenizers import STORED, train_tokenizer
from touchstone.sources.checkpoints import TOKENIZERS, tokenizer_file
from touchstone.sources.embedded import DATA_SETS, FOLDER, file_name


def test_the_generator_and_the_package_have_the_same_data_sets() -> None:
    assert DATA_SETS.keys() == ROWS.keys() == MAKERS.keys()
    stored = {path.name for path in FOLDER.glob("*.gz")}
    assert stored == {file_name(name, split) for name, splits in ROWS.items() for split in splits}
    assert {path.name for path in TOKENIZERS.iterdir()} == {tokenizer_file(*one) for one in STORED}


@pytest.mark.parametrize("name", ROWS)
def test_the_generator_produces_the_stored_rows(name: str) -> None:
    """Compares every tenth row, because a row depends on its index alone and drawing all of them takes ten seconds."""
    for split, count in ROWS[name].items():
        lines = gzip.decompress((FOLDER / file_name(name, split)).read_bytes()).decode().splitlines(keepends=True)
        assert len(lines) == count
        for index in range(0, count, 10):
            assert line(name, index, split=split) == lines[index]


@pytest.mark.parametrize(("marks", "family", "vocabulary"), STORED)
def test_the_generator_trains_the_stored_tokenizers(marks: str, family: str, vocabulary: int) -> None:
    stored = Tokenizer.from_file(str(TOKENIZERS / tokenizer_file(marks, family, vocabulary)))
    assert train_tokenizer(marks, family, vocabulary).to_str() == stored.to_str()


def test_draws_depend_on_every_part_of_their_key_and_on_its_order() -> None:
    keys: list[tuple[int | str, ...]] = [
        *(("a", 1), ("a", 2), ("b", 1), (1, "a"), ("a", 1, 0), ("a",), ("a1",), ("a", -1)),
    ]
    assert len({Draws(*key).bits() for key in keys}) == len(keys)
