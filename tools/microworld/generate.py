"""Write the embedded data sets and tokenizers into the package: `python -m tools.microworld.generate`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

from tools.microworld.english import in_english, running_text
from tools.microworld.french import french_text
from tools.microworld.grammar import document, sentence
from tools.microworld.headlines import make_headline
from tools.microworld.names import Split
from tools.microworld.programs import program
from tools.microworld.questions import make_question
from tools.microworld.tokenizers import STORED, train_tokenizer
from touchstone.sources.checkpoints import TOKENIZERS, tokenizer_file
from touchstone.sources.embedded import FOLDER, TAGS, file_name

SEED = 0
ROWS: dict[str, dict[Split, int]] = {
    "sentences": {"train": 4000, "validation": 1000},
    "documents": {"train": 2000, "validation": 400},
    "programs": {"train": 1500, "validation": 120},
    "questions": {"train": 4000, "validation": 300},
    "translations": {"train": 4000, "validation": 300},
    "headlines": {"train": 6000, "validation": 300},
}
"""Rows of each data set: as many as the specs declare, and at least the rows that a tokenizer is trained on."""


def sentence_row(index: int, *, split: Split) -> dict[str, Any]:
    wording = in_english(sentence(index, seed=SEED, split=split))
    return {"words": wording.words, "tags": [TAGS[tag] for tag in wording.tags()]}


def document_row(index: int, *, split: Split) -> dict[str, Any]:
    return {"text": running_text(document(index, seed=SEED, split=split))}


def program_row(index: int, *, split: Split) -> dict[str, Any]:
    return {"code": program(index, seed=SEED, split=split).text}


def question_row(index: int, *, split: Split) -> dict[str, Any]:
    made = make_question(document(index, seed=SEED, split=split))
    answers = {"text": [one.text for one in made.answers], "answer_start": [one.start for one in made.answers]}
    return {"question": made.question, "context": made.context, "answers": answers}


def translation_row(index: int, *, split: Split) -> dict[str, Any]:
    clauses = sentence(index, seed=SEED, split=split)
    return {"source": running_text([clauses]), "target": french_text(clauses)}


def headline_row(index: int, *, split: Split) -> dict[str, Any]:
    made = make_headline(document(index, seed=SEED, split=split))
    return {"document": made.document, "summary": made.summary}


MAKERS: dict[str, Callable[..., dict[str, Any]]] = {
    "sentences": sentence_row,
    "documents": document_row,
    "programs": program_row,
    "questions": question_row,
    "translations": translation_row,
    "headlines": headline_row,
}


def line(name: str, index: int, *, split: Split) -> str:
    """Return row `index` of a data set as a JSON line."""
    return json.dumps(MAKERS[name](index, split=split), ensure_ascii=False, separators=(",", ":")) + "\n"


def main() -> None:
    """Write all files. They carry no time, so that the same content is the same bytes."""
    for name, splits in ROWS.items():
        for split in splits:
            path = FOLDER / file_name(name, split)
            text = "".join(line(name, index, split=split) for index in range(splits[split]))
            path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
            print(f"{path}: {splits[split]} rows, {path.stat().st_size / 1000:.0f} kB")
    TOKENIZERS.mkdir(exist_ok=True)
    for marks, family, vocabulary in STORED:
        path = TOKENIZERS / tokenizer_file(marks, family, vocabulary)
        path.write_text(train_tokenizer(marks, family, vocabulary).to_str() + "\n", encoding="utf-8")
        print(f"{path}: {vocabulary} tokens, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
