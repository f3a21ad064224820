"""Record what a training loop does: calls of the model, backward, clipping, optimizer steps, loaders and metrics.

A `Recorder` gets its hooks from `observe.Observer`. It writes a `Trace`, and keeps what is needed to compute the logits
of a few optimizer steps again: the weights, the inputs, and the state of the random generators before each call.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from touchstone.auditing.observing.calls import (
    LOGITS_KEPT,
    Call,
    autocast,
    copied,
    generator_states,
    loss_of,
    named,
    norm,
    predictions_and_references,
    squashed,
    storage_of,
    storages,
    watch_logits,
)
from touchstone.auditing.observing.enclosing import Loop, loops_around
from touchstone.auditing.observing.ending import Ending
from touchstone.auditing.observing.frames import caller, user_frames
from touchstone.auditing.observing.loaders import Loaders
from touchstone.auditing.observing.observe import Replace, Undo
from touchstone.auditing.observing.trace import Clip, Forward, LossCall, MetricCall, OptimizerFacts, Trace, Update

if TYPE_CHECKING:
    import torch
    from torch import nn

METRICS = {
    "seqeval.metrics": ("f1_score", "precision_score", "recall_score", "accuracy_score", "classification_report"),
    "sklearn.metrics": ("f1_score", "precision_score", "recall_score", "accuracy_score", "classification_report"),
    "sacrebleu": ("corpus_bleu", "corpus_chrf", "raw_corpus_bleu"),
}
CALLS_KEPT = 600
METRICS_KEPT = 40


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


class Recorder:
    """Records a loop.

    Args:
        ending: decides when the script ends; None never ends it.
        on_step: called after every optimizer step.
        steps: optimizer steps of which weights and gradients are kept, apart from the last one of a pass.

    Attributes:
        trace: what was seen. `loop.py` completes it.
        calls: what is needed to repeat the calls of `trace.forwards`, index by index.
        kept: weights and gradients of some steps, by the index of the step.
        loops: the loops around the first optimizer step, outermost first.
        tokenizers: the tokenizers that were called, with the number of calls, in order.
        made: the DataLoaders that were constructed.
        optimizers: the optimizers that were constructed; some may not have taken a step yet.
        accelerator: the Accelerator, or None.
        active: nothing is recorded while it is False.
        ending: decides when the script ends, or None.
        passing: the index of the pass whose batch was handed out last (in `trace.passes`), or None.
    """

    def __init__(
        self, ending: Ending | None = None, *, on_step: Callable[[], None] | None = None, steps: int = 2
    ) -> None:
        self.trace = Trace()
        self.calls: list[Call] = []
        self.kept: dict[int, Kept] = {}
        self.tokenizers: dict[int, tuple[Any, int]] = {}
        self.made: list[Any] = []
        self.optimizers: list[Any] = []
        self.accelerator: Any = None
        self.active = True
        self._at_rest: Callable[[], None] | None = None
        self.ending = ending
        self._on_step = on_step
        self._steps = steps
        self._group = _Group()
        self._inside: Forward | None = None
        self._generating = 0
        self._measuring = 0
        self._stepping = 0
        self._latest: nn.Module | None = None
        self.passing: int | None = None
        self._trained: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
        self._thread = threading.get_ident()
        self.loops: list[Loop] = []

    @property
    def ready(self) -> bool:
        """Hooks do something: the recorder is active, and this is the script's main thread."""
        return self.active and threading.get_ident() == self._thread

    def finish(self, at_rest: Callable[[], None]) -> None:
        """Call a function as soon as a model is called for the next training step."""
        self._at_rest = at_rest

    def release(self) -> None:
        """Stop recording, and forget everything, so that copies of weights and batches are freed."""
        self.active = False
        self.trace, self.calls, self.kept, self.made, self.tokenizers = Trace(), [], {}, [], {}
        self.optimizers, self._group, self._latest = [], _Group(), None

    def patches(self, replace: Replace, undo: Undo) -> dict[str, Callable[[ModuleType], None]]:
        """Return what to do with a module as soon as it has been imported, by its name."""

        def torch_hooks(module: ModuleType) -> None:
            self._watch_torch(module, replace, undo)

        return {
            "torch": torch_hooks,
            "transformers.tokenization_utils_base": lambda module: replace(
                module.PreTrainedTokenizerBase, "__call__", self._tokenizer_call
            ),
            "transformers.generation.utils": lambda module: replace(module.GenerationMixin, "generate", self._generate),
            "accelerate.accelerator": lambda module: self._watch_accelerate(module, replace),
            "evaluate.module": lambda module: self._watch_evaluate(module, replace),
            **{name: partial(self._watch_metrics, replace=replace, names=METRICS[name]) for name in METRICS},
        }

    def _watch_metrics(self, module: ModuleType, *, replace: Replace, names: tuple[str, ...]) -> None:
        for name in names:
            if hasattr(module, name):
                replace(module, name, partial(self._metric, name=f"{module.__name__}.{name}"))

    def _watch_torch(self, torch: ModuleType, replace: Replace, undo: Undo) -> None:
        import torch.optim.lr_scheduler as schedulers
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        replace(torch.nn.Module, "__call__", self._module_call)
        for name in ("cross_entropy", "nll_loss", "binary_cross_entropy_with_logits"):
            replace(torch.nn.functional, name, partial(self._loss_call, name=name))
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
        Loaders(self).watch(replace)
        undo.append(register_optimizer_step_pre_hook(self._before_step).remove)
        undo.append(register_optimizer_step_post_hook(self._after_step).remove)

    def _watch_accelerate(self, module: ModuleType, replace: Replace) -> None:
        def accumulate(original: Any) -> Any:
            def wrapper(accelerator: Any, *arguments: Any, **options: Any) -> Any:
                if self.active:
                    self.trace.accumulate, self.accelerator = True, accelerator
                return original(accelerator, *arguments, **options)

            return wrapper

        def prepare(original: Any) -> Any:
            def wrapper(accelerator: Any, *arguments: Any, **options: Any) -> Any:
                if self.active:
                    self.accelerator = accelerator
                return original(accelerator, *arguments, **options)

            return wrapper

        replace(module.Accelerator, "accumulate", accumulate)
        replace(module.Accelerator, "prepare", prepare)

    def _watch_evaluate(self, module: ModuleType, replace: Replace) -> None:
        for name in ("add", "add_batch", "compute"):
            replace(module.EvaluationModule, name, partial(self._metric, name=f".{name}"))

    # Calls of the model

    def _module_call(self, original: Any) -> Any:
        import torch

        def __call__(module: Any, *arguments: Any, **options: Any) -> Any:
            if self._at_rest is not None and torch.is_grad_enabled():
                rest, self._at_rest = self._at_rest, None
                rest()
            if self._inside is not None or not self.ready or not self._is_model(module):
                return original(module, *arguments, **options)
            if self.ending is not None:
                self.ending.check()
            if self._generating > 2:  # one call of generate calls the encoder once, and the decoder for every token
                return original(module, *arguments, **options)
            forward = self._before_forward(module, arguments, options)
            self._inside = forward
            try:
                output = original(module, *arguments, **options)
            finally:
                self._inside = None
            self.calls[-1].storages = storages(output)
            if forward.grad and self._keeps():
                self.calls[-1].pulls = watch_logits(output)
            loss = loss_of(output)  # a tensor until loop.py reads it
            forward.loss = None if loss is None else loss.detach()
            self._generating *= 2
            return output

        return __call__

    def _is_model(self, module: nn.Module) -> bool:
        """Tell whether a module has parameters. Losses and metrics may be modules too, but have none."""
        if module not in self._trained:
            self._trained[module] = next(module.parameters(), None) is not None
        return self._trained[module]

    def _before_forward(self, module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> Forward:
        import torch

        grad = torch.is_grad_enabled()
        forward = Forward(
            batch={},
            training=module.training,
            grad=grad,
            generating=bool(self._generating),
            passing=self.passing,
            step=len(self.trace.updates),
            where=caller(),
        )
        call = Call(module, (), {})
        if not forward.generating and len(self.calls) < CALLS_KEPT:
            call.arguments, call.options = copied(arguments), copied(options)
            forward.batch = named(module, call.arguments, call.options)
            if grad:
                call.rng = generator_states()
                call.modes = tuple(each.training for each in module.modules())
                call.autocast = autocast()
        if grad:
            self._group.forwards.append(len(self.calls))
            self._latest = module
        self.calls.append(call)
        self.trace.forwards.append(forward)
        return forward

    def _generate(self, original: Any) -> Any:
        def generate(model: Any, *arguments: Any, **options: Any) -> Any:
            if not self.ready or self._generating:
                return original(model, *arguments, **options)
            if len(self.trace.generations) < METRICS_KEPT:
                given = {"inputs": arguments[0], **options} if arguments else dict(options)
                self.trace.generations.append({"where": caller(), **copied(given)})
            self._generating = 1
            try:
                return original(model, *arguments, **options)
            finally:
                self._generating = 0

        return generate

    def _loss_call(self, original: Any, name: str) -> Any:
        signature = inspect.signature(original)

        def loss(*arguments: Any, **options: Any) -> Any:
            if self.ready and not self._generating:
                self._note_loss(signature.bind(*arguments, **options).arguments, name)
            return original(*arguments, **options)

        return loss

    def _note_loss(self, given: Mapping[str, Any], name: str) -> None:
        forward = self._inside or self._scored(given["input"])
        if forward is None or len(forward.losses) >= 4 or not forward.batch:
            return
        logits = given["input"]
        kept = logits.requires_grad and self._keeps() and logits.numel() <= LOGITS_KEPT
        forward.losses.append(
            LossCall(
                target=copied(given["target"]),
                inside=self._inside is not None,
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

    def _scored(self, logits: Any) -> Forward | None:
        """Return the call of a model whose output a loss is given: a teacher may have been called after the student."""
        recent = list(zip(self.trace.forwards[-8:], self.calls[-8:], strict=True))[::-1]
        storage = storage_of(logits)
        for forward, call in recent:
            if storage in call.storages:
                return forward
        fitting = [forward for forward, _ in recent if forward.grad or not logits.requires_grad]
        return next(iter(fitting), None)

    # Backward, clipping, steps

    def _backward(self, original: Any) -> Any:
        def backward(tensors: Any, *arguments: Any, **options: Any) -> Any:
            if self.ready:
                self._note_backward(tensors)
            return original(tensors, *arguments, **options)

        return backward

    def _note_backward(self, tensors: Any) -> None:
        if self.ending is not None:
            self.ending.begin()
            self.ending.check()
        group = self._group
        if not group.losses:
            group.leftover = [
                norm(each.grad for part in facts.optimizer.param_groups for each in part["params"])
                for facts in self.trace.optimizers
            ]
        value = tensors if hasattr(tensors, "detach") else next(iter(tensors), None)
        group.losses.append(value.detach().clone() if value is not None and value.numel() == 1 else float("nan"))
        self.trace.unstepped += 1
        if self.passing is not None:
            self.trace.passes[self.passing].training = True

    def _make_optimizer(self, original: Any) -> Any:
        def __init__(optimizer: Any, *arguments: Any, **options: Any) -> None:
            original(optimizer, *arguments, **options)
            if self.ready:
                self.optimizers.append(optimizer)

        return __init__

    def _zero_grad(self, original: Any) -> Any:
        def zero_grad(owner: Any, *arguments: Any, **options: Any) -> Any:
            if self.ready and self._group.losses:
                self._group.lost = len(self._group.losses)
            return original(owner, *arguments, **options)

        return zero_grad

    def _clip(self, original: Any) -> Any:
        signature = inspect.signature(original)

        def clip(*arguments: Any, **options: Any) -> Any:
            if not self.ready:
                return original(*arguments, **options)
            given = list(signature.bind(*arguments, **options).arguments.values())
            group = self._group
            if self._keeps() and not group.clips:
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
            if self.ready and scaler.is_enabled():
                self._group.scale = float(scaler.get_scale())
            return result

        return scale

    def _unscale(self, original: Any) -> Any:
        def unscale_(scaler: Any, *arguments: Any, **options: Any) -> Any:
            if self.ready:
                self._group.unscaled = True
            return original(scaler, *arguments, **options)

        return unscale_

    def _keeps(self) -> bool:
        """Weights and gradients of the coming step are kept."""
        return self.ending is not None or len(self.trace.updates) < self._steps

    def _gradients(self) -> dict[str, torch.Tensor]:
        if self._latest is None:
            return {}
        return {
            name: parameter.grad.detach().clone()
            for name, parameter in self._latest.named_parameters()
            if parameter.grad is not None
        }

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        if not self.ready:
            return
        if self.ending is not None:
            self.ending.begin()
            self.ending.check()
        trace, group = self.trace, self._group
        known = [each.optimizer for each in trace.optimizers]
        if not any(each is optimizer for each in known):
            trace.optimizers.append(OptimizerFacts(optimizer))
            known.append(optimizer)
        if not group.losses:
            return  # another optimizer of the same backward calls, or a step without any
        place = next(index for index, each in enumerate(known) if each is optimizer)
        if self._keeps() and self._latest is not None:
            self._keep(len(trace.updates), group)
        if not trace.updates:
            self.loops = loops_around(user_frames())
        trace.updates.append(
            Update(
                forwards=group.forwards,
                losses=group.losses,
                leftover=group.leftover[place] if place < len(group.leftover) else None,
                clips=group.clips,
                rates=[float("nan" if each["lr"] is None else each["lr"]) for each in optimizer.param_groups],
                backwards_before_zero=group.lost,
                passing=self.passing,
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
        if before >= self._steps and self.trace.updates[before].passing == self.passing:
            self.kept.pop(before, None)  # only the last step of a pass is kept beside the first ones
            for place in self.trace.updates[before].forwards:
                self.calls[place].pulls = {}
        weights = {
            name: parameter.detach().clone()
            for name, parameter in self._latest.named_parameters()
            if parameter.requires_grad
        }
        weights |= {name: buffer.detach().clone() for name, buffer in self._latest.named_buffers()}
        gradients = group.gradients if group.clips else self._gradients()
        if group.clips and group.copied_at != len(group.losses):
            gradients = None
        self.kept[index] = Kept(weights, gradients)

    def _after_step(self, *_: Any) -> None:
        if not self.ready:
            return
        if self.ending is not None:
            self.ending.after_step(self.trace)
        if self._on_step is not None:
            self._on_step()

    def _schedule(self, original: Any) -> Any:
        def step(schedule: Any, *arguments: Any, **options: Any) -> Any:
            if not self.ready or self._stepping:
                return original(schedule, *arguments, **options)
            known = any(each is schedule for each in self.trace.schedules)
            if not known:
                self.trace.schedules.append(schedule)
            if self.trace.updates:
                self.trace.updates[-1].scheduler_steps += 1
            elif known:  # a schedule calls its own step once when it is made
                self.trace.early_scheduler_steps += 1
            self._stepping += 1
            try:
                return original(schedule, *arguments, **options)
            finally:
                self._stepping -= 1

        return step

    # Tokenizers and metrics

    def _tokenizer_call(self, original: Any) -> Any:
        def __call__(tokenizer: Any, *arguments: Any, **options: Any) -> Any:
            if self.active:
                _, calls = self.tokenizers.get(id(tokenizer), (None, 0))
                self.tokenizers[id(tokenizer)] = (tokenizer, calls + 1)
            return original(tokenizer, *arguments, **options)

        return __call__

    def _metric(self, original: Any, name: str) -> Any:
        signature = inspect.signature(original)

        def metric(*arguments: Any, **options: Any) -> Any:
            """Note a call of a metric. (evaluate copies this function's code and appends to its docstring.)"""
            if not self.ready or self._measuring or len(self.trace.metrics) >= METRICS_KEPT:
                return original(*arguments, **options)
            given = predictions_and_references(signature, arguments, options)
            predictions, references = copied(given)
            full = name if not name.startswith(".") else f"{getattr(arguments[0], 'name', 'metric')}{name}"
            called = MetricCall(full, predictions, references, step=len(self.trace.updates), where=caller())
            self._measuring += 1
            try:
                called.result = original(*arguments, **options)
            finally:
                self._measuring -= 1
            self.trace.metrics.append(called)
            return called.result

        return metric


def _same(replacement: Any, _: Any) -> Any:
    return replacement
