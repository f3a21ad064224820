"""Run one optimizer step of a transformers.Trainer on chosen batches, on a copy of its model and of itself."""

from __future__ import annotations

import contextlib
import copy
import inspect
import types
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.subject import Batch, Pull, Step, Subject, quiet

if TYPE_CHECKING:
    from torch import Tensor, nn

LIBRARIES = ("transformers", "torch", "accelerate")


def add_step(subject: Subject, trainer: Any) -> None:
    """Give the subject of a Trainer its `step`, and where its loss is computed."""
    stepper = TrainerStepper(trainer)
    subject.step = stepper
    subject.extra["library step"] = TrainerStepper(trainer, stock=True)
    for name in ("training_step", "compute_loss"):
        method = getattr(type(trainer), name, None)
        if method is not None and own_code(method):
            subject.where["loss"] = subject.where[name] = f"{name}() at {line_of(method)}"
    if getattr(trainer, "compute_loss_func", None) is not None:
        subject.where["loss"] = f"compute_loss_func at {line_of(trainer.compute_loss_func)}"


def own_code(function: Any) -> bool:
    """Whether a function is not one of the library's."""
    return (getattr(function, "__module__", None) or "").partition(".")[0] not in LIBRARIES


def line_of(function: Any) -> str:
    """Return `file:line` of a function, or its name."""
    function = inspect.unwrap(getattr(function, "__func__", function))
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(function)


class TrainerStepper:
    """Runs the Trainer's own `training_step` for each micro-batch of a step, as its training loop does.

    The model is a copy in float32 with every dropout rate at 0, in training mode. The Trainer is a shallow copy that
    knows this model only. Backward reaches the copy's parameters only, so that nothing else gets a gradient.

    Args:
        trainer: the Trainer.
        stock: use the library's `training_step` and `compute_loss` in place of overridden ones.
    """

    def __init__(self, trainer: Any, *, stock: bool = False) -> None:
        self._trainer = trainer
        self._stock = stock

    @cached_property
    def model(self) -> nn.Module:
        """The copy of the model that all steps share. No step changes its parameters."""
        model = getattr(self._trainer.model, "_orig_mod", self._trainer.model)
        try:
            copied = quiet(model)
        except Exception as error:
            raise NotChecked(f"the model cannot be copied in float32 ({type(error).__name__}: {error})") from error
        for module in copied.modules():  # it changes no gradient, and its reentrant form forbids `inputs=` in backward
            if getattr(module, "gradient_checkpointing", False) is True:
                vars(module)["gradient_checkpointing"] = False
        return copied

    def __call__(
        self, batches: Sequence[Batch], /, *, accumulation: int | None = None, model: nn.Module | None = None
    ) -> Step:
        """Run one step and return it.

        Args:
            batches: the micro-batches.
            accumulation: the number of micro-batches that the settings announce; by default as many as there are.
            model: run it on this model in place of the copy.

        Raises:
            NotChecked: the user's code raised an error, or used another model than the one it was given.
        """
        import torch

        model = self.model if model is None else model
        run = _Run(model)
        trial = self._trial(model, accumulation or len(batches), run)
        for parameter in model.parameters():
            parameter.grad = None
        with _grads_kept(self._trainer, model), _sync_kept(trial), torch.enable_grad(), run.watched():
            try:
                chosen, items = _samples(trial, [_inputs(batch) for batch in batches])
                trial.current_gradient_accumulation_steps = len(chosen)
                for index, inputs in enumerate(chosen):
                    trial.accelerator.gradient_state._set_sync_gradients(index == len(chosen) - 1)
                    run.begin()
                    returned = trial.training_step(model, inputs, *([] if items is _NONE else [items]))
                    run.end(returned)
            except NotChecked:
                raise
            except Exception as error:
                text = (str(error).splitlines() or [""])[0]
                raise NotChecked(f"one training step raised {type(error).__name__}: {text}") from error
        gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
        for parameter in model.parameters():
            parameter.grad = None
        parameters: dict[str, Tensor] = {name: each for name, each in model.named_parameters() if each.requires_grad}
        return Step(
            list(batches),
            run.losses,
            gradients,
            lambda index: logits_of(model, batches[index]),
            parameters,
            reported=run.reported,
            pulls=run.pulls,
        )

    def _trial(self, model: nn.Module, accumulation: int, run: _Run) -> Any:
        """Return a copy of the trainer that has another model and an accelerator that reaches this model only."""
        trainer = self._trainer
        trial = copy.copy(trainer)
        trial.__dict__.update({name: _fresh(value) for name, value in vars(trainer).items()})
        trial.model = trial.model_wrapped = model
        trial.is_in_train = True
        trial.log = lambda *_, **__: None
        trial.state, trial.control = copy.copy(trainer.state), copy.copy(trainer.control)
        trial.args = copy.copy(trainer.args)
        # Neither the copied model nor its batches are spread over several devices; TrainingArguments may be frozen.
        object.__setattr__(trial.args, "_n_gpu", min(getattr(trainer.args, "_n_gpu", 0), 1))
        object.__setattr__(trial.args, "gradient_accumulation_steps", accumulation)
        accelerator = copy.copy(trainer.accelerator)
        accelerator.scaler = None
        accelerator.backward = run.backward
        accelerator.autocast = lambda *_, **__: contextlib.nullcontext()
        trial.accelerator = accelerator
        trial.autocast_smart_context_manager = lambda *_, **__: contextlib.nullcontext()
        if self._stock:
            base: Any = next(each for each in type(trainer).__mro__ if not own_code(each))
            trial.compute_loss = types.MethodType(base.compute_loss, trial)
            trial.training_step = types.MethodType(base.training_step, trial)
            trial.compute_loss_func = None
        return trial


