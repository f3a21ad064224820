"""Generation without padding against transformers' `generate`: the same tokens under the same settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import linear
from transformers import GenerationConfig, MarianMTModel, PreTrainedModel

from tests.support.tiny_pipelines import features, tiny_translation
from touchstone.packed import decoder, generation
from touchstone.packed.decoder import FAMILIES, Decoder, find_family
from touchstone.packed.generation import NEUTRAL, VOCABULARY_BLOCK, Projection, Rules, best_continuations, read_rules
from touchstone.packed.unpadded import Unpadded
from touchstone.pipelines.seq2seq import generate

VOCABULARY, END, PAD, START = 2 * VOCABULARY_BLOCK + 88, 0, 1, 2  # two blocks and part of a third
ENDS = [END, *range(50, 110)]  # many, so that untrained models generate some of them
LENGTHS = [5, 1, 30, 17, 30, 9]
STEPS = 12
BART = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 40,
    "d_model": 16,
    **{f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in
       {"layers": 2, "attention_heads": 2, "ffn_dim": 24}.items()},
    "init_std": 0.4,  # large, so that logits differ by more than rounding
    "pad_token_id": PAD,
    "eos_token_id": END,
    "bos_token_id": 3,
    "forced_eos_token_id": None,
    "decoder_start_token_id": START,
}  # fmt: skip
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "decoder_start_token_id": START,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "marian": ("MarianConfig", BART | {"decoder_vocab_size": VOCABULARY, "scale_embedding": True}),
    "bart": ("BartConfig", BART),
    "plbart": ("PLBartConfig", BART | {"scale_embedding": True}),
    "mbart": ("MBartConfig", BART),
    "pegasus": ("PegasusConfig", BART | {"scale_embedding": True}),
    "t5": ("T5Config", T5),
    "mt5": ("MT5Config", T5 | {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}),
}
every_model = pytest.mark.parametrize("name", MODELS)
every_width = pytest.mark.parametrize("beams", [1, 2, 4])


def model_of(name: str, *, seed: int = 0) -> PreTrainedModel:
    config, entries = MODELS[name]
    torch.manual_seed(seed)
    model: Any = transformers.AutoModelForSeq2SeqLM.from_config(getattr(transformers, config)(**entries))
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()
    return model.eval()  # type: ignore[no-any-return]


def batch(lengths: list[int] = LENGTHS) -> dict[str, torch.Tensor]:
    places = torch.arange(max(lengths))
    mask = (places < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(4, VOCABULARY, mask.shape, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids.masked_fill(mask == 0, PAD), "attention_mask": mask}


def settings(beams: int = 1, steps: int = STEPS, **others: Any) -> GenerationConfig:
    entries = {"num_beams": beams, "max_new_tokens": steps, "pad_token_id": PAD, "eos_token_id": END}
    return GenerationConfig(**entries | others)


@contextmanager
def without_padding(model: Any) -> Iterator[Unpadded]:
    """Wrap the model, and make its own `generate` fail."""

    def refuse(**inputs: Any) -> None:
        raise AssertionError("the model's own generate was called")

    wrapped = Unpadded(model)
    model.generate = refuse
    try:
        yield wrapped
    finally:
        del model.generate
        wrapped.restore()


def both(model: Any, config: GenerationConfig, lengths: list[int] = LENGTHS) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens of the model's own `generate`, and those generated without padding.

    Beam search is in float64. Among hundreds of pairs of beams some have equal scores up to float32 rounding, and
    everything after depends on which of them goes on.
    """
    inputs = batch(lengths)
    model = model.to(torch.float32 if config.num_beams == 1 else torch.float64)
    expected = model.generate(**inputs, generation_config=config)
    with without_padding(model) as wrapped:
        return expected, wrapped.generate(**inputs, generation_config=config)


def ends(ids: torch.Tensor) -> list[int | None]:
    """Return the index of the first end token in each row."""
    return [next((place for place, token in enumerate(row) if token in ENDS), None) for row in ids[:, 1:].tolist()]


# The same tokens ------------------------------------------------------------------------------------------------------


@every_width
@every_model
def test_generate_returns_the_tokens_of_the_models_own(name: str, beams: int) -> None:
    model = model_of(name)
    expected, got = both(model, settings(beams, eos_token_id=ENDS))
    assert got.tolist() == expected.tolist()


