"""Record what happens between two optimizer steps: backward, clipping, scaling, and the step itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from touchstone.auditing.observing.calls import norm
from touchstone.auditing.observing.enclosing import loops_around
from touchstone.auditing.observing.frames import caller, user_frames
from touchstone.auditing.observing.observe import Replace, Undo
from touchstone.auditing.observing.trace import Clip, OptimizerFacts, Update

if TYPE_CHECKING:
    import torch
    from torch import nn

    from touchstone.auditing.observing.record import Recorder


@dataclass
class Kept:
    """What is kept of one optimizer step, beside the `Update` of the same index.

    Args:
        weights: the trainable weights and all buffers before the step, by name in the module as called.
        gradients: the accumulated gradients before clipping, by name; None if a clip came between.
    """

    weights: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor] | None


@dataclass
class _Group:
    """What happened since the last optimizer step."""

    forwards: list[int] = field(default_factory=list)
    losses: list[Any] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)
    leftover: list[Any] = field(default_factory=list)
    lost: int = 0
    gradients: dict[str, torch.Tensor] | None = None
    copied_at: int = 0
    scale: float = 1.0
    unscaled: bool = False


class Steps:
    """The hooks of a recorder on backward, optimizers and schedules.

    Args:
        recorder: gets what is seen.
        steps: optimizer steps of which weights and gradients are kept, apart from the last one of a pass.
        on_step: called after every optimizer step.
    """

    def __init__(self, recorder: Recorder, steps: int, on_step: Callable[[], None] | None) -> None:
        self._recorder = recorder
        self._steps = steps
        self._on_step = on_step
        self._stepping = 0
        self.forget()

    def forget(self) -> None:
        """Forget the gradients and calls since the last optimizer step."""
        self._group = _Group()
        self._latest: nn.Module | None = None

    def watch(self, torch: ModuleType, replace: Replace, undo: Undo) -> None:
        """Put the hooks into torch."""
        import torch.optim.lr_scheduler as schedulers
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        replace(torch.autograd, "backward", self._backward)
        replace(torch.optim.Optimizer, "__init__", self._make_optimizer)
        replace(torch.optim.Optimizer, "zero_grad", self._zero_grad)
        replace(torch.nn.Module, "zero_grad", self._zero_grad)
        for name in ("clip_grad_norm_", "clip_grad_value_"):
            replace(torch.nn.utils.clip_grad, name, self._clip)
            replace(torch.nn.utils, name, partial(_same, vars(torch.nn.utils.clip_grad)[name]))
        for kind in vars(schedulers).values():
            if isinstance(kind, type) and issubclass(kind, schedulers.LRScheduler) and "step" in vars(kind):
                replace(kind, "step", self._schedule)
        scaler = getattr(torch.amp, "GradScaler", None)
        if scaler is not None:
            replace(scaler, "scale", self._scale)
            replace(scaler, "unscale_", self._unscale)
        undo.append(register_optimizer_step_pre_hook(self._before_step).remove)
        undo.append(register_optimizer_step_post_hook(self._after_step).remove)

    def called(self, module: nn.Module, call: int) -> None:
        """Note a call of the model with gradients, by its index in the trace."""
        self._group.forwards.append(call)
        self._latest = module

    def _backward(self, original: Any) -> Any:
        def backward(tensors: Any, *arguments: Any, **options: Any) -> Any:
            if self._recorder.ready:
                self._note_backward(tensors)
            return original(tensors, *arguments, **options)

        return backward

    def _note_backward(self, tensors: Any) -> None:
        if self._recorder.ending is not None:
            self._recorder.ending.begin()
            self._recorder.ending.check()
        group = self._group
        if not group.losses:
            group.leftover = [
                norm(each.grad for part in facts.optimizer.param_groups for each in part["params"])
                for facts in self._recorder.trace.optimizers
            ]
        value = tensors if hasattr(tensors, "detach") else next(iter(tensors), None)
        group.losses.append(value.detach().clone() if value is not None and value.numel() == 1 else float("nan"))
        self._recorder.trace.unstepped += 1
        if self._recorder.passing is not None:
            self._recorder.trace.passes[self._recorder.passing].training = True

    def _make_optimizer(self, original: Any) -> Any:
        def __init__(optimizer: Any, *arguments: Any, **options: Any) -> None:
            original(optimizer, *arguments, **options)
            if self._recorder.ready:
                self._recorder.optimizers.append(optimizer)

        return __init__

    def _zero_grad(self, original: Any) -> Any:
        def zero_grad(owner: Any, *arguments: Any, **options: Any) -> Any:
            if self._recorder.ready and self._group.losses:
                self._group.lost = len(self._group.losses)
            return original(owner, *arguments, **options)

        return zero_grad

    def _clip(self, original: Any) -> Any:
        signature = inspect.signature(original)

        def clip(*arguments: Any, **options: Any) -> Any:
            if not self._recorder.ready:
                return original(*arguments, **options)
            given = list(signature.bind(*arguments, **options).arguments.values())
            group = self._group
            if self.keeps() and not group.clips:
                group.gradients, group.copied_at = self._gradients(), len(group.losses)
                if group.scale != 1.0 and not group.unscaled:
                    group.gradients = {name: each / group.scale for name, each in group.gradients.items()}
            result = original(*arguments, **options)
            scaled = group.scale != 1.0 and not group.unscaled
            group.clips.append(Clip(float(given[1]), result, len(group.losses), caller(), scaled))
            return result

        return clip

    def _scale(self, original: Any) -> Any:
        def scale(scaler: Any, *arguments: Any, **options: Any) -> Any:
            result = original(scaler, *arguments, **options)
            if self._recorder.ready and scaler.is_enabled():
                self._group.scale = float(scaler.get_scale())
            return result

        return scale

    def _unscale(self, original: Any) -> Any:
        def unscale_(scaler: Any, *arguments: Any, **options: Any) -> Any:
            if self._recorder.ready:
                self._group.unscaled = True
            return original(scaler, *arguments, **options)

        return unscale_

    def keeps(self) -> bool:
        """Weights and gradients of the coming step are kept."""
        return self._recorder.ending is not None or len(self._recorder.trace.updates) < self._steps

    def _gradients(self) -> dict[str, torch.Tensor]:
        if self._latest is None:
            return {}
        return {
            name: parameter.grad.detach().clone()
            for name, parameter in self._latest.named_parameters()
            if parameter.grad is not None
        }

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        if not self._recorder.ready:
            return
        if self._recorder.ending is not None:
            self._recorder.ending.begin()
            self._recorder.ending.check()
        trace, group = self._recorder.trace, self._group
        known = [each.optimizer for each in trace.optimizers]
        if not any(each is optimizer for each in known):
            trace.optimizers.append(OptimizerFacts(optimizer))
            known.append(optimizer)
        if not group.losses:
            return  # another optimizer of the same backward calls, or a step without any
        place = next(index for index, each in enumerate(known) if each is optimizer)
        if self.keeps() and self._latest is not None:
            self._keep(len(trace.updates), group)
        if not trace.updates:
            self._recorder.loops = loops_around(user_frames())
        trace.updates.append(
            Update(
                forwards=group.forwards,
                losses=group.losses,
                leftover=group.leftover[place] if place < len(group.leftover) else None,
                clips=group.clips,
                rates=[float("nan" if each["lr"] is None else each["lr"]) for each in optimizer.param_groups],
                backwards_before_zero=group.lost,
                passing=self._recorder.passing,
                optimizer=place,
                scale=group.scale,
                where=caller(),
            )
        )
        self._group = _Group()
        trace.unstepped = 0

    def _keep(self, index: int, group: _Group) -> None:
        assert self._latest is not None
        before = index - 1
        if before >= self._steps and self._recorder.trace.updates[before].passing == self._recorder.passing:
            self._recorder.kept.pop(before, None)  # only the last step of a pass is kept beside the first ones
            for place in self._recorder.trace.updates[before].forwards:
                self._recorder.calls[place].pulls = {}
        weights = {
            name: parameter.detach().clone()
            for name, parameter in self._latest.named_parameters()
            if parameter.requires_grad
        }
        weights |= {name: buffer.detach().clone() for name, buffer in self._latest.named_buffers()}
        gradients = group.gradients if group.clips else self._gradients()
        if group.clips and group.copied_at != len(group.losses):
            gradients = None
        self._recorder.kept[index] = Kept(weights, gradients)

    def _after_step(self, *_: Any) -> None:
        if not self._recorder.ready:
            return
        if self._recorder.ending is not None:
            self._recorder.ending.after_step(self._recorder.trace)
        if self._on_step is not None:
            self._on_step()

    def _schedule(self, original: Any) -> Any:
        def step(schedule: Any, *arguments: Any, **options: Any) -> Any:
            if not self._recorder.ready or self._stepping:
                return original(schedule, *arguments, **options)
            known = any(each is schedule for each in self._recorder.trace.schedules)
            if not known:
                self._recorder.trace.schedules.append(schedule)
            if self._recorder.trace.updates:
                self._recorder.trace.updates[-1].scheduler_steps += 1
            elif known:  # a schedule calls its own step once when it is made
                self._recorder.trace.early_scheduler_steps += 1
            self._stepping += 1
            try:
                return original(schedule, *arguments, **options)
            finally:
                self._stepping -= 1

        return step


def _same(replacement: Any, _: Any) -> Any:
    return replacement
