"""The translation and summarization pipelines: batches, loss, generated texts and scores."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, Literal

import pytest
import torch

from tests.support.tiny_pipelines import (
    batch_of,
    column,
    scores_by_name,
    tiny_summarization,
    tiny_translation,
    untrained,
)
from tests.support.tiny_seq2seq_source import TinyPairs, tiny_tokenizer
from touchstone.engines import engine_names, load_engine
from touchstone.engines.training import Execution, Recipe
from touchstone.pipelines.seq2seq import Seq2Seq, TextPrediction
from touchstone.sources.source import SourceError
from touchstone.stages import bleu, rouge

IGNORED, END, PAD = -100, 0, 2
Architecture = Literal["marian", "t5"]
ARCHITECTURES: tuple[Architecture, ...] = ("marian", "t5")


def perfect(pipeline: Seq2Seq) -> list[TextPrediction]:
    _, targets = pipeline.texts("validation")
    labels = column(pipeline, "validation", "labels")
    return [TextPrediction(text, len(row), 0.5 * len(row), len(row)) for text, row in zip(targets, labels, strict=True)]


# Data -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [4, 12])
def test_columns_have_the_tokens_of_both_texts_with_the_end_token_even_if_cut(limit: int) -> None:
    pipeline = tiny_translation(max_length=limit)
    tokenizer = tiny_tokenizer()
    cut = 0
    for row, (source, target) in enumerate(zip(*pipeline.texts("train"), strict=True)):
        for name, text in (("input_ids", source), ("labels", target)):
            whole = tokenizer(text)["input_ids"]
            expected = whole if len(whole) <= limit else [*whole[: limit - 1], END]
            assert column(pipeline, "train", name)[row].tolist() == expected
            cut += len(whole) > limit
    assert (cut > 0) == (limit == 4)


def test_columns_have_the_prefix_before_documents_but_not_summaries() -> None:
    plain, prefixed = tiny_summarization(), tiny_summarization(prefix="sum : ")
    start = tiny_tokenizer()("sum :", add_special_tokens=False)["input_ids"]
    for row in range(5):
        expected = [*start, *column(plain, "train", "input_ids")[row].tolist()]
        assert column(prefixed, "train", "input_ids")[row].tolist() == expected
    assert column(plain, "train", "labels") == column(prefixed, "train", "labels")


def test_collate_makes_decoder_inputs_and_pads_labels_to_their_own_width() -> None:
    pipeline = tiny_summarization()
    chosen = [0, 3, 1]
    batch = batch_of(pipeline, chosen)
    sources = [column(pipeline, "train", "input_ids")[i].tolist() for i in chosen]
    targets = [column(pipeline, "train", "labels")[i].tolist() for i in chosen]
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        width, label_width = max(map(len, sources)), max(map(len, targets))
        assert batch["input_ids"][row].tolist() == source + [PAD] * (width - len(source))
        assert batch["attention_mask"][row].tolist() == [1] * len(source) + [0] * (width - len(source))
        assert batch["labels"][row].tolist() == target + [IGNORED] * (label_width - len(target))
        assert batch["decoder_input_ids"][row].tolist() == ([PAD, *target] + [PAD] * label_width)[:label_width]
    tokens = sum(map(len, sources)) + sum(map(len, targets))
    assert batch["size"][:3] == (3, sum(map(len, targets)), tokens)
    assert batch["size"].padded_tokens == batch["input_ids"].numel() + batch["labels"].numel()


def test_columns_refuse_data_and_checkpoints_that_cannot_be_trained() -> None:
    with pytest.raises(SourceError, match=r"no </s> at the end of target 0 of split 'train'"):
        tiny_translation(TinyPairs(ends=False)).columns("train")
    with pytest.raises(SourceError, match="split 'train' has no rows"):
        tiny_translation(TinyPairs(train=0)).columns("train")
    with pytest.raises(SourceError, match=r"has 8 positions, but the options need 13: lower .* target \(12\)"):
        _ = tiny_translation(TinyPairs(positions=8)).start_id
    with pytest.raises(SourceError, match="T5Config is not an encoder-decoder config with decoder_start_token_id: use"):
        _ = tiny_translation(TinyPairs(architecture="t5", decoder_start_token_id=None)).start_id


# The model ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_equals_that_of_the_models_own_head(architecture: Architecture) -> None:
    pipeline = tiny_translation(TinyPairs(architecture=architecture))
    model = untrained(pipeline)
    batch = batch_of(pipeline, range(4))
    own = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss

    # Two float32 sums of about twenty terms in another order.
    assert pipeline.loss(model, batch).item() / batch["size"].items == pytest.approx(own.item(), rel=1e-5)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_predict_gives_the_same_for_a_batch_as_for_single_examples(architecture: Architecture, num_beams: int) -> None:
    pipeline = tiny_translation(TinyPairs(architecture=architecture, validation=8), num_beams=num_beams)
    model = trained(architecture)
    with torch.inference_mode():
        together = pipeline.predict(model, batch_of(pipeline, range(8), split="validation"))
        alone = [pipeline.predict(model, batch_of(pipeline, [i], split="validation"))[0] for i in range(8)]

    assert [row.text for row in together] == [row.text for row in alone]
    assert [(row.length, row.items) for row in together] == [(row.length, row.items) for row in alone]
    assert len({row.text for row in alone}) > 1  # the texts depend on the sources
    for expected, got in zip(alone, together, strict=True):
        # A sum of about 7 float32 terms of about 1 nat, each with a relative rounding error of 2e-7.
        assert got.loss == pytest.approx(expected.loss, abs=1e-4)


@cache
def trained(architecture: Architecture) -> torch.nn.Module:
    pipeline = tiny_translation(TinyPairs(architecture=architecture, validation=1))
    recipe = Recipe(epochs=6, batch_size=8, learning_rate=1e-2)
    run = load_engine("loop").train(pipeline, recipe=recipe, execution=Execution(seed=0))
    assert run.model is not None
    return run.model.eval()


def test_generate_stops_after_max_new_tokens() -> None:
    pipeline = tiny_translation(max_new_tokens=3)
    model = untrained(pipeline)
    with torch.no_grad():
        model.get_output_embeddings().weight[END] = 0.0
        model.final_logits_bias[0, END] = -1e4  # the end token is never the most likely
    with torch.inference_mode():
        predictions = pipeline.predict(model, batch_of(pipeline, [0, 1], split="validation"))
    assert [row.length for row in predictions] == [3, 3]
    assert all(len(row.text.split()) <= 3 for row in predictions)


def test_sample_outputs_leave_the_model_unchanged() -> None:
    pipeline = tiny_translation()
    model = untrained(pipeline).train()
    before = (model.config.to_dict(), model.generation_config.to_dict())
    first, second = pipeline.sample_outputs(model), pipeline.sample_outputs(model)
    assert first == second  # no dropout
    assert model.training
    assert all(module.training for module in model.modules())
    assert (model.config.to_dict(), model.generation_config.to_dict()) == before


def test_loss_keeps_no_cache() -> None:
    pipeline = tiny_translation()
    model = pipeline.model()
    seen: list[Any] = []
    model.register_forward_hook(lambda *call: seen.append(call[3].past_key_values), with_kwargs=True)
    pipeline.loss(model, batch_of(pipeline, [0, 1]))
    assert seen == [None]


def test_sample_outputs_warn_about_nothing(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = tiny_translation(num_beams=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline.sample_outputs(untrained(pipeline))
    assert [record.message for record in caplog.records] == []


def test_generation_config_sets_the_search_and_the_special_tokens() -> None:
    config = tiny_translation(num_beams=4, max_new_tokens=9).generation_config
    assert (config.num_beams, config.max_new_tokens, config.do_sample) == (4, 9, False)
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (PAD, END, PAD)


@pytest.mark.parametrize("make", [tiny_translation, tiny_summarization])
def test_sample_outputs_show_source_output_and_reference(make: Any) -> None:
    pipeline = make()
    lines = pipeline.sample_outputs(untrained(pipeline))
    sources, targets = pipeline.texts("validation")
    assert [line.split()[0] for line in lines] == ["source:", "output:", "reference:"] * 2
    assert lines[0] == f"source:    {sources[0]}"
    assert lines[5] == f"reference: {targets[1]}"


# Scores ---------------------------------------------------------------------------------------------------------------


def test_score_of_perfect_translations_is_100() -> None:
    pipeline = tiny_translation()
    result = scores_by_name(pipeline, perfect(pipeline))
    assert list(result) == ["bleu", "loss", "gen_len"]
    assert result["bleu"].value == pytest.approx(100.0)
    assert (result["bleu"].lower, result["bleu"].upper, result["bleu"].higher_is_better) == (0.0, 100.0, True)
    lengths = column(pipeline, "validation", "labels").lengths
    assert (result["loss"].value, result["gen_len"].value) == (0.5, lengths.mean())
    assert (result["bleu"].n, result["loss"].n) == (13, lengths.sum())


def test_score_of_summaries_includes_the_lead_3_baseline() -> None:
    pipeline = tiny_summarization()
    result = scores_by_name(pipeline, perfect(pipeline))
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    assert list(result) == ["rouge1", "loss", *names[1:], *(f"lead3_{name}" for name in names), "gen_len"]
    documents, summaries = pipeline.texts("validation")
    # A document has four sentences, each of which ends in " .".
    baseline = ["\n".join(f"{part.strip()} ." for part in text.split(" .")[:3]) for text in documents]
    expected = rouge(baseline, references=summaries)
    for name in names:
        assert result[name].value == pytest.approx(100.0)
        assert result[f"lead3_{name}"].value == pytest.approx(expected[name])
        assert 0 < result[f"lead3_{name}"].value < 100


def test_score_counts_truncated_text_as_missed_unless_labels_are_the_references() -> None:
    text = tiny_translation(max_length=6)
    labels = tiny_translation(max_length=6, references="labels")
    tokenizer = tiny_tokenizer()
    cut = [
        TextPrediction(tokenizer.decode(row, skip_special_tokens=True), len(row), 0.0, len(row))
        for row in column(text, "validation", "labels")
    ]
    assert scores_by_name(text, cut)["bleu"].value == pytest.approx(
        bleu([row.text for row in cut], references=text.texts("validation")[1])["bleu"]
    )
    assert scores_by_name(text, cut)["bleu"].value < 90
    assert scores_by_name(labels, cut)["bleu"].value == pytest.approx(100.0)


def test_score_weights_the_loss_by_tokens_and_trainer_loss_by_batches() -> None:
    pipeline = tiny_translation(loss_batches=5)
    predictions = perfect(pipeline)
    predictions[0] = predictions[0]._replace(loss=predictions[0].loss + 7.0)
    batches = [predictions[:5], predictions[5:10], predictions[10:]]
    means = [sum(p.loss for p in batch) / sum(p.items for p in batch) for batch in batches]
    result = scores_by_name(pipeline, predictions)
    assert result["loss"].value == pytest.approx(0.5 + 7.0 / sum(p.items for p in predictions))
    assert result["trainer_loss"].value == pytest.approx((5 * means[0] + 5 * means[1] + 3 * means[2]) / 13)


def test_signatures_differ_between_settings() -> None:
    variants = [{}, {"num_beams": 2}, {"max_new_tokens": 3}, {"references": "labels"}, {"max_length": 11}]
    signatures = set()
    for options in variants:
        pipeline = tiny_translation(**options)
        signatures.add(scores_by_name(pipeline, perfect(pipeline))["bleu"].signature)
    assert len(signatures) == len(variants)


def test_score_refuses_predictions_that_do_not_match_the_examples() -> None:
    pipeline = tiny_translation()
    with pytest.raises(ValueError, match="12 predictions for 13"):
        pipeline.score(perfect(pipeline)[:-1])


# Training and use -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", engine_names())
@pytest.mark.parametrize("make", [tiny_translation, tiny_summarization])
def test_pipelines_train_on_every_engine(engine: str, make: Any) -> None:
    pipeline = make(TinyPairs(train=64))
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=1e-2)
    run = load_engine(engine).train(pipeline, recipe=recipe, execution=Execution(seed=1, eval_batch_size=4))
    losses = [{s.name: s.value for s in evaluation.scores}["loss"] for evaluation in run.evaluations]
    assert losses[-1] < losses[0]
    assert run.sample_outputs["before"] != run.sample_outputs["after"]


def test_usage_cannot_end_the_code_block_of_a_model_card() -> None:
    pipeline = tiny_translation(TinyPairs(extra=(["one ``` two\n---"], ["un ``` deux"])))
    text = "\n".join(pipeline.usage("me/tiny"))
    assert "```" not in text
    assert "\n---" not in text
    compile(text, "usage", "exec")


def test_usage_runs(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = tiny_translation(num_beams=2)
    model = untrained(pipeline)
    model.save_pretrained(tmp_path)
    pipeline.tokenizer.save_pretrained(tmp_path)
    exec("\n".join(pipeline.usage(str(tmp_path))), {})
    with torch.inference_mode():
        expected = pipeline.predict(model, batch_of(pipeline, [0], split="validation"))[0].text
    assert capsys.readouterr().out.strip() == expected