class _Run:
    """Collects the losses and the pulls on logits of one step."""

    def __init__(self, model: nn.Module) -> None:
        self.losses: list[float] = []
        self.reported: list[float] = []
        self.pulls: list[dict[str, Pull]] = []
        self._model = model
        self._parameters = [each for each in model.parameters() if each.requires_grad]
        self._backwards: list[float] = []
        self._calls: list[dict[str, Pull]] = []

    def begin(self) -> None:
        """A micro-batch begins."""
        self._backwards, self._calls = [], []

    def end(self, returned: Any) -> None:
        """A micro-batch ended with the loss that `training_step` returned."""
        if not self._backwards and returned is not None:
            self._backwards = [float(returned)]
        self.losses.append(sum(self._backwards))
        if returned is not None:
            self.reported.append(float(returned))
        self.pulls.append(_merged(self._calls))

    def backward(self, loss: Any, **options: Any) -> None:
        """Stand in for `accelerator.backward`: only the copy's parameters get gradients."""
        import torch

        if not self._parameters:
            raise NotChecked("no parameter of the model is trainable")
        self._backwards.append(float(loss.detach()))
        torch.autograd.backward(loss, inputs=self._parameters, retain_graph=options.get("retain_graph"))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Record the model's logits and their gradients within the block."""
        handle = self._model.register_forward_hook(self._seen)
        try:
            yield
        finally:
            handle.remove()

    def _seen(self, _module: Any, _inputs: Any, output: Any) -> None:
        pulls = {}
        for name, logits in named_logits(output).items():
            pulls[name] = pull = Pull(logits.detach().clone())
            if logits.requires_grad:
                logits.register_hook(pull.add)  # type: ignore[no-untyped-call]
        self._calls.append(pulls)


def _merged(calls: Sequence[dict[str, Pull]]) -> dict[str, Pull]:
    """Return the pulls of one micro-batch: those of its only call, or the sum over calls that gave the same logits."""
    import torch

    calls = [each for each in calls if any(pull.gradient is not None for pull in each.values())]
    if not calls:
        return {}
    first = calls[0]
    for other in calls[1:]:
        for name, pull in first.items():
            same = name in other and other[name].logits.shape == pull.logits.shape
            if not same or not torch.allclose(other[name].logits, pull.logits, atol=1e-4):
                return {}
            more = other[name].gradient
            if more is not None:
                pull.add(more)
    return {name: pull for name, pull in first.items() if pull.gradient is not None}


