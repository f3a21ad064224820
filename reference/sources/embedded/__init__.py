"""The embedded data: six small data sets that are installed with the package, so that any machine has them offline.

The files in this folder are gzipped JSON lines, one file for each data set and split. `tools/microworld` generated
them: toy English with French translations, questions, headlines and Python programs. No name of the validation split
occurs in the training split; the other words occur in both.

Row i of every data set is about the same document: `words` and `tags` are one of its sentences, `source` and `target`
are that sentence as running text in English and French, `text` is the whole document, `document` and `summary` are its
first sentences and a headline, and `question`, `context` and `answers` are a question about a passage of it, as in
SQuAD. Only `code`, a Python program, is independent of the document.
"""

from __future__ import annotations

import gzip
import json
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import datasets
from pydantic import Field

from touchstone.fields import FrozenModel
from touchstone.sources.source import SourceError

FOLDER = Path(__file__).parent
TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")
"""IOB2 tags in the order of the ids of CoNLL-2003."""

TEXT = datasets.Value("string")
DATA_SETS: dict[str, dict[str, Any]] = {
    "sentences": {"words": datasets.List(TEXT), "tags": datasets.List(datasets.ClassLabel(names=list(TAGS)))},
    "documents": {"text": TEXT},
    "programs": {"code": TEXT},
    "translations": {"source": TEXT, "target": TEXT},
    "headlines": {"document": TEXT, "summary": TEXT},
    "questions": {
        "question": TEXT,
        "context": TEXT,
        "answers": {"text": datasets.List(TEXT), "answer_start": datasets.List(datasets.Value("int32"))},
    },
}
"""Data set to its columns and their types."""
HOME = {column: name for name, columns in DATA_SETS.items() for column in columns}
"""Column to the data set that has it."""


class MicroworldData(FrozenModel):
    """The first rows of the embedded data.

    Every field is part of the hash of every spec that has one, so the fields cannot change. The stored data was drawn
    with seed 0, so that is the only seed there is.
    """

    source: Literal["microworld"] = "microworld"
    train: int = Field(gt=0, description="rows")
    validation: int = Field(gt=0, description="rows")
    seed: Literal[0] = Field(default=0, description="of the data, not of a run: the embedded data has one seed")


@lru_cache(maxsize=8)
def embedded_examples(data: MicroworldData, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
    """Return the first rows of a split with exactly these columns.

    Calls with equal arguments return the same object, so do not change its format.

    Raises:
        SourceError: the split is neither `train` nor `validation`, a column does not exist, or `data` declares more
            rows than are stored.
    """
    if split not in ("train", "validation"):
        raise SourceError(f"the embedded data has no split {split!r}: it has train and validation")
    if unknown := [column for column in columns if column not in HOME]:
        raise SourceError(f"the embedded data has no column {unknown[0]!r}: it has {', '.join(HOME)}")
    wanted = data.train if split == "train" else data.validation
    stored: dict[str, list[Any]] = {}
    for name in dict.fromkeys(HOME[column] for column in columns):
        with gzip.open(FOLDER / file_name(name, split), "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in islice(lines, wanted)]
        if len(rows) < wanted:
            raise SourceError(
                f"the embedded data has {len(rows)} rows of {', '.join(DATA_SETS[name])} for {split}, but {split} = "
                f"{wanted}: set {split} to {len(rows)} or less in the data settings"
            )
        stored |= {column: [row[column] for row in rows] for column in DATA_SETS[name]}
    if "tags" in columns:
        ids = {tag: index for index, tag in enumerate(TAGS)}
        stored["tags"] = [[ids[tag] for tag in tags] for tags in stored["tags"]]
    features = datasets.Features({column: DATA_SETS[HOME[column]][column] for column in columns})
    return datasets.Dataset.from_dict({column: stored[column] for column in columns}, features=features)


def file_name(data_set: str, split: str) -> str:
    """Return the name of the file that stores a split of a data set."""
    return f"{data_set}.{split}.jsonl.gz"
