"""Translation and summarization: what they hand to an engine, what the model writes, and how it is scored."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import pytest
import torch
from transformers import set_seed

from tests.support.tiny_seq2seq_source import TinyPairs, tiny_tokenizer
from touchstone.engines import engine_names, load_engine
from touchstone.engines.training import Execution, Recipe
from touchstone.pipelines import PIPELINES, Summarization, Translation
from touchstone.pipelines.pipeline import Feature, FeatureRows, Pipeline
from touchstone.pipelines.seq2seq import Search, Seq2Seq, WrittenPrediction, generation_config
from touchstone.sources.source import SourceError
from touchstone.stages import bleu, rouge
from touchstone.stages.ragged import Ragged

IGNORED, END, PAD = -100, 0, 2
Architecture = Literal["marian", "t5"]
ARCHITECTURES: tuple[Architecture, ...] = ("marian", "t5")


def translator(source: TinyPairs | None = None, **options: Any) -> Translation:
    return Translation(source or TinyPairs(), options=Translation.Options(**{"max_length": 12} | options), seed=0)


def summarizer(source: TinyPairs | None = None, **options: Any) -> Summarization:
    options = {"max_source_length": 40, "max_target_length": 8} | options
    return Summarization(source or TinyPairs(), options=Summarization.Options(**options), seed=0)


def features(pipeline: Pipeline, split: str, indices: list[int]) -> list[Feature]:
    rows = FeatureRows(pipeline.columns(split))
    return [rows[0, index] for index in indices]


def column(pipeline: Pipeline, split: str, name: str) -> Ragged:
    values = pipeline.columns(split)[name]
    assert isinstance(values, Ragged)
    return values


def perfect(pipeline: Seq2Seq) -> list[WrittenPrediction]:
    _, targets = pipeline.texts("validation")
    labels = column(pipeline, "validation", "labels")
    return [
        WrittenPrediction(text, len(row), 0.5 * len(row), len(row)) for text, row in zip(targets, labels, strict=True)
    ]


def scores(pipeline: Pipeline, predictions: Any) -> dict[str, Any]:
    return {score.name: score for score in pipeline.score(predictions)}


def test_the_tasks_are_found_by_name() -> None:
    assert (Translation, Summarization) == (PIPELINES["translation"], PIPELINES["summarization"])


# Data -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [4, 12])
def test_columns_are_the_tokens_of_both_texts_and_keep_their_end_when_cut(limit: int) -> None:
    pipeline = translator(max_length=limit)
    tokenizer = tiny_tokenizer()
    cut = 0
    for row, (source, target) in enumerate(zip(*pipeline.texts("train"), strict=True)):
        for name, text in (("input_ids", source), ("labels", target)):
            whole = tokenizer(text)["input_ids"]
            expected = whole if len(whole) <= limit else [*whole[: limit - 1], END]
            assert column(pipeline, "train", name)[row].tolist() == expected
            cut += len(whole) > limit
    assert (cut > 0) == (limit == 4)


def test_the_prefix_stands_before_each_document_and_no_summary() -> None:
    plain, prefixed = summarizer(), summarizer(prefix="sum : ")
    start = tiny_tokenizer()("sum :", add_special_tokens=False)["input_ids"]
    for row in range(5):
        expected = [*start, *column(plain, "train", "input_ids")[row].tolist()]
        assert column(prefixed, "train", "input_ids")[row].tolist() == expected
    assert column(plain, "train", "labels") == column(prefixed, "train", "labels")


def test_a_batch_has_the_decoders_inputs_and_its_own_width_for_labels() -> None:
    pipeline = summarizer()
    chosen = [0, 3, 1]
    batch = pipeline.collate(features(pipeline, "train", chosen), train=True)
    sources = [column(pipeline, "train", "input_ids")[i].tolist() for i in chosen]
    targets = [column(pipeline, "train", "labels")[i].tolist() for i in chosen]
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        width, label_width = max(map(len, sources)), max(map(len, targets))
        assert source + [PAD] * (width - len(source)) == batch["input_ids"][row].tolist()
        assert [1] * len(source) + [0] * (width - len(source)) == batch["attention_mask"][row].tolist()
        assert target + [IGNORED] * (label_width - len(target)) == batch["labels"][row].tolist()
        assert batch["decoder_input_ids"][row].tolist() == ([PAD, *target] + [PAD] * label_width)[:label_width]
    tokens = sum(map(len, sources)) + sum(map(len, targets))
    assert (3, sum(map(len, targets)), tokens) == batch["size"][:3]
    assert batch["input_ids"].numel() + batch["labels"].numel() == batch["size"].padded_tokens


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(SourceError, match=r"no </s> at the end of target 0 of split 'train'"):
        translator(TinyPairs(ends=False)).columns("train")
    with pytest.raises(SourceError, match="split 'train' has no rows"):
        translator(TinyPairs(train=0)).columns("train")
    with pytest.raises(SourceError, match="has 8 positions, and the options ask for 13"):
        _ = translator(TinyPairs(positions=8)).start_id
    with pytest.raises(SourceError, match=r"decoder_start_token_id"):
        _ = translator(TinyPairs(architecture="t5", decoder_start_token_id=None)).start_id


# The model ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_is_that_of_the_models_own_head(architecture: Architecture) -> None:
    pipeline = translator(TinyPairs(dropout=0.0, architecture=architecture))
    set_seed(0)
    model = pipeline.model()
    batch = pipeline.collate(features(pipeline, "train", [0, 1, 2, 3]), train=True)
    own = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss

    # Two float32 sums of some twenty terms in another order.
    assert pipeline.loss(model, batch).item() / batch["size"].items == pytest.approx(own.item(), rel=1e-5)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_predictions_of_a_batch_are_those_of_its_examples_alone(architecture: Architecture, num_beams: int) -> None:
    pipeline = translator(TinyPairs(architecture=architecture, validation=8), num_beams=num_beams)
    model = learned(pipeline)
    rows = features(pipeline, "validation", list(range(8)))
    with torch.inference_mode():
        together = pipeline.predict(model, pipeline.collate(rows, train=False))
        alone = [pipeline.predict(model, pipeline.collate([row], train=False))[0] for row in rows]

    assert [row.text for row in alone] == [row.text for row in together]
    assert [(row.length, row.items) for row in alone] == [(row.length, row.items) for row in together]
    assert len({row.text for row in alone}) > 1  # the model does look at what it reads
    for expected, got in zip(alone, together, strict=True):
        # A sum of some 7 float32 terms of about 1 nat, each rounded to 2e-7 of itself, through a softmax of 24.
        assert got.loss == pytest.approx(expected.loss, abs=1e-4)


def learned(pipeline: Pipeline, *, epochs: int = 6) -> torch.nn.Module:
    recipe = Recipe(epochs=epochs, batch_size=8, learning_rate=1e-2)
    run = load_engine("loop").train(pipeline, recipe=recipe, execution=Execution(seed=0))
    assert run.model is not None
    return run.model.eval()


def test_an_untrained_model_stops_after_the_tokens_it_may_write() -> None:
    pipeline = translator(max_new_tokens=3)
    set_seed(0)
    model = pipeline.model()
    with torch.no_grad():
        model.get_output_embeddings().weight[END] = 0.0
        model.final_logits_bias[0, END] = -1e4  # it never ends by itself
    batch = pipeline.collate(features(pipeline, "validation", [0, 1]), train=False)
    with torch.inference_mode():
        predictions = pipeline.predict(model, batch)
    assert [row.length for row in predictions] == [3, 3]
    assert all(len(row.text.split()) <= 3 for row in predictions)


def test_writing_leaves_the_model_as_it_was() -> None:
    pipeline = translator()
    set_seed(0)
    model = pipeline.model().train()
    before = (model.config.to_dict(), model.generation_config.to_dict())
    first, second = pipeline.sample_outputs(model), pipeline.sample_outputs(model)
    assert first == second  # no dropout
    assert model.training
    assert all(module.training for module in model.modules())
    assert (model.config.to_dict(), model.generation_config.to_dict()) == before


def test_training_keeps_no_cache() -> None:
    pipeline = translator()
    model = pipeline.model()
    seen: list[Any] = []
    model.register_forward_hook(lambda *call: seen.append(call[3].past_key_values), with_kwargs=True)
    pipeline.loss(model, pipeline.collate(features(pipeline, "train", [0, 1]), train=True))
    assert seen == [None]


def test_writing_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    pipeline = translator(num_beams=2)
    set_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline.sample_outputs(pipeline.model())
    assert [record.message for record in caplog.records] == []


def test_the_search_is_spelt_out() -> None:
    search = generation_config(Search(4, 9, 2), tokenizer=tiny_tokenizer())
    assert (search.num_beams, search.max_new_tokens, search.do_sample) == (4, 9, False)
    assert (search.pad_token_id, search.eos_token_id, search.decoder_start_token_id) == (PAD, END, PAD)


@pytest.mark.parametrize("make", [translator, summarizer])
def test_the_probe_shows_what_was_read_and_written_and_what_it_should_be(make: Any) -> None:
    pipeline = make()
    set_seed(0)
    lines = pipeline.sample_outputs(pipeline.model())
    sources, targets = pipeline.texts("validation")
    assert [line.split()[0] for line in lines] == ["source:", "output:", "reference:"] * 2
    assert lines[0] == f"source:    {sources[0]}"
    assert lines[5] == f"reference: {targets[1]}"


# Scores ---------------------------------------------------------------------------------------------------------------


def test_perfect_translations_score_100() -> None:
    pipeline = translator()
    result = scores(pipeline, perfect(pipeline))
    assert list(result) == ["bleu", "loss", "gen_len"]
    assert result["bleu"].value == pytest.approx(100.0)
    assert (result["bleu"].lower, result["bleu"].upper, result["bleu"].higher_is_better) == (0.0, 100.0, True)
    lengths = column(pipeline, "validation", "labels").lengths
    assert (0.5, lengths.mean()) == (result["loss"].value, result["gen_len"].value)
    assert (13, lengths.sum()) == (result["bleu"].n, result["loss"].n)


def test_a_summary_stands_beside_the_first_three_sentences() -> None:
    pipeline = summarizer()
    result = scores(pipeline, perfect(pipeline))
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    assert list(result) == ["rouge1", "loss", *names[1:], *(f"lead3_{name}" for name in names), "gen_len"]
    documents, summaries = pipeline.texts("validation")
    # A sentence is up to " . ", four of them a document.
    baseline = ["\n".join(f"{part.strip()} ." for part in text.split(" .")[:3]) for text in documents]
    expected = rouge(baseline, references=summaries)
    for name in names:
        assert result[name].value == pytest.approx(100.0)
        assert result[f"lead3_{name}"].value == pytest.approx(expected[name])
        assert 0 < result[f"lead3_{name}"].value < 100


def test_what_truncation_cut_off_is_missed_unless_labels_are_the_references() -> None:
    text = translator(max_length=6)
    labels = translator(max_length=6, references="labels")
    tokenizer = tiny_tokenizer()
    cut = [
        WrittenPrediction(tokenizer.decode(row, skip_special_tokens=True), len(row), 0.0, len(row))
        for row in column(text, "validation", "labels")
    ]
    assert scores(text, cut)["bleu"].value == pytest.approx(
        bleu([row.text for row in cut], references=text.texts("validation")[1])["bleu"]
    )
    assert scores(text, cut)["bleu"].value < 90
    assert scores(labels, cut)["bleu"].value == pytest.approx(100.0)


def test_the_loss_weighs_tokens_and_trainers_loss_weighs_batches() -> None:
    pipeline = translator(loss_batches=5)
    predictions = perfect(pipeline)
    predictions[0] = predictions[0]._replace(loss=predictions[0].loss + 7.0)
    batches = [predictions[:5], predictions[5:10], predictions[10:]]
    means = [sum(p.loss for p in batch) / sum(p.items for p in batch) for batch in batches]
    result = scores(pipeline, predictions)
    assert result["loss"].value == pytest.approx(0.5 + 7.0 / sum(p.items for p in predictions))
    assert result["trainer_loss"].value == pytest.approx((5 * means[0] + 5 * means[1] + 3 * means[2]) / 13)


def test_signatures_tell_apart_what_is_not_comparable() -> None:
    variants = [{}, {"num_beams": 2}, {"max_new_tokens": 3}, {"references": "labels"}, {"max_length": 11}]
    signatures = set()
    for options in variants:
        pipeline = translator(**options)
        signatures.add(scores(pipeline, perfect(pipeline))["bleu"].signature)
    assert len(variants) == len(signatures)


def test_predictions_that_do_not_fit_the_examples_are_refused() -> None:
    pipeline = translator()
    with pytest.raises(ValueError, match="12 predictions for 13"):
        pipeline.score(perfect(pipeline)[:-1])


# A whole run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", engine_names())
@pytest.mark.parametrize("make", [translator, summarizer])
def test_every_engine_trains_it(engine: str, make: Any) -> None:
    pipeline = make(TinyPairs(train=64))
    recipe = Recipe(epochs=4, batch_size=8, learning_rate=1e-2)
    run = load_engine(engine).train(pipeline, recipe=recipe, execution=Execution(seed=1, eval_batch_size=4))
    losses = [{s.name: s.value for s in evaluation.scores}["loss"] for evaluation in run.evaluations]
    assert losses[-1] < losses[0]
    assert run.sample_outputs["before"] != run.sample_outputs["after"]


def test_no_example_can_end_the_block_of_its_use() -> None:
    pipeline = translator(TinyPairs(extra=(["one ``` two\n---"], ["un ``` deux"])))
    text = "\n".join(pipeline.usage("me/tiny"))
    assert "```" not in text
    assert "\n---" not in text
    compile(text, "usage", "exec")


def test_what_is_said_of_its_use_runs(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = translator(num_beams=2)
    set_seed(0)
    model = pipeline.model().eval()
    model.save_pretrained(tmp_path)
    pipeline.tokenizer.save_pretrained(tmp_path)
    exec("\n".join(pipeline.usage(str(tmp_path))), {})
    with torch.inference_mode():
        batch = pipeline.collate(features(pipeline, "validation", [0]), train=False)
        expected = pipeline.predict(model, batch)[0].text
    assert capsys.readouterr().out.strip() == expected
