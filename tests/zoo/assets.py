"""Write the folder in which the zoo's scripts run: data sets, tokenizers and tiny models, as from a hub.

Data: `{sentences,documents,translations,headlines,questions,programs}.{train,validation}.jsonl`. Models:
`tiny-bert`, `tiny-distilbert`, `tiny-gpt2`, `tiny-marian`, `tiny-t5`, each loadable with `from_pretrained`.
The module works with every version of transformers that the audit supports.
"""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path
from typing import Any

EMBEDDED = Path(__file__).parents[2] / "reference" / "sources" / "embedded"
ROWS = {"train": 200, "validation": 60}
BERT = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
SEQ2SEQ = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
GPT2 = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}


def write_assets(folder: Path) -> Path:
    """Write all data sets and models, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in EMBEDDED.glob("*.jsonl.gz"):
        split = path.name.split(".")[1]
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            text = "".join(islice(lines, ROWS[split]))
        (folder / path.name.removesuffix(".gz")).write_text(text, encoding="utf-8")
    _write_models(folder)
    return folder


def _write_models(folder: Path) -> None:
    import torch
    from transformers import BertConfig, DistilBertConfig, GPT2Config, MarianConfig, T5Config
    from transformers.models.bert.modeling_bert import BertForMaskedLM
    from transformers.models.distilbert.modeling_distilbert import DistilBertForMaskedLM
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel
    from transformers.models.marian.modeling_marian import MarianMTModel
    from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

    bert = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    marian = {f"{side}_{part}": 2 for side in ("encoder", "decoder") for part in ("layers", "attention_heads")}
    models: list[tuple[str, str, dict[str, str], Any, Any, dict[str, Any]]] = [
        ("tiny-bert", "bert-wordpiece-1200", BERT, BertConfig, BertForMaskedLM, {**bert, "pad_token_id": 0}),
        (
            "tiny-distilbert",
            "bert-wordpiece-1200",
            BERT,
            DistilBertConfig,
            DistilBertForMaskedLM,
            {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "pad_token_id": 0},
        ),
        (
            "tiny-gpt2",
            "gpt2-byte-bpe-1200",
            GPT2,
            GPT2Config,
            GPT2LMHeadModel,
            {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256, "bos_token_id": 0, "eos_token_id": 0},
        ),
        (
            "tiny-marian",
            "marian-metaspace-bpe-2000",
            SEQ2SEQ,
            MarianConfig,
            MarianMTModel,
            {
                **marian,
                "d_model": 32,
                "encoder_ffn_dim": 64,
                "decoder_ffn_dim": 64,
                "eos_token_id": 0,
                "pad_token_id": 2,
                "decoder_start_token_id": 2,
                "forced_eos_token_id": 0,
                "bos_token_id": None,
            },
        ),
        (
            "tiny-t5",
            "t5-metaspace-bpe-1200",
            SEQ2SEQ,
            T5Config,
            T5ForConditionalGeneration,
            {
                "d_model": 32,
                "d_kv": 16,
                "d_ff": 64,
                "num_layers": 2,
                "num_heads": 2,
                "pad_token_id": 0,
                "eos_token_id": 1,
                "decoder_start_token_id": 0,
            },
        ),
    ]
    for name, tokenizer_file, marks, config, model, entries in models:
        tokenizer = _tokenizer(EMBEDDED / "tokenizers" / f"{tokenizer_file}.json", marks)
        tokenizer.model_max_length = 256
        if name == "tiny-distilbert":
            tokenizer.model_input_names = ["input_ids", "attention_mask"]
        tokenizer.save_pretrained(folder / name)
        torch.manual_seed(0)
        made = model(config(vocab_size=len(tokenizer), **entries))
        made.save_pretrained(folder / name)


def _tokenizer(path: Path, marks: dict[str, str]) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    names = ["input_ids", "attention_mask"]
    if "cls_token" in marks:
        names.insert(1, "token_type_ids")
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(path)), model_input_names=names, **marks)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
