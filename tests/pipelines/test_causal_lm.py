"""The causal language modeling pipeline: chunks, loss, key tokens, scores and completions."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import GPT2Config, PreTrainedModel, PreTrainedTokenizerBase

from tests.support.tiny_pipelines import batch_of, column, untrained
from touchstone.pipelines.causal_lm import CausalLM
from touchstone.pipelines.vocabulary import ChunkPrediction
from touchstone.sources import MicroworldCheckpoint, MicroworldData, SourceError, open_source
from touchstone.stages import chunk_documents

GPT2 = MicroworldCheckpoint(architecture="gpt2", layers=1, hidden=32, heads=2, tokenizer="byte-bpe", dropout=0.0)


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return open_source(MicroworldData(train=1, validation=1), GPT2).tokenizer()


class Programs:
    """A source of the given texts, with the tokenizer and the GPT-2 of the microworld."""

    def __init__(self, train: Sequence[str], validation: Sequence[str] = (), **config: Any) -> None:
        self.texts = {"train": list(train), "validation": list(validation or train)}
        self.config = config

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        assert columns == ("code",)
        return datasets.Dataset.from_dict({"code": self.texts[split]})

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return copy.deepcopy(tokenizer())

    def model(self, auto_class: Any, **config: Any) -> PreTrainedModel:
        sizes = {"vocab_size": 1200, "n_positions": 64, "n_embd": 32, "n_layer": 1, "n_head": 2}
        drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        model: PreTrainedModel = auto_class.from_config(GPT2Config(**sizes | drops | config | self.config))
        return model


TEXTS = [
    "import pandas as pd\n\ndf = pd.read_csv('prices.csv')\nprint(df.head())\n",
    "x = 1\n",
    "",
    "import matplotlib.pyplot as plt\n\nplt.plot([1, 2, 3])\nplt.xlabel('x')\nplt.show()\n",
    "def f(x):\n    return x + 1\n\n\nfor i in range(10):\n    print(f(i))\n",
]


def causal(source: Any = None, *, seed: int = 0, **options: Any) -> CausalLM:
    given = {"context_length": 8, "prompts": ("import pandas as",), "new_tokens": 5} | options
    return CausalLM(source or Programs(TEXTS), options=CausalLM.Options(**given), seed=seed)


# Chunks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remainder", ["drop", "keep", "join"])
def test_columns_equal_the_plain_chunks_of_each_program(remainder: str) -> None:
    pipeline = causal(Programs(TEXTS * 300), remainder=remainder)  # more than one call of the tokenizer
    ids = [tokenizer()(text)["input_ids"] for text in TEXTS] * 300
    eos = {"eos_id": tokenizer().eos_token_id} if remainder == "join" else {}

    expected = chunk_documents(ids, length=8, remainder=remainder, **eos)
    assert column(pipeline, "train", "input_ids").to_lists() == expected


def test_columns_draw_chunks_by_the_seed_of_the_split_and_not_of_the_trial() -> None:
    everything = column(causal(), "train", "input_ids").to_lists()
    some = [column(causal(seed=seed, train_chunks=4), "train", "input_ids").to_lists() for seed in (1, 2)]
    other = column(causal(train_chunks=4, split_seed=7), "train", "input_ids").to_lists()
    assert len(some[0]) == 4
    assert some[0] == some[1] != other
    assert all(chunk in everything for chunk in some[0])


def test_columns_refuse_more_chunks_than_there_are() -> None:
    with pytest.raises(
        SourceError, match=r"split 'validation' has \d+ chunks of 8 tokens, but validation_chunks is 9999: lower it"
    ):
        causal(validation_chunks=9999).columns("validation")


def test_columns_refuse_programs_shorter_than_the_context_unless_kept() -> None:
    with pytest.raises(SourceError, match="no document of split 'train' fills a chunk of 64 tokens: lower"):
        causal(Programs(["x = 1\n"] * 3), context_length=64).columns("train")
    kept = causal(Programs(["x = 1\n"] * 3), context_length=64, remainder="keep")
    assert len(kept.columns("train")["input_ids"]) == 3


# Loss -----------------------------------------------------------------------------------------------------------------


def test_collate_counts_tokens_and_predicted_tokens() -> None:
    pipeline = causal(Programs(["x = 1\n", TEXTS[0]]), remainder="keep")
    lengths = column(pipeline, "train", "input_ids").lengths
    size = batch_of(pipeline, range(len(lengths)))["size"]
    n, tokens = len(lengths), int(lengths.sum())
    assert (size.examples, size.items, size.tokens, size.padded_tokens) == (n, tokens - n, tokens, 8 * n)


@pytest.mark.parametrize("remainder", ["drop", "keep"])
def test_loss_equals_that_of_the_models_own_head(remainder: str) -> None:
    pipeline = causal(remainder=remainder)
    batch = batch_of(pipeline, [0, 1, 2, 3])
    model = untrained(pipeline)
    own = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]
    ).loss.detach()

    # Sums of about 30 float32 losses of about 7 nats, in another order.
    assert float(pipeline.loss(model, batch).detach()) == pytest.approx(float(own) * batch["size"].items, rel=1e-5)


def test_collate_labels_real_ends_of_text_although_they_also_pad() -> None:
    pipeline = causal(remainder="join")
    eos = pipeline.tokenizer.eos_token_id
    assert pipeline.tokenizer.pad_token_id == eos
    labels = batch_of(pipeline, range(len(pipeline.columns("train")["input_ids"])))["labels"]
    assert int((labels == eos).sum()) > 0
    assert not bool((labels == -100).any())


def test_loss_does_not_depend_on_padding() -> None:
    pipeline = causal(Programs([TEXTS[0], "x = 1\n"]), remainder="keep")
    model = untrained(pipeline)
    rows = range(len(pipeline.columns("train")["input_ids"]))
    together = float(pipeline.loss(model, batch_of(pipeline, rows)).detach())
    alone = sum(float(pipeline.loss(model, batch_of(pipeline, [row])).detach()) for row in rows)
    assert together == pytest.approx(alone, rel=1e-5)


def test_collate_pads_on_the_right_even_if_the_tokenizer_does_not() -> None:
    class Left(Programs):
        def tokenizer(self) -> PreTrainedTokenizerBase:
            made = super().tokenizer()
            made.padding_side = "left"
            return made

    right, left = (causal(kind(TEXTS), remainder="keep") for kind in (Programs, Left))
    rows = range(len(right.columns("train")["input_ids"]))
    assert batch_of(right, rows)["labels"].tolist() == batch_of(left, rows)["labels"].tolist()


# Key tokens -----------------------------------------------------------------------------------------------------------


def test_weighted_loss_equals_the_courses_on_whole_chunks() -> None:
    """The course's `keytoken_weighted_loss` (chapter 7, section 6) is a mean; multiply it by the number of terms."""
    pipeline = causal(key_tokens=("plt", " plt"), alpha=0.5)
    batch = batch_of(pipeline, range(len(pipeline.columns("train")["input_ids"])))
    model = untrained(pipeline)
    ids = batch["input_ids"]
    logits = model(input_ids=ids).logits[..., :-1, :]
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    weights = 0.5 * (1.0 + sum((ids == key).sum(1) for key in pipeline.key_ids.tolist()))
    assert len(set(weights.tolist())) > 1, "some chunks have a key token and some do not"
    expected = float((nll.mean(1) * weights).mean().detach()) * batch["size"].items

    assert float(pipeline.loss(model, batch).detach()) == pytest.approx(expected, rel=1e-5)  # float32 sums, as above


