"""The causal language modeling pipeline: chunks, loss, weights, scores and completions."""

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
from transformers import GPT2Config, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from touchstone.pipelines.causal_lm import CausalLM, CausalPrediction
from touchstone.pipelines.pipeline import Batch, FeatureRows
from touchstone.sources import MicroworldCheckpoint, MicroworldData, SourceError, open_source
from touchstone.stages import chunk_documents

GPT2 = MicroworldCheckpoint(architecture="gpt2", layers=1, hidden=32, heads=2, tokenizer="byte-bpe", dropout=0.0)


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    return open_source(MicroworldData(train=1, validation=1), GPT2).tokenizer()


class Programs:
    """A source of given texts, with the microworld's GPT-2."""

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


def batch_of(pipeline: CausalLM, rows: Sequence[int], *, train: bool = True, split: str = "train") -> Batch:
    data = FeatureRows(pipeline.columns(split))
    return pipeline.collate([data[0, row] for row in rows], train=train)


def fresh(pipeline: CausalLM) -> PreTrainedModel:
    set_seed(0)
    return pipeline.model().eval()


# Chunks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remainder", ["drop", "keep", "join"])
def test_columns_are_the_plain_chunks_of_every_program(remainder: str) -> None:
    pipeline = causal(Programs(TEXTS * 300), remainder=remainder)  # more than one slice of the tokenizer
    ids = [tokenizer()(text)["input_ids"] for text in TEXTS * 300]
    eos = {"eos_id": tokenizer().eos_token_id} if remainder == "join" else {}

    assert (
        chunk_documents(ids, length=8, remainder=remainder, **eos) == pipeline.columns("train")["input_ids"].to_lists()
    )  # type: ignore[union-attr]


def test_chunks_are_drawn_by_the_splits_seed_and_not_by_the_runs() -> None:
    everything = causal().columns("train")["input_ids"].to_lists()  # type: ignore[union-attr]
    some = [causal(seed=seed, train_chunks=4).columns("train")["input_ids"].to_lists() for seed in (1, 2)]  # type: ignore[union-attr]
    other = causal(train_chunks=4, split_seed=7).columns("train")["input_ids"].to_lists()  # type: ignore[union-attr]
    assert len(some[0]) == 4
    assert some[0] == some[1] != other
    assert all(chunk in everything for chunk in some[0])


def test_asking_for_more_chunks_than_there_are_is_an_error() -> None:
    with pytest.raises(
        SourceError, match=r"split 'validation' has \d+ chunks of 8 tokens, validation_chunks asks for 9999"
    ):
        causal(validation_chunks=9999).columns("validation")


def test_programs_shorter_than_the_context_are_an_error_unless_kept() -> None:
    with pytest.raises(SourceError, match="no document of split 'train' fills a chunk of 64 tokens: shorten"):
        causal(Programs(["x = 1\n"] * 3), context_length=64).columns("train")
    assert (
        len(causal(Programs(["x = 1\n"] * 3), context_length=64, remainder="keep").columns("train")["input_ids"]) == 3
    )


# Loss -----------------------------------------------------------------------------------------------------------------


def test_the_batch_size_counts_tokens_and_those_that_are_predicted() -> None:
    pipeline = causal(Programs(["x = 1\n", TEXTS[0]]), remainder="keep")
    lengths = pipeline.columns("train")["input_ids"].lengths  # type: ignore[union-attr]
    size = batch_of(pipeline, range(len(lengths)))["size"]
    n, tokens = len(lengths), int(lengths.sum())
    assert (size.examples, size.items, size.tokens, size.padded_tokens) == (n, tokens - n, tokens, 8 * n)


@pytest.mark.parametrize("remainder", ["drop", "keep"])
def test_the_loss_is_that_of_the_models_own_head(remainder: str) -> None:
    pipeline = causal(remainder=remainder)
    batch = batch_of(pipeline, [0, 1, 2, 3])
    model = fresh(pipeline)
    own = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]
    ).loss.detach()

    # Sums of some 30 float32 losses of about 7 nats, in another order.
    assert float(own) * batch["size"].items == pytest.approx(float(pipeline.loss(model, batch).detach()), rel=1e-5)


def test_a_real_end_of_text_is_learnt_although_it_also_pads() -> None:
    pipeline = causal(remainder="join")
    eos = pipeline.tokenizer.eos_token_id
    assert pipeline.tokenizer.pad_token_id == eos
    labels = batch_of(pipeline, range(len(pipeline.columns("train")["input_ids"])))["labels"]
    assert int((labels == eos).sum()) > 0
    assert not bool((labels == -100).any())


