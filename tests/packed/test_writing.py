"""Encoder-decoders that write without padding: the tokens of transformers' `generate`, under the same rules."""

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
from touchstone.packed import writing
from touchstone.packed.unpadded import Unpadded
from touchstone.packed.writing import decoder, projection
from touchstone.packed.writing.decoder import Decoder
from touchstone.packed.writing.families import KNOWN, family_of
from touchstone.packed.writing.projection import Projection
from touchstone.packed.writing.rules import NEUTRAL, Rules, rules_of
from touchstone.packed.writing.vocabulary_scores import BLOCK, best_of
from touchstone.pipelines.seq2seq import generate

VOCABULARY, END, PAD, START = 2 * BLOCK + 88, 0, 1, 2  # two blocks and a part of one
ENDS = [END, *range(50, 110)]  # so many that untrained models write some of them, sooner or later
LENGTHS = [5, 1, 30, 17, 30, 9]
STEPS = 12
BART = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 40,
    "d_model": 16,
    **{f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in
       {"layers": 2, "attention_heads": 2, "ffn_dim": 24}.items()},
    "init_std": 0.4,  # large: logits lie further apart than rounding can move them
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
    """Within, the model's own `generate` must not be asked."""

    def refuse(**inputs: Any) -> None:
        raise AssertionError("the model's own generate was asked")

    wrapped = Unpadded(model)
    model.generate = refuse
    try:
        yield wrapped
    finally:
        del model.generate
        wrapped.restore()


def both(model: Any, config: GenerationConfig, lengths: list[int] = LENGTHS) -> tuple[torch.Tensor, torch.Tensor]:
    """What `generate` writes, and what is written without padding.

    Beams in float64: among a dozen steps' hundreds of pairs of beams some are as close as rounding in float32, and
    which of them goes on decides on all that follows.
    """
    inputs = batch(lengths)
    model = model.to(torch.float32 if config.num_beams == 1 else torch.float64)
    expected = model.generate(**inputs, generation_config=config)
    with without_padding(model) as wrapped:
        return expected, wrapped.generate(**inputs, generation_config=config)


def ends(ids: torch.Tensor) -> list[int | None]:
    """Where each row has the first of `ENDS`."""
    return [next((place for place, token in enumerate(row) if token in ENDS), None) for row in ids[:, 1:].tolist()]


# The same tokens ------------------------------------------------------------------------------------------------------


@every_width
@every_model
def test_tokens_are_those_of_generate(name: str, beams: int) -> None:
    model = model_of(name)
    expected, got = both(model, settings(beams, eos_token_id=ENDS))
    assert expected.tolist() == got.tolist()


