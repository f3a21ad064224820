"""What translation and summarization share: an encoder reads one text, a decoder writes another.

The loss is over the tokens of the target. Evaluation also lets the model write: what it wrote is compared as text, with
the settings of the search in the signature, for another search is another measurement.
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
    to_tensors,
)
from touchstone.pipelines.tokenizing import token_ids
from touchstone.pipelines.vocabulary import losses_at_positions
from touchstone.sources.source import Source, SourceError
from touchstone.stages import bleu, clean_sequences, lead, pad_seq2seq, rouge, shift_right, split_sentences
from touchstone.stages.ragged import Ragged

if TYPE_CHECKING:  # it takes seconds to import: only those who make a model pay
    from transformers import PreTrainedModel


# What is kept of a written text, and the scores that every task that writes has: loss and length.


class WrittenPrediction(NamedTuple):
    """What is kept of one example.

    Attributes:
        text: what was written, of so many tokens (`length`, its end included).
        loss: in nats, a sum over the target's `items` tokens.
    """

    text: str
    length: int
    loss: float
    items: int


def loss_scores(predictions: Sequence[WrittenPrediction], *, batches: int | None, signature: str) -> list[Score]:
    """`loss`, the mean over all tokens; and with `batches` also `trainer_loss`: the mean over batches of so many
    examples, in order, of each batch's mean, which is what transformers' Trainer calls its evaluation loss.
    """
    sums = np.asarray([prediction.loss for prediction in predictions])
    items = np.asarray([prediction.items for prediction in predictions])
    n = int(items.sum())
    scores = [Score("loss", float(sums.sum()) / n, n, False, f"{signature}|mean:token", upper=None)]
    if batches is not None:
        starts = np.arange(0, len(sums), batches)
        means = np.add.reduceat(sums, starts) / np.add.reduceat(items, starts)
        examples = np.diff(np.append(starts, len(sums)))
        value = float(np.average(means, weights=examples))  # Trainer repeats a batch's mean for each of its examples
        scores.append(Score("trainer_loss", value, n, False, f"{signature}|mean:batches of {batches}", upper=None))
    return scores


def length_score(predictions: Sequence[WrittenPrediction], *, signature: str) -> Score:
    """`gen_len`: tokens written for a text, on average. Longer is not better, but a direction must be given."""
    mean = sum(prediction.length for prediction in predictions) / len(predictions)
    return Score("gen_len", mean, len(predictions), True, f"tokens|{signature}", upper=None)


# Lets an encoder-decoder write: greedily or by beam search, never by chance, and never without an end.


class Search(NamedTuple):
    """How a text is searched for.

    Attributes:
        num_beams: width of the search; 1 takes the likeliest token each time.
        max_new_tokens: tokens written at most, the end included.
        start_id: what the decoder starts with; None: what the model's own generation config says.
    """

    num_beams: int
    max_new_tokens: int
    start_id: int | None


class Written(NamedTuple):
    """A text and how many tokens were written for it, its end included."""

    text: str
    length: int


def write(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    *,
    tokenizer: PreTrainedTokenizerBase,
    search: Search,
) -> list[Written]:
    """What the model writes for each row of `inputs` (`input_ids` and `attention_mask`, (B, S) each).

    The model is put into evaluation mode and back; its own settings are not touched.
    """
    # DistributedDataParallel wraps a model that can write; what wraps one and can write by itself is asked.
    inner = cast(Any, model if hasattr(model, "generate") else getattr(model, "module", model))
    training = inner.training
    inner.eval()
    try:
        ids: torch.Tensor = inner.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            generation_config=generation_config(search, tokenizer=tokenizer),
        )
    finally:
        inner.train(training)
    rows = ids.cpu().tolist()  # (B, 1 + T), the start first
    end = tokenizer.eos_token_id
    cleaned = clean_sequences(rows, pad_id=tokenizer.pad_token_id, eos_id=end, start_id=rows[0][0])
    texts = tokenizer.batch_decode(cleaned, skip_special_tokens=True)
    return [
        Written(text.strip(), len(tokens) + (end in row[1:]))
        for text, tokens, row in zip(texts, cleaned, rows, strict=True)
    ]


def generation_config(search: Search, *, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """All that decides what is written. Beyond it `generate` follows the model's own generation config (tokens that
    must not be written, the language to begin with)."""
    start = {} if search.start_id is None else {"decoder_start_token_id": search.start_id}
    return GenerationConfig(  # type: ignore[no-untyped-call]
        num_beams=search.num_beams,
        max_new_tokens=search.max_new_tokens,  # a model's own would win over max_length
        min_length=0,
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        repetition_penalty=1.0,
        do_sample=False,
        early_stopping=False,
        length_penalty=1.0,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **start,
    )


ROTATING = ("mbart", "plbart")
"""Model types whose decoder starts with the target's own last token, its language, and not with a fixed one."""
PROBES = 2
PROBE_CHARACTERS = 200


