"""Causal language modeling from scratch: predict each token of program text from the tokens before it (HF course,
chapter 7, section 6).

Documents are tokenized and cut into chunks of one context length. Every real token of a chunk is predicted, ends of
text included, except the first, which has no context. Training may weight chunks by the number of key tokens in them;
evaluation never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from touchstone.pipelines.pipeline import (
    Batch,
    Columns,
    Feature,
    Options,
    Pipeline,
    Score,
    cached_by_split,
    evaluating,
    pad_features,
    to_batch,
)
from touchstone.pipelines.tokenizing import SLICE
from touchstone.pipelines.vocabulary import (
    ChunkPrediction,
    language_model_scores,
    losses_and_hits_at_positions,
    losses_at_positions,
)
from touchstone.sources.source import SourceError
from touchstone.stages.causal import causal_labels, chunk_documents_batch, key_token_weights
from touchstone.stages.ragged import IGNORED, MISSING, Array, Ragged

if TYPE_CHECKING:  # importing it takes seconds, and only code that builds a model needs it
    from transformers import PreTrainedModel

CODE = "code"
PROMPTS = (
    "import matplotlib.pyplot as",
    "# create some data\nx = np.random.randn(100)\ny = np.random.randn(100)\n\n# create scatter plot with x, y\n",
    "# dataframe with profession, income and name\n"
    "df = pd.DataFrame({'profession': x, 'income':y, 'name': z})\n\n# calculate the mean income per profession\n",
)
"""Code to complete. The second and third prompts are the course's."""
LINE_END, RETURN_SIGN = "\n", " \u23ce "


