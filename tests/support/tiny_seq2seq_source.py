"""A source of short pairs of texts, and encoder-decoder models that train in milliseconds."""

from __future__ import annotations

from typing import Any, Literal

import datasets
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    MarianConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
)

SPECIAL = ["</s>", "<unk>", "<pad>"]
ENGLISH = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "."]
FRENCH = ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix", "."]
WORDS = list(dict.fromkeys([*ENGLISH, *FRENCH, ":", "sum"]))


def pairs(n: int, *, offset: int = 0) -> tuple[list[str], list[str]]:
    """Make n sentences of two to six words with their translations, without random numbers."""
    chosen = [[(i * 7 + k * (3 + i % 5)) % 10 for k in range(2 + i % 5)] + [10] for i in range(offset, offset + n)]
    return [" ".join(ENGLISH[k] for k in row) for row in chosen], [" ".join(FRENCH[k] for k in row) for row in chosen]


def tiny_tokenizer(*, ends: bool = True) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate([*SPECIAL, *WORDS])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_input_names=["input_ids", "attention_mask"],
    )


class TinyPairs:
    """Splits of the given sizes: sentences with translations, and documents with summaries.

    A document has four sentences; its summary is its first three words. `extra` pairs come first in the validation
    split.
    """

    def __init__(
        self,
        *,
        train: int = 40,
        validation: int = 13,
        architecture: Literal["marian", "t5"] = "marian",
        dropout: float = 0.1,
        positions: int = 64,
        extra: tuple[list[str], list[str]] = ([], []),
        ends: bool = True,
        **config: Any,
    ) -> None:
        self.sizes = {"train": (train, 0), "validation": (validation, 1000)}
        self.architecture, self.dropout, self.positions, self.ends = architecture, dropout, positions, ends
        self.extra, self.overrides = extra, config

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        size, offset = self.sizes[split]
        source, target = pairs(size, offset=offset)
        if split == "validation":
            source, target = self.extra[0] + source, self.extra[1] + target
        documents = [" ".join([text, *pairs(3, offset=i * 3)[0]]) for i, text in enumerate(source)]
        summaries = [" ".join(text.split()[:3]) for text in source]
        rows = {"source": source, "target": target, "document": documents, "summary": summaries}
        types = datasets.Features({name: datasets.Value("string") for name in rows})
        return datasets.Dataset.from_dict(rows, features=types).select_columns(list(columns))

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return tiny_tokenizer(ends=self.ends)

    def config(self) -> PreTrainedConfig:
        ids: dict[str, Any] = {"vocab_size": len(SPECIAL) + len(WORDS), "pad_token_id": 2, "eos_token_id": 0}
        ids["decoder_start_token_id"] = 2
        if self.architecture == "t5":
            sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
            return T5Config(**ids | sizes | {"dropout_rate": self.dropout} | self.overrides)
        sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": self.positions}
        sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "decoder_vocab_size": ids["vocab_size"]}
        return MarianConfig(**ids | sizes | {"dropout": self.dropout, "init_std": 0.2} | self.overrides)

    def model(self, auto_class: Any, **config: Any) -> PreTrainedModel:
        model: PreTrainedModel = auto_class.from_config(self.config(), **config)
        return model