def test_evaluation_uses_no_weights() -> None:
    weighted, plain = causal(key_tokens=("plt",), alpha=3.0), causal()
    model = untrained(plain)
    batches = [batch_of(pipeline, [0, 1, 2], split="validation") for pipeline in (weighted, plain)]
    assert plain.predict(model, batches[0]) == plain.predict(model, batches[1])
    assert "weights" not in batches[0]
    predictions = [ChunkPrediction(1.0, 1, 7)] * len(plain.columns("validation")["input_ids"])
    assert plain.score(predictions) == weighted.score(predictions)


def test_collate_does_not_count_padding_as_a_key_token() -> None:
    pipeline = causal(Programs(["plt.show()\n"]), remainder="keep", context_length=32, key_tokens=("<|endoftext|>",))
    rows = [{"input_ids": np.array([5, 6]), "example": 0, "epoch": 0}, {"input_ids": np.arange(5, 20), "example": 1}]
    assert pipeline.collate(rows, train=True)["weights"].tolist() == [1.0, 1.0]


def test_key_ids_refuse_a_key_token_of_several_tokens() -> None:
    with pytest.raises(SourceError, match=r"'testtest' is encoded as \d tokens \(t.*\), not as one: remove it"):
        batch_of(causal(key_tokens=("plt", "testtest")), [0])


