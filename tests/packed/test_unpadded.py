"""`Unpadded` against the same model with padding: logits, losses, and gradients of all parameters."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from touchstone.engines.training import EngineError
from touchstone.packed import modules
from touchstone.packed.attention import NAME
from touchstone.packed.layout import Rounding, rounded, unrounded
from touchstone.packed.modules import Head, Lookup
from touchstone.packed.unpadded import Unpadded
from touchstone.pipelines.vocabulary import losses_and_hits_at_positions, losses_at_positions

VOCABULARY, POSITIONS, PAD = 50, 40, 1
LENGTHS = [5, 1, 30, 17, 30]  # more tokens in total than positions
TARGETS = [3, 12, 1, 7, 2]
# Float32 sums in another order, through two layers with large weights: 1e-6 of logits up to a hundred. A token at a
# wrong position, or one that sees another row, changes logits by about their own size.
ROUNDING = 2e-4

Side = Literal["left", "right"]

SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": PAD,
    "initializer_range": 0.4,  # large, so that a wrong position or neighbour shows
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "dropout": 0.0, "attention_dropout": 0.0}
MODERN = {
    "local_attention": 6,  # half of it on either side
    "layer_types": ["sliding_attention", "full_attention"],
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
}
TRANSLATION = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
    "d_model": 16,
    **{f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in
       {"layers": 2, "attention_heads": 2, "ffn_dim": 24}.items()},
    "dropout": 0.0,
    "init_std": 0.4,
    "pad_token_id": PAD,
    "eos_token_id": 0,
    "bos_token_id": 2,
    "forced_eos_token_id": 0,
    "decoder_start_token_id": PAD,
}  # fmt: skip
FIVE = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "dropout_rate": 0.0,
    "pad_token_id": PAD,
    "eos_token_id": 0,
    "decoder_start_token_id": PAD,
}
GPT = {
    "vocab_size": VOCABULARY,
    "n_positions": POSITIONS,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "initializer_range": 0.4,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": PAD,
}
LLAMA = {k: v for k, v in SIZE.items() if "dropout" not in k} | {
    "num_key_value_heads": 1,
    "bos_token_id": 0,
    "eos_token_id": 0,
}

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "MaskedLM", SIZE),
    "roberta": ("RobertaConfig", "MaskedLM", SIZE),
    "electra": ("ElectraConfig", "MaskedLM", SIZE | {"embedding_size": 12}),
    "distilbert": ("DistilBertConfig", "MaskedLM", SIZE | DISTIL),
    "modernbert": ("ModernBertConfig", "MaskedLM", SIZE | MODERN),
    "bert, untied": ("BertConfig", "MaskedLM", SIZE | {"tie_word_embeddings": False}),
    "bert, tags": ("BertConfig", "TokenClassification", SIZE | {"num_labels": 7}),
    "roberta, tags": ("RobertaConfig", "TokenClassification", SIZE | {"num_labels": 7}),
    "distilbert, answers": ("DistilBertConfig", "QuestionAnswering", SIZE | DISTIL | {"qa_dropout": 0.0}),
    "bert, answers": ("BertConfig", "QuestionAnswering", SIZE),
    "gpt2": ("GPT2Config", "CausalLM", GPT),
    "llama": ("LlamaConfig", "CausalLM", LLAMA),
    "marian": ("MarianConfig", "Seq2SeqLM", TRANSLATION | {"decoder_vocab_size": VOCABULARY, "scale_embedding": True}),
    "bart": ("BartConfig", "Seq2SeqLM", TRANSLATION),
    "t5": ("T5Config", "Seq2SeqLM", FIVE),
    "mt5": ("MT5Config", "Seq2SeqLM", FIVE | {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}),
}


def model_of(name: str) -> PreTrainedModel:
    config, task, entries = MODELS[name]
    torch.manual_seed(0)
    model: PreTrainedModel = getattr(transformers, f"AutoModelFor{task}").from_config(
        getattr(transformers, config)(**entries), attn_implementation="sdpa"
    )
    if getattr(model, "final_logits_bias", None) is not None:
        model.final_logits_bias = torch.randn(1, VOCABULARY)  # type: ignore[assignment]
    return model.train()


@dataclass
class Case:
    """A padded batch, and the extra inputs that the padded model needs."""

    inputs: dict[str, torch.Tensor]
    padded_only: dict[str, torch.Tensor]
    mask: torch.Tensor
    """(B, T), of the rows with logits: the target of an encoder-decoder."""

    @property
    def real_positions(self) -> torch.Tensor:
        """Some of the real positions, shuffled."""
        real = self.mask.flatten().nonzero()[:, 0]
        return real[torch.randperm(len(real), generator=torch.Generator().manual_seed(3))[: 2 * len(real) // 3]]

    @property
    def labels(self) -> torch.Tensor:
        """(B * T,)"""
        generator = torch.Generator().manual_seed(4)
        labels = torch.randint(0, VOCABULARY, (self.mask.numel(),), generator=generator)
        return labels.masked_fill(self.mask.flatten() == 0, -100)


def padded(lengths: Sequence[int], *, seed: int, side: Side = "right") -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, T) ids without the padding token, padded, and their mask."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    mask = mask if side == "right" else mask.flip(1)
    ids = torch.randint(2, VOCABULARY, mask.shape, generator=torch.Generator().manual_seed(seed))
    return ids.masked_fill(mask == 0, PAD), mask


def case(model: PreTrainedModel, *, side: Side = "right", lengths: Sequence[int] = LENGTHS) -> Case:
    ids, mask = padded(lengths, seed=1, side=side)
    inputs, padded_only = {"input_ids": ids, "attention_mask": mask}, {}
    if model.config.model_type == "bert":
        inputs["token_type_ids"] = torch.randint(0, 2, ids.shape, generator=torch.Generator().manual_seed(2)) * mask
    if model.config.is_encoder_decoder:
        decoder, decoder_mask = padded(TARGETS[: len(lengths)], seed=5)
        inputs |= {"decoder_input_ids": decoder, "decoder_mask": decoder_mask}
        # With learned positions, padding on the left would count; no such tokenizer pads there.
        return Case(inputs, padded_only, decoder_mask)
    if side == "left" and model.config.model_type != "roberta":  # which finds the padding itself
        padded_only["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return Case(inputs, padded_only, mask)


def without(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in inputs.items() if name != "decoder_mask"}


def outputs_of(model: PreTrainedModel | Unpadded, batch: Case) -> Any:
    """Call a model with the inputs that it needs to keep rows apart."""
    return model(**batch.inputs) if isinstance(model, Unpadded) else model(**without(batch.inputs), **batch.padded_only)


def gradients(model: PreTrainedModel, lookups: Sequence[Lookup] = ()) -> dict[str, torch.Tensor]:
    found = {id(p): torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()}
    for lookup in lookups:
        for ids, rows in lookup.gradients:
            found[id(lookup.weight)].index_add_(0, ids, rows)
    return {name: found[id(p)] for name, p in model.named_parameters()}


def assert_same_gradients(expected: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    assert any(bool(value.any()) for value in expected.values())
    for name, value in expected.items():
        scale = max(1.0, float(value.abs().max()))
        apart = float((value - got[name]).abs().max())
        assert apart <= ROUNDING * scale, f"{name}: {apart:.2g} apart, at most {scale:.2g}"


@pytest.fixture(params=[1, 2**20], ids=["lookups", "embeddings"])
def table_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all embeddings of these small models large, or none."""
    monkeypatch.setattr(modules, "LARGE_TABLE", request.param)


