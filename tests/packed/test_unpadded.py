"""A model without padding against the same model with it: logits, losses, gradients of all its parameters."""

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
from touchstone.packed import lookup as lookup_module
from touchstone.packed.attention import NAME
from touchstone.packed.head import Head
from touchstone.packed.layout import Size, rounded, unfilled
from touchstone.packed.lookup import Lookup
from touchstone.packed.unpadded import Unpadded
from touchstone.pipelines.vocabulary import losses_and_hits_at_positions, losses_at_positions

VOCABULARY, POSITIONS, PAD = 50, 40, 1
LENGTHS = [5, 1, 30, 17, 30]  # in all more tokens than positions
TARGETS = [3, 12, 1, 7, 2]
# Float32 sums in another order, through two layers whose weights are far from small: logits of up to a hundred, of
# which 1e-6. A token at a wrong place, or one that sees another row, changes numbers of this size by themselves.
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
    "initializer_range": 0.4,  # large: what a model makes of a place or of a neighbour must show
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "dropout": 0.0, "attention_dropout": 0.0}
MODERN = {
    "local_attention": 6,  # half of it to either side
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
    "bert, own head": ("BertConfig", "MaskedLM", SIZE | {"tie_word_embeddings": False}),
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
    """A padded batch, and what a model with padding must be told beside it."""

    inputs: dict[str, torch.Tensor]
    padded_only: dict[str, torch.Tensor]
    mask: torch.Tensor
    """(B, T) of what is predicted: the target, where there is one."""

    @property
    def places(self) -> torch.Tensor:
        """Some of the real places, in no order."""
        real = self.mask.flatten().nonzero()[:, 0]
        return real[torch.randperm(len(real), generator=torch.Generator().manual_seed(3))[: 2 * len(real) // 3]]

    @property
    def labels(self) -> torch.Tensor:
        """(B * T,)"""
        generator = torch.Generator().manual_seed(4)
        labels = torch.randint(0, VOCABULARY, (self.mask.numel(),), generator=generator)
        return labels.masked_fill(self.mask.flatten() == 0, -100)


def padded(lengths: Sequence[int], *, seed: int, side: Side = "right") -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) ids, none of them the one that pads, and their mask."""
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
        # Learned positions on the left count from the padding; that is why no such tokenizer pads there.
        return Case(inputs, padded_only, decoder_mask)
    if side == "left" and model.config.model_type != "roberta":  # which looks for the padding itself
        padded_only["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return Case(inputs, padded_only, mask)


def without(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in inputs.items() if name != "decoder_mask"}


def outputs_of(model: PreTrainedModel | Unpadded, batch: Case) -> Any:
    """With what each must be told to keep rows apart."""
    return model(**batch.inputs) if isinstance(model, Unpadded) else model(**without(batch.inputs), **batch.padded_only)


def gradients(model: PreTrainedModel, lookups: Sequence[Lookup] = ()) -> dict[str, torch.Tensor]:
    found = {id(p): torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()}
    for lookup in lookups:
        for ids, rows in lookup.found:
            found[id(lookup.weight)].index_add_(0, ids, rows)
    return {name: found[id(p)] for name, p in model.named_parameters()}


def assert_same_gradients(expected: dict[str, torch.Tensor], got: dict[str, torch.Tensor]) -> None:
    assert expected.keys() == got.keys()
    assert any(bool(value.any()) for value in expected.values())
    for name, value in expected.items():
        scale = max(1.0, float(value.abs().max()))
        apart = float((value - got[name]).abs().max())
        assert apart <= ROUNDING * scale, f"{name}: {apart:.2g} apart, at most {scale:.2g}"


@pytest.fixture(params=[1, 2**20], ids=["tables looked up", "tables embedded"])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tables of these small models are large, or none is."""
    monkeypatch.setattr(lookup_module, "LARGE", request.param)


every_model = pytest.mark.parametrize("name", MODELS)
with_vocabulary = [name for name, (_, task, _) in MODELS.items() if task.endswith("LM")]
# BART's positions are learned: it pads on the right.
sides = [(name, side) for name in MODELS for side in ("right", "left") if (name, side) != ("bart", "left")]
sides = [(name, side) for name, side in sides if (name, side) != ("marian", "left")]
every_size = pytest.mark.parametrize("size", [unfilled, rounded], ids=["as many tokens", "filled up"])


# The same numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(("name", "side"), sides)
@every_size
def test_logits_and_gradients_are_those_of_the_padded_model(name: str, side: Side, size: Size) -> None:
    plain = model_of(name)
    ours = copy.deepcopy(plain)
    unpadded = Unpadded(ours)
    unpadded.size = size
    batch = case(plain, side=side)
    real = batch.mask.bool()
    outputs = [outputs_of(model, batch) for model in (plain, unpadded)]
    names = [key for key in ("logits", "start_logits", "end_logits") if key in outputs[0]]
    expected, got = ([output[key][real] for key in names] for output in outputs)
    assert all(outputs[1][key][~real].eq(0).all() for key in names), "padding has logits"
    assert all(outputs[0][key].shape == outputs[1][key].shape for key in names)
    for one, other in zip(expected, got, strict=True):
        assert float(one.detach().std()) > 0.5, "too alike to tell anything"
        torch.testing.assert_close(other, one, rtol=ROUNDING, atol=ROUNDING)

    for parts in (expected, got):
        torch.manual_seed(7)
        sum((part * torch.randn_like(part)).sum() for part in parts).backward()  # type: ignore[union-attr]
    assert_same_gradients(gradients(plain), gradients(ours, unpadded.lookups))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("name", with_vocabulary)
@pytest.mark.parametrize("everywhere", [False, True], ids=["some places", "all places"])
@every_size
def test_losses_and_gradients_are_those_of_the_padded_model(name: str, everywhere: bool, size: Size) -> None:
    plain = model_of(name)
    ours = copy.deepcopy(plain)
    unpadded = Unpadded(ours)
    unpadded.size = size
    batch = case(plain)
    places = None if everywhere else batch.places
    labels = batch.labels if places is None else batch.labels[places]
    expected, got = (losses_at_positions(model, places, labels=labels, **batch.inputs) for model in (plain, unpadded))

    assert (len(labels),) == tuple(got.shape)
    assert got.dtype == torch.float32
    assert got[labels == -100].eq(0).all()
    torch.testing.assert_close(got, expected, rtol=ROUNDING, atol=ROUNDING)
    for losses in (expected, got):
        (losses * torch.linspace(-1, 2, len(labels))).sum().backward()
    assert_same_gradients(gradients(plain), gradients(ours, unpadded.lookups))


@pytest.mark.parametrize("name", with_vocabulary)
@pytest.mark.parametrize("everywhere", [False, True], ids=["some places", "all places"])
@pytest.mark.parametrize("headless", [False, True], ids=["head", "last layer of another kind"])
@every_size
def test_losses_and_hits_are_those_of_the_padded_model(name: str, everywhere: bool, headless: bool, size: Size) -> None:
    plain = model_of(name).eval()
    unpadded = Unpadded(copy.deepcopy(plain))
    unpadded.size = size
    if headless:
        unpadded._head = None
    batch = case(plain)
    places = None if everywhere else batch.places
    labels = batch.labels
    with torch.no_grad():  # half of all labels are what the model would say
        real = batch.mask.flatten().nonzero()[::2, 0]
        labels[real] = outputs_of(plain, batch).logits.argmax(-1).flatten()[real]
    labels = labels if places is None else labels[places]
    (losses, hits), (got_losses, got_hits) = (
        losses_and_hits_at_positions(model, places, labels=labels, **batch.inputs) for model in (plain, unpadded)
    )

    assert (got_losses.dtype, got_hits.dtype, got_losses.requires_grad) == (torch.float32, torch.bool, False)
    torch.testing.assert_close(got_losses, losses, rtol=ROUNDING, atol=ROUNDING)
    assert hits.tolist() == got_hits.tolist()
    assert 0 < int(hits.sum()) < int((labels != -100).sum()), "all alike tell nothing"
    assert not got_hits[labels == -100].any()


@pytest.mark.parametrize("name", ["bert", "modernbert", "gpt2", "t5"])
def test_no_places_have_no_losses_and_teach_nothing(name: str) -> None:
    ours = model_of(name)
    unpadded = Unpadded(ours)
    none = torch.zeros(0, dtype=torch.int64)
    losses = losses_at_positions(unpadded, none, labels=none, **case(ours).inputs)
    losses.sum().backward()

    assert tuple(losses.shape) == (0,)
    assert all(not value.any() for value in gradients(ours, unpadded.lookups).values())


@every_model
@pytest.mark.parametrize("lengths", [[1, 1, 1], [4, 4], [9]], ids=str)
def test_rows_of_one_length_and_of_one_token(name: str, lengths: list[int]) -> None:
    plain = model_of(name).eval()
    unpadded = Unpadded(copy.deepcopy(plain))
    batch = case(plain, lengths=lengths)
    with torch.inference_mode():
        key, real = "start_logits" if "answers" in name else "logits", batch.mask.bool()
        expected, got = (outputs_of(model, batch)[key][real] for model in (plain, unpadded))

    torch.testing.assert_close(got, expected, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "modernbert", "gpt2"])
@pytest.mark.parametrize("lengths", [[0, 5, 7], [5, 0, 7], [5, 7, 0]], ids=str)
def test_an_empty_row_changes_nothing_in_the_others(name: str, lengths: list[int]) -> None:
    plain = model_of(name).eval()
    unpadded = Unpadded(copy.deepcopy(plain))
    batch, real = case(plain, lengths=lengths), [row for row, n in enumerate(lengths) if n]
    others = {key: value[real] for key, value in batch.inputs.items()}
    with torch.inference_mode():
        expected, got = plain(**others).logits, unpadded(**batch.inputs).logits

    mask = batch.mask[real].bool()
    torch.testing.assert_close(got[real][mask], expected[mask], rtol=ROUNDING, atol=ROUNDING)
    assert got[lengths.index(0)].eq(0).all()


def test_a_batch_without_a_token_is_refused() -> None:
    """The models of transformers do not take one."""
    unpadded = Unpadded(model_of("bert"))
    ids = torch.full((2, 3), PAD)
    with pytest.raises(EngineError, match="a batch of 2 rows has no token: leave empty"):
        unpadded(input_ids=ids, attention_mask=torch.zeros_like(ids))


def test_a_batch_without_a_target_token_is_refused() -> None:
    model = model_of("t5")
    inputs = case(model).inputs
    inputs["decoder_mask"] = torch.zeros_like(inputs["decoder_mask"])
    with pytest.raises(EngineError, match="a batch of 5 rows has no token: leave empty"):
        Unpadded(model)(**inputs)


@pytest.mark.parametrize("name", ["marian", "t5"])
@pytest.mark.parametrize("lengths", [[0, 5, 7], [5, 7, 0]], ids=str)
def test_an_empty_source_changes_nothing_for_the_other_targets(name: str, lengths: list[int]) -> None:
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
    assert torch.equal(got[empty], moved[empty]), "a target without a source sees another row's"


def test_a_model_without_a_mask_takes_all_places_as_real() -> None:
    plain = model_of("bert").eval()
    ids = case(plain).inputs["input_ids"]
    with torch.inference_mode():
        expected, got = plain(input_ids=ids).logits, Unpadded(copy.deepcopy(plain))(input_ids=ids).logits

    torch.testing.assert_close(got, expected, rtol=ROUNDING, atol=ROUNDING)


# The model while it is packed, and afterwards -------------------------------------------------------------------------


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


@pytest.mark.usefixtures("large")
@every_model
def test_restoring_gives_the_model_back_as_it_was(name: str) -> None:
    model = model_of(name)
    batch = case(model)
    before, expected = anatomy(model), padded_outputs(model, batch)
    unpadded = Unpadded(model)
    if name in with_vocabulary:
        losses_at_positions(unpadded, batch.places, labels=batch.labels[batch.places], **batch.inputs).sum().backward()
    got = unpadded.restore()

    assert got is model
    assert anatomy(model) == before
    for one, other in zip(expected, padded_outputs(model, batch), strict=True):
        assert torch.equal(one, other)


@every_model
@pytest.mark.parametrize("training", [False, True])
def test_restored_modules_are_in_the_mode_of_the_model(name: str, training: bool) -> None:
    model = model_of(name).train(not training)
    unpadded = Unpadded(model)
    unpadded.train(training)
    unpadded.restore()

    assert {module.training for module in model.modules()} == {training}


@every_model
def test_outside_of_training_the_packed_model_takes_padding_as_ever(name: str) -> None:
    model = model_of(name)
    batch = case(model)
    expected, state = padded_outputs(model, batch), list(model.state_dict())
    unpadded = Unpadded(model)

    assert model.config._attn_implementation == NAME
    assert list(model.state_dict()) == state
    for one, other in zip(expected, padded_outputs(unpadded.module, batch), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)  # the same kernel, and perhaps another mask for it


@pytest.mark.parametrize("name", ["marian", "bart", "t5", "mt5"])
@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_packed_model_writes_what_it_would_have_written(name: str, num_beams: int) -> None:
    model = model_of(name).eval()
    inputs = {key: case(model).inputs[key] for key in ("input_ids", "attention_mask")}
    how: dict[str, Any] = {"max_new_tokens": 6, "num_beams": num_beams, "do_sample": False}
    expected = model.generate(**inputs, **how)
    Unpadded(model)

    assert torch.equal(expected, model.generate(**inputs, **how))


@pytest.mark.usefixtures("large")
def test_what_is_replaced_is_replaced_by_its_likes() -> None:
    model = model_of("bert").eval()
    Unpadded(model)

    assert isinstance(model.get_output_embeddings(), Head)
    assert not any(m.training for m in model.modules())


def test_one_table_in_several_modules_stays_one() -> None:
    model = model_of("mt5")
    tables = [name for name, p in model.named_parameters(remove_duplicate=False) if p is model.shared.weight]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup_module, "LARGE", 1)
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
def test_attention_of_a_models_own_is_refused_and_the_model_left_alone(
    config: str, task: str, entries: dict[str, Any]
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    built = getattr(transformers, config)(vocab_size=VOCABULARY, **(entries or sizes))
    model = getattr(transformers, f"AutoModelFor{task}").from_config(built)
    before = anatomy(model)
    with pytest.raises(EngineError, match=f"{type(model).__name__} has attention of its own.*take the engine"):
        Unpadded(model)

    assert anatomy(model) == before


def test_a_saved_config_does_not_name_our_attention(tmp_path: Any) -> None:
    model = model_of("bert")
    Unpadded(model)
    model.save_pretrained(tmp_path)

    assert NAME not in (tmp_path / "config.json").read_text()
    again, told = transformers.BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert (set(), set()) == (set(told["missing_keys"]), set(told["unexpected_keys"]))
    assert again.config._attn_implementation == "sdpa"
