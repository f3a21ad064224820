"""The microworld: an endless data set from small grammars, embedded so that any machine has it, offline.

Row i of a split is drawn from (seed, split, i) alone, the same on every platform and Python version, so that any size
costs nothing to hold. Names in validation never occur in training, context words do: what a model learns here, it has
learned to generalise.

Columns of row i: `words` and `tags` are one sentence of document i, `source` and `target` the same sentence as running
text in English and French; `text` is document i; `document` and `summary` are a short report of it and its headline;
`question`, `context` and `answers` are a question on a passage of it, as in SQuAD; `code` is program i, Python that
always compiles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import datasets
from pydantic import BaseModel, ConfigDict, Field

from touchstone.sources.microworld.english import TAGS, running_text, tell
from touchstone.sources.microworld.french import french_text
from touchstone.sources.microworld.grammar import document, sentence
from touchstone.sources.microworld.headlines import headlined
from touchstone.sources.microworld.names import Split
from touchstone.sources.microworld.programs import program
from touchstone.sources.microworld.questions import asked
from touchstone.sources.source import SourceError

__all__ = ["TAGS", "MicroworldData", "document", "microworld_examples", "sentence"]


class MicroworldData(BaseModel):
    """How much of which microworld."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["microworld"] = "microworld"
    train: int = Field(gt=0, description="rows")
    validation: int = Field(gt=0, description="rows")
    seed: int = Field(default=0, ge=0, description="another seed is another world; a run's seed leaves the data alone")


def _sentences(rows: int, *, seed: int, split: Split) -> dict[str, list[Any]]:
    told = [tell(sentence(index, seed=seed, split=split)) for index in range(rows)]
    return {"words": [telling.words for telling in told], "tags": [telling.tags() for telling in told]}


def _texts(rows: int, *, seed: int, split: Split) -> dict[str, list[Any]]:
    return {"text": [running_text(document(index, seed=seed, split=split)) for index in range(rows)]}


def _programs(rows: int, *, seed: int, split: Split) -> dict[str, list[Any]]:
    return {"code": [program(index, seed=seed, split=split).text for index in range(rows)]}


def _translations(rows: int, *, seed: int, split: Split) -> dict[str, list[Any]]:
    told = [sentence(index, seed=seed, split=split) for index in range(rows)]
    return {"source": [running_text([one]) for one in told], "target": [french_text(one) for one in told]}


def _headlines(rows: int, *, seed: int, split: Split) -> dict[str, list[Any]]:
    made = [headlined(document(index, seed=seed, split=split)) for index in range(rows)]
    return {"document": [one.document for one in made], "summary": [one.summary for one in made]}


def _questions(rows: int, *, seed: int, split: Split) -> dict[str, list[Any]]:
    made = [asked(document(index, seed=seed, split=split)) for index in range(rows)]
    answers = [
        {"text": [answer.text for answer in one.answers], "answer_start": [answer.start for answer in one.answers]}
        for one in made
    ]
    return {
        "question": [one.question for one in made],
        "context": [one.context for one in made],
        "answers": answers,
    }


_MAKERS: dict[str, Callable[..., dict[str, list[Any]]]] = {
    "words": _sentences,
    "tags": _sentences,
    "text": _texts,
    "code": _programs,
    "source": _translations,
    "target": _translations,
    "document": _headlines,
    "summary": _headlines,
    "question": _questions,
    "context": _questions,
    "answers": _questions,
}
_FEATURES: dict[str, Any] = {
    "words": datasets.List(datasets.Value("string")),
    "tags": datasets.List(datasets.ClassLabel(names=list(TAGS))),
    "text": datasets.Value("string"),
    "code": datasets.Value("string"),
    "source": datasets.Value("string"),
    "target": datasets.Value("string"),
    "document": datasets.Value("string"),
    "summary": datasets.Value("string"),
    "question": datasets.Value("string"),
    "context": datasets.Value("string"),
    "answers": {
        "text": datasets.List(datasets.Value("string")),
        "answer_start": datasets.List(datasets.Value("int32")),
    },
}


@lru_cache(maxsize=8)  # drawing them takes a second or more, and whoever looks at data asks for it several times
def microworld_examples(data: MicroworldData, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
    """The rows of a split with exactly these columns: the same object each time, so leave its format alone.

    Raises:
        SourceError: a split other than `train` and `validation`, a column that the microworld does not have.
    """
    if split not in ("train", "validation"):
        raise SourceError(f"the microworld has no split {split!r}: it has train and validation")
    if unknown := [column for column in columns if column not in _FEATURES]:
        raise SourceError(f"the microworld has no column {unknown[0]!r}: it has {', '.join(_FEATURES)}")
    rows = data.train if split == "train" else data.validation
    made: dict[str, list[Any]] = {}
    for column in columns:
        if column not in made:
            made |= _MAKERS[column](rows, seed=data.seed, split=split)
    features = datasets.Features({column: _FEATURES[column] for column in columns})
    return datasets.Dataset.from_dict({column: made[column] for column in columns}, features=features)