class Seq2SeqOptions(Options):
    """What a spec may choose.

    Attributes:
        num_beams: width of the search; 1 takes the likeliest token each time.
        max_new_tokens: what the model may write at most, its end included: one that has not learnt to end would go on.
            None: as many as a target may have.
        references: what its texts are compared with: the targets' `text`, or what is left of it in the `labels` (cut
            and normalised by the tokenizer), as the course does.
        loss_batches: also report the mean of the mean losses of batches of so many examples, in the data's order, as
            transformers' Trainer does (`trainer_loss`).
    """

    num_beams: int = Field(default=1, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)
    references: Literal["text", "labels"] = "text"
    loss_batches: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class _Split:
    columns: dict[str, Ragged]
    sources: list[str]
    targets: list[str]


class Seq2Seq(Pipeline):
    """A task names its columns and limits, and scores the texts.

    Class attributes:
        two_languages: whether targets are spelt with the tokenizer's pieces for another language (Marian has two sets).
    """

    source_column: ClassVar[str]
    target_column: ClassVar[str]
    two_languages: ClassVar[bool] = True
    options: Seq2SeqOptions

    def __init__(self, source: Source, *, options: Any, seed: int) -> None:
        super().__init__(source, options=options, seed=seed)
        self._splits: dict[str, _Split] = {}

    # What a task says ---------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def source_length(self) -> int:
        """Tokens of a source at most, its end included."""

    @property
    @abstractmethod
    def target_length(self) -> int:
        """Tokens of a target at most, its end included."""

    @abstractmethod
    def score_texts(self, texts: Sequence[str], references: Sequence[str]) -> list[Score]:
        """The metrics of the texts of all validation examples, the main one first."""

    def prompt(self, text: str) -> str:
        """What the model reads of a source."""
        return text

    # Data ---------------------------------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = self.source.tokenizer()
        for name in ("pad_token", "eos_token"):
            if getattr(tokenizer, name) is None:
                raise SourceError(
                    f"the tokenizer has no {name}, {self.task} needs one: take a checkpoint made for writing"
                )
        return tokenizer

    @cached_property
    def start_id(self) -> int | None:
        """What the decoder starts with; None where that is the target's last token (see `ROTATING`).

        Raises:
            SourceError: a checkpoint without a decoder, or one that does not say, or with too few positions.
        """
        config = self.source.config()
        start: int | None = getattr(config, "decoder_start_token_id", None)
        rotates = config.model_type in ROTATING
        if not config.is_encoder_decoder or (start is None and not rotates):
            raise SourceError(
                f"the checkpoint's config ({type(config).__name__}) is of no encoder with a decoder that says what it "
                f"starts with (decoder_start_token_id): take one such as Marian, BART or T5"
            )
        positions = getattr(config, "max_position_embeddings", None)
        longest = max(self.source_length, self.target_length, self.max_new_tokens + 1)
        if positions is not None and longest > positions:
            raise SourceError(
                f"the model has {positions} positions, and the options ask for {longest}: lower the longest of source "
                f"{self.source_length}, target {self.target_length} and max_new_tokens + 1 {self.max_new_tokens + 1}"
            )
        return None if rotates else start

    @property
    def max_new_tokens(self) -> int:
        return self.options.max_new_tokens or self.target_length

    @property
    def example(self) -> str:
        return self._split("validation").sources[0]

    def columns(self, split: str) -> Columns:
        """`input_ids` and `labels`, (N, T_i) each."""
        return self._split(split).columns

    def texts(self, split: str) -> tuple[list[str], list[str]]:
        """N sources and N targets, whole."""
        return self._split(split).sources, self._split(split).targets

    def _split(self, split: str) -> _Split:
        if split not in self._splits:
            _ = self.start_id  # a checkpoint that cannot write is refused before the work, and not in a worker
            data = self.source.examples(split, columns=(self.source_column, self.target_column))
            if not len(data):
                raise SourceError(f"split {split!r} has no rows")
            sources, targets = list(data[self.source_column]), list(data[self.target_column])
            prompts = [self.prompt(text) for text in sources]
            columns = {
                "input_ids": token_ids(self.tokenizer, prompts, max_length=self.source_length),
                "labels": token_ids(self.tokenizer, targets, max_length=self.target_length, target=self.two_languages),
            }
            self._refuse_endless(columns["labels"], split=split)
            self._splits[split] = _Split(columns, sources, targets)
        return self._splits[split]

    def _refuse_endless(self, labels: Ragged, *, split: str) -> None:
        ends = np.bincount(labels.rows[labels.values == self.tokenizer.eos_token_id], minlength=len(labels))
        if not ends.all():
            raise SourceError(
                f"the tokenizer puts no {self.tokenizer.eos_token} at the end of target {int(ends.argmin())} of split "
                f"{split!r}: a model would never learn to end; take the tokenizer that belongs to the model"
            )

    def collate(self, features: Sequence[Feature], *, train: bool) -> Batch:
        tokenizer = self.tokenizer
        rows = [
            {
                "input_ids": feature["input_ids"],
                "attention_mask": np.ones(len(feature["input_ids"]), dtype=np.int64),
                "labels": feature["labels"],
            }
            for feature in features
        ]
        arrays = pad_seq2seq(rows, pad_id=tokenizer.pad_token_id, side=tokenizer.padding_side)
        labels, mask = arrays["labels"], arrays["attention_mask"]
        decoder = shift_right(labels, pad_id=tokenizer.pad_token_id, start_id=self.start_id)
        # Found here, so that nobody asks the device where they are; the softmax over the rest would be for nothing.
        labelled = np.flatnonzero(labels != -100)
        items = len(labelled)
        size = BatchSize(len(rows), items, int(mask.sum()) + items, mask.size + labels.size)
        made = {"decoder_input_ids": decoder, "decoder_mask": (labels != -100).astype(np.int64), "labelled": labelled}
        return {**to_tensors(arrays | made), "size": size}

    # The model ----------------------------------------------------------------------------------------------------

    def model(self) -> PreTrainedModel:
        return self.source.model(AutoModelForSeq2SeqLM)

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return losses_at_positions(model, batch["labelled"], labels=_labels(batch), **_inputs(batch)).sum()

    def predict(self, model: torch.nn.Module, batch: Batch) -> list[WrittenPrediction]:
        labels = _labels(batch)
        losses = losses_at_positions(model, batch["labelled"], labels=labels, **_inputs(batch)).double().cpu().numpy()
        rows, width = batch["labels"].shape
        owner = batch["labelled"].cpu().numpy() // width
        loss, items = (np.bincount(owner, weights=weights, minlength=rows) for weights in (losses, None))
        written = write(model, batch, tokenizer=self.tokenizer, search=self.search)
        return [
            WrittenPrediction(text, length, float(nll), int(count))
            for (text, length), nll, count in zip(written, loss, items, strict=True)
        ]

    @property
    def search(self) -> Search:
        return Search(self.options.num_beams, self.max_new_tokens, self.start_id)

    # Scores -------------------------------------------------------------------------------------------------------

    @property
    def search_signature(self) -> str:
        return (
            f"refs:{self.options.references}|beams:{self.options.num_beams}|max_new_tokens:{self.max_new_tokens}"
            f"|max_source_tokens:{self.source_length}|max_target_tokens:{self.target_length}"
        )

    @property
    def loss_signature(self) -> str:
        return f"nll|unit:nat|max_source_tokens:{self.source_length}|max_target_tokens:{self.target_length}"

    def score(self, predictions: Sequence[WrittenPrediction]) -> list[Score]:
        split = self._split("validation")
        if len(predictions) != len(split.targets):
            raise ValueError(f"{len(predictions)} predictions for {len(split.targets)} validation examples")
        references = split.targets
        if self.options.references == "labels":
            references = self.tokenizer.batch_decode(split.columns["labels"].to_lists(), skip_special_tokens=True)
        references = [text.strip() for text in references]
        quality = self.score_texts([prediction.text for prediction in predictions], references)
        losses = loss_scores(predictions, batches=self.options.loss_batches, signature=self.loss_signature)
        return [quality[0], *losses, *quality[1:], length_score(predictions, signature=self.search_signature)]

    # What people see ----------------------------------------------------------------------------------------------

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
        """What the model makes of the first validation examples."""
        rows = FeatureRows(self.columns("validation"))
        chosen = range(min(PROBES, len(rows)))
        device = next(model.parameters()).device
        batch = self.collate([rows[0, index] for index in chosen], train=False)
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            written = write(model, inputs, tokenizer=self.tokenizer, search=self.search)
        sources, targets = self.texts("validation")
        return [
            line
            for index, (text, _) in zip(chosen, written, strict=True)
            for line in (
                f"source:    {_short(sources[index])}",
                f"output:    {_short(text)}",
                f"reference: {_short(targets[index])}",
            )
        ]