every_model = pytest.mark.parametrize("name", MODELS)
with_vocabulary = [name for name, (_, task, _) in MODELS.items() if task.endswith("LM")]
# BART and Marian count padding as positions, so they pad on the right.
sides = [(name, side) for name in MODELS for side in ("right", "left") if (name, side) != ("bart", "left")]
sides = [(name, side) for name, side in sides if (name, side) != ("marian", "left")]
every_rounding = pytest.mark.parametrize("rounding", [unrounded, rounded], ids=["unrounded", "rounded"])


# The same numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("table_size")
@pytest.mark.parametrize(("name", "side"), sides)
@every_rounding
def test_unpadded_has_the_logits_and_gradients_of_the_padded_model(name: str, side: Side, rounding: Rounding) -> None:
    plain = model_of(name)
    ours = copy.deepcopy(plain)
    unpadded = Unpadded(ours)
    unpadded.rounding = rounding
    batch = case(plain, side=side)
    real = batch.mask.bool()
    outputs = [outputs_of(model, batch) for model in (plain, unpadded)]
    names = [key for key in ("logits", "start_logits", "end_logits") if key in outputs[0]]
    expected, got = ([output[key][real] for key in names] for output in outputs)
    assert all(outputs[1][key][~real].eq(0).all() for key in names), "logits at padding are not zero"
    assert all(outputs[0][key].shape == outputs[1][key].shape for key in names)
    for one, other in zip(expected, got, strict=True):
        assert float(one.detach().std()) > 0.5, "the logits are too similar for a test"
        torch.testing.assert_close(other, one, rtol=ROUNDING, atol=ROUNDING)

    for parts in (expected, got):
        torch.manual_seed(7)
        sum((part * torch.randn_like(part)).sum() for part in parts).backward()  # type: ignore[union-attr]
    assert_same_gradients(gradients(plain), gradients(ours, unpadded.lookups))