@every_width
def test_removing_ended_rows_does_not_change_the_others(beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU checks for ended rows at intervals; that is tested here, too."""
    found: list[int | None] = []
    for seed in range(6):
        for interval in (1, 5):
            monkeypatch.setattr(generation, "check_interval", lambda device, interval=interval: interval)
            expected, got = both(model_of("marian", seed=seed), settings(beams, eos_token_id=ENDS))
            assert got.tolist() == expected.tolist(), f"seed {seed}, checks every {interval} steps"
        found += ends(expected)
    assert None in found, "no row reaches the last step"
    assert len({place for place in found if place is not None}) > 1, "all rows end at the same step"


@pytest.mark.parametrize("interval", [1, 5])
def test_ended_rows_are_no_longer_computed(interval: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "check_interval", lambda device: interval)
    sizes: list[int] = []
    original = Decoder.step

    def watched(self: Decoder, ids: torch.Tensor, position: int) -> torch.Tensor:
        sizes.append(len(ids))
        return original(self, ids, position)

    monkeypatch.setattr(Decoder, "step", watched)
    for seed in range(6):
        sizes.clear()
        _, got = both(model_of("marian", seed=seed), settings(eos_token_id=ENDS))
        last = [STEPS - 1 if place is None else place for place in ends(got)]
        # A row is computed until the next check after its last token.
        checks = [step for step in range(STEPS) if step % interval == interval - 1]
        until = [min([check for check in checks if check >= place], default=STEPS - 1) for place in last]
        assert sizes == [sum(step <= removed for removed in until) for step in range(max(until) + 1)]


@every_width
@pytest.mark.parametrize("name", ["marian", "t5"])
def test_the_gpu_path_generates_the_same_tokens(name: str, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU: torch's own attention, and its masks in bfloat16."""
    monkeypatch.setattr(decoder, "use_torch_attention", lambda device: True)
    monkeypatch.setattr(generation, "check_interval", lambda device: 5)
    expected, got = both(model_of(name), settings(beams, eos_token_id=ENDS))
    assert got.tolist() == expected.tolist()
    with without_padding(model_of(name).bfloat16()) as wrapped:
        tokens = wrapped.generate(**batch(), generation_config=settings(beams))
    assert set(tokens[:, 0].tolist()) == {START}
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < VOCABULARY


@every_width
@pytest.mark.parametrize("name", ["marian", "t5"])
@pytest.mark.parametrize("steps", [1, 2])
def test_generate_is_right_for_one_and_two_steps(name: str, beams: int, steps: int) -> None:
    expected, got = both(model_of(name), settings(beams, steps))
    assert expected.shape == (len(LENGTHS), 1 + steps)
    assert got.tolist() == expected.tolist()


@every_width
@pytest.mark.parametrize("lengths", [[7, 7], [1]])
def test_generate_is_right_for_sources_without_padding(beams: int, lengths: list[int]) -> None:
    expected, got = both(model_of("marian"), settings(beams), lengths)
    assert got.tolist() == expected.tolist()


SETTINGS: list[dict[str, Any]] = [
    {"bad_words_ids": [[PAD], [7], [END]]},  # generate ignores the end token among bad words
    {"bad_words_ids": [[PAD]] + [[i] for i in range(100, 400)], "renormalize_logits": True},
    {"bad_words_ids": [[i] for i in range(100, 400)]},
    {"suppress_tokens": [END, *range(4, 300)]},  # no row ends
    {"forced_eos_token_id": END},
    {"forced_bos_token_id": 9},
    {"forced_bos_token_id": 9, "max_new_tokens": 1, "forced_eos_token_id": [END]},
    {"forced_bos_token_id": 9, "forced_eos_token_id": 60, "eos_token_id": ENDS, "renormalize_logits": True},
    {"eos_token_id": ENDS, "length_penalty": 0.3},
    {"eos_token_id": ENDS, "length_penalty": -1.0},
    {"eos_token_id": ENDS, "pad_token_id": 0},
    {"decoder_start_token_id": 11},
    {"max_length": 5, "temperature": 0.5, "top_k": 3, "min_length": 0},  # none of these has an effect
]


@every_width
@pytest.mark.parametrize("others", SETTINGS, ids=lambda others: ",".join(others))
@pytest.mark.parametrize("whose", ["given", "defaults"])
def test_generate_follows_settings_as_the_models_own_does(whose: str, others: dict[str, Any], beams: int) -> None:
    model: Any = model_of("marian")
    config = settings(beams, **(others if whose == "given" else {}))
    if whose == "defaults":
        model.generation_config.update(**others)
        for name in others:  # the model's default applies where no setting is given
            setattr(config, name, None)
        config.max_new_tokens = others.get("max_new_tokens", STEPS)
    expected, got = both(model, config)
    assert got.tolist() == expected.tolist()


def test_bf16_generation_takes_the_best_token_up_to_rounding() -> None:
    """Compared with the same rounded weights in float32, with padding."""
    for name in ("marian", "t5"):
        model: Any = model_of(name).bfloat16()
        with without_padding(model) as wrapped:
            inputs = batch()
            got = wrapped.generate(**inputs, generation_config=settings(suppress_tokens=[END]))
        assert got.shape == (len(LENGTHS), 1 + STEPS)
        logits = model.float()(**inputs, decoder_input_ids=got[:, :-1]).logits.detach()
        logits[..., END] = -torch.inf
        best, chosen = logits.amax(-1), logits.gather(-1, got[:, 1:, None])[..., 0]
        # Eight bits per number, through two layers: 3% of the largest logit. One token in ten may differ, where two are
        # that close. Of random tokens one in six hundred would be right.
        assert ((best - chosen) / best.abs()).max() < 0.03
        assert (best == chosen).float().mean() > 0.9


# What is left to the model's own generate -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_read_rules_returns_none_for_a_setting_that_is_not_neutral(name: str) -> None:
    neutral = GenerationConfig(**{name: NEUTRAL[name]})
    assert isinstance(
        read_rules(settings(decoder_start_token_id=START), defaults=neutral, vocabulary=VOCABULARY), Rules
    )
    active = GenerationConfig()
    setattr(active, name, True if NEUTRAL[name] is False else NEUTRAL[name] + 1)
    assert read_rules(settings(decoder_start_token_id=START), defaults=active, vocabulary=VOCABULARY) is None


@pytest.mark.parametrize(
    "others",
    [
        {"bad_words_ids": [[5, 6]]},
        {"begin_suppress_tokens": [5]},
        {"sequence_bias": [[[5], 1.0]]},
        {"exponential_decay_length_penalty": (3, 1.1)},
        {"stop_strings": ["x"]},
        {"max_time": 1.0},
        {"early_stopping": True},
        {"suppress_tokens": [9], "forced_bos_token_id": 9},
        {"forced_bos_token_id": END},
        {"forced_eos_token_id": [3, 4]},
        {"max_new_tokens": None},
        {"eos_token_id": None},
        {"decoder_start_token_id": None},
        {"num_beams": VOCABULARY // 2 + 1},
        {"a_setting_of_a_later_version": 1},
    ],
    ids=lambda others: ",".join(others),
)
def test_read_rules_returns_none_for_settings_it_does_not_support(others: dict[str, Any]) -> None:
    config = settings(decoder_start_token_id=START)
    assert read_rules(config, defaults=GenerationConfig(), vocabulary=VOCABULARY) is not None
    for name, value in others.items():
        setattr(config, name, value)
    assert read_rules(config, defaults=GenerationConfig(), vocabulary=VOCABULARY) is None


def test_the_models_own_generate_is_called_for_other_models_and_settings() -> None:
    class Other(MarianMTModel):
        """A subclass that may compute something else."""

    config: Any = transformers.MarianConfig(**MODELS["marian"][1])
    torch.manual_seed(0)
    other = Other(config).eval()
    assert find_family(other) is None
    for model, config in ((other, settings()), (model_of("marian"), settings(no_repeat_ngram_size=1))):
        inputs = batch()
        expected = model.generate(**inputs, generation_config=config)  # type: ignore[operator]
        wrapped = Unpadded(model)
        assert wrapped.generate(**inputs, generation_config=config).tolist() == expected.tolist()


def test_every_known_model_type_is_tested() -> None:
    assert {type(model_of(name)) for name in MODELS} == set(FAMILIES)


# Parts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, 9])
def test_best_continuations_are_the_best_of_the_whole_vocabulary(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores = torch.randn(6, 3 * VOCABULARY_BLOCK, generator=generator).log_softmax(-1)
        scores[:, -40:] = -torch.inf
        before = torch.randn(2, 3, generator=generator)
        found, beams, tokens = best_continuations(scores.clone(), before=before, count=count)
        whole = (scores.view(2, 3, -1) + before[:, :, None]).flatten(1)
        values, places = whole.topk(count)
        assert found.tolist() == values.tolist()
        assert (beams * 3 * VOCABULARY_BLOCK + tokens).tolist() == places.tolist()


@pytest.mark.parametrize("reordered", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_projection_is_the_linear_layer(reordered: bool, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(50, 24).bfloat16(), torch.randn(50).bfloat16() if biased else None
    if reordered and not generation.can_reorder(weight):
        pytest.skip("this build of torch does not reorder weights")
    monkeypatch.setattr(generation, "can_reorder", lambda weight: reordered)
    project = Projection(weight, bias, rows=8)
    for rows in (8, 1, 3):
        x = torch.randn(rows, 24).bfloat16()
        # Sums are in float32 in any order; after rounding they may differ in the last of eight bits.
        torch.testing.assert_close(project(x), linear(x, weight, bias), rtol=2**-7, atol=1e-3)


def test_a_pipeline_gets_the_same_texts_without_padding() -> None:
    pipeline = tiny_translation(num_beams=2)
    torch.manual_seed(0)
    model: Any = pipeline.model()
    inputs = pipeline.collate(features(pipeline, "validation", list(range(8))), train=False)
    expected = generate(model, inputs, tokenizer=pipeline.tokenizer, config=pipeline.generation_config)
    with without_padding(model) as wrapped:
        wrapped.train()
        assert generate(wrapped, inputs, tokenizer=pipeline.tokenizer, config=pipeline.generation_config) == expected
        assert wrapped.training
        assert model.training
