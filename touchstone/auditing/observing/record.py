"""Record what a training loop does: calls of the model, backward, clipping, optimizer steps, loaders and metrics.

A `Recorder` gets its hooks from `observe.Observer`. It writes a `Trace`, and keeps what is needed to compute the logits
of a few optimizer steps again: the weights, the inputs, and the state of the random generators before each call.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from touchstone.auditing.observing.calls import (
    Call,
    autocast,
    copied,
    generator_states,
    loss_of,
    named,
    watch_logits,
)
from touchstone.auditing.observing.enclosing import Loop
from touchstone.auditing.observing.ending import Ending
from touchstone.auditing.observing.frames import caller
from touchstone.auditing.observing.loaders import Loaders
from touchstone.auditing.observing.metrics import Metrics
from touchstone.auditing.observing.observe import Replace, Undo
from touchstone.auditing.observing.reported import Reports
from touchstone.auditing.observing.steps import Kept, Steps
from touchstone.auditing.observing.trace import Forward, LossCall, Trace

if TYPE_CHECKING:
    from torch import nn

CALLS_KEPT = 600
GENERATIONS_KEPT = 40


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
        self._steps = Steps(self, steps, on_step)
        self._reports = Reports(self)
        self._inside: Forward | None = None
        self._generating = 0
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
        self.optimizers = []
        self._steps.forget()

    def patches(self, replace: Replace, undo: Undo) -> dict[str, Callable[[ModuleType], None]]:
        """Return what to do with a module as soon as it has been imported, by its name."""

        def watch_torch(torch: ModuleType) -> None:
            replace(torch.nn.Module, "__call__", self._module_call)
            for name in ("cross_entropy", "nll_loss"):
                replace(torch.nn.functional, name, self._cross_entropy)
            self._steps.watch(torch, replace, undo)
            Loaders(self).watch(replace)

        return {
            "torch": watch_torch,
            "transformers.tokenization_utils_base": lambda module: replace(
                module.PreTrainedTokenizerBase, "__call__", self._tokenizer_call
            ),
            "transformers.generation.utils": lambda module: replace(module.GenerationMixin, "generate", self._generate),
            "accelerate.accelerator": lambda module: self._watch_accelerate(module, replace),
            **Metrics(self).patches(replace),
            **self._reports.patches(replace),
        }

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
        replace(module.Accelerator, "log", self._reports.log)

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
            if forward.grad and self._steps.keeps():
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
            self._steps.called(module, len(self.calls))
        self.calls.append(call)
        self.trace.forwards.append(forward)
        return forward

    def _generate(self, original: Any) -> Any:
        def generate(model: Any, *arguments: Any, **options: Any) -> Any:
            if not self.ready or self._generating:
                return original(model, *arguments, **options)
            if len(self.trace.generations) < GENERATIONS_KEPT:
                given = {"inputs": arguments[0], **options} if arguments else dict(options)
                self.trace.generations.append({"where": caller(), **copied(given)})
            self._generating = 1
            try:
                return original(model, *arguments, **options)
            finally:
                self._generating = 0

        return generate

    def _cross_entropy(self, original: Any) -> Any:
        signature = inspect.signature(original)

        def cross_entropy(*arguments: Any, **options: Any) -> Any:
            noted = None
            if self.ready and not self._generating:
                noted = self._note_loss(signature.bind(*arguments, **options).arguments)
            result = original(*arguments, **options)
            if noted is not None and result.numel() == 1:
                noted.value = result.detach()  # a tensor until loop.py reads it
            return result

        return cross_entropy

    def _note_loss(self, given: Mapping[str, Any]) -> LossCall | None:
        forward = self._inside or (self.trace.forwards[-1] if self.trace.forwards else None)
        if forward is None or len(forward.losses) >= 4 or not forward.batch:
            return None
        forward.losses.append(
            LossCall(
                target=copied(given["target"]),
                inside=self._inside is not None,
                shape=tuple(given["input"].shape),
                ignore_index=given.get("ignore_index", -100),
                reduction=given.get("reduction", "mean"),
                label_smoothing=given.get("label_smoothing", 0.0),
                weighted=given.get("weight") is not None,
                where=caller(),
            )
        )
        return forward.losses[-1]

    # Tokenizers

    def _tokenizer_call(self, original: Any) -> Any:
        def __call__(tokenizer: Any, *arguments: Any, **options: Any) -> Any:
            if self.active:
                _, calls = self.tokenizers.get(id(tokenizer), (None, 0))
                self.tokenizers[id(tokenizer)] = (tokenizer, calls + 1)
            return original(tokenizer, *arguments, **options)

        return __call__
