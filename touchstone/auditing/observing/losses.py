"""Record the calls of losses on the output of a model: their targets, and how their input was made."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from touchstone.auditing.observing.calls import LOGITS_KEPT, copied, is_part, squashed
from touchstone.auditing.observing.frames import caller
from touchstone.auditing.observing.observe import Replace
from touchstone.auditing.observing.trace import Forward, LossCall

if TYPE_CHECKING:
    from touchstone.auditing.observing.record import Recorder

LOSSES = ("cross_entropy", "nll_loss")
BINARY = "binary_cross_entropy_with_logits"
REGRESSIONS = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
RECENT = 8
"""Calls of models among which the one that a loss scores is looked for."""
CALLS = 4
"""Calls of losses that are kept for one call of a model."""


class Losses:
    """The hooks of a recorder on losses."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def watch(self, functional: Any, replace: Replace) -> None:
        """Put the hooks into `torch.nn.functional`."""
        for name in (*LOSSES, BINARY, *REGRESSIONS):
            replace(functional, name, partial(self._call, name=name))

    def _call(self, original: Any, name: str) -> Any:
        signature = inspect.signature(original)

        def loss(*arguments: Any, **options: Any) -> Any:
            noted = None
            if self._recorder.notes_losses:
                noted = self._note(signature.bind(*arguments, **options).arguments, name)
            result = original(*arguments, **options)
            if noted is not None and result.numel() == 1:
                noted.value = result.detach()  # a tensor until loop.py reads it
            return result

        return loss

    def _note(self, given: Mapping[str, Any], name: str) -> LossCall | None:
        logits = given["input"]
        inside = self._recorder.inside
        forward = inside or self._scored(logits)
        if forward is None or not forward.batch:
            return None
        calls = forward.losses if name in LOSSES else forward.other_losses
        if len(calls) >= CALLS:
            return None
        kept = name in LOSSES and logits.requires_grad and self._recorder.keeps and logits.numel() <= LOGITS_KEPT
        calls.append(
            LossCall(
                target=copied(given["target"]),
                inside=inside is not None,
                shape=tuple(logits.shape),
                ignore_index=given.get("ignore_index", -100),
                reduction=given.get("reduction", "mean"),
                label_smoothing=given.get("label_smoothing", 0.0),
                weighted=given.get("weight") is not None,
                where=caller(),
                function=name,
                given=copied(logits) if kept else None,
                squashed=squashed(logits),
            )
        )
        return calls[-1]

    def _scored(self, logits: Any) -> Forward | None:
        """Return the call of a model whose output a loss is given: a teacher may have been called after the student."""
        forwards, calls = self._recorder.trace.forwards[-RECENT:], self._recorder.calls[-RECENT:]
        recent = list(zip(forwards, calls, strict=True))[::-1]
        for forward, call in recent:
            if is_part(logits, call.outputs):
                return forward
        return next((forward for forward, _ in recent if forward.grad or not logits.requires_grad), None)
