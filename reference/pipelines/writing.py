"""Lets an encoder-decoder write: greedily or by beam search, never by chance, and never without an end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from reference.stages import clean_sequences


class Search(NamedTuple):
    """How a text is searched for.

    Attributes:
        num_beams: width of the search; 1 takes the likeliest token each time.
        max_new_tokens: tokens written at most, the end included.
        start_id: what the decoder starts with; None: what the model's own generation config says.
    """

    num_beams: int
    max_new_tokens: int
    start_id: int | None


class Written(NamedTuple):
    """A text and how many tokens were written for it, its end included."""

    text: str
    length: int


def write(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    *,
    tokenizer: PreTrainedTokenizerBase,
    search: Search,
) -> list[Written]:
    """What the model writes for each row of `inputs` (`input_ids` and `attention_mask`, (B, S) each).

    The model is put into evaluation mode and back; its own settings are not touched.
    """
    # DistributedDataParallel wraps a model that can write; what wraps one and can write by itself is asked.
    inner = cast(Any, model if hasattr(model, "generate") else getattr(model, "module", model))
    training = inner.training
    inner.eval()
    try:
        ids: torch.Tensor = inner.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            generation_config=generation_config(search, tokenizer=tokenizer),
        )
    finally:
        inner.train(training)
    rows = ids.cpu().tolist()  # (B, 1 + T), the start first
    end = tokenizer.eos_token_id
    cleaned = clean_sequences(rows, pad_id=tokenizer.pad_token_id, eos_id=end, start_id=rows[0][0])
    texts = tokenizer.batch_decode(cleaned, skip_special_tokens=True)
    return [
        Written(text.strip(), len(tokens) + (end in row[1:]))
        for text, tokens, row in zip(texts, cleaned, rows, strict=True)
    ]


def generation_config(search: Search, *, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """All that decides what is written. Beyond it `generate` follows the model's own generation config (tokens that
    must not be written, the language to begin with)."""
    start = {} if search.start_id is None else {"decoder_start_token_id": search.start_id}
    return GenerationConfig(  # type: ignore[no-untyped-call]
        num_beams=search.num_beams,
        max_new_tokens=search.max_new_tokens,  # a model's own would win over max_length
        min_length=0,
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        repetition_penalty=1.0,
        do_sample=False,
        early_stopping=False,
        length_penalty=1.0,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **start,
    )
