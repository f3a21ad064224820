"""Translation and summarization: an encoder reads a source text, a decoder generates a target text (HF course,
chapter 7, sections 4 and 5).

The loss is over the tokens of the target. Evaluation also generates texts and compares them with the references. The
signature of these scores has the settings of the search, because another search gives other texts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, PreTrainedTokenizerBase

from touchstone.pipelines.pipeline import (
    Batch,
    BatchSize,
    Columns,
    Feature,
    FeatureRows,
    Options,
    Pipeline,
    Score,
    cached_by_split,
    evaluating,
    pad_features,
    to_tensors,
)
from touchstone.pipelines.tokenizing import token_ids
from touchstone.pipelines.vocabulary import losses_at_positions
from touchstone.sources.source import SourceError
from touchstone.stages import bleu, clean_sequences, lead, pad_seq2seq, rouge, shift_right, split_sentences
from touchstone.stages.ragged import IGNORED, Ragged

if TYPE_CHECKING:  # importing it takes seconds, and only code that builds a model needs it
    from transformers import PreTrainedModel

ROTATING = ("mbart", "plbart")
"""Model types whose decoder starts with the last token of the target (its language), not with a fixed token."""
SAMPLES = 2
"""Validation examples in the sample outputs."""
SAMPLE_CHARACTERS = 200
METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
LEAD = 3
"""Sentences of the lead-3 baseline (See et al. 2017, section 4)."""


class GeneratedText(NamedTuple):
    """A generated text and its number of tokens, with the end token."""

    text: str
    length: int


def generate(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    *,
    tokenizer: PreTrainedTokenizerBase,
    config: GenerationConfig,
) -> list[GeneratedText]:
    """Generate a text for each of the B rows of `inputs` (`input_ids` and `attention_mask`, (B, S) each).

    The model generates in evaluation mode and returns to the mode it was in. Its own settings are not changed.
    """
    # DistributedDataParallel has no `generate`; other wrappers may have their own.
    inner = cast(Any, model if hasattr(model, "generate") else getattr(model, "module", model))
    with evaluating(inner):
        ids: torch.Tensor = inner.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            generation_config=config,
        )
    rows = ids.cpu().tolist()  # (B, 1 + T), the start token first
    end = tokenizer.eos_token_id
    cleaned = clean_sequences(rows, pad_id=tokenizer.pad_token_id, eos_id=end, start_id=rows[0][0])
    texts = tokenizer.batch_decode(cleaned, skip_special_tokens=True)
    return [
        GeneratedText(text.strip(), len(tokens) + (end in row[1:]))
        for text, tokens, row in zip(texts, cleaned, rows, strict=True)
    ]


class TextPrediction(NamedTuple):
    """The prediction for one example.

    Attributes:
        text: the generated text.
        length: its number of tokens, with the end token.
        loss: in nats, summed over the target's `items` tokens.
    """

    text: str
    length: int
    loss: float
    items: int


def loss_scores(predictions: Sequence[TextPrediction], *, batch_size: int | None, signature: str) -> list[Score]:
    """Return `loss`, the mean over all tokens, and with `batch_size` also `trainer_loss`.

    `trainer_loss` is what transformers' Trainer reports as its evaluation loss: the mean over consecutive batches of
    each batch's mean loss. Trainer weights a batch by its number of examples.
    """
    sums = np.asarray([prediction.loss for prediction in predictions])
    items = np.asarray([prediction.items for prediction in predictions])
    n = int(items.sum())
    scores = [Score("loss", float(sums.sum()) / n, n, False, f"{signature}|mean:token", upper=None)]
    if batch_size is not None:
        starts = np.arange(0, len(sums), batch_size)
        means = np.add.reduceat(sums, starts) / np.add.reduceat(items, starts)
        examples = np.diff(np.append(starts, len(sums)))
        value = float(np.average(means, weights=examples))
        how = f"{signature}|mean:batches of {batch_size}"
        scores.append(Score("trainer_loss", value, n, False, how, upper=None))
    return scores


def length_score(predictions: Sequence[TextPrediction], *, signature: str) -> Score:
    """Return `gen_len`, the mean number of generated tokens. Longer is not better, but `Score` needs a direction."""
    mean = sum(prediction.length for prediction in predictions) / len(predictions)
    return Score("gen_len", mean, len(predictions), True, f"tokens|{signature}", upper=None)


class Seq2SeqOptions(Options):
    """The settings that translation and summarization share.

    Attributes:
        num_beams: width of the beam search; 1 is greedy search.
        max_new_tokens: the most tokens to generate, with the end token. A model that has not learned to end a text
            stops there. None: as many as a target may have.
        references: what generated texts are compared with: `text`, the targets as they are in the data set; or
            `labels`, the targets decoded from the labels (cut and normalized by the tokenizer), as in the course.
        loss_batches: also report `trainer_loss`, over batches of this size (see `loss_scores`).
    """

    num_beams: int = Field(default=1, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)
    references: Literal["text", "labels"] = "text"
    loss_batches: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class _Split:
    """N examples: `columns` as in `Seq2Seq.columns`, and the whole texts."""

    columns: dict[str, Ragged]
    sources: list[str]
    targets: list[str]


class Seq2Seq(Pipeline):
    """Generate a text from a text. An item of the loss is a token of the target.

    A subclass names its columns and limits, and scores the texts.

    Class attributes:
        source_column, target_column: the columns of the data set.
        two_languages: the target is in another language than the source. Some tokenizers (Marian) then encode it
            with another vocabulary.
    """

    source_column: ClassVar[str]
    target_column: ClassVar[str]
    two_languages: ClassVar[bool] = True
    options: Seq2SeqOptions

    @property
    @abstractmethod
    def source_length(self) -> int:
        """The most tokens of a source, with the end token."""

    @property
    @abstractmethod
    def target_length(self) -> int:
        """The most tokens of a target, with the end token."""

    @abstractmethod
    def score_texts(self, texts: Sequence[str], references: Sequence[str]) -> list[Score]:
        """Return the metrics of the generated texts of all validation examples, the main one first."""

    def prompt(self, text: str) -> str:
        """Return the text that the model reads for a source."""
        return text

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = self.source.tokenizer()
        for name in ("pad_token", "eos_token"):
            if getattr(tokenizer, name) is None:
                raise SourceError(
                    f"the tokenizer has no {name}, which {self.task} needs: use a checkpoint such as Marian, BART or T5"
                )
        return tokenizer

    @cached_property
    def start_id(self) -> int | None:
        """The token that the decoder starts with; None if it is the target's last token (see `ROTATING`).

        Raises:
            SourceError: the checkpoint has no decoder, no `decoder_start_token_id`, or too few positions.
        """
        config = self.source.config()
        start: int | None = getattr(config, "decoder_start_token_id", None)
        rotates = config.model_type in ROTATING
        if not config.is_encoder_decoder or (start is None and not rotates):
            raise SourceError(
                f"{type(config).__name__} is not an encoder-decoder config with decoder_start_token_id: use a "
                f"checkpoint such as Marian, BART or T5"
            )
        positions = getattr(config, "max_position_embeddings", None)
        longest = max(self.source_length, self.target_length, self.max_new_tokens + 1)
        if positions is not None and longest > positions:
            raise SourceError(
                f"the model has {positions} positions, but the options need {longest}: lower the largest of the limits "
                f"for a source ({self.source_length}), for a target ({self.target_length}) and for a generated text "
                f"(max_new_tokens + 1 = {self.max_new_tokens + 1})"
            )
        return None if rotates else start

    @property
    def max_new_tokens(self) -> int:
        return self.options.max_new_tokens or self.target_length

    @property
    def example(self) -> str:
        return self._split("validation").sources[0]

    def columns(self, split: str) -> Columns:
        """`input_ids` (N, S_i) and `labels` (N, T_i)."""
        return self._split(split).columns

    def texts(self, split: str) -> tuple[list[str], list[str]]:
        """Return the N sources and N targets of a split, not cut."""
        return self._split(split).sources, self._split(split).targets

    @cached_by_split
    def _split(self, split: str) -> _Split:
        _ = self.start_id  # refuse an unsuitable checkpoint before the work, and not in a worker process
        data = self.source.examples(split, columns=(self.source_column, self.target_column))
        if not len(data):
            raise SourceError(f"split {split!r} has no rows: declare more, or use another data set")
        sources, targets = list(data[self.source_column]), list(data[self.target_column])
        prompts = [self.prompt(text) for text in sources]
        columns = {
            "input_ids": token_ids(self.tokenizer, prompts, max_length=self.source_length),
            "labels": token_ids(self.tokenizer, targets, max_length=self.target_length, target=self.two_languages),
        }
        self._require_ends(columns["labels"], split=split)
        return _Split(columns, sources, targets)

    def _require_ends(self, labels: Ragged, *, split: str) -> None:
        """Raise an error if any target has no end token."""
        ends = np.bincount(labels.rows[labels.values == self.tokenizer.eos_token_id], minlength=len(labels))
        if not ends.all():
            raise SourceError(
                f"the tokenizer adds no {self.tokenizer.eos_token} at the end of target {int(ends.argmin())} of split "
                f"{split!r}, so a model would not learn to end a text: use the tokenizer of the model"
            )

    def collate(self, features: Sequence[Feature], *, train: bool) -> Batch:
        tokenizer = self.tokenizer
        arrays = pad_features(features, names=("input_ids", "labels"), tokenizer=tokenizer, pad=pad_seq2seq)
        labels, mask = arrays["labels"], arrays["attention_mask"]
        decoder = shift_right(labels, pad_id=tokenizer.pad_token_id, start_id=self.start_id)
        # Found on the host, because finding them on the device would wait for it. No other position needs logits.
        labelled = np.flatnonzero(labels != IGNORED)
        items = len(labelled)
        size = BatchSize(len(features), items, int(mask.sum()) + items, mask.size + labels.size)
        decoder_mask = (labels != IGNORED).astype(np.int64)
        made = {"decoder_input_ids": decoder, "decoder_mask": decoder_mask, "labelled": labelled}
        return {**to_tensors(arrays | made), "size": size}

    def model(self) -> PreTrainedModel:
        return self.source.model(AutoModelForSeq2SeqLM)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return losses_at_positions(model, batch["labelled"], labels=_labels(batch), **_inputs(batch)).sum()

    def predict(self, model: torch.nn.Module, batch: Batch) -> list[TextPrediction]:
        labels = _labels(batch)
        losses = losses_at_positions(model, batch["labelled"], labels=labels, **_inputs(batch)).double().cpu().numpy()
        rows, width = batch["labels"].shape
        row_of = batch["labelled"].cpu().numpy() // width
        loss, items = (np.bincount(row_of, weights=weights, minlength=rows) for weights in (losses, None))
        generated = generate(model, batch, tokenizer=self.tokenizer, config=self.generation_config)
        return [
            TextPrediction(text, length, float(nll), int(count))
            for (text, length), nll, count in zip(generated, loss, items, strict=True)
        ]

    @property
    def generation_config(self) -> GenerationConfig:
        """Greedy or beam search without sampling, and with a limit: everything is set explicitly.

        `generate` takes only what is not set here from the model's own generation config: tokens that must not be
        generated, and the language to begin with.
        """
        start = {} if self.start_id is None else {"decoder_start_token_id": self.start_id}
        return GenerationConfig(  # type: ignore[no-untyped-call]
            num_beams=self.options.num_beams,
            max_new_tokens=self.max_new_tokens,  # max_length would lose against the model's own max_new_tokens
            min_length=0,
            no_repeat_ngram_size=0,
            encoder_no_repeat_ngram_size=0,
            repetition_penalty=1.0,
            do_sample=False,
            early_stopping=False,
            length_penalty=1.0,
            use_cache=True,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            **start,
        )

    @property
    def search_signature(self) -> str:
        return (
            f"refs:{self.options.references}|beams:{self.options.num_beams}|max_new_tokens:{self.max_new_tokens}"
            f"|max_source_tokens:{self.source_length}|max_target_tokens:{self.target_length}"
        )

    @property
    def loss_signature(self) -> str:
        return f"nll|unit:nat|max_source_tokens:{self.source_length}|max_target_tokens:{self.target_length}"

    def score(self, predictions: Sequence[TextPrediction]) -> list[Score]:
        split = self._split("validation")
        if len(predictions) != len(split.targets):
            raise ValueError(
                f"{len(predictions)} predictions for {len(split.targets)} validation examples: pass one per example"
            )
        references = split.targets
        if self.options.references == "labels":
            references = self.tokenizer.batch_decode(split.columns["labels"].to_lists(), skip_special_tokens=True)
        references = [text.strip() for text in references]
        quality = self.score_texts([prediction.text for prediction in predictions], references)
        losses = loss_scores(predictions, batch_size=self.options.loss_batches, signature=self.loss_signature)
        return [quality[0], *losses, *quality[1:], length_score(predictions, signature=self.search_signature)]

    def usage(self, repo: str) -> list[str]:
        return [
            "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer",
            "",
            f"tokenizer = AutoTokenizer.from_pretrained({repo!r})",
            f"model = AutoModelForSeq2SeqLM.from_pretrained({repo!r})",
            f"inputs = tokenizer({_literal(self.prompt(self.example))}, return_tensors='pt')",
            f"ids = model.generate(**inputs, num_beams={self.options.num_beams}, max_new_tokens={self.max_new_tokens})",
            "print(tokenizer.decode(ids[0], skip_special_tokens=True))",
        ]

    def sample_outputs(self, model: torch.nn.Module) -> list[str]:
        """Return the first validation examples with the texts that the model generates for them."""
        rows = FeatureRows(self.columns("validation"))
        chosen = range(min(SAMPLES, len(rows)))
        device = next(model.parameters()).device
        batch = self.collate([rows[0, index] for index in chosen], train=False)
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        generated = generate(model, inputs, tokenizer=self.tokenizer, config=self.generation_config)
        sources, targets = self.texts("validation")
        return [
            line
            for index, (text, _) in zip(chosen, generated, strict=True)
            for line in (
                f"source:    {_short(sources[index])}",
                f"output:    {_short(text)}",
                f"reference: {_short(targets[index])}",
            )
        ]


def _inputs(batch: Batch) -> dict[str, Any]:
    names = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_mask")
    return {name: batch[name] for name in names} | {"use_cache": False}  # a cache is only useful for generation


def _labels(batch: Batch) -> torch.Tensor:
    """Return (M,) the ids of the batch's M target tokens."""
    labels: torch.Tensor = batch["labels"].flatten().index_select(0, batch["labelled"])
    return labels


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SAMPLE_CHARACTERS else line[:SAMPLE_CHARACTERS] + " ..."


