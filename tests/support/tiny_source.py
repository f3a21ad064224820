"""A source of a few sentences, and a model that trains in milliseconds."""

from __future__ import annotations

from typing import Any

import datasets
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from touchstone.sources.normalization import ANSWERS

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
PEOPLE = ["ada", "adalyn", "grace", "alan", "barbara"]
PLACES = ["paris", "oslo", "new york", "rio", "parisville"]
VERBS = ["sees", "likes", "leaves", "paints"]
PIECES = ["ada", "##lyn", "grace", "alan", "bar", "##bar", "##a", "paris", "##ville", "oslo", "new", "york", "rio"]


def sentences(n: int, *, offset: int = 0) -> tuple[list[list[str]], list[list[int]]]:
    """Make n sentences of one to three clauses, without random numbers."""
    words: list[list[str]] = []
    tags: list[list[int]] = []
    for i in range(offset, offset + n):
        row: list[str] = []
        ids: list[int] = []
        for clause in range(1 + i % 3):
            k = i * 7 + clause * 3
            place = PLACES[(k // 2) % len(PLACES)].split()
            row += [PEOPLE[k % len(PEOPLE)], VERBS[(k // 3) % len(VERBS)], *place, "."]
            ids += [1, 0, 3, *[4] * (len(place) - 1), 0]
        words.append(row)
        tags.append(ids)
    return words, tags


def questions(words: list[list[str]]) -> dict[str, list[Any]]:
    """Make a question and answer from one clause of each sentence: "PERSON VERB", and the place."""
    rows: dict[str, list[Any]] = {"question": [], "context": [], "answers": []}
    for i, sentence in enumerate(words):
        context = " ".join(sentence)
        clauses = [clause.strip() for clause in context.split(".") if len(clause.split()) > 2] or ["ada sees oslo"]
        clause = clauses[i % len(clauses)]
        person, verb, place = clause.split(maxsplit=2)
        rows["question"].append(f"{person} {verb}")
        rows["context"].append(context)
        start = context.find(clause) + len(f"{person} {verb} ")
        rows["answers"].append({"text": [place], "answer_start": [start]})
    return rows


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, *PIECES, *VERBS, "."])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


class TinySource:
    """Splits of the given sizes. `extra` sentences (words, tags) come first in the validation split."""

    def __init__(
        self,
        *,
        train: int = 40,
        validation: int = 13,
        dropout: float = 0.1,
        hidden: int = 16,
        layers: int = 1,
        extra: tuple[list[list[str]], list[list[int]]] = ([], []),
    ) -> None:
        self.sizes = {"train": (train, 0), "validation": (validation, 1000)}
        self.dropout, self.hidden, self.layers, self.extra = dropout, hidden, layers, extra

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        size, offset = self.sizes[split]
        words, tags = sentences(size, offset=offset)
        if split == "validation":
            words, tags = self.extra[0] + words, self.extra[1] + tags
        features: dict[str, Any] = {
            "words": datasets.List(datasets.Value("string")),
            "tags": datasets.List(datasets.ClassLabel(names=NAMES)),
        }
        rows: dict[str, Any] = {"words": words, "tags": tags, "text": [" ".join(row) for row in words]}
        features |= {name: datasets.Value("string") for name in ("text", "question", "context")}
        features["answers"] = ANSWERS
        rows |= questions(words)
        types = datasets.Features(features)
        return datasets.Dataset.from_dict(rows, features=types).select_columns(list(columns))

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return tiny_tokenizer()

    def model(self, auto_class: Any, **config: Any) -> PreTrainedModel:
        model: PreTrainedModel = auto_class.from_config(
            BertConfig(
                vocab_size=len(tiny_tokenizer()),
                hidden_size=self.hidden,
                num_hidden_layers=self.layers,
                num_attention_heads=2,
                intermediate_size=2 * self.hidden,
                max_position_embeddings=64,
                hidden_dropout_prob=self.dropout,
                attention_probs_dropout_prob=self.dropout,
                **config,
            )
        )
        return model
