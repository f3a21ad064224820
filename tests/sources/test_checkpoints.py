"""The microworld's checkpoints: each architecture is one entry of a table, which says how texts are marked for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from touchstone.sources.checkpoints import (
    ARCHITECTURES,
    Architecture,
    MicroworldCheckpoint,
    microworld_model,
    microworld_tokenizer,
)

SEQ2SEQ = ["marian", "t5"]
TEXTS = ["Weston beat Harlow.", "Rain fell.", "  12.5 per cent of Oslo, 3 of 24"]


def small(architecture: str, **other: Any) -> MicroworldCheckpoint:
    settings = {"layers": 1, "hidden": 32, "heads": 2, "tokenizer": "metaspace-bpe"}
    return MicroworldCheckpoint.model_validate({"architecture": architecture} | settings | other)


def test_every_architecture_has_its_entry() -> None:
    assert set(get_args(Architecture)) == set(ARCHITECTURES)


def test_no_field_of_a_checkpoint_is_new() -> None:
    # Defaults are in every spec's hash: another field would outdate every expectation and record.
    fields = "source architecture layers hidden heads max_positions dropout tokenizer vocabulary seed"
    assert fields.split() == list(MicroworldCheckpoint.model_fields)


@pytest.mark.parametrize("architecture", [name for name, entry in ARCHITECTURES.items() if entry.writes])
def test_what_writes_text_needs_a_tokenizer_that_gives_it_back(architecture: str) -> None:
    with pytest.raises(ValidationError, match="wordpiece does not give it back"):
        small(architecture, tokenizer="wordpiece")


@pytest.mark.parametrize("architecture", SEQ2SEQ)
def test_a_seq2seq_tokenizer_ends_a_text_and_begins_none(architecture: str) -> None:
    tokenizer = microworld_tokenizer(small(architecture))
    bare = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    assert tokenizer(TEXTS)["input_ids"] == [[*row, tokenizer.eos_token_id] for row in bare]
    assert tokenizer(text_target=TEXTS)["input_ids"] == [[*row, tokenizer.eos_token_id] for row in bare]
    assert set(tokenizer.all_special_tokens) == {"</s>", "<pad>", "<unk>"}
    assert None is tokenizer.cls_token_id
    cut = tokenizer(TEXTS[0], truncation=True, max_length=4)["input_ids"]
    assert [*bare[0][:3], tokenizer.eos_token_id] == cut


@pytest.mark.parametrize("architecture", SEQ2SEQ)
@pytest.mark.parametrize("family", ["metaspace-bpe", "byte-bpe"])
def test_a_seq2seq_tokenizer_gives_back_what_it_read(architecture: str, family: str) -> None:
    tokenizer = microworld_tokenizer(small(architecture, tokenizer=family))
    decoded = tokenizer.batch_decode(tokenizer(TEXTS)["input_ids"], skip_special_tokens=True)
    # Both families begin a text with a blank, and so may give back one less than was read.
    assert [text.strip() for text in TEXTS] == [text.strip() for text in decoded]


@pytest.mark.parametrize("architecture", SEQ2SEQ)
def test_a_seq2seq_model_and_its_tokenizer_agree(architecture: str) -> None:
    checkpoint = small(architecture, max_positions=64)
    tokenizer = microworld_tokenizer(checkpoint)
    torch.manual_seed(0)
    model = microworld_model(checkpoint, AutoModelForSeq2SeqLM)
    ids = (model.config.pad_token_id, model.config.eos_token_id, model.config.decoder_start_token_id)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == ids
    batch = tokenizer(TEXTS, text_target=TEXTS, padding=True, return_tensors="pt")
    assert (*batch["labels"].shape, len(tokenizer)) == tuple(model(**batch).logits.shape)


@pytest.mark.parametrize("architecture", SEQ2SEQ)
def test_a_saved_seq2seq_tokenizer_is_the_same_after_loading(architecture: str, tmp_path: Path) -> None:
    tokenizer = microworld_tokenizer(small(architecture))
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": architecture}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(TEXTS)["input_ids"] == loaded(TEXTS)["input_ids"]
    assert tokenizer(text_target=TEXTS)["input_ids"] == loaded(text_target=TEXTS)["input_ids"]


# GPT-2


CODE = [' \nimport pandas as pd\n\n\ndef f(x):\n    return "naïve" + x  # 平均\n', "plt.plot(x)", "", "\t\n"]


def test_a_causal_tokenizer_gives_back_every_character_and_adds_none() -> None:
    tokenizer = microworld_tokenizer(small("gpt2", tokenizer="byte-bpe"))
    rows = tokenizer(CODE)["input_ids"]
    assert tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False) == CODE
    assert not any(tokenizer.eos_token_id in row for row in rows), "nothing is marked that the text does not mark"
    assert tokenizer("plt")["input_ids"] != tokenizer(" plt")["input_ids"]


def test_a_causal_tokenizer_has_one_mark_for_everything() -> None:
    tokenizer = microworld_tokenizer(small("gpt2", tokenizer="byte-bpe"))
    assert tokenizer.all_special_tokens == ["<|endoftext|>"]
    ids = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    assert ids == {0}
    assert (len(tokenizer), tokenizer("<|endoftext|>")["input_ids"][0]) == (1200, 0)


def test_a_causal_model_and_its_tokenizer_agree() -> None:
    checkpoint = small("gpt2", tokenizer="byte-bpe", max_positions=16)
    tokenizer = microworld_tokenizer(checkpoint)
    torch.manual_seed(0)
    model = microworld_model(checkpoint, AutoModelForCausalLM)
    ids = (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == ids
    assert (1, 16, len(tokenizer)) == tuple(model(input_ids=torch.arange(16)[None]).logits.shape)
    assert 16 == model.config.n_positions == tokenizer.model_max_length


def test_a_saved_causal_tokenizer_is_the_same_after_loading(tmp_path: Path) -> None:
    checkpoint = small("gpt2", tokenizer="byte-bpe")
    tokenizer = microworld_tokenizer(checkpoint)
    tokenizer.save_pretrained(tmp_path)
    microworld_model(checkpoint, AutoModelForCausalLM).save_pretrained(tmp_path)
    assert tokenizer(CODE)["input_ids"] == AutoTokenizer.from_pretrained(tmp_path)(CODE)["input_ids"]