# Scores ---------------------------------------------------------------------------------------------------------------


def test_score_computes_perplexity_from_the_mean_over_predicted_tokens() -> None:
    pipeline = causal(Programs(TEXTS), remainder="keep")
    n = len(pipeline.columns("validation")["input_ids"])
    predictions = [ChunkPrediction(2.0 * row, row % 3, row) for row in range(n)]  # the first predicts nothing
    perplexity, loss, accuracy = pipeline.score(predictions)
    items = n * (n - 1) // 2
    assert (perplexity.name, loss.name, accuracy.name) == ("perplexity", "loss", "token_accuracy")
    assert (perplexity.n, perplexity.value) == (items, pytest.approx(math.exp(2), rel=1e-12))
    assert (loss.value, accuracy.value) == (2.0, sum(row % 3 for row in range(n)) / items)


def test_predict_gives_the_same_for_a_batch_as_for_single_chunks() -> None:
    pipeline = causal(remainder="keep")
    model = untrained(pipeline)
    rows = range(len(pipeline.columns("validation")["input_ids"]))
    together = pipeline.predict(model, batch_of(pipeline, rows, split="validation"))
    for row, prediction in zip(rows, together, strict=True):
        [alone] = pipeline.predict(model, batch_of(pipeline, [row], split="validation"))
        assert (alone.right, alone.items) == (prediction.right, prediction.items)
        assert alone.loss == pytest.approx(prediction.loss, rel=1e-5)  # float32 sums in another order


def test_predictions_sum_to_the_loss() -> None:
    pipeline = causal()
    model = untrained(pipeline)
    batch = batch_of(pipeline, [0, 1, 2], split="validation")
    predictions = pipeline.predict(model, batch)
    assert float(pipeline.loss(model, batch).detach()) == pytest.approx(sum(p.loss for p in predictions), rel=1e-5)
    assert sum(p.items for p in predictions) == batch["size"].items


def test_predict_counts_the_tokens_that_were_the_most_likely() -> None:
    """A token is right if it is the most likely one at the position before it. The first token has no such position."""
    pipeline = causal(remainder="keep")
    model = untrained(pipeline)
    rows = range(len(pipeline.columns("validation")["input_ids"]))
    batch = batch_of(pipeline, rows, split="validation")
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        # At half of all positions the label becomes the most likely token.
        batch["labels"][:, 1::2] = torch.where(
            batch["labels"][:, 1::2] == -100, -100, logits[:, :-1:2].argmax(-1)[:, : batch["labels"][:, 1::2].shape[1]]
        )
    found = pipeline.predict(model, batch)

    for row, prediction in enumerate(found):
        labels = batch["labels"][row, 1:].tolist()
        most_likely = logits[row, :-1].argmax(-1).tolist()
        assert prediction.right == sum(a == b for a, b in zip(labels, most_likely, strict=True))
        assert prediction.items == sum(label != -100 for label in labels)
    assert any(0 < prediction.right < prediction.items for prediction in found)