@pytest.mark.usefixtures("table_size")
@pytest.mark.parametrize("name", with_vocabulary)
@pytest.mark.parametrize("everywhere", [False, True], ids=["some positions", "all positions"])
@every_rounding
def test_losses_at_positions_has_the_losses_and_gradients_of_the_padded_model(
    name: str, everywhere: bool, rounding: Rounding
) -> None:
    plain = model_of(name)
    ours = copy.deepcopy(plain)
    unpadded = Unpadded(ours)
    unpadded.rounding = rounding
    batch = case(plain)
    positions = None if everywhere else batch.real_positions
    labels = batch.labels if positions is None else batch.labels[positions]
    expected, got = (
        losses_at_positions(model, positions, labels=labels, **batch.inputs) for model in (plain, unpadded)
    )

    assert tuple(got.shape) == (len(labels),)
    assert got.dtype == torch.float32
    assert got[labels == -100].eq(0).all()
    torch.testing.assert_close(got, expected, rtol=ROUNDING, atol=ROUNDING)
    for losses in (expected, got):
        (losses * torch.linspace(-1, 2, len(labels))).sum().backward()
    assert_same_gradients(gradients(plain), gradients(ours, unpadded.lookups))


@pytest.mark.parametrize("name", with_vocabulary)
@pytest.mark.parametrize("everywhere", [False, True], ids=["some positions", "all positions"])
@pytest.mark.parametrize("headless", [False, True], ids=["head", "output layer not replaced"])
@every_rounding
def test_losses_and_hits_at_positions_has_those_of_the_padded_model(
    name: str, everywhere: bool, headless: bool, rounding: Rounding
) -> None:
    plain = model_of(name).eval()
    unpadded = Unpadded(copy.deepcopy(plain))
    unpadded.rounding = rounding
    if headless:
        unpadded._head = None
    batch = case(plain)
    positions = None if everywhere else batch.real_positions
    labels = batch.labels
    with torch.no_grad():  # half of all labels are the model's own predictions
        real = batch.mask.flatten().nonzero()[::2, 0]
        labels[real] = outputs_of(plain, batch).logits.argmax(-1).flatten()[real]
    labels = labels if positions is None else labels[positions]
    (losses, hits), (got_losses, got_hits) = (
        losses_and_hits_at_positions(model, positions, labels=labels, **batch.inputs) for model in (plain, unpadded)
    )

    assert (got_losses.dtype, got_hits.dtype, got_losses.requires_grad) == (torch.float32, torch.bool, False)
    torch.testing.assert_close(got_losses, losses, rtol=ROUNDING, atol=ROUNDING)
    assert got_hits.tolist() == hits.tolist()
    assert 0 < int(hits.sum()) < int((labels != -100).sum()), "hits must be mixed for a test"
    assert not got_hits[labels == -100].any()


@pytest.mark.parametrize("name", ["bert", "modernbert", "gpt2", "t5"])
def test_losses_at_no_positions_are_empty_with_zero_gradients(name: str) -> None:
    ours = model_of(name)
    unpadded = Unpadded(ours)
    none = torch.zeros(0, dtype=torch.int64)
    losses = losses_at_positions(unpadded, none, labels=none, **case(ours).inputs)
    losses.sum().backward()

    assert tuple(losses.shape) == (0,)
    assert all(not value.any() for value in gradients(ours, unpadded.lookups).values())