def _inputs(batch: Batch) -> dict[str, Any]:
    names = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_mask")
    return {name: batch[name] for name in names} | {"use_cache": False}  # a cache is for writing token by token


def _labels(batch: Batch) -> torch.Tensor:
    """(M,) the batch's M target tokens, each to be told from the source and the target's tokens before it."""
    labels: torch.Tensor = batch["labels"].flatten().index_select(0, batch["labelled"])
    return labels


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= PROBE_CHARACTERS else line[:PROBE_CHARACTERS] + " ..."


def _literal(text: str) -> str:
    """A Python literal that cannot end a block of Markdown."""
    return repr(text).replace("`", "\\x60")


# Translation: a sentence of one language into another (HF course, chapter 7, section 4).


class TranslationOptions(Seq2SeqOptions):
    """What a spec may choose.

    Attributes:
        max_length: tokens of a source and of a target, the end included; the rest is cut off.
    """

    max_length: int = Field(default=128, ge=2)


class Translation(Seq2Seq):
    task: ClassVar[str] = "translation"
    hub_task: ClassVar[str] = "translation"
    Options: ClassVar[type[Options]] = TranslationOptions
    options: TranslationOptions
    source_column: ClassVar[str] = "source"
    target_column: ClassVar[str] = "target"

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


# Summarization: a short text for a long one (HF course, chapter 7, section 5). Beside every ROUGE stands that of
# the first three sentences, which is hard to beat and costs nothing.


