"""Causal language modeling from scratch: each token of program text from those before it (HF course, chapter 7,
section 6).

Documents are tokenized and cut into chunks of one context. A chunk's first token has nothing before it and is not
predicted; every other real token is, ends of text too. Training may weigh chunks by the key tokens that they hold;
evaluation never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from touchstone.pipelines.pipeline import Batch, BatchSize, Columns, Feature, Options, Pipeline, Score, to_tensors
from touchstone.pipelines.tokenizing import SLICE
from touchstone.pipelines.vocabulary import losses_and_hits_at_positions, losses_at_positions
from touchstone.sources.source import Source, SourceError
from touchstone.stages.causal import causal_labels, chunk_documents_batch, key_token_weights
from touchstone.stages.collation import pad_batch
from touchstone.stages.ragged import IGNORED, Array, Ragged
from touchstone.stages.scoring import perplexity

if TYPE_CHECKING:  # it takes seconds to import: only those who make a model pay
    from transformers import PreTrainedModel

CODE = "code"
PROMPTS = (
    "import matplotlib.pyplot as",
    "# create some data\nx = np.random.randn(100)\ny = np.random.randn(100)\n\n# create scatter plot with x, y\n",
    "# dataframe with profession, income and name\n"
    "df = pd.DataFrame({'profession': x, 'income':y, 'name': z})\n\n# calculate the mean income per profession\n",
)
"""The second and third are the course's."""
LINE_END, RETURN_SIGN = "\n", " \u23ce "


class CausalLMOptions(Options):
    """What a spec may choose.

    Attributes:
        context_length: tokens a chunk.
        remainder: what becomes of the tokens at a document's end that do not fill a chunk: `drop` or `keep` them; or
            `join` the documents, with an end of text between them.
        train_chunks, validation_chunks: this many chunks of the split, at random, instead of all.
        split_seed: decides which chunks. Not the run's seed: all take the same test.
        key_tokens: in training a chunk weighs `alpha * (1 + how many of them it holds)`. Each must be one token to the
            tokenizer; a blank before it counts. Empty: all chunks weigh alike.
        alpha: see `key_tokens`.
        prompts: code that is completed before and after training.
        new_tokens: how long a completion is at most.
    """

    context_length: int = Field(default=128, ge=2)
    remainder: Literal["drop", "keep", "join"] = "drop"
    train_chunks: int | None = Field(default=None, ge=1)
    validation_chunks: int | None = Field(default=None, ge=1)
    split_seed: int = Field(default=42, ge=0)
    key_tokens: tuple[str, ...] = ()
    alpha: float = Field(default=1.0, gt=0)
    prompts: tuple[str, ...] = PROMPTS
    new_tokens: int = Field(default=24, ge=1, le=256)


class CausalPrediction(NamedTuple):
    """What is kept of one chunk: `loss` in nats and `right` guesses, sums over its `items` predicted tokens."""

    loss: float
    right: int
    items: int