def test_padding_changes_no_loss() -> None:
    pipeline = causal(Programs([TEXTS[0], "x = 1\n"]), remainder="keep")
    model = fresh(pipeline)
    rows = range(len(pipeline.columns("train")["input_ids"]))
    together = float(pipeline.loss(model, batch_of(pipeline, rows)).detach())
    alone = sum(float(pipeline.loss(model, batch_of(pipeline, [row])).detach()) for row in rows)
    assert together == pytest.approx(alone, rel=1e-5)


def test_a_tokenizer_that_pads_on_the_left_changes_nothing() -> None:
    class Left(Programs):
        def tokenizer(self) -> PreTrainedTokenizerBase:
            made = super().tokenizer()
            made.padding_side = "left"
            return made

    right, left = (causal(kind(TEXTS), remainder="keep") for kind in (Programs, Left))
    rows = range(len(right.columns("train")["input_ids"]))
    assert batch_of(right, rows)["labels"].tolist() == batch_of(left, rows)["labels"].tolist()


# Key tokens -----------------------------------------------------------------------------------------------------------


def test_the_weighted_loss_is_the_courses_on_whole_chunks() -> None:
    """`keytoken_weighted_loss` of chapter 7, section 6: a mean over rows of one length; here times its terms."""
    pipeline = causal(key_tokens=("plt", " plt"), alpha=0.5)
    batch = batch_of(pipeline, range(len(pipeline.columns("train")["input_ids"])))
    model = fresh(pipeline)
    ids = batch["input_ids"]
    logits = model(input_ids=ids).logits[..., :-1, :]
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    weights = 0.5 * (1.0 + sum((ids == key).sum(1) for key in pipeline.key_ids.tolist()))
    assert len(set(weights.tolist())) > 1, "some chunks hold a key token and some do not"
    expected = float((nll.mean(1) * weights).mean().detach()) * batch["size"].items

    assert expected == pytest.approx(float(pipeline.loss(model, batch).detach()), rel=1e-5)  # float32 sums, as above


def test_evaluation_is_never_weighted() -> None:
    weighted, plain = causal(key_tokens=("plt",), alpha=3.0), causal()
    model = fresh(plain)
    batches = [batch_of(pipeline, [0, 1, 2], train=False) for pipeline in (weighted, plain)]
    assert plain.predict(model, batches[0]) == plain.predict(model, batches[1])
    assert "weights" not in batches[0]
    predictions = [CausalPrediction(1.0, 1, 7)] * len(plain.columns("validation")["input_ids"])
    assert plain.score(predictions) == weighted.score(predictions)


def test_padding_is_no_key_token() -> None:
    pipeline = causal(Programs(["plt.show()\n"]), remainder="keep", context_length=32, key_tokens=("<|endoftext|>",))
    rows = [{"input_ids": np.array([5, 6]), "example": 0, "epoch": 0}, {"input_ids": np.arange(5, 20), "example": 1}]
    assert pipeline.collate(rows, train=True)["weights"].tolist() == [1.0, 1.0]


def test_a_key_token_that_is_several_tokens_is_refused_by_name() -> None:
    with pytest.raises(SourceError, match=r"key token 'testtest' is \d tokens to this tokenizer \(t.*\): take it out"):
        batch_of(causal(key_tokens=("plt", "testtest")), [0])


# Scores ---------------------------------------------------------------------------------------------------------------


def test_perplexity_is_exp_of_the_mean_over_predicted_tokens() -> None:
    pipeline = causal(Programs(TEXTS), remainder="keep")
    n = len(pipeline.columns("validation")["input_ids"])
    predictions = [CausalPrediction(2.0 * row, row % 3, row) for row in range(n)]  # the first predicts nothing
    perplexity, loss, accuracy = pipeline.score(predictions)
    items = n * (n - 1) // 2
    assert (perplexity.name, loss.name, accuracy.name) == ("perplexity", "loss", "token_accuracy")
    assert (items, math.exp(2)) == (perplexity.n, pytest.approx(perplexity.value, rel=1e-12))
    assert (2.0, sum(row % 3 for row in range(n)) / items) == (loss.value, accuracy.value)


def test_a_prediction_is_the_same_alone_and_in_a_batch() -> None:
    pipeline = causal(remainder="keep")
    model = fresh(pipeline)
    rows = range(len(pipeline.columns("validation")["input_ids"]))
    together = pipeline.predict(model, batch_of(pipeline, rows, train=False, split="validation"))
    for row, prediction in zip(rows, together, strict=True):
        [alone] = pipeline.predict(model, batch_of(pipeline, [row], train=False, split="validation"))
        assert (alone.right, alone.items) == (prediction.right, prediction.items)
        assert alone.loss == pytest.approx(prediction.loss, rel=1e-5)  # other widths, other order of float32 sums


