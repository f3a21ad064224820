"""Small tokenizers, sentences and subjects for tests of probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from touchstone.auditing.finding import Finding
from touchstone.auditing.probe import load_probes, run_probe
from touchstone.auditing.subject import MapCall, Split, Subject

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Ada", "love", "##lace", "sees", "Par", "##is", "and", "Rome", ".", "Bob"]
SENTENCES = [
    (["Ada", "lovelace", "sees", "Paris", "."], ["B-PER", "I-PER", "O", "B-LOC", "O"]),
    (["Paris", "and", "Rome", "."], ["B-LOC", "O", "B-LOC", "O"]),
    (["Bob", "sees", "Ada", "."], ["B-PER", "O", "B-PER", "O"]),
    (["Rome", "sees", "Bob", "lovelace"], ["B-LOC", "O", "B-PER", "I-PER"]),
    (["and", "Bob", "and", "Paris", "Rome"], ["O", "B-PER", "O", "B-LOC", "I-LOC"]),
]


def tokenizer(**options: Any) -> Any:
    """Return a WordPiece tokenizer of 14 tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(WordPiece({piece: index for index, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    inner.pre_tokenizer = BertPreTokenizer()
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_input_names=names, **{**marks, **options})


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pad rows to the longest."""
    import torch

    fill = {"labels": -100}
    made = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        if isinstance(values[0], list):
            width = max(map(len, values))
            values = [value + [fill.get(name, 0)] * (width - len(value)) for value in values]
        made[name] = torch.tensor(values)
    return made


def first_tokens(tags: Sequence[int], words: Sequence[int | None]) -> list[int]:
    """Label the first token of each word."""
    before = [None, *words[:-1]]
    return [-100 if word is None or word == last else tags[word] for word, last in zip(words, before, strict=True)]


def all_tokens(tags: Sequence[int], words: Sequence[int | None]) -> list[int]:
    """Label all tokens of a word with the word's tag."""
    return [-100 if word is None else tags[word] for word in words]


def tagged(
    align: Callable[[Sequence[int], Sequence[int | None]], list[int]] = first_tokens,
    *,
    sentences: Sequence[tuple[list[str], list[str]]] = SENTENCES,
    label_of: Callable[[str], int] = NAMES.index,
    names: Sequence[str] | None = NAMES,
    **parts: Any,
) -> Subject:
    """Return a subject whose sentences were tokenized and labelled by `Dataset.map`."""
    from datasets import Dataset

    tokens = tokenizer()

    def label(row: dict[str, Any]) -> dict[str, Any]:
        encoded = tokens(row["words"], is_split_into_words=True)
        labels = align([label_of(tag) for tag in row["tags"]], encoded.word_ids())
        return {**encoded, "labels": labels}

    source = Dataset.from_list([{"words": words, "tags": tags} for words, tags in sentences])
    result = source.map(label, remove_columns=["words", "tags"])
    call = MapCall(label, source, result, batched=False, where="train.py:7")
    split = Split("train", parts.pop("dataset", result), collate, 2)
    return Subject("a test", "token-classification", None, tokens, train=split, names=names, maps=[call], **parts)


def look(probe: str, subject: Subject) -> Finding:
    """Run one probe."""
    return run_probe(load_probes()[probe], subject)