def test_signatures_differ_between_settings() -> None:
    predictions = [ChunkPrediction(1.0, 1, 7)]
    signatures = set()
    for options in ({}, {"context_length": 9}, {"remainder": "keep"}, {"remainder": "join"}):
        pipeline = causal(**options)
        count = len(pipeline.columns("validation")["input_ids"])
        signatures.add(pipeline.score(predictions * count)[0].signature)
    assert len(signatures) == 4


def test_score_refuses_predictions_that_do_not_match_the_chunks() -> None:
    with pytest.raises(ValueError, match=r"1 predictions for \d+ validation chunks"):
        causal().score([ChunkPrediction(1.0, 1, 7)])


def test_score_refuses_chunks_of_single_tokens() -> None:
    pipeline = causal(Programs(["x"]), remainder="keep")
    with pytest.raises(ValueError, match="every validation chunk is a single token"):
        pipeline.score([ChunkPrediction(0.0, 0, 0)])


# Model, tokenizer, sample outputs -------------------------------------------------------------------------------------


def test_tokenizer_without_padding_pads_with_its_end_of_text() -> None:
    class NoPad(Programs):
        def tokenizer(self) -> PreTrainedTokenizerBase:
            made = super().tokenizer()
            made.pad_token = None
            return made

    pipeline = causal(NoPad(TEXTS), remainder="keep")
    assert pipeline.tokenizer.eos_token_id == pipeline.tokenizer.pad_token_id
    assert len(batch_of(pipeline, [0, 1])["input_ids"]) == 2


def test_tokenizer_without_an_end_of_text_is_refused() -> None:
    class NoEnd(Programs):
        def tokenizer(self) -> PreTrainedTokenizerBase:
            made = super().tokenizer()
            made.eos_token = None
            return made

    with pytest.raises(SourceError, match="no end-of-text token"):
        causal(NoEnd(TEXTS)).columns("train")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_positions": 4}, "context_length is 8, but the model has 4 positions"),
        ({"vocab_size": 900}, "the tokenizer has 1200 tokens, but the model embeds 900: set vocab_size"),
    ],
)
def test_model_that_is_too_small_is_refused(config: dict[str, int], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        causal(Programs(TEXTS, **config)).model()


def test_sample_outputs_equal_the_greedy_search_of_transformers() -> None:
    pipeline = causal(prompts=("import pandas as", "x = 1\nplt."))
    model = untrained(pipeline)
    shown = pipeline.sample_outputs(model)
    assert len(shown) == 2
    for line, prompt in zip(shown, ("import pandas as", "x = 1\nplt."), strict=True):
        inputs = pipeline.tokenizer(prompt, return_tensors="pt")
        out = model.generate(**inputs, do_sample=False, max_new_tokens=5)[0, inputs["input_ids"].shape[1] :]
        expected = pipeline.tokenizer.decode(out, skip_special_tokens=True)
        assert line == f"{prompt.splitlines()[-1]} → {expected}".replace("\n", " ⏎ ")


def test_sample_outputs_leave_the_model_in_training() -> None:
    pipeline = causal()
    model = untrained(pipeline).train()
    assert pipeline.sample_outputs(model) == pipeline.sample_outputs(model)
    assert model.training


def test_sample_outputs_complete_a_long_prompt_from_its_end() -> None:
    pipeline = causal(Programs(TEXTS, n_positions=8), prompts=("x = 1\n" * 40, ""))
    assert len(pipeline.sample_outputs(untrained(pipeline))) == 2


@pytest.mark.parametrize(
    "options", [{"context_length": 1}, {"remainder": "pad"}, {"alpha": 0.0}, {"train_chunks": 0}, {"new_tokens": 0}]
)
def test_options_refuse_values_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        causal(**options)