def named_logits(output: Any) -> dict[str, Tensor]:
    """Return the logits in a model's output by name: `logits`, or `start_logits` and `end_logits`."""
    import torch

    if isinstance(output, torch.Tensor):
        return {"logits": output} if output.dim() >= 2 else {}
    if isinstance(output, Mapping) or hasattr(output, "keys"):
        for names in (("logits",), ("start_logits", "end_logits"), ("prediction_logits",)):
            if all(isinstance(output.get(name), torch.Tensor) for name in names):
                found = [output[name] for name in names]
                return dict(zip(("logits",) if len(found) == 1 else names, found, strict=True))
        return {}
    if isinstance(output, (tuple, list)):
        floats = [each for each in output if isinstance(each, torch.Tensor) and each.is_floating_point()]
        wide = [each for each in floats if each.dim() >= 2]
        if len(wide) >= 2 and wide[0].dim() == 2 and wide[0].shape == wide[1].shape:
            return {"start_logits": wide[0], "end_logits": wide[1]}
        return {"logits": wide[0]} if wide else {}
    return {}


def logits_of(model: nn.Module, batch: Batch) -> Any:
    """Return the logits of a batch with a graph to the model's parameters, or a dict if there are several.

    Raises:
        NotChecked: the model cannot be called with the batch, or its output has no logits.
    """
    inputs: dict[str, Any] = _inputs(batch)
    accepted = inspect.signature(model.forward).parameters
    if not any(each.kind is each.VAR_KEYWORD for each in accepted.values()):
        inputs = {name: value for name, value in inputs.items() if name in accepted}
    try:
        found = named_logits(model(**inputs))
    except Exception as error:
        raise NotChecked(f"the model cannot be called with a batch ({type(error).__name__}: {error})") from error
    if not found:
        raise NotChecked("the model's output has no logits")
    return found.get("logits", found)


class _Inputs(dict[str, Any]):
    """A batch that user code may read by key and by attribute, as a BatchEncoding."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _inputs(batch: Batch) -> _Inputs:
    return _Inputs({name: value.clone() if hasattr(value, "clone") else value for name, value in batch.items()})


_NONE: Any = object()
"""`get_batch_samples` does not exist: `training_step` takes no number of items."""


def _samples(trial: Any, batches: list[_Inputs]) -> tuple[list[Any], Any]:
    """Return the micro-batches and the number of items in them, as the Trainer counts it."""
    method = getattr(trial, "get_batch_samples", None)
    if method is None:
        return batches, _NONE
    given: list[Any] = [iter(batches), len(batches)]
    if len(inspect.signature(method).parameters) > 2:
        given.append(trial.args.device)
    chosen, items = method(*given)
    return chosen, items


@contextlib.contextmanager
def _grads_kept(trainer: Any, model: nn.Module) -> Iterator[None]:
    """Put back the gradients of the trainer's own modules, which code of its own may reach past the copy.

    Raises:
        NotChecked: the original model got gradients.
    """
    from torch import nn

    others = {id(each): each for each in vars(trainer).values() if isinstance(each, nn.Module) and each is not model}
    saved = [(parameter, parameter.grad) for each in others.values() for parameter in each.parameters()]
    copies = [None if grad is None else grad.clone() for _, grad in saved]
    leaked = False
    try:
        yield
    finally:
        own = {id(each) for each in trainer.model.parameters()}
        for (parameter, grad), kept in zip(saved, copies, strict=True):
            leaked |= id(parameter) in own and parameter.grad is not None and grad is None
            parameter.grad = grad
            if grad is not None and kept is not None:
                grad.copy_(kept)
    if leaked:
        raise NotChecked("the loss uses another model than the one that compute_loss is given, such as a global one")


@contextlib.contextmanager
def _sync_kept(trial: Any) -> Iterator[None]:
    """Put back accelerate's global flag whether gradients are synchronized."""
    state = trial.accelerator.gradient_state
    saved = state.sync_gradients
    try:
        yield
    finally:
        state._set_sync_gradients(saved)


def _fresh(value: Any) -> Any:
    """Return a copy of plain containers, and anything else as it is."""
    if isinstance(value, dict):
        copied = copy.copy(value)
        for key, item in value.items():
            copied[key] = _fresh(item)
        return copied
    if type(value) in (list, set, deque):
        return type(value)(_fresh(item) for item in value) if type(value) is list else copy.copy(value)
    return value