def _literal(text: str) -> str:
    """Return a Python string literal without backticks, which could end a code block in a model card."""
    return repr(text).replace("`", "\\x60")


class TranslationOptions(Seq2SeqOptions):
    """The settings of translation.

    Attributes:
        max_length: the most tokens of a source and of a target, with the end token. The rest is cut off.
    """

    max_length: int = Field(default=128, ge=2)


class Translation(Seq2Seq):
    """Translate sentences into another language (HF course, chapter 7, section 4), scored by BLEU."""

    task = hub_task = "translation"
    Options = TranslationOptions
    options: TranslationOptions
    source_column = "source"
    target_column = "target"

    @property
    def source_length(self) -> int:
        return self.options.max_length

    @property
    def target_length(self) -> int:
        return self.options.max_length

    def score_texts(self, texts: Sequence[str], references: Sequence[str]) -> list[Score]:
        result = bleu(texts, references=references)
        signature = f"{result['signature']}|{self.search_signature}"
        return [Score("bleu", result["bleu"], result["number"], True, signature, upper=100.0)]


class SummarizationOptions(Seq2SeqOptions):
    """The settings of summarization.

    Attributes:
        max_source_length: the most tokens of a document, with prefix and end token. The rest is cut off.
        max_target_length: the most tokens of a summary, with the end token. The rest is cut off.
        prefix: the text before each document (`summarize: ` for T5).
    """

    max_source_length: int = Field(default=512, ge=2)
    max_target_length: int = Field(default=30, ge=2)
    prefix: str = ""