@every_model
@pytest.mark.parametrize("lengths", [[1, 1, 1], [4, 4], [9]], ids=str)
def test_unpadded_handles_rows_of_one_length_and_of_one_token(name: str, lengths: list[int]) -> None:
    plain = model_of(name).eval()
    unpadded = Unpadded(copy.deepcopy(plain))
    batch = case(plain, lengths=lengths)
    with torch.inference_mode():
        key, real = "start_logits" if "answers" in name else "logits", batch.mask.bool()
        expected, got = (outputs_of(model, batch)[key][real] for model in (plain, unpadded))

    torch.testing.assert_close(got, expected, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "modernbert", "gpt2"])
@pytest.mark.parametrize("lengths", [[0, 5, 7], [5, 0, 7], [5, 7, 0]], ids=str)
def test_an_empty_row_does_not_change_the_others(name: str, lengths: list[int]) -> None:
    plain = model_of(name).eval()
    unpadded = Unpadded(copy.deepcopy(plain))
    batch, real = case(plain, lengths=lengths), [row for row, n in enumerate(lengths) if n]
    others = {key: value[real] for key, value in batch.inputs.items()}
    with torch.inference_mode():
        expected, got = plain(**others).logits, unpadded(**batch.inputs).logits

    mask = batch.mask[real].bool()
    torch.testing.assert_close(got[real][mask], expected[mask], rtol=ROUNDING, atol=ROUNDING)
    assert got[lengths.index(0)].eq(0).all()


def test_unpadded_refuses_a_batch_without_tokens() -> None:
    """transformers' models do not take one either."""
    unpadded = Unpadded(model_of("bert"))
    ids = torch.full((2, 3), PAD)
    with pytest.raises(EngineError, match="a batch of 2 rows has no tokens; remove"):
        unpadded(input_ids=ids, attention_mask=torch.zeros_like(ids))


def test_unpadded_refuses_a_model_that_predicts_once_per_row() -> None:
    config = transformers.BertConfig(**SIZE)
    unpadded = Unpadded(transformers.BertForSequenceClassification(config).eval())
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, PAD, PAD]])
    with pytest.raises(EngineError, match="BertForSequenceClassification does not predict its logits for every token"):
        unpadded(input_ids=ids, attention_mask=ids.ne(PAD).long())


def test_unpadded_refuses_a_batch_without_target_tokens() -> None:
    model = model_of("t5")
    inputs = case(model).inputs
    inputs["decoder_mask"] = torch.zeros_like(inputs["decoder_mask"])
    with pytest.raises(EngineError, match="a batch of 5 rows has no tokens; remove"):
        Unpadded(model)(**inputs)


@pytest.mark.parametrize("name", ["marian", "t5"])
@pytest.mark.parametrize("lengths", [[0, 5, 7], [5, 7, 0]], ids=str)
def test_an_empty_source_does_not_change_the_other_targets(name: str, lengths: list[int]) -> None:
    plain = model_of(name).eval()
    unpadded = Unpadded(copy.deepcopy(plain))
    batch = case(plain, lengths=lengths)
    changed = {**batch.inputs, "input_ids": batch.inputs["input_ids"].roll(1, 1)}
    empty, real = lengths.index(0), batch.mask.bool()
    real[empty] = False
    with torch.inference_mode():
        expected, got = (outputs_of(model, batch).logits for model in (plain, unpadded))
        moved = unpadded(**changed).logits

    torch.testing.assert_close(got[real], expected[real], rtol=ROUNDING, atol=ROUNDING)
    assert got.isfinite().all()
    assert torch.equal(got[empty], moved[empty]), "a target with an empty source sees another row's source"


def test_unpadded_without_a_mask_takes_all_tokens_as_real() -> None:
    plain = model_of("bert").eval()
    ids = case(plain).inputs["input_ids"]
    with torch.inference_mode():
        expected, got = plain(input_ids=ids).logits, Unpadded(copy.deepcopy(plain))(input_ids=ids).logits

    torch.testing.assert_close(got, expected, rtol=ROUNDING, atol=ROUNDING)


# The wrapped model, and the restored one ------------------------------------------------------------------------------


