"""Data and checkpoints from the hub, a mirror of it, or a folder. No test here needs the network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForTokenClassification,
    BertConfig,
    BertModel,
    ByT5Tokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
)

from touchstone.pipelines.tokenizing import tokenize
from touchstone.sources import (
    Access,
    HubCheckpoint,
    HubData,
    MicroworldCheckpoint,
    MicroworldData,
    Source,
    SourceError,
    fingerprint,
    open_source,
)
from touchstone.sources.checkpoints import microworld_tokenizer

CONLL = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
ROWS = [
    (["Ada", "Lovelace", "slept"], [1, 2, 0]),
    (["Rain"], [0]),
    ([], []),
    (["in", "New", "York"], [0, 3, 4]),
    (["Oslo", "Oslo"], [3, 3]),
]
TINY = MicroworldCheckpoint(architecture="bert", layers=1, hidden=32, heads=2)
DATA = HubData(id="org/news", revision="v1", columns={"words": "tokens", "tags": "ner_tags"})
MODEL = HubCheckpoint(id="org/tiny", revision="v1")


def news(rows: list[tuple[list[str], list[Any]]] = ROWS, *, tags: Any = None) -> datasets.Dataset:
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(tags or datasets.ClassLabel(names=CONLL)),
            "text": datasets.Value("string"),
        }
    )
    columns = {
        "id": [str(number) for number in range(len(rows))],
        "tokens": [words for words, _ in rows],
        "ner_tags": [labels for _, labels in rows],
        "text": [" ".join(words) for words, _ in rows],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def write(folder: Path, train: datasets.Dataset | None = None, validation: datasets.Dataset | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (train or news()).to_parquet(folder / "train.parquet")
    (validation or news(ROWS[:2])).to_parquet(folder / "validation.parquet")
    return folder


def opened(data: HubData = DATA, checkpoint: Any = TINY, **access: Any) -> Source:
    return open_source(data, checkpoint, access=Access(**access))


def examples(data: HubData = DATA, *, split: str = "train", columns: Any = ("words", "tags"), **access: Any) -> Any:
    return opened(data, **access).examples(split, columns=columns)


def with_data(**changes: Any) -> HubData:
    return HubData.model_validate(DATA.model_dump(exclude_unset=True) | changes)


# Data


def test_a_mirror_is_laid_out_by_id(tmp_path: Path) -> None:
    write(tmp_path / "datasets" / "org" / "news")
    rows = examples(mirror=tmp_path)
    assert rows.column_names == ["words", "tags"]
    assert rows.features["tags"] == datasets.List(datasets.ClassLabel(names=CONLL))
    assert rows.features["words"] == datasets.List(datasets.Value("string"))
    assert list(zip(rows["words"], rows["tags"], strict=True)) == ROWS
    assert list(examples(mirror=tmp_path, split="validation", columns=("text",))["text"]) == [
        "Ada Lovelace slept",
        "Rain",
    ]


def test_the_validation_split_may_be_in_another_repository(tmp_path: Path) -> None:
    for name, split, rows in (("news", "train", news()), ("held-out", "validation", news(ROWS[:2]))):
        _parquet(tmp_path / "datasets" / "org" / name / f"{split}.parquet", rows)
    data = with_data(validation_id="org/held-out", validation_revision="v2")
    assert [len(examples(data, split=split, mirror=tmp_path)) for split in ("train", "validation")] == [len(ROWS), 2]
    with pytest.raises(SourceError, match="org/held-out, split validation has 2 rows, but validation_rows = 9"):
        examples(data.model_copy(update={"validation_rows": 9}), split="validation", mirror=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_id": "org/held-out"}, "belong together"),
        ({"validation_revision": "v2"}, "belong together"),
        ({"validation_id": "a/b", "validation_revision": "v2", "validation_fraction": 0.1}, "exclude each other"),
        ({"validation_id": "a/b", "validation_revision": "v2", "validation_split": "train"}, "cannot be 'train'"),
    ],
)
def test_a_validation_repository_that_is_declared_in_part_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        with_data(**changes)


def test_a_missing_folder_of_the_mirror_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=f"add the folder {tmp_path}/datasets/org/news"):
        examples(mirror=tmp_path)
    with pytest.raises(SourceError, match=f"add the folder {tmp_path}/models/org/tiny"):
        opened(checkpoint=MODEL, mirror=tmp_path).tokenizer()


def test_a_data_set_outside_the_hub_needs_a_mirror() -> None:
    with pytest.raises(SourceError, match=r"dataset org/news is not on the hub. .*--mirror DIR"):
        examples(with_data(revision="none"))


def _parquet(path: Path, rows: datasets.Dataset) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path)


def _shards(folder: Path) -> None:
    rows = news()
    for shard in range(2):
        _parquet(folder / "data" / f"train-0000{shard}-of-00002.parquet", rows.shard(2, index=shard, contiguous=True))
    _parquet(folder / "data" / "validation-00000-of-00001.parquet", news(ROWS[:2]))


def _converted(folder: Path) -> None:
    _parquet(folder / "train" / "0000.parquet", news())
    _parquet(folder / "validation" / "0000.parquet", news(ROWS[:2]))


def _saved(folder: Path) -> None:
    datasets.DatasetDict({"train": news(), "validation": news(ROWS[:2])}).save_to_disk(folder)


def _jsonl(folder: Path) -> None:
    folder.mkdir()
    for name, rows in (("train", ROWS), ("dev", ROWS[:2])):
        lines = [json.dumps({"tokens": words, "ner_tags": [CONLL[tag] for tag in tags]}) for words, tags in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))


def _json(folder: Path) -> None:
    folder.mkdir()
    for name, rows in (("train", ROWS), ("validation", ROWS[:2])):
        objects = [{"words": words, "tags": [CONLL[tag] for tag in tags]} for words, tags in rows]
        (folder / f"{name}.json").write_text(json.dumps(objects))


LAYOUTS = {
    "a file for each split": write,
    "shards": _shards,
    "a folder for each split": _converted,
    "save_to_disk": _saved,
    "JSON lines with tag strings": _jsonl,
    "JSON with the column names of the contract": _json,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_users_folder_may_have_any_of_these_layouts(layout: str, tmp_path: Path) -> None:
    make: Callable[[Path], Any] = LAYOUTS[layout]
    make(tmp_path / "own")
    for split, expected in (("train", ROWS), ("validation", ROWS[:2])):
        rows = examples(dataset=tmp_path / "own", split=split)
        names = rows.features["tags"].feature.names
        tags = [[names[tag] for tag in tags] for tags in rows["tags"]]
        assert list(zip(rows["words"], tags, strict=True)) == [
            (words, [CONLL[tag] for tag in labels]) for words, labels in expected
        ]
        assert names[0] == "O"


def test_csv_works_for_text_but_not_for_lists(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('text,tokens\n"Rain fell, late.",Rain\n')
    assert list(examples(dataset=path, columns=("text",))["text"]) == ["Rain fell, late."]
    with pytest.raises(
        SourceError, match=r"column 'tokens' of .*train.csv, split train holds .*string, not a list of words"
    ):
        examples(dataset=path, columns=("words",))


def test_a_single_file_is_the_train_split(tmp_path: Path) -> None:
    news().to_parquet(tmp_path / "mine.parquet")
    assert len(examples(dataset=tmp_path / "mine.parquet")) == len(ROWS)
    with pytest.raises(SourceError, match=r"mine.parquet has no split 'validation': it has train"):
        examples(dataset=tmp_path / "mine.parquet", split="validation")


def test_tag_strings_get_the_same_ids_in_both_splits(tmp_path: Path) -> None:
    strings = datasets.Value("string")
    write(
        tmp_path / "own",
        news([(["Ada", "in", "Oslo"], ["B-PER", "O", "B-LOC"])], tags=strings),
        news([(["the", "Cup"], ["O", "B-MISC"])], tags=strings),
    )
    for split in ("train", "validation"):
        names = examples(dataset=tmp_path / "own", split=split).features["tags"].feature.names
        assert names == ["O", "B-LOC", "B-MISC", "B-PER"]


def test_the_users_data_replaces_the_embedded_data(tmp_path: Path) -> None:
    _json(tmp_path / "own")
    source = open_source(MicroworldData(train=3, validation=3), TINY, access=Access(dataset=tmp_path / "own"))
    assert list(source.examples("train", columns=("words",))["words"]) == [words for words, _ in ROWS]


def test_the_declared_configuration_selects_a_folder(tmp_path: Path) -> None:
    for name, rows in (("en", ROWS), ("fr", ROWS[:1])):
        _parquet(tmp_path / "own" / name / "train" / "0000.parquet", news(rows))
    assert len(examples(with_data(config="fr"), dataset=tmp_path / "own")) == 1
    with pytest.raises(SourceError, match=r"in several folders \(en/train, fr/train\): name one with `config`"):
        examples(dataset=tmp_path / "own")


# Which rows


def numbered(folder: Path, count: int = 200) -> Path:
    return write(folder, news([([str(number)], [0]) for number in range(count)]))


def numbers(data: HubData, split: str, folder: Path, **access: Any) -> list[int]:
    return [
        int(words[0])
        for words in examples(data, split=split, columns=("words",), **(access or {"dataset": folder}))["words"]
    ]


def test_rows_are_drawn_with_the_seed_like_shuffle_draws_them(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "own")
    rows = list(range(200))
    drawn = numbers(with_data(train_rows=20), "train", folder)
    assert drawn == list(datasets.Dataset.from_dict({"n": rows}).shuffle(seed=42).select(range(20))["n"])
    assert numbers(with_data(train_rows=20), "train", folder) == drawn
    assert numbers(with_data(train_rows=20, seed=1), "train", folder) != drawn


def test_a_fraction_divides_the_train_split_without_overlap(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "own")
    data = with_data(validation_fraction=0.1, seed=20)
    train, validation = numbers(data, "train", folder), numbers(data, "validation", folder)
    assert (len(train), len(validation)) == (180, 20)
    assert sorted(train + validation) == list(range(200))
    limited = with_data(validation_fraction=0.1, seed=20, train_rows=50, validation_rows=5)
    assert set(numbers(limited, "train", folder)) < set(train)
    assert set(numbers(limited, "validation", folder)) < set(validation)


def test_both_splits_may_be_the_same_split(tmp_path: Path) -> None:
    folder = numbered(tmp_path / "own")
    data = with_data(validation_split="train")
    assert numbers(data, "train", folder) == numbers(data, "validation", folder) == list(range(200))


def test_a_validation_fraction_and_a_validation_split_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="exclude each other"):
        with_data(validation_split="test", validation_fraction=0.1)


def test_settings_can_be_read_back_from_their_json() -> None:
    for data in (DATA, with_data(validation_fraction=0.1), with_data(validation_split="train")):
        assert HubData.model_validate_json(data.model_dump_json()) == data


def test_only_the_users_data_may_have_fewer_rows_than_declared(tmp_path: Path) -> None:
    write(tmp_path / "datasets" / "org" / "news")
    data = with_data(train_rows=6)
    with pytest.raises(SourceError, match="org/news, split train has 5 rows, but train_rows = 6"):
        examples(data, mirror=tmp_path)
    assert len(examples(data, dataset=tmp_path / "datasets" / "org" / "news")) == 5


# Errors in the data


def test_a_missing_split_is_an_error_that_lists_the_splits(tmp_path: Path) -> None:
    write(tmp_path / "own")
    with pytest.raises(SourceError, match="has no split 'test': it has train, validation"):
        examples(with_data(train_split="test"), dataset=tmp_path / "own")
    with pytest.raises(SourceError, match="no split 'test': it has train and validation"):
        examples(split="test", dataset=tmp_path / "own")


@pytest.mark.parametrize("name", ["train.parquet", "train.jsonl", "train.csv"])
def test_a_file_without_rows_is_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    if name.endswith(".parquet"):
        news([]).to_parquet(tmp_path / name)
    else:
        (tmp_path / name).write_text("text\n" * name.endswith(".csv"))
    with pytest.raises(SourceError, match=f"{tmp_path}/?.*(no rows|no data)"):
        examples(dataset=tmp_path, columns=("text",))


def test_a_missing_column_is_an_error_that_lists_the_columns(tmp_path: Path) -> None:
    write(tmp_path / "own")
    with pytest.raises(SourceError, match=r"no column 'pos' \(for `tags`\): it has id, tokens, ner_tags, text"):
        examples(with_data(columns={"words": "tokens", "tags": "pos"}), dataset=tmp_path / "own")


def test_label_ids_without_names_are_an_error_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path / "own", news(tags=datasets.Value("int64")), news(tags=datasets.Value("int64")))
    with pytest.raises(SourceError, match=r"label ids without names: .*`tag_names`"):
        examples(dataset=tmp_path / "own")
    rows = examples(with_data(tag_names=CONLL), dataset=tmp_path / "own")
    assert rows.features["tags"].feature.names == CONLL
    assert list(rows["tags"]) == [tags for _, tags in ROWS]


@pytest.mark.parametrize("label", [5, -1])
def test_a_label_out_of_range_is_an_error_with_its_row_and_value(label: int, tmp_path: Path) -> None:
    rows = news([*ROWS, (["a", "b"], [0, label])], tags=datasets.Value("int64"))
    rows = rows.cast_column("ner_tags", datasets.List(datasets.Value("int64")))
    write(tmp_path / "own", rows)
    with pytest.raises(SourceError, match=rf"split train, row 5: label {label} in column 'ner_tags' is outside 0 to 4"):
        examples(with_data(tag_names=CONLL), dataset=tmp_path / "own")


def test_an_undeclared_tag_is_an_error_with_its_row_and_value(tmp_path: Path) -> None:
    strings = datasets.Value("string")
    write(tmp_path / "own", news([(["a"], ["O"]), (["b"], ["0"])], tags=strings))
    with pytest.raises(SourceError, match=r"row 1: label '0' in column 'ner_tags' is not one of O, B-PER"):
        examples(with_data(tag_names=CONLL), dataset=tmp_path / "own")


def test_different_numbers_of_words_and_tags_are_an_error_with_the_row(tmp_path: Path) -> None:
    write(tmp_path / "own", news([*ROWS, (["a", "b"], [0])]))
    with pytest.raises(SourceError, match="split train, row 5: 2 words but 1 tags"):
        examples(dataset=tmp_path / "own")


@pytest.mark.parametrize(
    ("row", "columns", "says"),
    [
        ({"tokens": None, "ner_tags": [], "text": ""}, ("words",), "row 1: `tokens` is missing"),
        (
            {"tokens": ["a", None], "ner_tags": [0, 0], "text": ""},
            ("words", "tags"),
            "row 1: a value in `tokens` is missing",
        ),
        ({"tokens": ["a"], "ner_tags": [None], "text": ""}, ("tags",), "row 1: a value in `ner_tags` is missing"),
        ({"tokens": [], "ner_tags": [], "text": None}, ("text",), "row 1: `text` is missing"),
    ],
)
def test_a_missing_value_is_an_error_with_its_row(row: dict[str, Any], columns: Any, says: str, tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(
        [{"tokens": ["a"], "ner_tags": [0], "text": "a"}, row],
        features=datasets.Features({name: news().features[name] for name in ("tokens", "ner_tags", "text")}),
    )
    write(tmp_path / "own", rows)
    with pytest.raises(SourceError, match=says):
        examples(columns=columns, dataset=tmp_path / "own")


def test_a_loading_script_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "datasets" / "org" / "news"
    folder.mkdir(parents=True)
    ran = tmp_path / "ran"
    (folder / "news.py").write_text(f"open({str(ran)!r}, 'w')")
    with pytest.raises(
        SourceError, match=r"loading script news.py, but scripts are not run; try revision refs/convert/parquet"
    ):
        examples(mirror=tmp_path)
    assert not ran.exists()


def test_unreadable_data_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    write(tmp_path / "own")
    (tmp_path / "own" / "train.parquet").write_bytes(b"PAR1 this is no parquet")
    with pytest.raises(SourceError, match=r"own/train.parquet cannot be read as parquet"):
        examples(dataset=tmp_path / "own")
    with pytest.raises(SourceError, match=f"{tmp_path}/nowhere does not exist"):
        examples(dataset=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"it has no .parquet"):
        examples(dataset=tmp_path / "empty")


# Fingerprints


def test_a_fingerprint_depends_on_the_content_and_not_on_how_it_was_made(tmp_path: Path) -> None:
    write(tmp_path / "own")
    read = examples(dataset=tmp_path / "own")
    made = datasets.Dataset.from_dict({"tags": [tags for _, tags in ROWS], "words": [words for words, _ in ROWS]})
    made = made.cast_column("tags", datasets.List(datasets.ClassLabel(names=CONLL)))
    assert fingerprint(read) == fingerprint(made)
    assert fingerprint(read) == fingerprint(read.select(range(len(ROWS))).flatten_indices())


def test_a_fingerprint_changes_with_every_change_of_the_content() -> None:
    def of(words: list[list[str]], tags: list[list[int]], names: list[str] = CONLL) -> str:
        rows = datasets.Dataset.from_dict({"words": words, "tags": tags})
        return fingerprint(rows.cast_column("tags", datasets.List(datasets.ClassLabel(names=names))))

    prints = [
        of([["a", "b"], ["c"]], [[0, 1], [0]]),
        of([["a", "b"], ["d"]], [[0, 1], [0]]),
        of([["a", "b"], ["c"]], [[0, 2], [0]]),
        of([["c"], ["a", "b"]], [[0], [0, 1]]),
        of([["a"], ["b", "c"]], [[0], [1, 0]]),
        of([["ab"], ["c"]], [[0], [0]]),
        of([["a", "b"], ["c"]], [[0, 1], [0]], ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]),
        of([["a", "b"]], [[0, 1]]),
    ]
    assert len(prints) == len(set(prints))


def test_a_fingerprint_never_changes() -> None:
    rows = datasets.Dataset.from_dict({"words": [["é", "e\u0301"], []], "n": [1, -2], "x": [0.1, float("inf")]})
    assert fingerprint(rows) == "89959bd0b2779496a5b8d0f79bbc689a274946dbf399eabc4cbdabc2ea1eff33"


# Checkpoints


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained BERT encoder, saved in half precision, with its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = microworld_tokenizer(TINY)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    torch.manual_seed(5)
    BertModel(config).half().save_pretrained(folder)
    return folder


def copy(folder: Path, to: Path, *, without: tuple[str, ...] = ()) -> Path:
    to.mkdir(parents=True)
    for file in folder.iterdir():
        if file.name not in without:
            (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_checkpoint_is_loaded_in_float32_with_its_weights(tiny: Path, tmp_path: Path) -> None:
    copy(tiny, tmp_path / "models" / "org" / "tiny")
    source = opened(checkpoint=MODEL, mirror=tmp_path)
    assert source.tokenizer().get_vocab() == microworld_tokenizer(TINY).get_vocab()
    model = source.model(AutoModelForTokenClassification, num_labels=5)
    weights = load_file(tiny / "model.safetensors")
    assert model.dtype == torch.float32
    assert model.config.num_labels == 5
    expected = weights["embeddings.word_embeddings.weight"].float()
    assert torch.equal(expected, model.state_dict()["bert.embeddings.word_embeddings.weight"])


def test_the_untrained_head_is_drawn_from_torchs_generator(tiny: Path) -> None:
    source = open_source(DATA, MODEL, access=Access(checkpoint=tiny))
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        heads.append(source.model(AutoModelForTokenClassification, num_labels=5).state_dict()["classifier.weight"])
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_a_checkpoint_that_is_not_pretrained_has_random_weights_even_if_the_folder_has_weights(tiny: Path) -> None:
    checkpoint = HubCheckpoint(id="org/tiny", revision="v1", pretrained=False, config={"num_hidden_layers": 2})
    torch.manual_seed(0)
    model = open_source(DATA, checkpoint, access=Access(checkpoint=tiny)).model(AutoModelForMaskedLM)
    weights = load_file(tiny / "model.safetensors")
    assert model.config.num_hidden_layers == 2
    assert not torch.equal(
        weights["embeddings.word_embeddings.weight"].float(),
        model.state_dict()["bert.embeddings.word_embeddings.weight"],
    )


def test_the_users_checkpoint_replaces_the_embedded_checkpoint(tiny: Path) -> None:
    source = open_source(MicroworldData(train=1, validation=1), TINY, access=Access(checkpoint=tiny))
    weights = load_file(tiny / "model.safetensors")
    assert torch.equal(
        weights["embeddings.word_embeddings.weight"].float(),
        source.model(AutoModelForMaskedLM).state_dict()["bert.embeddings.word_embeddings.weight"],
    )


def model_error(folder: Path, checkpoint: HubCheckpoint = MODEL) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(DATA, checkpoint, access=Access(checkpoint=folder)).model(AutoModelForTokenClassification)
    return str(caught.value)


def test_missing_weights_are_an_error_with_the_remedy(tiny: Path, tmp_path: Path) -> None:
    folder = copy(tiny, tmp_path / "bare", without=("model.safetensors",))
    assert f"{folder} has no weights (*.safetensors)" in (says := model_error(folder))
    assert "`pretrained = false`" in says


def test_pickled_weights_are_not_read(tiny: Path, tmp_path: Path) -> None:
    folder = copy(tiny, tmp_path / "pickled", without=("model.safetensors",))
    torch.save(load_file(tiny / "model.safetensors"), folder / "pytorch_model.bin")
    assert "weights as pickle only" in (says := model_error(folder))
    assert "model.safetensors" in says
    source = open_source(MicroworldData(train=1, validation=1), TINY, access=Access(checkpoint=folder))
    with pytest.raises(SourceError, match="pickle only"):
        source.model(AutoModelForMaskedLM)


def test_weights_of_another_architecture_are_an_error(tiny: Path, tmp_path: Path) -> None:
    folder = copy(tiny, tmp_path / "other", without=("model.safetensors",))
    config = DistilBertConfig(vocab_size=1200, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    DistilBertForMaskedLM(config).save_pretrained(tmp_path / "distil")
    (folder / "model.safetensors").write_bytes((tmp_path / "distil" / "model.safetensors").read_bytes())
    assert "belong to another architecture" in model_error(folder)


def test_weights_of_another_size_are_an_error(tiny: Path, tmp_path: Path) -> None:
    folder = copy(tiny, tmp_path / "resized", without=("model.safetensors",))
    weights = load_file(tiny / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] = torch.zeros(7, 32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert f"{folder} cannot be loaded as AutoModelForTokenClassification" in model_error(folder)


def test_truncated_weights_are_an_error(tiny: Path, tmp_path: Path) -> None:
    folder = copy(tiny, tmp_path / "cut", without=("model.safetensors",))
    (folder / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes()[:100])
    assert f"{folder} cannot be loaded" in model_error(folder)


def test_an_unknown_config_entry_is_an_error(tiny: Path) -> None:
    checkpoint = HubCheckpoint(id="org/tiny", revision="v1", config={"hiden_size": 3})
    assert "(BertConfig) has no entry 'hiden_size'" in model_error(tiny, checkpoint)


def test_remote_code_is_refused(tiny: Path, tmp_path: Path) -> None:
    folder = copy(tiny, tmp_path / "remote", without=("config.json",))
    config = {"model_type": "novel", "auto_map": {"AutoConfig": "novel.NovelConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (folder / "novel.py").write_text(f"open({str(ran)!r}, 'w')")
    assert f"model config in {folder} is missing or cannot be read" in model_error(folder)
    assert not ran.exists()


def test_a_folder_without_tokenizer_or_config_is_an_error(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert f"model config in {tmp_path}/empty is missing or cannot be read" in model_error(tmp_path / "empty")
    assert f"the checkpoint folder {tmp_path}/nowhere does not exist" in model_error(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"the tokenizer in .*/empty is missing or cannot be read"):
        open_source(DATA, MODEL, access=Access(checkpoint=tmp_path / "empty")).tokenizer()


def test_a_slow_tokenizer_is_loaded_but_refused_where_word_ids_are_needed(tmp_path: Path) -> None:
    ByT5Tokenizer().save_pretrained(tmp_path)
    tokenizer = open_source(DATA, MODEL, access=Access(checkpoint=tmp_path)).tokenizer()
    assert not tokenizer.is_fast
    assert tokenizer.decode(tokenizer("Rain")["input_ids"], skip_special_tokens=True) == "Rain"
    with pytest.raises(SourceError, match=r"slow one \(ByT5Tokenizer\), which has no word_ids"):
        tokenize(tokenizer, ["Rain"], pretokenized=False, max_length=None)


WITHOUT_SENTENCEPIECE = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "sentencepiece" else find(name, *rest)
sys.modules["sentencepiece"] = None
from pathlib import Path
from touchstone.sources import *
access = Access(checkpoint=Path(sys.argv[1]))
checkpoint = HubCheckpoint(id="org/tiny", revision="v1")
try:
    open_source(MicroworldData(train=1, validation=1), checkpoint, access=access).tokenizer()
except SourceError as error:
    print(error)
"""


