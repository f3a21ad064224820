"""Text columns, and text columns that are fields of another column, such as `translation.en`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from touchstone.sources import Access, HubData, MicroworldCheckpoint, SourceError, open_source

TINY = MicroworldCheckpoint(architecture="bert", layers=1, hidden=32, heads=2)
PAIRS = [{"en": "Rain fell.", "fr": "Il pleut."}, {"en": "", "fr": "Oslo"}, {"en": "Oslo", "fr": "Rome"}]
FIELDS = {"source": "translation.en", "target": "translation.fr"}
STRUCT = {"en": datasets.Value("string"), "fr": datasets.Value("string")}


def written(folder: Path, rows: list[Any] = PAIRS, *, kind: Any = STRUCT, **other: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"translation": kind} | {name: datasets.Value("string") for name in other})
    data = datasets.Dataset.from_dict({"translation": rows} | other, features=features)
    data.to_parquet(folder / "train.parquet")
    return folder


def read(folder: Path, *columns: str, names: dict[str, str] = FIELDS, **settings: Any) -> datasets.Dataset:
    data = HubData(id="org/pairs", revision="v1", columns=names, **settings)
    return open_source(data, TINY, access=Access(dataset=folder)).examples("train", columns=columns)


@pytest.mark.parametrize("kind", [STRUCT, datasets.Translation(languages=["en", "fr"])], ids=["struct", "translation"])
def test_a_dotted_name_reads_a_field_of_a_column(kind: Any, tmp_path: Path) -> None:
    rows = read(written(tmp_path, kind=kind), "target", "source")
    assert list(rows) == [{"source": pair["en"], "target": pair["fr"]} for pair in PAIRS]
    assert set(rows.column_names) == {"source", "target"}
    assert rows.features["source"] == rows.features["target"] == datasets.Value("string")


def test_a_dotted_name_may_have_several_levels(tmp_path: Path) -> None:
    rows = [{"en": {"text": pair["en"]}} for pair in PAIRS]
    folder = written(tmp_path, rows, kind={"en": {"text": datasets.Value("string")}})
    names = {"source": "translation.en.text"}
    assert list(read(folder, "source", names=names)["source"]) == [pair["en"] for pair in PAIRS]


def test_a_column_whose_name_has_a_dot_is_read_as_a_column(tmp_path: Path) -> None:
    folder = written(tmp_path, **{"my.text": ["a", "b", "c"]})
    assert list(read(folder, "source", names={"source": "my.text"})["source"]) == ["a", "b", "c"]


def test_a_missing_field_is_an_error_that_lists_the_fields(tmp_path: Path) -> None:
    names = FIELDS | {"target": "translation.de"}
    message = r"no column 'translation.de' \(for `target`\): it has translation, translation.en, translation.fr"
    with pytest.raises(SourceError, match=message):
        read(written(tmp_path), "source", "target", names=names)


@pytest.mark.parametrize("missing", [None, {"en": None, "fr": "Oslo"}], ids=["row", "field"])
def test_a_missing_text_is_an_error_with_its_row(missing: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"row 3: `translation.en` is missing"):
        read(written(tmp_path, [*PAIRS, missing]), "source", "target")


def test_a_column_with_fields_is_not_accepted_as_text(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"column 'translation' of .* holds .*, not text"):
        read(written(tmp_path), "source", names={"source": "translation"})


def test_the_users_data_may_have_the_names_of_the_contract(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"source": ["a"], "target": ["b"]}).to_parquet(tmp_path / "train.parquet")
    assert list(read(tmp_path, "source", "target")) == [{"source": "a", "target": "b"}]


def test_rows_are_divided_and_drawn_in_the_same_way_if_columns_are_fields(tmp_path: Path) -> None:
    pairs = [{"en": str(number), "fr": str(-number)} for number in range(100)]
    rows = read(written(tmp_path, pairs), "source", "target", validation_fraction=0.1, seed=20, train_rows=40)
    expected = datasets.Dataset.from_list(pairs).train_test_split(test_size=0.1, seed=20)["train"]
    assert list(rows["source"]) == list(expected.shuffle(seed=20).select(range(40))["en"])
