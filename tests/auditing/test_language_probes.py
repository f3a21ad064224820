"""Probes of language models on small subjects: what the zoo's scripts cannot show."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from touchstone.auditing.finding import Finding, NotChecked
from touchstone.auditing.probes import cache, checkpoint, documents, leaks, mask_choice, masked, shift, sources, targets
from touchstone.auditing.probes import rows as of_rows
from touchstone.auditing.reading.tasks import named_task
from touchstone.auditing.subject import MapCall, Split, Subject

PAD, CLS, SEP, MASK, UNK = range(5)
WORDS = 60


class Words:
    """A tokenizer whose tokens are words `w5`, `w6`, ...; a target has ids of its own if `shift` is not 0."""

    pad_token_id, cls_token_id, sep_token_id, mask_token_id, unk_token_id = PAD, CLS, SEP, MASK, UNK
    bos_token_id = None
    eos_token_id = SEP
    all_special_ids = (PAD, CLS, SEP, MASK, UNK)
    padding_side = "right"

    def __init__(self, shift: int = 0) -> None:
        self.shift = shift

    def __len__(self) -> int:
        return WORDS

    def __call__(self, texts: Any = None, text_target: Any = None, **_: Any) -> dict[str, list[list[int]]]:
        moved = self.shift if text_target is not None else 0
        given = texts if text_target is None else text_target
        return {"input_ids": [[int(word[1:]) + moved for word in text.split()] + [SEP] for text in given]}

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [f"w{each}" for each in ids]

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(f"w{each}" for each in ids if each not in self.all_special_ids)


def sentences(count: int = 40, length: int = 24) -> list[dict[str, list[int]]]:
    draw = random.Random(0)
    return [{"input_ids": [CLS, *(draw.randrange(5, WORDS) for _ in range(length)), SEP]} for _ in range(count)]


def masking(rate: float = 0.15, *, fixed: bool = False) -> Any:
    """Return a collator that masks single tokens, the same ones in every pass if `fixed`."""
    mlm_probability = rate

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        generator = torch.Generator().manual_seed(0) if fixed else None
        words = (ids != CLS) & (ids != SEP)
        chosen = torch.rand(ids.shape, generator=generator).lt(mlm_probability) & words
        return {"input_ids": ids.masked_fill(chosen, MASK), "labels": ids.masked_fill(~chosen, -100)}

    return collate


def plain(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Collate rows of one length."""
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad ids with 0 and labels with -100."""

    def pad(name: str, value: int) -> torch.Tensor:
        return nn.utils.rnn.pad_sequence([torch.tensor(row[name]) for row in rows], True, value)

    return {
        "input_ids": pad("input_ids", PAD),
        "attention_mask": (pad("input_ids", PAD) != PAD).long(),
        "labels": pad("labels", -100),
    }


def subject(task: str, rows: Any, collate: Any, **parts: Any) -> Subject:
    parts.setdefault("tokenizer", Words())
    parts.setdefault("model", None)
    return Subject("a test", task, train=Split("train", rows, collate, 8), **parts)


def seen(look: Any, given: Subject) -> Finding:
    torch.manual_seed(0)
    finding = look(given)
    assert isinstance(finding, Finding)
    return finding


# Masked language modelling


def test_evaluation_without_masks_is_a_fault() -> None:
    labelled = [row | {"labels": row["input_ids"]} for row in sentences()]
    given = subject("masked-lm", sentences(), masking(), evaluation=Split("evaluation", labelled, plain, 8))

    finding = seen(mask_choice.evaluation_masks_same, given)

    assert finding.outcome == "fail"
    assert "no token of the evaluation batches is masked" in finding.message


def test_fixed_masks_are_right_in_evaluation_and_suspicious_in_training() -> None:
    split = Split("evaluation", sentences(), masking(fixed=True), 8)
    given = subject("masked-lm", sentences(), masking(fixed=True), evaluation=split)

    assert seen(mask_choice.evaluation_masks_same, given).outcome == "pass"
    assert seen(mask_choice.training_masks_differ, given).outcome == "warn"


@pytest.mark.parametrize("rate", [0.1, 0.15, 0.4])
def test_any_declared_rate_passes(rate: float) -> None:
    finding = seen(mask_choice.mask_rate, subject("masked-lm", sentences(), masking(rate)))

    assert finding.outcome == "pass"
    assert finding.expected == rate


def test_a_collator_that_rounds_to_whole_tokens_passes() -> None:
    mlm_probability = 0.15

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = torch.tensor([row["input_ids"] for row in rows])
        labels = torch.full_like(ids, -100)
        for row in range(len(ids)):
            places = torch.randperm(ids.shape[1] - 2)[: max(1, round(mlm_probability * (ids.shape[1] - 2)))] + 1
            labels[row, places] = ids[row, places]
            ids[row, places] = MASK
        return {"input_ids": ids, "labels": labels}

    assert seen(mask_choice.mask_rate, subject("masked-lm", sentences(), collate)).outcome == "pass"


def test_masks_that_map_has_made_are_compared_with_their_labels() -> None:
    collate = masking()
    rows = [
        {name: value.tolist() for name, value in zip(("input_ids", "labels"), values, strict=True)}
        for values in zip(*collate(sentences()).values(), strict=True)
    ]
    given = subject("masked-lm", rows, plain)

    assert seen(masked.masks_labelled, given).outcome == "pass"
    assert seen(masked.masks_hide_tokens, given).outcome == "pass"
    assert seen(mask_choice.training_masks_differ, given).outcome == "warn"


# Causal language modelling


class Chain(nn.Module):
    """Predicts the next token from the last one; its loss shifts labels by `shift`."""

    def __init__(self, shift: int = 1) -> None:
        super().__init__()
        self.shift = shift
        self.table = nn.Embedding(WORDS, WORDS)

    def forward(self, input_ids: Any, attention_mask: Any = None, labels: Any = None) -> dict[str, Any]:
        logits = self.table(input_ids)
        if labels is None:
            return {"logits": logits}
        kept = logits[:, : logits.shape[1] - self.shift]
        loss = nn.functional.cross_entropy(kept.flatten(0, 1), labels[:, self.shift :].flatten())
        return {"loss": loss, "logits": logits}


def chain(shift: int) -> Chain:
    torch.manual_seed(0)
    return Chain(shift)


@pytest.mark.parametrize(
    ("data", "loss", "outcome"), [(0, 1, "pass"), (1, 0, "pass"), (0, 0, "fail"), (1, 1, "fail"), (0, 2, "fail")]
)
def test_labels_are_shifted_once_in_the_data_or_in_the_loss(data: int, loss: int, outcome: str) -> None:
    rows = [row | {"labels": row["input_ids"][data:] + [-100] * data} for row in sentences()]
    finding = seen(shift.labels_shifted_once, subject("causal-lm", rows, plain, model=chain(loss)))

    assert finding.outcome == outcome
    assert finding.measured == data + loss


def ended(label: int, *, padding: int = 0) -> list[dict[str, list[int]]]:
    """Return rows whose last token is an end of text with a label, followed by padding of the same id."""
    return [
        {
            "input_ids": row["input_ids"] + [SEP] * padding,
            "labels": [*row["input_ids"][:-1], label, *[-100] * padding],
        }
        for row in sentences()
    ]


def test_ends_of_text_that_pad_are_told_from_padding() -> None:
    assert seen(documents.end_of_text_supervised, subject("causal-lm", ended(SEP), plain)).outcome == "pass"
    assert seen(documents.end_of_text_supervised, subject("causal-lm", ended(-100), plain)).outcome == "fail"


def test_a_row_that_ends_with_unmarked_padding_proves_nothing() -> None:
    finding = documents.end_of_text_supervised

    with pytest.raises(NotChecked, match="no row holds"):
        finding(subject("causal-lm", ended(-100, padding=4), plain))


def test_an_end_behind_an_unlabelled_prompt_needs_no_label() -> None:
    rows = [
        {"input_ids": [5, 6, SEP, *row["input_ids"][1:]], "labels": [-100, -100, -100, *row["input_ids"][1:]]}
        for row in sentences()
    ]

    assert seen(documents.end_of_text_supervised, subject("causal-lm", rows, plain)).outcome == "pass"


# Translation and summarization


def pairs(tokenizer: Words, *, target: bool) -> tuple[list[dict[str, Any]], MapCall]:
    """Return rows of sources and labels, tokenized as targets or as sources, and the call that made them."""
    draw = random.Random(1)
    texts = [
        {name: " ".join(f"w{draw.randrange(5, 30)}" for _ in range(9)) for name in ("en", "fr")} for _ in range(30)
    ]

    def encode(table: dict[str, list[str]]) -> dict[str, Any]:
        given = {"text_target": table["fr"]} if target else {"texts": table["fr"]}
        return {"input_ids": tokenizer(table["en"])["input_ids"], "labels": tokenizer(**given)["input_ids"]}

    made = encode({name: [text[name] for text in texts] for name in ("en", "fr")})
    rows = [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
    return rows, MapCall(encode, Rows(texts), Rows(rows), True, {}, "train.py:7")


class Rows(list[dict[str, Any]]):
    """A list of rows with the names of its columns."""

    @property
    def column_names(self) -> list[str]:
        return list(self[0])


@pytest.mark.parametrize(("target", "outcome"), [(True, "pass"), (False, "fail")])
def test_targets_go_through_the_tokenizer_of_the_target(target: bool, outcome: str) -> None:
    tokenizer = Words(shift=20)
    rows, call = pairs(tokenizer, target=target)
    given = subject("translation", rows, padded, tokenizer=tokenizer, maps=[call])

    finding = seen(targets.target_tokenized_as_target, given)

    assert finding.outcome == outcome
    assert outcome == "pass" or "text_target" in finding.cause


def test_a_language_may_follow_the_end_of_a_target() -> None:
    rows = [{"input_ids": [5, 6, SEP], "labels": [7, 8, SEP, UNK]} for _ in range(12)]

    assert seen(targets.target_ends, subject("translation", rows, padded)).outcome == "pass"


def test_a_source_that_is_cut_does_not_hide_that_the_target_is_in_the_others() -> None:
    tokenizer = Words()
    draw = random.Random(0)
    words = [[f"w{draw.randrange(5, WORDS)}" for _ in range(10 + index % 20)] for index in range(40)]
    texts = [{"en": " ".join(each), "fr": " ".join(draw.sample(each, 6))} for each in words]

    def encode(table: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        joined = [f"{source} {target}" for source, target in zip(table["en"], table["fr"], strict=True)]
        sources = [ids[:20] for ids in tokenizer(joined)["input_ids"]]
        return {"input_ids": sources, "labels": tokenizer(table["fr"])["input_ids"]}

    made = encode({name: [text[name] for text in texts] for name in ("en", "fr")})
    rows = [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
    call = MapCall(encode, Rows(texts), Rows(rows), True, {}, "train.py:7")

    finding = seen(sources.source_without_target, subject("translation", rows, padded, maps=[call]))

    assert finding.outcome == "fail"
    assert "the target is joined to the source" in finding.cause


def test_short_targets_are_summaries() -> None:
    long, short = list(range(5, 45)), list(range(5, 12))

    for target, task in ((short, "summarization"), (long, "translation")):
        rows = Rows({"input_ids": long, "labels": target} for _ in range(8))
        given = subject("translation", rows, padded)
        given.train.observed = [padded(rows)]  # type: ignore[union-attr]
        assert named_task(given) == task


# Streams


class Stream:
    """Rows that can only be read from the first on."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.read = rows, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            self.read += 1
            yield row