def test_a_tokenizer_that_needs_a_missing_package_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "marian"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MarianTokenizer"}))
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", WITHOUT_SENTENCEPIECE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"the tokenizer in {tmp_path} needs a package that is not installed: MarianTokenizer")
    assert "pip install sentencepiece" in done.stdout


# The hub. Its client reads the environment when it is imported, so each case runs in another process.


SILENCE = [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}]  # port 9 has no server
CALLS = """
import sys, time
from touchstone.sources import *
from touchstone.sources.source import SourceError
source = open_source(HubData(id="org/news", revision="v1"), HubCheckpoint(id="org/tiny", revision="v1"))
begun = time.monotonic()
for call in (lambda: source.examples("train", columns=("words",)), source.tokenizer, lambda: source.model(None)):
    try:
        print("NO ERROR", call())
    except SourceError as error:
        print(error)
print(time.monotonic() - begun)
"""


@pytest.mark.parametrize(
    ("environment", "message"),
    list(zip(SILENCE, ("the hub does not answer (http://127.0.0.1:9)", "HF_HUB_OFFLINE is set"), strict=True)),
    ids=["dead", "offline"],
)
def test_a_hub_that_does_not_answer_is_one_clear_error_within_seconds(
    environment: dict[str, str], message: str, tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | environment
    environment |= {"HF_HOME": str(tmp_path)}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    data, tokenizer, model, seconds = done.stdout.splitlines()
    for kind, answer in (("dataset org/news", data), ("model org/tiny", tokenizer), ("model org/tiny", model)):
        assert answer.startswith(f"{message}, and {kind} at revision v1 is not in the cache {tmp_path}")
        assert "--mirror DIR" in answer
    # With the client's retries, each call would take 23 s. The limit of 20 s for three calls allows for a busy machine.
    assert float(seconds) < 20


def _cache(home: Path, kind: str, name: str, revision: str, files: Path) -> None:
    """Write what the hub's client leaves in its cache after a download."""
    repository = home / "hub" / f"{kind}--org--{name}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    copy(files, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / revision).write_text(commit)


@pytest.mark.parametrize("environment", SILENCE, ids=["dead", "offline"])
def test_the_cache_is_used_for_its_revision_only(environment: dict[str, str], tiny: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | environment
    environment |= {"HF_HOME": str(tmp_path / "home")}
    _cache(tmp_path / "home", "datasets", "news", "v1", write(tmp_path / "files"))
    _cache(tmp_path / "home", "models", "tiny", "v1", tiny)
    code = """
from touchstone.sources import *
from transformers import AutoModelForMaskedLM
for revision in ("v1", "v2"):
    data = HubData(id="org/news", revision=revision, columns={"words": "tokens"})
    source = open_source(data, HubCheckpoint(id="org/tiny", revision=revision))
    for call in (
        lambda: source.examples("train", columns=("words",)),
        source.tokenizer,
        lambda: source.model(AutoModelForMaskedLM),
    ):
        try:
            print(type(call()).__name__)
        except SourceError as error:
            print("at revision v2 is not in the cache" in str(error))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    dataset, _, model, *refused = done.stdout.splitlines()
    assert [dataset, model, *refused] == ["Dataset", "BertForMaskedLM", "True", "True", "True"]


# A real mirror, if there is one


@pytest.fixture
def mirror() -> Path:
    where = os.environ.get("TOUCHSTONE_MIRROR")
    if where is None or not Path(where, "datasets", "eriktks", "conll2003").is_dir():
        pytest.skip("needs TOUCHSTONE_MIRROR, a mirror directory with datasets/eriktks/conll2003")
    return Path(where)


def test_conll2003_has_its_published_size_and_tags(mirror: Path) -> None:
    data = HubData(
        id="eriktks/conll2003", revision="refs/convert/parquet", columns={"words": "tokens", "tags": "ner_tags"}
    )
    sizes = {split: len(examples(data, split=split, mirror=mirror)) for split in ("train", "validation")}
    assert sizes == {"train": 14041, "validation": 3250}
    names = examples(data, mirror=mirror).features["tags"].feature.names
    assert names == ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]


def test_the_users_validation_split_may_be_called_validation_whatever_the_spec_calls_it(tmp_path: Path) -> None:
    for split, text in (("train", "one"), ("validation", "two")):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps({"text": text}) + "\n")
    data = HubData(id="an/id", revision="1", validation_split="test")
    rows = open_source(data, TINY, access=Access(dataset=tmp_path)).examples("validation", columns=("text",))

    assert rows["text"][:] == ["two"]
