"""The embedded checkpoints: small models with random weights, and their stored tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from touchstone.sources import MicroworldCheckpoint, MicroworldData, SourceError, open_source
from touchstone.sources.checkpoints import ARCHITECTURES, Architecture, microworld_model, microworld_tokenizer
from touchstone.sources.embedded import embedded_examples

FAMILIES = {"bert": "wordpiece", "marian": "metaspace-bpe", "t5": "metaspace-bpe", "gpt2": "byte-bpe"}
SEQ2SEQ = ["marian", "t5"]
DATA = MicroworldData(train=1, validation=300)
TEXTS = ["Weston beat Harlow.", "Rain fell.", "  12.5 per cent of Oslo, 3 of 24"]


def small(architecture: str, **other: Any) -> MicroworldCheckpoint:
    settings = {"layers": 1, "hidden": 32, "heads": 2, "tokenizer": FAMILIES.get(architecture, "wordpiece")}
    return MicroworldCheckpoint.model_validate({"architecture": architecture} | settings | other)


def test_every_architecture_has_an_entry() -> None:
    assert set(ARCHITECTURES) == set(get_args(Architecture))


def test_the_fields_of_a_checkpoint_have_not_changed() -> None:
    # All fields are in the hash of every spec: another field would outdate every expectation and record.
    fields = "source architecture layers hidden heads max_positions dropout tokenizer vocabulary seed"
    assert list(MicroworldCheckpoint.model_fields) == fields.split()


def test_a_tokenizer_that_is_not_stored_is_an_error_that_lists_the_stored_ones() -> None:
    with pytest.raises(SourceError, match=r"no tokenizer wordpiece-1200 .* one of metaspace-bpe-1200, meta"):
        microworld_tokenizer(small("marian", tokenizer="wordpiece"))
    with pytest.raises(SourceError, match=r"tokenizer byte-bpe-900 for architecture = gpt2: .*byte-bpe-1200"):
        microworld_tokenizer(small("gpt2", vocabulary=900))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_tokenizer_is_fast_and_has_the_declared_size(architecture: str) -> None:
    tokenizer = microworld_tokenizer(small(architecture))
    assert tokenizer.is_fast
    assert len(tokenizer) == 1200
    assert sorted(tokenizer.get_vocab().values()) == list(range(1200))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_saved_tokenizer_is_the_same_after_loading(architecture: str, tmp_path: Path) -> None:
    tokenizer = microworld_tokenizer(small(architecture))
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": architecture}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert loaded(text_target=TEXTS)["input_ids"] == tokenizer(text_target=TEXTS)["input_ids"]


@pytest.mark.parametrize(
    ("architecture", "auto_class"),
    [
        ("bert", AutoModelForTokenClassification),
        ("distilbert", AutoModelForMaskedLM),
        ("modernbert", AutoModelForTokenClassification),
        ("modernbert", AutoModelForMaskedLM),
    ],
)
def test_a_model_is_drawn_from_torchs_generator_in_float32(architecture: str, auto_class: Any) -> None:
    source = open_source(DATA, small(architecture))
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(source.model(auto_class, num_labels=9).state_dict())
    assert {weight.dtype for weight in models[0].values() if weight.is_floating_point()} == {torch.float32}
    assert all(torch.equal(weight, models[1][name]) for name, weight in models[0].items())
    assert not all(torch.equal(weight, models[2][name]) for name, weight in models[0].items())


def test_a_model_has_the_declared_size_and_takes_config_overrides() -> None:
    source = open_source(DATA, small("bert"))
    model = source.model(AutoModelForTokenClassification, num_labels=3, id2label={0: "O", 1: "B-X", 2: "I-X"})
    config = model.config
    sizes = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.vocab_size)
    assert sizes == (1, 32, 2, len(source.tokenizer()))
    assert config.id2label == {0: "O", 1: "B-X", 2: "I-X"}
    tokens = source.tokenizer()(["Weston beat Harlow.", "Rain fell."], padding=True, return_tensors="pt")
    assert tuple(model(**tokens).logits.shape) == (2, tokens["input_ids"].shape[1], 3)


# BERT


def test_wordpiece_marks_a_text_and_reports_its_words() -> None:
    tokenizer = microworld_tokenizer(small("bert"))
    encoded = tokenizer(["Weston", "beat", "Harlow"], is_split_into_words=True)
    assert list(dict.fromkeys(encoded.word_ids())) == [None, 0, 1, 2]
    assert (encoded["input_ids"][0], encoded["input_ids"][-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


def test_wordpiece_splits_names_and_keeps_common_words() -> None:
    tokenizer = microworld_tokenizer(small("bert"))
    assert len(tokenizer.tokenize("Renselabaoringerimezatisegeez")) > 6
    assert len(tokenizer.tokenize("police")) == 1


def test_few_tokens_of_the_embedded_data_are_unknown() -> None:
    tokenizer = microworld_tokenizer(small("bert"))
    words = list(embedded_examples(DATA, "validation", columns=("words",))["words"])
    ids = [token for row in tokenizer(words, is_split_into_words=True)["input_ids"] for token in row]
    assert 0 < ids.count(tokenizer.unk_token_id) < 0.01 * len(ids)


def test_an_invisible_mark_has_no_token() -> None:
    encoded = microworld_tokenizer(small("bert"))(["Rain", "\u200f", "fell"], is_split_into_words=True)
    assert 1 not in encoded.word_ids()


# Marian and T5


@pytest.mark.parametrize("architecture", SEQ2SEQ)
def test_a_seq2seq_tokenizer_marks_the_end_of_a_text_only(architecture: str) -> None:
    tokenizer = microworld_tokenizer(small(architecture))
    bare = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    assert tokenizer(TEXTS)["input_ids"] == [[*row, tokenizer.eos_token_id] for row in bare]
    assert tokenizer(text_target=TEXTS)["input_ids"] == [[*row, tokenizer.eos_token_id] for row in bare]
    assert set(tokenizer.all_special_tokens) == {"</s>", "<pad>", "<unk>"}
    assert tokenizer.cls_token_id is None
    cut = tokenizer(TEXTS[0], truncation=True, max_length=4)["input_ids"]
    assert cut == [*bare[0][:3], tokenizer.eos_token_id]


@pytest.mark.parametrize("architecture", SEQ2SEQ)
def test_a_seq2seq_tokenizer_decodes_to_the_text(architecture: str) -> None:
    tokenizer = microworld_tokenizer(small(architecture))
    decoded = tokenizer.batch_decode(tokenizer(TEXTS)["input_ids"], skip_special_tokens=True)
    # The tokenizer puts a blank before a text, so it may remove one that was there.
    assert [text.strip() for text in decoded] == [text.strip() for text in TEXTS]


@pytest.mark.parametrize("architecture", SEQ2SEQ)
def test_a_seq2seq_model_and_its_tokenizer_agree(architecture: str) -> None:
    checkpoint = small(architecture, max_positions=64)
    tokenizer = microworld_tokenizer(checkpoint)
    torch.manual_seed(0)
    model = microworld_model(checkpoint, AutoModelForSeq2SeqLM)
    ids = (model.config.pad_token_id, model.config.eos_token_id, model.config.decoder_start_token_id)
    assert ids == (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    batch = tokenizer(TEXTS, text_target=TEXTS, padding=True, return_tensors="pt")
    assert tuple(model(**batch).logits.shape) == (*batch["labels"].shape, len(tokenizer))


# GPT-2


CODE = [' \nimport pandas as pd\n\n\ndef f(x):\n    return "naïve" + x  # 平均\n', "plt.plot(x)", "", "\t\n"]


@pytest.mark.parametrize("text", [*CODE, " 👩‍🔬 e\u0301 東京 אבג \u200f Ω", " \ufffd\x00"])
def test_a_causal_tokenizer_decodes_to_the_same_text_and_adds_no_mark(text: str) -> None:
    tokenizer = microworld_tokenizer(small("gpt2"))
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert tokenizer.eos_token_id not in ids
    assert tokenizer("plt")["input_ids"] != tokenizer(" plt")["input_ids"]


def test_a_causal_tokenizer_has_one_special_token() -> None:
    tokenizer = microworld_tokenizer(small("gpt2"))
    assert tokenizer.all_special_tokens == ["<|endoftext|>"]
    ids = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    assert ids == {0}
    assert tokenizer("<|endoftext|>")["input_ids"] == [0]


def test_a_causal_model_and_its_tokenizer_agree() -> None:
    checkpoint = small("gpt2", max_positions=16)
    tokenizer = microworld_tokenizer(checkpoint)
    torch.manual_seed(0)
    model = microworld_model(checkpoint, AutoModelForCausalLM)
    ids = (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id)
    assert ids == (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert tuple(model(input_ids=torch.arange(16)[None]).logits.shape) == (1, 16, len(tokenizer))
    assert tokenizer.model_max_length == model.config.n_positions == 16
