"""The data that stages are timed on: from the specs of the profile, read and tokenized at first use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from touchstone.pipelines.tokenizing import token_ids, tokenize, tokenize_parts
from touchstone.sources import Access, HubData, Source, open_source
from touchstone.specs.spec import load_spec
from touchstone.stages.ragged import Array, Ragged

SENTENCES, REVIEWS, PROGRAMS, QUESTIONS, PAIRS, REPORTS = 14_041, 25_000, 400, 3_000, 4_000, 300
"""Maximum numbers of rows: all training rows of the real data sets, or enough for timing."""


@dataclass(frozen=True)
class Sentences:
    """Data of token classification: N lists of words, with a label for each word."""

    data: datasets.Dataset
    tokenizer: Any
    words: list[list[str]]
    gold: Ragged
    names: list[str]

    @cached_property
    def columns(self) -> dict[str, Ragged]:
        return tokenize(self.tokenizer, self.words, pretokenized=True, max_length=None)


@dataclass(frozen=True)
class Texts:
    """Data of language modelling: N documents."""

    data: datasets.Dataset
    tokenizer: Any
    texts: list[str]

    @cached_property
    def columns(self) -> dict[str, Ragged]:
        return tokenize(self.tokenizer, self.texts, pretokenized=False, max_length=None)


@dataclass(frozen=True)
class Questions:
    """Data of question answering: N questions, their distinct contexts, and the positions of their answers."""

    data: datasets.Dataset
    tokenizer: Any
    questions: list[str]
    contexts: list[str]
    context_of: Array
    answer_starts: Ragged
    answer_ends: Ragged
    answers: list[list[str]]

    @cached_property
    def context_tokens(self) -> dict[str, Ragged]:
        return tokenize_parts(self.tokenizer, self.contexts, offsets=True)

    @cached_property
    def question_tokens(self) -> Ragged:
        return tokenize_parts(self.tokenizer, self.questions, offsets=False)["input_ids"]


@dataclass(frozen=True)
class Pairs:
    """Data of translation and summarization: N sources and targets."""

    tokenizer: Any
    sources: list[str]
    targets: list[str]

    @cached_property
    def columns(self) -> dict[str, Ragged]:
        """Token ids, truncated to 128 tokens as in the course."""
        given = {"input_ids": self.sources, "labels": self.targets}
        return {name: token_ids(self.tokenizer, texts, max_length=128) for name, texts in given.items()}


class Data:
    """All data of one profile."""

    def __init__(self, profile: str, *, mirror: Path | None) -> None:
        self.profile = profile
        self.access = Access(mirror=mirror)
        self.read: dict[str, str] = {}
        """Task to a description of the data that was read for it, for the record."""

    def source(self, task: str) -> Source:
        """Open the source that the task's spec declares, without its limit on the number of rows."""
        spec = load_spec(task, profile=self.profile)
        data = spec.data
        if isinstance(data, HubData):
            data = data.model_copy(update={"train_rows": None})
        return open_source(data, spec.checkpoint, access=self.access)

    def _rows(self, task: str, source: Source, *, columns: tuple[str, ...], most: int) -> datasets.Dataset:
        data = source.examples("train", columns=columns)
        chosen = data.select(range(min(most, len(data))))
        declared = load_spec(task, profile=self.profile).data
        self.read[task] = f"{len(chosen)} rows of {getattr(declared, 'id', declared.source)}"
        return chosen

    @cached_property
    def sentences(self) -> Sentences:
        source = self.source("token-classification")
        data = self._rows("token-classification", source, columns=("words", "tags"), most=SENTENCES)
        names = list(data.features["tags"].feature.names)
        gold = Ragged.from_arrow(data.with_format("arrow")[:].column("tags"))
        return Sentences(data, source.tokenizer(), list(data["words"]), gold, names)

    @cached_property
    def reviews(self) -> Texts:
        source = self.source("masked-lm")
        data = self._rows("masked-lm", source, columns=("text",), most=REVIEWS)
        return Texts(data, source.tokenizer(), list(data["text"]))

    @cached_property
    def programs(self) -> Texts:
        source = self.source("causal-lm")
        data = self._rows("causal-lm", source, columns=("code",), most=PROGRAMS)
        return Texts(data, source.tokenizer(), list(data["code"]))

    @cached_property
    def questions(self) -> Questions:
        source = self.source("question-answering")
        columns = ("question", "context", "answers")
        data = self._rows("question-answering", source, columns=columns, most=QUESTIONS)
        contexts = list(dict.fromkeys(data["context"]))
        number = {context: index for index, context in enumerate(contexts)}
        answers = list(data["answers"])
        starts = Ragged.from_lists([answer["answer_start"] for answer in answers])
        sizes = Ragged.from_lists([[len(text) for text in answer["text"]] for answer in answers])
        return Questions(
            data=data,
            tokenizer=source.tokenizer(),
            questions=[question.strip() for question in data["question"]],
            contexts=contexts,
            context_of=np.array([number[context] for context in data["context"]], np.int64),
            answer_starts=starts,
            answer_ends=starts.with_values(starts.values + sizes.values),
            answers=[list(answer["text"]) for answer in answers],
        )

    @cached_property
    def pairs(self) -> Pairs:
        source = self.source("translation")
        data = self._rows("translation", source, columns=("source", "target"), most=PAIRS)
        return Pairs(source.tokenizer(), list(data["source"]), list(data["target"]))

    @cached_property
    def reports(self) -> tuple[list[str], list[str]]:
        """The texts of documents and summaries."""
        source = self.source("summarization")
        data = self._rows("summarization", source, columns=("document", "summary"), most=REPORTS)
        return list(data["document"]), list(data["summary"])


def repeated(columns: dict[str, Ragged], tokens: int) -> dict[str, Ragged]:
    """Repeat or drop rows until there are about as many tokens as `tokens`."""
    first = next(iter(columns.values()))
    each = max(len(first.values) / max(len(first), 1), 1e-9)
    rows = np.resize(np.arange(len(first)), max(round(tokens / each), 1))
    return {name: column.take(rows) for name, column in columns.items()}


def batches(columns: dict[str, Ragged], *, size: int, most: int) -> list[list[dict[str, Array]]]:
    """Return the first `most` batches of features, in the form a data loader passes them to a collator."""
    count = min(len(next(iter(columns.values()))) // size, most)
    return [
        [{name: column[row] for name, column in columns.items()} for row in range(batch * size, (batch + 1) * size)]
        for batch in range(count)
    ]