def anatomy(model: PreTrainedModel) -> list[Any]:
    return [
        model.config._attn_implementation,
        [(name, id(module), type(module), module.training) for name, module in model.named_modules()],
        [(name, id(parameter)) for name, parameter in model.named_parameters(remove_duplicate=False)],
        [name for name, _ in model.named_buffers()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        ["compute_bias" in module.__dict__ for module in model.modules()],
        list(model.state_dict()),
    ]


def padded_outputs(model: Any, batch: Case) -> list[torch.Tensor]:
    training = model.training
    model.eval()
    with torch.inference_mode():
        output = outputs_of(model, batch)
    model.train(training)
    return [output[key] for key in ("logits", "start_logits", "end_logits") if key in output]


@pytest.mark.usefixtures("table_size")
@every_model
def test_restore_undoes_all_changes(name: str) -> None:
    model = model_of(name)
    batch = case(model)
    before, expected = anatomy(model), padded_outputs(model, batch)
    unpadded = Unpadded(model)
    if name in with_vocabulary:
        losses_at_positions(
            unpadded, batch.real_positions, labels=batch.labels[batch.real_positions], **batch.inputs
        ).sum().backward()
    got = unpadded.restore()

    assert got is model
    assert anatomy(model) == before
    for one, other in zip(expected, padded_outputs(model, batch), strict=True):
        assert torch.equal(one, other)


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_restore_gives_all_modules_the_mode_of_the_model(name: str, training: bool) -> None:
    model = model_of(name).train(not training)
    unpadded = Unpadded(model)
    unpadded.train(training)
    unpadded.restore()

    assert {module.training for module in model.modules()} == {training}


@every_model
def test_the_wrapped_model_still_takes_padded_inputs(name: str) -> None:
    model = model_of(name)
    batch = case(model)
    expected, state = padded_outputs(model, batch), list(model.state_dict())
    unpadded = Unpadded(model)

    assert model.config._attn_implementation == NAME
    assert list(model.state_dict()) == state
    for one, other in zip(expected, padded_outputs(unpadded.module, batch), strict=True):
        torch.testing.assert_close(
            other, one, rtol=1e-5, atol=1e-5
        )  # the same kernel, but transformers may pass it another mask


@pytest.mark.parametrize("name", ["marian", "bart", "t5", "mt5"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_the_wrapped_models_own_generate_gives_the_same_tokens(name: str, num_beams: int) -> None:
    model = model_of(name).eval()
    inputs = {key: case(model).inputs[key] for key in ("input_ids", "attention_mask")}
    how: dict[str, Any] = {"max_new_tokens": 6, "num_beams": num_beams, "do_sample": False}
    expected = model.generate(**inputs, **how)
    Unpadded(model)

    assert torch.equal(expected, model.generate(**inputs, **how))


@pytest.mark.usefixtures("table_size")
def test_replacements_keep_the_kind_and_the_mode_of_modules() -> None:
    model = model_of("bert").eval()
    Unpadded(model)

    assert isinstance(model.get_output_embeddings(), Head)
    assert not any(m.training for m in model.modules())


def test_an_embedding_used_in_several_modules_stays_shared() -> None:
    model = model_of("mt5")
    tables = [name for name, p in model.named_parameters(remove_duplicate=False) if p is model.shared.weight]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modules, "LARGE_TABLE", 1)
        Unpadded(model)

    assert [name for name, p in model.named_parameters(remove_duplicate=False) if p is model.shared.weight] == tables
    assert isinstance(model.get_encoder().embed_tokens, Lookup)
    assert isinstance(model.get_decoder().embed_tokens, Lookup)


@pytest.mark.parametrize(
    ("config", "task", "entries"),
    [
        ("DebertaV2Config", "MaskedLM", {}),
        ("XLNetConfig", "CausalLM", {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24}),
        ("ConvBertConfig", "MaskedLM", {}),
    ],
)
def test_unpadded_refuses_a_model_without_pluggable_attention_and_leaves_it_unchanged(
    config: str, task: str, entries: dict[str, Any]
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    built = getattr(transformers, config)(vocab_size=VOCABULARY, **(entries or sizes))
    model = getattr(transformers, f"AutoModelFor{task}").from_config(built)
    before = anatomy(model)
    with pytest.raises(EngineError, match=f"{type(model).__name__} does not support other attention.*use the engine"):
        Unpadded(model)

    assert anatomy(model) == before


def test_a_saved_config_does_not_name_packed_attention(tmp_path: Any) -> None:
    model = model_of("bert")
    Unpadded(model)
    model.save_pretrained(tmp_path)

    assert NAME not in (tmp_path / "config.json").read_text()
    again, info = transformers.BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert (set(info["missing_keys"]), set(info["unexpected_keys"])) == (set(), set())
    assert again.config._attn_implementation == "sdpa"