METRICS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
LEAD = 3
"""Sentences of the baseline (See et al. 2017, section 4)."""


class SummarizationOptions(Seq2SeqOptions):
    """What a spec may choose.

    Attributes:
        max_source_length: tokens of a document, prefix and end included; the rest is cut off.
        max_target_length: tokens of a summary, its end included.
        prefix: what stands before each document (`summarize: ` for T5).
    """

    max_source_length: int = Field(default=512, ge=2)
    max_target_length: int = Field(default=30, ge=2)
    prefix: str = ""


class Summarization(Seq2Seq):
    task: ClassVar[str] = "summarization"
    hub_task: ClassVar[str] = "summarization"
    Options: ClassVar[type[Options]] = SummarizationOptions
    options: SummarizationOptions
    source_column: ClassVar[str] = "document"
    target_column: ClassVar[str] = "summary"
    two_languages: ClassVar[bool] = False

    @property
    def source_length(self) -> int:
        return self.options.max_source_length

    @property
    def target_length(self) -> int:
        return self.options.max_target_length

    def prompt(self, text: str) -> str:
        return self.options.prefix + text

    def score_texts(self, texts: Sequence[str], references: Sequence[str]) -> list[Score]:
        """ROUGE of the texts, then of the first sentences of the documents."""
        documents, _ = self.texts("validation")
        baseline = [lead(document, sentences=LEAD) for document in documents]
        own = _rouge(texts, references, how=self.search_signature)
        how = f"refs:{self.options.references}|lead:{LEAD}"
        return [*own, *_rouge(baseline, references, how=how, named=f"lead{LEAD}_")]


def _rouge(texts: Sequence[str], references: Sequence[str], *, how: str, named: str = "") -> list[Score]:
    result: Mapping[str, Any] = rouge(
        [_lines(text) for text in texts], references=[_lines(text) for text in references]
    )
    signature = f"{result['signature']}|{how}"
    return [
        Score(f"{named}{metric}", result[metric], result["number"], True, signature, upper=100.0) for metric in METRICS
    ]


def _lines(text: str) -> str:
    """One sentence a line, as ROUGE-Lsum reads texts."""
    return "\n".join(split_sentences(text))
