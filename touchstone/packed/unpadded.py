"""A model of transformers that computes real tokens only.

Called as the model itself, with padded (B, T) inputs: the padding is left out on the way in, rows are kept apart by
`attention` and by their positions, and what comes out is padded again. Where logits or losses over a vocabulary are
wanted at some places alone, the model's last layer sees no other.
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
from touchstone.packed.by_groups import MASKS
from touchstone.packed.dropout import fast_dropout
from touchstone.packed.head import Head
from touchstone.packed.layout import Layout, Size, active, laid_out, unfilled
from touchstone.packed.lookup import Lookup, is_large_table
from touchstone.packed.recording import Recorder, Recordings, size_of
from touchstone.packed.writing import written
from touchstone.pipelines.vocabulary import hidden_state_hook, losses_and_hits
from touchstone.stages.ragged import IGNORED

OUTPUTS = ("logits", "start_logits", "end_logits")


class Unpadded(nn.Module):
    """Attributes:
    module: the model: it still takes padded inputs.
    lookups: its large tables.
    layout: of the batch to come, made on the host while the device was busy; None: it is made from the masks.
    size: what a number of tokens is filled up to.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.module = model
        self.layout: Layout | None = None
        self.size: Size = unfilled
        self._undo: list[Callable[[], Any]] = []
        self._pack_attention()
        self.lookups: list[Lookup] = self._replace(is_large_table, Lookup)
        last = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        heads = self._replace(lambda m: m is last and type(m) is nn.Linear, Head)
        self._head: Head | None = heads[0] if heads else None
        self._pack_positions()

    # What pipelines call ------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        decoder_mask: torch.Tensor | None = None,
        **inputs: Any,
    ) -> ModelOutput:
        """Logits at every place, zero at padding."""
        layout = self._lay_out(input_ids, attention_mask, decoder_mask)
        output: ModelOutput = self._run(layout, input_ids=input_ids, **inputs)
        for name in OUTPUTS:
            packed = getattr(output, name, None)
            if packed is not None:
                output[name] = layout.predicted.pad(packed[0])
        return output

    def losses_at_positions(self, places: torch.Tensor | None, **given: Any) -> torch.Tensor:
        """See `touchstone.pipelines.vocabulary`."""
        return self._of_labels(places, hits=False, **given)[:, 0]

    def losses_and_hits_at_positions(
        self, places: torch.Tensor | None, **given: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `touchstone.pipelines.vocabulary`."""
        with torch.no_grad():
            losses, hits = self._of_labels(places, hits=True, **given).unbind(1)
        return losses, hits > 0

    @torch.no_grad()
    def generate(
        self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: GenerationConfig
    ) -> torch.Tensor:
        """(B, 1 + T) int64: what the model's own `generate` would write, up to near-ties; the start first. Where
        `written` cannot tell, its own does write.
        """
        asked: Any = {"input_ids": input_ids, "attention_mask": attention_mask, "generation_config": generation_config}
        ids = written(self.module, **asked)
        if ids is None:
            ids = cast(Any, self.module).generate(**asked)
        return ids

    # How ----------------------------------------------------------------------------------------------------------

    def _of_labels(
        self,
        places: torch.Tensor | None,
        *,
        hits: bool,
        labels: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        decoder_mask: torch.Tensor | None = None,
        **inputs: Any,
    ) -> torch.Tensor:
        """(M, 1) float32 losses of the M labels; with `hits` (M, 2), 1 beside the loss of a label that is likeliest."""
        layout = self._lay_out(input_ids, attention_mask, decoder_mask)
        segments = layout.predicted
        asked = labels if places is not None or not segments.padded else labels.index_select(0, segments.real)
        count = len(asked)
        wanted = segments.tokens if places is None else self.size(count)
        asked = pad(asked, (0, wanted - count), value=IGNORED)
        with ExitStack() as stack:
            if places is not None:
                places = torch.cat([places, places[:1].expand(wanted - count)])
                stack.enter_context(self._only(places, layout))
            if self._head is not None:
                bias = self._bias_of_logits(stack)
                stack.enter_context(self._head.scores(asked, hits=hits, extra_bias=bias))
            logits = self._run(layout, input_ids=input_ids, **inputs).logits[0]  # (M, V), or what the head made of them
        scores: torch.Tensor
        if self._head is not None:
            scores = logits
        elif hits:
            scores = torch.stack([each.float() for each in losses_and_hits(logits, labels=asked)], 1)
        else:
            scores = cross_entropy(logits.float(), asked, ignore_index=IGNORED, reduction="none")[:, None]
        scores = scores[:count]
        if places is None and segments.padded:
            scores = scores.new_zeros(len(labels), scores.shape[1]).index_copy(0, segments.real, scores)
        return scores

    def _lay_out(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, decoder_mask: torch.Tensor | None
    ) -> Layout:
        if self.layout is not None:
            return self.layout
        mask = torch.ones(input_ids.shape) if attention_mask is None else attention_mask
        return Layout.of(mask, decoder_mask=decoder_mask, device=input_ids.device, size=self.size)

    def _run(self, layout: Layout, **inputs: Any) -> Any:
        for segments in (layout.source, layout.target):
            if segments is not None and not segments.mask.any():
                raise EngineError(f"a batch of {len(segments.mask)} rows has no token: leave empty examples out")
        for name in ("input_ids", "token_type_ids"):
            if name in inputs:
                inputs[name] = layout.source.pack(inputs[name])
        if layout.target is not None:
            inputs["decoder_input_ids"] = layout.target.pack(inputs["decoder_input_ids"])
        if self._first_position is not None:
            inputs["position_ids"] = layout.source.positions[None] + self._first_position
            # A mask that is made already, and that `packed_attention` does not read: transformers makes none, looks for
            # no padding (GPT-2) and for no packed rows in the positions. It would wait for a GPU to tell.
            inputs["attention_mask"] = layout.source.positions.view(1, 1, 1, -1)
        with laid_out(layout), fast_dropout(MASKS):
            return self.module(**inputs)

    def _only(self, places: torch.Tensor, layout: Layout) -> AbstractContextManager[None]:
        """Within, the body of the model hands its head these places of the padded batch and no other."""
        segments = layout.predicted
        chosen = segments.rank.index_select(0, places) if segments.padded else places
        return hidden_state_hook(self.module, lambda hidden: hidden.index_select(1, chosen))

    def _bias_of_logits(self, stack: ExitStack) -> torch.Tensor | None:
        """Marian and BART add a bias to the logits after their head, and would add it to losses: it is moved into the
        head as long as `stack` is open."""
        bias: torch.Tensor | None = getattr(self.module, "final_logits_bias", None)
        if bias is None:
            return None
        stack.callback(setattr, self.module, "final_logits_bias", bias)
        self.module.final_logits_bias = bias.new_zeros((1, 1))
        return bias[0]

    # What is changed in the model, and back -----------------------------------------------------------------------

    def record(self, recorder: Recorder, *, rows: int) -> None:
        """From now on train by recordings of the model's body, where its batches have at most so many rows."""
        self.size = size_of
        self._undo.append(Recordings(self.module, rows=rows, recorder=recorder).remove)

    def restore(self) -> PreTrainedModel:
        """The model as it was given, with the weights and in the mode (training or not) that it has now."""
        while self._undo:
            self._undo.pop()()
        self.module.train(self.module.training)  # those that were away have missed a change of mode
        return self.module

    def _replace(self, wanted: Callable[[nn.Module], bool], replacement: Callable[[Any], Any]) -> list[Any]:
        """Modules by others; one that stands in several places by one other."""
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
        if model.config._attn_implementation != NAME:  # transformers leaves it at a warning
            raise EngineError(
                f"{type(model).__name__} has attention of its own, whose rows cannot be packed: "
                "take the engine trainer or loop"
            )
        self._undo.append(lambda: model.set_attn_implementation(before))
        for module in model.modules():
            if hasattr(module, "compute_bias") and hasattr(module, "relative_attention_bias"):
                self._pack_bias(module)

    def _pack_bias(self, module: Any) -> None:
        """T5's bias depends on the distance within a row: as many as the longest row has, not the whole batch."""
        compute = module.compute_bias

        def of_longest(query_length: int, key_length: int, **where: Any) -> torch.Tensor:
            layout = active()
            if layout is not None:
                segments = layout.target if module.is_decoder and layout.target is not None else layout.source
                query_length = key_length = int(segments.lengths.max())
            bias: torch.Tensor = compute(query_length, key_length, **where)
            return bias

        module.compute_bias = of_longest
        self._undo.append(lambda: delattr(module, "compute_bias"))

    def _pack_positions(self) -> None:
        model = self.module
        self._first_position: int | None = None
        if "position_ids" in inspect.signature(model.forward).parameters:
            embeddings = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
            padding = getattr(embeddings, "padding_idx", None)  # RoBERTa counts from the one after it
            self._first_position = 0 if padding is None else padding + 1
        for name, module in model.named_modules():
            if name.endswith("embed_positions"):
                decodes = "decoder" in name.split(".")

                def give(module: nn.Module, args: Any, kwargs: Any, decodes: bool = decodes) -> Any:
                    layout = active()
                    if layout is None:
                        return None
                    segments = layout.target if decodes and layout.target is not None else layout.source
                    return args, kwargs | {"position_ids": segments.positions}

                self._undo.append(module.register_forward_pre_hook(give, with_kwargs=True).remove)