def test_predictions_add_up_to_the_loss() -> None:
    pipeline = causal()
    model = fresh(pipeline)
    batch = batch_of(pipeline, [0, 1, 2], train=False)
    predictions = pipeline.predict(model, batch)
    assert float(pipeline.loss(model, batch).detach()) == pytest.approx(sum(p.loss for p in predictions), rel=1e-5)
    assert sum(p.items for p in predictions) == batch["size"].items


def test_a_prediction_counts_the_tokens_that_were_the_likeliest() -> None:
    """By the definition: a token is right if the place before it holds it for likeliest; the first has none."""
    pipeline = causal(remainder="keep")
    model = fresh(pipeline)
    rows = range(len(pipeline.columns("validation")["input_ids"]))
    batch = batch_of(pipeline, rows, train=False, split="validation")
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        # The likeliest at half of all places become what is to be predicted.
        batch["labels"][:, 1::2] = torch.where(
            batch["labels"][:, 1::2] == -100, -100, logits[:, :-1:2].argmax(-1)[:, : batch["labels"][:, 1::2].shape[1]]
        )
    found = pipeline.predict(model, batch)

    for row, prediction in enumerate(found):
        labels = batch["labels"][row, 1:].tolist()
        likeliest = logits[row, :-1].argmax(-1).tolist()
        assert sum(a == b for a, b in zip(labels, likeliest, strict=True)) == prediction.right
        assert sum(label != -100 for label in labels) == prediction.items
    assert any(0 < prediction.right < prediction.items for prediction in found)


def test_signatures_tell_apart_what_is_not_comparable() -> None:
    predictions = [CausalPrediction(1.0, 1, 7)]
    signatures = set()
    for options in ({}, {"context_length": 9}, {"remainder": "keep"}, {"remainder": "join"}):
        pipeline = causal(**options)
        count = len(pipeline.columns("validation")["input_ids"])
        signatures.add(pipeline.score(predictions * count)[0].signature)
    assert len(signatures) == 4


def test_predictions_that_do_not_fit_the_chunks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 predictions for \d+ validation chunks"):
        causal().score([CausalPrediction(1.0, 1, 7)])


def test_chunks_of_single_tokens_have_no_perplexity() -> None:
    pipeline = causal(Programs(["x"]), remainder="keep")
    with pytest.raises(ValueError, match="no token of the validation chunks has one before it"):
        pipeline.score([CausalPrediction(0.0, 0, 0)])


# Model, tokenizer, probe ----------------------------------------------------------------------------------------------


def test_a_tokenizer_without_padding_pads_with_its_end_of_text() -> None:
    class NoPad(Programs):
        def tokenizer(self) -> PreTrainedTokenizerBase:
            made = super().tokenizer()
            made.pad_token = None
            return made

    pipeline = causal(NoPad(TEXTS), remainder="keep")
    assert pipeline.tokenizer.eos_token_id == pipeline.tokenizer.pad_token_id
    assert len(batch_of(pipeline, [0, 1])["input_ids"]) == 2


def test_a_tokenizer_without_an_end_of_text_is_refused() -> None:
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
        ({"n_positions": 4}, "context_length is 8, but the model knows 4 positions"),
        ({"vocab_size": 900}, "the tokenizer has 1200 tokens, but the model embeds 900: set vocab_size"),
    ],
)
def test_a_model_that_is_too_small_is_refused(config: dict[str, int], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        causal(Programs(TEXTS, **config)).model()


def test_a_completion_is_the_greedy_one_of_transformers() -> None:
    pipeline = causal(prompts=("import pandas as", "x = 1\nplt."))
    model = fresh(pipeline)
    shown = pipeline.sample_outputs(model)
    assert len(shown) == 2
    for line, prompt in zip(shown, ("import pandas as", "x = 1\nplt."), strict=True):
        inputs = pipeline.tokenizer(prompt, return_tensors="pt")
        out = model.generate(**inputs, do_sample=False, max_new_tokens=5)[0, inputs["input_ids"].shape[1] :]
        expected = pipeline.tokenizer.decode(out, skip_special_tokens=True)
        assert f"{prompt.splitlines()[-1]} → {expected}".replace("\n", " ⏎ ") == line


def test_a_probe_leaves_the_model_in_training() -> None:
    pipeline = causal()
    model = fresh(pipeline).train()
    assert pipeline.sample_outputs(model) == pipeline.sample_outputs(model)
    assert model.training


def test_a_prompt_longer_than_the_context_is_completed_from_its_end() -> None:
    pipeline = causal(Programs(TEXTS, n_positions=8), prompts=("x = 1\n" * 40, ""))
    assert len(pipeline.sample_outputs(fresh(pipeline))) == 2


@pytest.mark.parametrize(
    "options", [{"context_length": 1}, {"remainder": "pad"}, {"alpha": 0.0}, {"train_chunks": 0}, {"new_tokens": 0}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        causal(**options)