class CausalLM(Pipeline):
    task: ClassVar[str] = "causal-lm"
    hub_task: ClassVar[str] = "text-generation"
    Options: ClassVar[type[Options]] = CausalLMOptions
    options: CausalLMOptions

    def __init__(self, source: Source, *, options: CausalLMOptions, seed: int) -> None:
        super().__init__(source, options=options, seed=seed)
        self._splits: dict[str, Columns] = {}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = self.source.tokenizer()
        if tokenizer.eos_token_id is None:
            raise SourceError(
                "the tokenizer has no end-of-text token, causal-lm needs one: take a checkpoint made for it"
            )
        if tokenizer.pad_token_id is None:  # as the course does: labels tell padding by the mask, not by its id
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    @property
    def example(self) -> str:
        return self.options.prompts[0] if self.options.prompts else PROMPTS[0]

    @cached_property
    def key_ids(self) -> Array:
        """(K,) the ids of the key tokens.

        Raises:
            SourceError: one that is not a single token to this tokenizer.
        """
        ids = []
        for token in self.options.key_tokens:
            pieces = self.tokenizer(token, add_special_tokens=False)["input_ids"]
            if len(pieces) != 1:
                spelt = self.tokenizer.convert_ids_to_tokens(pieces)
                raise SourceError(
                    f"key token {token!r} is {len(pieces)} tokens to this tokenizer ({', '.join(spelt)}): "
                    f"take it out of key_tokens, or take a tokenizer that has it"
                )
            ids.append(int(pieces[0]))
        return np.asarray(ids, dtype=np.int64)

    def columns(self, split: str) -> Columns:
        """`input_ids` of the chunks, (N, T_i)."""
        if split not in self._splits:
            chunks = self._chunks(split)
            limit = self.options.train_chunks if split == "train" else self.options.validation_chunks
            if limit is not None:
                if limit > len(chunks):
                    raise SourceError(
                        f"split {split!r} has {len(chunks)} chunks of {self.options.context_length} tokens, "
                        f"{split}_chunks asks for {limit}: ask for less or take more text"
                    )
                chosen = np.random.default_rng(self.options.split_seed).permutation(len(chunks))[:limit]
                chunks = chunks.take(chosen)
            self._splits[split] = {"input_ids": chunks}
        return self._splits[split]

    def _chunks(self, split: str) -> Ragged:
        data, options = self.source.examples(split, columns=(CODE,)), self.options
        joined = options.remainder == "join"
        parts: list[Ragged] = []
        for start in range(0, len(data), SLICE):
            documents = self._token_ids(data[start : start + SLICE][CODE])
            # A document that is cut by itself needs no other: what is dropped is dropped before all of it is held.
            parts.append(documents if joined else self._cut(documents))
        chunks = _concatenated(parts)
        if joined:
            chunks = self._cut(chunks, eos_id=self.tokenizer.eos_token_id)
        if not len(chunks):
            raise SourceError(
                f"no document of split {split!r} fills a chunk of {options.context_length} tokens: shorten "
                f"context_length, keep or join the remainder, or take more text"
            )
        return chunks

    def _cut(self, documents: Ragged, *, eos_id: int | None = None) -> Ragged:
        options = self.options
        return chunk_documents_batch(
            documents, length=options.context_length, remainder=options.remainder, eos_id=eos_id
        )

    def _token_ids(self, texts: Sequence[str]) -> Ragged:
        """(N, T_i), without special tokens but for those that the text itself spells."""
        rows = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # texts longer than the model are cut into chunks
        )["input_ids"]
        return Ragged.from_arrow(pa.array(rows, type=pa.large_list(pa.int64())))

    def collate(self, features: Sequence[Feature], *, train: bool) -> Batch:
        rows = [{"input_ids": feature["input_ids"]} for feature in features]
        # The mask is given, not left to be made: a chunk may well end in the token that pads.
        rows = [row | {"attention_mask": np.ones(len(row["input_ids"]), dtype=np.int64)} for row in rows]
        # On the right, whatever the tokenizer says of generation: positions count from a chunk's first token.
        arrays = pad_batch(rows, pad_id=self.tokenizer.pad_token_id, side="right")
        mask = arrays["attention_mask"]
        arrays["labels"] = causal_labels(arrays["input_ids"], attention_mask=mask)
        tensors = to_tensors(arrays)
        if train and len(self.key_ids):
            weights = key_token_weights(_real(arrays), key_ids=self.key_ids, alpha=self.options.alpha)
            tensors["weights"] = torch.from_numpy(weights.astype(np.float32))
        tokens = int(mask.sum())
        items = int((arrays["labels"][:, 1:] != IGNORED).sum())
        return {**tensors, "size": BatchSize(len(rows), items, tokens, mask.size)}

    def model(self) -> PreTrainedModel:
        tokenizer = self.tokenizer
        special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        model = self.source.model(AutoModelForCausalLM, **special)
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions is not None and positions < self.options.context_length:
            raise SourceError(
                f"context_length is {self.options.context_length}, but the model knows {positions} positions: "
                f"shorten it, or configure the model with more"
            )
        if (size := model.get_input_embeddings().num_embeddings) < len(tokenizer):  # type: ignore[operator]
            raise SourceError(
                f"the tokenizer has {len(tokenizer)} tokens, but the model embeds {size}: "
                f"set vocab_size in the checkpoint's config"
            )
        return model

    def loss(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        losses = losses_at_positions(model, None, labels=_targets(batch).flatten(), **_inputs(batch))  # (B * T,)
        if "weights" in batch:
            losses = losses.view_as(batch["labels"]).sum(1) * batch["weights"]  # (B,)
        return losses.sum()

    def predict(self, model: torch.nn.Module, batch: Batch) -> list[CausalPrediction]:
        targets = _targets(batch)
        losses, hits = losses_and_hits_at_positions(model, None, labels=targets.flatten(), **_inputs(batch))  # (B * T,)
        sums = (losses.double(), hits.double(), (targets != IGNORED).flatten().double())
        rows = torch.stack([each.view_as(targets).sum(1) for each in sums], 1).cpu().tolist()
        return [CausalPrediction(loss, int(right), int(items)) for loss, right, items in rows]

    def score(self, predictions: Sequence[CausalPrediction]) -> list[Score]:
        wanted = len(self.columns("validation")["input_ids"])
        if len(predictions) != wanted:
            raise ValueError(f"{len(predictions)} predictions for {wanted} validation chunks")
        items = np.asarray([prediction.items for prediction in predictions])
        sums = np.asarray([prediction.loss for prediction in predictions])
        n = int(items.sum())
        if n == 0:
            raise ValueError("no token of the validation chunks has one before it: every chunk is a single token")
        right = sum(prediction.right for prediction in predictions)
        options = self.options
        how = f"context:{options.context_length}|remainder:{options.remainder}|first:not-predicted|mean:token"
        value = perplexity((sums / np.maximum(items, 1)).tolist(), tokens=items.tolist())
        return [
            Score("perplexity", value, n, False, f"perplexity|{how}", lower=1.0, upper=None),
            Score("loss", float(sums.sum()) / n, n, False, f"nll|unit:nat|{how}", upper=None),
            Score("token_accuracy", right / n, n, True, f"accuracy|{how}"),
        ]

    def sample_outputs(self, model: torch.nn.Module) -> list[str]:
        """The last line of each prompt with its likeliest completion, line ends as a sign."""
        training = model.training
        model.eval()
        try:
            with torch.inference_mode():
                completions = [self._complete(model, prompt) for prompt in self.options.prompts]
        finally:
            model.train(training)
        return [
            f"{prompt.splitlines()[-1] if prompt else ''} \u2192 {completion.replace(LINE_END, RETURN_SIGN)}"
            for prompt, completion in zip(self.options.prompts, completions, strict=True)
        ]

    def _complete(self, model: torch.nn.Module, prompt: str) -> str:
        """Greedily, token by token, up to an end of text."""
        device = next(model.parameters()).device
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"] or [self.tokenizer.eos_token_id]
        new: list[int] = []
        while len(new) < self.options.new_tokens:
            seen = torch.tensor([[*ids, *new][-self.options.context_length :]], device=device)
            token = int(model(input_ids=seen, use_cache=False).logits[0, -1].argmax())
            if token == self.tokenizer.eos_token_id:
                break
            new.append(token)
        return str(self.tokenizer.decode(new, clean_up_tokenization_spaces=False))


def _inputs(batch: Batch) -> dict[str, Any]:
    padded = batch["size"].padded_tokens > batch["size"].tokens
    mask = batch["attention_mask"] if padded else None  # without one, kernels need not look whether it hides anything
    return {"input_ids": batch["input_ids"], "attention_mask": mask, "use_cache": False}


def _targets(batch: Batch) -> torch.Tensor:
    """(B, T) at each place the token that comes next, -100 where none does. The targets are moved, not the logits."""
    return pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)


def _real(arrays: dict[str, Array]) -> Array:
    """(B, T) input ids, -1 where padded: the token that pads may be a key token."""
    return np.where(arrays["attention_mask"] == 1, arrays["input_ids"], -1)


def _concatenated(parts: list[Ragged]) -> Ragged:
    """One after the other. `parts` is emptied on the way: two billion tokens are never held twice."""
    lengths = np.concatenate([np.empty(0, np.int64), *(part.lengths for part in parts)])
    end = int(lengths.sum())
    values = np.empty(end, np.int64)
    while parts:
        tokens = parts.pop().values
        values[end - len(tokens) : end] = tokens
        end -= len(tokens)
    return Ragged.from_lengths(values, lengths=lengths)