class CausalLMOptions(Options):
    """The settings of causal language modeling.

    Attributes:
        context_length: tokens of a chunk.
        remainder: what to do with the tokens at a document's end that do not fill a chunk: `drop` them, `keep` them as
            a shorter chunk, or `join` the documents with an end of text after each.
        train_chunks, validation_chunks: use this many chunks of the split, drawn at random, instead of all.
        split_seed: the seed of that draw. It is separate from the trial's seed, so that all trials use the same data.
        key_tokens: in training, the loss of a chunk is multiplied by `alpha * (1 + n)` if it has n key tokens. The
            tokenizer must encode each as one token; `plt` and ` plt` are two key tokens. Empty: no weights.
        alpha: see `key_tokens`.
        prompts: code to complete before and after training.
        new_tokens: the most tokens of a completion.
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


class CausalLM(Pipeline):
    """Predict the next token. An item of the loss is a token with at least one token before it in its chunk."""

    task = "causal-lm"
    hub_task = "text-generation"
    Options = CausalLMOptions
    options: CausalLMOptions

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = self.source.tokenizer()
        if tokenizer.eos_token_id is None:
            raise SourceError(
                "the tokenizer has no end-of-text token, which causal-lm needs: use a checkpoint of a causal language "
                "model"
            )
        if tokenizer.pad_token_id is None:  # as in the course; labels use the mask to find padding, not this id
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    @property
    def example(self) -> str:
        return self.options.prompts[0] if self.options.prompts else PROMPTS[0]

    @cached_property
    def key_ids(self) -> Array:
        """(K,) the ids of the key tokens.

        Raises:
            SourceError: a key token that the tokenizer does not encode as a single token.
        """
        ids = []
        for token in self.options.key_tokens:
            pieces = self.tokenizer(token, add_special_tokens=False)["input_ids"]
            if len(pieces) != 1:
                split_up = self.tokenizer.convert_ids_to_tokens(pieces)
                raise SourceError(
                    f"key token {token!r} is encoded as {len(pieces)} tokens ({', '.join(split_up)}), not as one: "
                    f"remove it from key_tokens, or use a tokenizer that has it as one token"
                )
            ids.append(int(pieces[0]))
        return np.asarray(ids, dtype=np.int64)

    @cached_by_split
    def columns(self, split: str) -> Columns:
        """`input_ids` of N chunks, (N, T_i)."""
        chunks = self._chunks(split)
        limit = self.options.train_chunks if split == "train" else self.options.validation_chunks
        if limit is not None:
            if limit > len(chunks):
                raise SourceError(
                    f"split {split!r} has {len(chunks)} chunks of {self.options.context_length} tokens, but "
                    f"{split}_chunks is {limit}: lower it or use more text"
                )
            chosen = np.random.default_rng(self.options.split_seed).permutation(len(chunks))[:limit]
            chunks = chunks.take(chosen)
        return {"input_ids": chunks}

    def _chunks(self, split: str) -> Ragged:
        data, options = self.source.examples(split, columns=(CODE,)), self.options
        joined = options.remainder == "join"
        parts: list[Ragged] = []
        for start in range(0, len(data), SLICE):
            documents = self._token_ids(data[start : start + SLICE][CODE])
            # Unless documents are joined, cut each slice at once: dropped tokens then never add up in memory.
            parts.append(documents if joined else self._cut(documents))
        chunks = _concatenated(parts)
        if joined:
            chunks = self._cut(chunks, eos_id=self.tokenizer.eos_token_id)
        if not len(chunks):
            raise SourceError(
                f"no document of split {split!r} fills a chunk of {options.context_length} tokens: lower "
                f"context_length, keep or join the remainder, or use more text"
            )
        return chunks

    def _cut(self, documents: Ragged, *, eos_id: int | None = None) -> Ragged:
        options = self.options
        return chunk_documents_batch(
            documents, length=options.context_length, remainder=options.remainder, eos_id=eos_id
        )

    def _token_ids(self, texts: Sequence[str]) -> Ragged:
        """Return the token ids of N texts, (N, T_i), without special tokens other than those written in the text."""
        rows = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # texts longer than the model are cut into chunks
        )["input_ids"]
        return Ragged.from_arrow(pa.array(rows, type=pa.large_list(pa.int64())))

    def collate(self, features: Sequence[Feature], *, train: bool) -> Batch:
        # Pad on the right, even if the tokenizer pads on the left for generation: positions start at the first token.
        arrays: dict[str, Any] = pad_features(features, names=("input_ids",), tokenizer=self.tokenizer, side="right")
        ids, mask = arrays["input_ids"], arrays["attention_mask"]
        arrays["labels"] = causal_labels(ids, attention_mask=mask)
        if train and len(self.key_ids):
            unpadded = np.where(mask == 1, ids, MISSING)  # the padding token may be a key token
            weights = key_token_weights(unpadded, key_ids=self.key_ids, alpha=self.options.alpha)
            arrays["weights"] = weights.astype(np.float32)
        return to_batch(arrays, items=int((arrays["labels"][:, 1:] != IGNORED).sum()))

    def model(self) -> PreTrainedModel:
        tokenizer = self.tokenizer
        special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        model = self.source.model(AutoModelForCausalLM, **special)
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions is not None and positions < self.options.context_length:
            raise SourceError(
                f"context_length is {self.options.context_length}, but the model has {positions} positions: "
                f"lower it, or configure the model with more"
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

    def predict(self, model: torch.nn.Module, batch: Batch) -> list[ChunkPrediction]:
        targets = _targets(batch)
        losses, hits = losses_and_hits_at_positions(model, None, labels=targets.flatten(), **_inputs(batch))  # (B * T,)
        sums = (losses.double(), hits.double(), (targets != IGNORED).flatten().double())
        rows = torch.stack([each.view_as(targets).sum(1) for each in sums], 1).cpu().tolist()
        return [ChunkPrediction(loss, int(right), int(items)) for loss, right, items in rows]

    def score(self, predictions: Sequence[ChunkPrediction]) -> list[Score]:
        options = self.options
        return language_model_scores(
            predictions,
            chunks=len(self.columns("validation")["input_ids"]),
            accuracy="token_accuracy",
            settings=f"context:{options.context_length}|remainder:{options.remainder}|first:not-predicted|mean:token",
            no_items="every validation chunk is a single token, so there is nothing to predict: use longer documents",
        )

    def sample_outputs(self, model: torch.nn.Module) -> list[str]:
        """Return the last line of each prompt with its greedy completion. Line ends are shown as a sign."""
        with evaluating(model):
            completions = [self._complete(model, prompt) for prompt in self.options.prompts]
        return [
            f"{prompt.splitlines()[-1] if prompt else ''} \u2192 {completion.replace(LINE_END, RETURN_SIGN)}"
            for prompt, completion in zip(self.options.prompts, completions, strict=True)
        ]

    def _complete(self, model: torch.nn.Module, prompt: str) -> str:
        """Return the greedy completion of a prompt, up to an end of text."""
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
    mask = batch["attention_mask"] if padded else None  # without a mask, attention can use faster kernels
    return {"input_ids": batch["input_ids"], "attention_mask": mask, "use_cache": False}


def _targets(batch: Batch) -> torch.Tensor:
    """Return (B, T) the next token at each position, -100 where there is none. Labels are shifted, not the logits."""
    return pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)


def _concatenated(parts: list[Ragged]) -> Ragged:
    """Concatenate the rows of all parts. This empties `parts`, so that billions of tokens are never held twice."""
    lengths = np.concatenate([np.empty(0, np.int64), *(part.lengths for part in parts)])
    end = int(lengths.sum())
    values = np.empty(end, np.int64)
    while parts:
        tokens = parts.pop().values
        values[end - len(tokens) : end] = tokens
        end -= len(tokens)
    return Ragged.from_lengths(values, lengths=lengths)
