"""A transformers model that computes only real tokens.

It is called like the model itself, with padded (B, T) inputs. Padding is removed on the way in, rows are kept apart by
`attention` and by their positions, and the outputs are padded again. Where a pipeline needs logits or losses over a
vocabulary at some positions only, the output layer sees only these.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import cross_entropy, pad
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils.generic import ModelOutput

from touchstone.engines.training import EngineError
from touchstone.packed.attention import NAME
from touchstone.packed.generation import generate
from touchstone.packed.layout import Layout, Rounding, Segments, current_layout, unrounded, use_layout
from touchstone.packed.modules import DROPOUT_MASKS, Head, Lookup, fast_dropout, is_large_table
from touchstone.pipelines.vocabulary import hidden_state_hook, losses_and_hits
from touchstone.stages.ragged import IGNORED

OUTPUTS = ("logits", "start_logits", "end_logits")


class Unpadded(nn.Module):
    """Wraps a model; `restore` undoes all changes to it.

    Attributes:
        module: the model. Called directly, it still takes padded inputs.
        lookups: its large embeddings, replaced by `Lookup`.
        layout: the layout of the next batch, if it was made in advance on the host; None: it is made from the masks.
        rounding: what the number of tokens in a batch is rounded up to.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.module = model
        self.layout: Layout | None = None
        self.rounding: Rounding = unrounded
        self._undo: list[Callable[[], Any]] = []
        self._pack_attention()
        self.lookups: list[Lookup] = self._replace(is_large_table, Lookup)
        last = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        heads = self._replace(lambda m: m is last and type(m) is nn.Linear, Head)
        self._head: Head | None = heads[0] if heads else None
        self._pack_positions()

    # Called by pipelines ----------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        decoder_mask: torch.Tensor | None = None,
        **inputs: Any,
    ) -> ModelOutput:
        """Compute padded logits, zero at padding."""
        layout = self._layout_of(input_ids, attention_mask, decoder_mask)
        output: ModelOutput = self._forward_packed(layout, input_ids=input_ids, **inputs)
        for name in OUTPUTS:
            packed = getattr(output, name, None)
            if packed is not None:
                if packed.shape[:2] != (1, layout.predicted.tokens):
                    raise EngineError(
                        f"{type(self.module).__name__} does not predict its {name} for every token, so its rows cannot "
                        "be packed; use the engine trainer or loop"
                    )
                output[name] = layout.predicted.pad(packed[0])
        return output

    def losses_at_positions(self, positions: torch.Tensor | None, **given: Any) -> torch.Tensor:
        """Compute the losses of labels; see `touchstone.pipelines.vocabulary.ScoresPositions`."""
        return self._score_labels(positions, hits=False, **given)[:, 0]

    def losses_and_hits_at_positions(
        self, positions: torch.Tensor | None, **given: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute losses and top-1 hits of labels; see `touchstone.pipelines.vocabulary.ScoresPositions`."""
        with torch.no_grad():
            losses, hits = self._score_labels(positions, hits=True, **given).unbind(1)
        return losses, hits > 0

    @torch.no_grad()
    def generate(
        self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: GenerationConfig
    ) -> torch.Tensor:
        """Return (B, 1 + T) int64: the tokens of the model's own `generate`, except near-ties, the start token first.

        Models and settings that `generation` does not support are passed to the model's own `generate`.
        """
        given: Any = {"input_ids": input_ids, "attention_mask": attention_mask, "generation_config": generation_config}
        ids = generate(self.module, **given)
        if ids is None:
            ids = cast(Any, self.module).generate(**given)
        return ids

    # The packed forward pass ------------------------------------------------------------------------------------------

    def _score_labels(
        self,
        positions: torch.Tensor | None,
        *,
        hits: bool,
        labels: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        decoder_mask: torch.Tensor | None = None,
        **inputs: Any,
    ) -> torch.Tensor:
        """Return (M, 1) float32 losses of the M labels; with `hits` (M, 2), the second column 1 for a hit, else 0."""
        layout = self._layout_of(input_ids, attention_mask, decoder_mask)
        segments = layout.predicted
        packed_labels = labels
        if positions is None and segments.has_padding:
            packed_labels = labels.index_select(0, segments.padded_index)
        # Round the number of scored tokens up, with ignored labels.
        count = len(packed_labels)
        rounded = segments.tokens if positions is None else self.rounding(count)
        packed_labels = pad(packed_labels, (0, rounded - count), value=IGNORED)
        with ExitStack() as stack:
            if positions is not None:
                positions = torch.cat([positions, positions[:1].expand(rounded - count)])
                stack.enter_context(self._select_before_head(positions, segments))
            if self._head is not None:
                bias = self._move_logits_bias(stack)
                stack.enter_context(self._head.scoring(packed_labels, hits=hits, extra_bias=bias))
            logits = self._forward_packed(layout, input_ids=input_ids, **inputs).logits[0]
        scores: torch.Tensor
        if self._head is not None:
            scores = logits  # the head has returned scores in their place
        elif hits:
            scores = torch.stack([each.float() for each in losses_and_hits(logits, labels=packed_labels)], 1)
        else:
            losses = cross_entropy(logits.float(), packed_labels, ignore_index=IGNORED, reduction="none")
            scores = losses[:, None]
        scores = scores[:count]
        if positions is None and segments.has_padding:
            zeros = scores.new_zeros(len(labels), scores.shape[1])
            scores = zeros.index_copy(0, segments.padded_index, scores)
        return scores

    def _layout_of(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, decoder_mask: torch.Tensor | None
    ) -> Layout:
        if self.layout is not None:
            return self.layout
        mask = torch.ones(input_ids.shape) if attention_mask is None else attention_mask
        return Layout.of(mask, decoder_mask=decoder_mask, device=input_ids.device, rounding=self.rounding)

    def _forward_packed(self, layout: Layout, **inputs: Any) -> Any:
        """Pack the inputs and call the model; its outputs stay packed."""
        for segments in (layout.source, layout.target):
            if segments is not None and not segments.mask.any():
                raise EngineError(f"a batch of {len(segments.mask)} rows has no tokens; remove the empty examples")
        for name in ("input_ids", "token_type_ids"):
            if name in inputs:
                inputs[name] = layout.source.pack(inputs[name])
        if layout.target is not None:
            inputs["decoder_input_ids"] = layout.target.pack(inputs["decoder_input_ids"])
        if self._first_position is not None:
            inputs["position_ids"] = layout.source.positions[None] + self._first_position
            # A ready-made (4-D) mask, which `packed_attention` does not read. It keeps transformers from making one,
            # and from searching for padding (GPT-2) or packed rows, which would synchronize with a GPU.
            inputs["attention_mask"] = layout.source.positions.view(1, 1, 1, -1)
        with use_layout(layout), fast_dropout(DROPOUT_MASKS):
            return self.module(**inputs)

    def _select_before_head(self, positions: torch.Tensor, segments: Segments) -> AbstractContextManager[None]:
        """Make the model's body pass only these positions of the flattened padded batch to the head."""
        selected = segments.packed_index.index_select(0, positions) if segments.has_padding else positions
        return hidden_state_hook(self.module, lambda hidden: hidden.index_select(1, selected))

    def _move_logits_bias(self, stack: ExitStack) -> torch.Tensor | None:
        """Return the bias that Marian and BART add to the logits after their head, (V,), for the head to add.

        The model would add it to losses, so it sees zeros instead until `stack` is closed.
        """
        bias: torch.Tensor | None = getattr(self.module, "final_logits_bias", None)
        if bias is None:
            return None
        stack.callback(setattr, self.module, "final_logits_bias", bias)
        self.module.final_logits_bias = bias.new_zeros((1, 1))
        return bias[0]

    # Changes to the model, and back -----------------------------------------------------------------------------------

    def restore(self) -> PreTrainedModel:
        """Undo all changes to the model and return it, with its current weights and mode (training or not)."""
        while self._undo:
            self._undo.pop()()
        self.module.train(self.module.training)  # the modules that were replaced have missed changes of mode
        return self.module

    def _replace(self, wanted: Callable[[nn.Module], bool], replacement: Callable[[Any], Any]) -> list[Any]:
        """Replace modules; one that is used in several places gets one replacement."""
        made: dict[nn.Module, nn.Module] = {}
        for parent in list(self.module.modules()):
            for name, child in list(parent.named_children()):
                if wanted(child):
                    if child not in made:
                        made[child] = replacement(child).train(child.training)
                    setattr(parent, name, made[child])
                    self._undo.append(partial(setattr, parent, name, child))
        return list(made.values())

    def _pack_attention(self) -> None:
        model = self.module
        before = model.config._attn_implementation
        model.set_attn_implementation(NAME)
        if model.config._attn_implementation != NAME:  # transformers only warns
            raise EngineError(
                f"{type(model).__name__} does not support other attention implementations, so its rows cannot be "
                "packed; use the engine trainer or loop"
            )
        self._undo.append(lambda: model.set_attn_implementation(before))
        for module in model.modules():
            if hasattr(module, "compute_bias") and hasattr(module, "relative_attention_bias"):
                self._pack_bias(module)

    def _pack_bias(self, module: Any) -> None:
        """Make T5 compute its position bias for the longest row, not for the whole packed batch."""
        compute = module.compute_bias

        def compute_for_longest_row(query_length: int, key_length: int, **where: Any) -> torch.Tensor:
            if (layout := current_layout()) is not None:
                segments = _segments_for(layout, decoder=module.is_decoder)
                query_length = key_length = int(segments.lengths.max())
            bias: torch.Tensor = compute(query_length, key_length, **where)
            return bias

        module.compute_bias = compute_for_longest_row
        self._undo.append(lambda: delattr(module, "compute_bias"))

    def _pack_positions(self) -> None:
        """Make positions start again in every row: by `position_ids` where the model takes them, else by a hook."""
        model = self.module
        self._first_position: int | None = None
        if "position_ids" in inspect.signature(model.forward).parameters:
            embeddings = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
            padding = getattr(embeddings, "padding_idx", None)  # RoBERTa counts from padding_idx + 1
            self._first_position = 0 if padding is None else padding + 1
        for name, module in model.named_modules():
            if name.endswith("embed_positions"):
                decoder = "decoder" in name.split(".")

                def pass_positions(module: nn.Module, args: Any, kwargs: Any, decoder: bool = decoder) -> Any:
                    if (layout := current_layout()) is None:
                        return None
                    return args, kwargs | {"position_ids": _segments_for(layout, decoder=decoder).positions}

                self._undo.append(module.register_forward_pre_hook(pass_positions, with_kwargs=True).remove)


def _segments_for(layout: Layout, *, decoder: bool) -> Segments:
    """Return the rows that a module of the decoder, or of the encoder or only stack, computes."""
    return layout.target if decoder and layout.target is not None else layout.source