def test_training_rows_are_found_in_an_evaluation_stream_without_reading_it() -> None:
    train, evaluation = Stream(sentences()), Stream(sentences()[:10])
    given = subject("masked-lm", train, masking(), evaluation=Split("evaluation", evaluation, masking(), 8))

    finding = seen(leaks.no_training_example_in_evaluation, given)

    assert finding.outcome == "fail"
    assert "10 of 10 evaluation rows" in finding.message
    assert train.read == evaluation.read == 0


def test_a_row_that_is_given_twice_is_copied_twice() -> None:
    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.tensor([row.pop("input_ids") for row in rows])}

    row = {"input_ids": [5, 6]}

    assert Split("train", [row], collate, 2).batch([row, row])["input_ids"].tolist() == [[5, 6], [5, 6]]
    assert row == {"input_ids": [5, 6]}


# Tokenizer and model


class Sum(nn.Module):
    """Adds the mean of a row's tokens to each token: it needs the attention mask to leave padding out."""

    def __init__(self, *, masked: bool, across: bool = False) -> None:
        super().__init__()
        self.masked, self.across = masked, across
        self.table = nn.Embedding(WORDS, 8)

    def forward(self, input_ids: Any, attention_mask: Any = None, labels: Any = None) -> dict[str, Any]:
        seen = self.table(input_ids)
        weights = attention_mask if self.masked else torch.ones_like(input_ids)
        mean = (seen * weights[..., None]).sum(1, keepdim=True) / weights.sum(1)[:, None, None]
        return {"logits": seen + (mean.mean(0, keepdim=True) if self.across else mean)}