class Summarization(Seq2Seq):
    """Summarize documents (HF course, chapter 7, section 5), scored by ROUGE.

    Each ROUGE score comes with that of a baseline: the first three sentences of each document, which are hard to beat.
    """

    task = hub_task = "summarization"
    Options = SummarizationOptions
    options: SummarizationOptions
    source_column = "document"
    target_column = "summary"
    two_languages = False

    @property
    def source_length(self) -> int:
        return self.options.max_source_length

    @property
    def target_length(self) -> int:
        return self.options.max_target_length

    def prompt(self, text: str) -> str:
        return self.options.prefix + text

    def score_texts(self, texts: Sequence[str], references: Sequence[str]) -> list[Score]:
        """Return ROUGE of the texts, then ROUGE of the baseline."""
        documents, _ = self.texts("validation")
        baseline = [lead(document, sentences=LEAD) for document in documents]
        own = _rouge(texts, references, how=self.search_signature)
        how = f"refs:{self.options.references}|lead:{LEAD}"
        return [*own, *_rouge(baseline, references, how=how, prefix=f"lead{LEAD}_")]


def _rouge(texts: Sequence[str], references: Sequence[str], *, how: str, prefix: str = "") -> list[Score]:
    result: Mapping[str, Any] = rouge(
        [_lines(text) for text in texts], references=[_lines(text) for text in references]
    )
    signature = f"{result['signature']}|{how}"
    return [
        Score(f"{prefix}{metric}", result[metric], result["number"], True, signature, upper=100.0) for metric in METRICS
    ]


def _lines(text: str) -> str:
    """Put each sentence on its own line, as ROUGE-Lsum expects."""
    return "\n".join(split_sentences(text))