@every_width
def test_rows_that_end_at_different_steps_leave_without_changing_the_others(
    beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU as soon as it pays; on a GPU at intervals, which is tried here, too."""
    found: list[int | None] = []
    for seed in range(6):
        for interval in (1, 5):
            monkeypatch.setattr(writing, "interval_on", lambda device, interval=interval: interval)
            expected, got = both(model_of("marian", seed=seed), settings(beams, eos_token_id=ENDS))
            assert expected.tolist() == got.tolist(), f"seed {seed}, rows leave every {interval} steps"
        found += ends(expected)
    assert None in found, "no row went on to the last step"
    assert len({place for place in found if place is not None}) > 1, "the rows end at the same steps"


@pytest.mark.parametrize("interval", [1, 5])
def test_rows_that_have_ended_are_computed_no_more(interval: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "interval_on", lambda device: interval)
    sizes: list[int] = []
    step = Decoder.step

    def watched(self: Decoder, ids: torch.Tensor, place: int) -> torch.Tensor:
        sizes.append(len(ids))
        return step(self, ids, place)

    monkeypatch.setattr(Decoder, "step", watched)
    for seed in range(6):
        sizes.clear()
        _, got = both(model_of("marian", seed=seed), settings(eos_token_id=ENDS))
        last = [STEPS - 1 if place is None else place for place in ends(got)]
        # A row is there until the next look after its last token.
        looks = [place for place in range(STEPS) if place % interval == interval - 1]
        until = [min([look for look in looks if look >= place], default=STEPS - 1) for place in last]
        steps = max(until) + 1
        assert [sum(place <= leaves for leaves in until) for place in range(steps)] == sizes


@every_width
@pytest.mark.parametrize("name", ["marian", "t5"])
def test_what_a_gpu_does_writes_the_same(name: str, beams: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried on a CPU: torch's own attention, and its masks in bfloat16."""
    monkeypatch.setattr(decoder, "has_kernel", lambda device: True)
    monkeypatch.setattr(writing, "interval_on", lambda device: 5)
    expected, got = both(model_of(name), settings(beams, eos_token_id=ENDS))
    assert expected.tolist() == got.tolist()
    with without_padding(model_of(name).bfloat16()) as wrapped:
        written = wrapped.generate(**batch(), generation_config=settings(beams))
    assert set(written[:, 0].tolist()) == {START}
    assert 0 <= int(written.min()) <= int(written.max()) < VOCABULARY


@every_width
@pytest.mark.parametrize("name", ["marian", "t5"])
@pytest.mark.parametrize("steps", [1, 2])
def test_so_few_steps_are_right(name: str, beams: int, steps: int) -> None:
    expected, got = both(model_of(name), settings(beams, steps))
    assert (len(LENGTHS), 1 + steps) == expected.shape
    assert expected.tolist() == got.tolist()


@every_width
@pytest.mark.parametrize("lengths", [[7, 7], [1]])
def test_sources_without_padding_are_right(beams: int, lengths: list[int]) -> None:
    expected, got = both(model_of("marian"), settings(beams), lengths)
    assert expected.tolist() == got.tolist()


OTHERS: list[dict[str, Any]] = [
    {"bad_words_ids": [[PAD], [7], [END]]},  # the end is no bad word to generate
    {"bad_words_ids": [[PAD]] + [[i] for i in range(100, 400)], "renormalize_logits": True},
    {"bad_words_ids": [[i] for i in range(100, 400)]},
    {"suppress_tokens": [END, *range(4, 300)]},  # none ends
    {"forced_eos_token_id": END},
    {"forced_bos_token_id": 9},
    {"forced_bos_token_id": 9, "max_new_tokens": 1, "forced_eos_token_id": [END]},
    {"forced_bos_token_id": 9, "forced_eos_token_id": 60, "eos_token_id": ENDS, "renormalize_logits": True},
    {"eos_token_id": ENDS, "length_penalty": 0.3},
    {"eos_token_id": ENDS, "length_penalty": -1.0},
    {"eos_token_id": ENDS, "pad_token_id": 0},
    {"decoder_start_token_id": 11},
    {"max_length": 5, "temperature": 0.5, "top_k": 3, "min_length": 0},  # nothing of it counts here
]


@every_width
@pytest.mark.parametrize("others", OTHERS, ids=lambda others: ",".join(others))
@pytest.mark.parametrize("whose", ["given", "own"])
def test_settings_mean_what_they_mean_to_generate(whose: str, others: dict[str, Any], beams: int) -> None:
    model: Any = model_of("marian")
    config = settings(beams, **(others if whose == "given" else {}))
    if whose == "own":
        model.generation_config.update(**others)
        for name in others:  # a setting of the model's own counts where none is given
            setattr(config, name, None)
        config.max_new_tokens = others.get("max_new_tokens", STEPS)
    expected, got = both(model, config)
    assert expected.tolist() == got.tolist()


def test_in_bfloat16_each_token_is_the_likeliest_up_to_rounding() -> None:
    """Beside it, the same rounded weights in float32, with padding."""
    for name in ("marian", "t5"):
        model: Any = model_of(name).bfloat16()
        with without_padding(model) as wrapped:
            inputs = batch()
            got = wrapped.generate(**inputs, generation_config=settings(suppress_tokens=[END]))
        assert (len(LENGTHS), 1 + STEPS) == got.shape
        logits = model.float()(**inputs, decoder_input_ids=got[:, :-1]).logits.detach()
        logits[..., END] = -torch.inf
        best, chosen = logits.amax(-1), logits.gather(-1, got[:, 1:, None])[..., 0]
        # Eight bits a number, through two layers: 3% of the largest. One in ten may be another token, for two that are
        # as close; of tokens by chance one in six hundred would be right.
        assert ((best - chosen) / best.abs()).max() < 0.03
        assert (best == chosen).float().mean() > 0.9


# What the model's own generate has to write ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_a_setting_that_does_something_is_left_to_generate(name: str) -> None:
    neutral = GenerationConfig(**{name: NEUTRAL[name]})
    assert isinstance(rules_of(settings(decoder_start_token_id=START), own=neutral, vocabulary=VOCABULARY), Rules)
    does = GenerationConfig()
    setattr(does, name, True if NEUTRAL[name] is False else NEUTRAL[name] + 1)
    assert rules_of(settings(decoder_start_token_id=START), own=does, vocabulary=VOCABULARY) is None


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
def test_what_is_not_followed_is_left_to_generate(others: dict[str, Any]) -> None:
    config = settings(decoder_start_token_id=START)
    assert rules_of(config, own=GenerationConfig(), vocabulary=VOCABULARY) is not None
    for name, value in others.items():
        setattr(config, name, value)
    assert rules_of(config, own=GenerationConfig(), vocabulary=VOCABULARY) is None


def test_generate_writes_where_it_has_to() -> None:
    class Other(MarianMTModel):
        """May compute anything."""

    config: Any = transformers.MarianConfig(**MODELS["marian"][1])
    torch.manual_seed(0)
    other = Other(config).eval()
    assert family_of(other) is None
    for model, asked in ((other, settings()), (model_of("marian"), settings(no_repeat_ngram_size=1))):
        inputs = batch()
        expected = model.generate(**inputs, generation_config=asked)  # type: ignore[operator]
        wrapped = Unpadded(model)
        assert expected.tolist() == wrapped.generate(**inputs, generation_config=asked).tolist()


def test_every_known_architecture_is_tested() -> None:
    assert {type(model_of(name)) for name in MODELS} == set(KNOWN)


# Parts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, 9])
def test_the_best_of_blocks_are_the_best_of_all(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores = torch.randn(6, 3 * BLOCK, generator=generator).log_softmax(-1)
        scores[:, -40:] = -torch.inf
        before = torch.randn(2, 3, generator=generator)
        found, beams, tokens = best_of(scores.clone(), before=before, count=count)
        whole = (scores.view(2, 3, -1) + before[:, :, None]).flatten(1)
        values, places = whole.topk(count)
        assert values.tolist() == found.tolist()
        assert places.tolist() == (beams * 3 * BLOCK + tokens).tolist()


@pytest.mark.parametrize("reordered", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_a_projection_is_the_linear_layer(reordered: bool, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(50, 24).bfloat16(), torch.randn(50).bfloat16() if biased else None
    if reordered and not projection.can_be_reordered(weight):
        pytest.skip("this build of torch does not reorder weights")
    monkeypatch.setattr(projection, "can_be_reordered", lambda weight: reordered)
    project = Projection(weight, bias, rows=8)
    for rows in (8, 1, 3):
        x = torch.randn(rows, 24).bfloat16()
        # The sums are in float32, whatever their order; what is rounded may differ by one bit in eight.
        torch.testing.assert_close(project(x), linear(x, weight, bias), rtol=2**-7, atol=1e-3)


def test_a_pipeline_has_the_same_texts_written_without_padding() -> None:
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