@pytest.mark.parametrize(
    ("look", "model", "outcome"),
    [
        (of_rows.padding_moves_no_logit, Sum(masked=True), "pass"),
        (of_rows.padding_moves_no_logit, Sum(masked=False), "fail"),
        (of_rows.rows_independent, Sum(masked=True), "pass"),
        (of_rows.rows_independent, Sum(masked=True, across=True), "fail"),
    ],
)
def test_a_row_does_not_depend_on_its_batch(look: Any, model: nn.Module, outcome: str) -> None:
    rows = [{"input_ids": list(range(5, 9 + index)), "labels": list(range(5, 9 + index))} for index in range(10)]

    assert seen(look, subject("token-classification", rows, padded, model=model)).outcome == outcome


def test_a_tokenizer_that_was_changed_after_loading_is_suspicious(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "A": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    texts = Rows([{"text": "a A"}] * 4)
    call = MapCall(lambda row: row, texts, Rows([{"input_ids": [1, 2]}] * 4), False)
    given = subject("masked-lm", [], None, tokenizer=tokenizer, maps=[call])

    assert seen(checkpoint.ids_as_in_tokenizer_file, given).outcome == "pass"
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    finding = seen(checkpoint.ids_as_in_tokenizer_file, given)

    assert finding.outcome == "warn"
    assert "the normalizer" in finding.cause


# Caches


def mapped(function: Any, stored: list[dict[str, Any]], **options: Any) -> Subject:
    source = Rows([{"text": f"w{index}"} for index in range(5, 25)])
    return subject("causal-lm", [], None, maps=[MapCall(function, source, Rows(stored), False, options, "train.py:9")])


def test_a_stale_result_is_a_fault_only_where_its_cache_was_named() -> None:
    stale = [{"length": 1} for _ in range(20)]

    def length(row: dict[str, Any]) -> dict[str, int]:
        return {"length": len(row["text"])}

    assert seen(cache.map_is_fresh, mapped(length, stale, cache_file_name="c.arrow")).outcome == "fail"
    assert seen(cache.map_is_fresh, mapped(length, stale)).outcome == "warn"


def test_a_random_function_cannot_be_judged() -> None:
    def noise(_: dict[str, Any]) -> dict[str, float]:
        return {"noise": random.random()}

    with pytest.raises(NotChecked, match="other rows each time"):
        cache.map_is_fresh(mapped(noise, [{"noise": 0.5} for _ in range(20)], cache_file_name="c.arrow"))
