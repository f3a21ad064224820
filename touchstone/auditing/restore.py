"""Leave no trace: put everything back that a probe could change.

Probes work on copies. This module is the second line: it restores what is global or shared, whatever a probe or the
user's code that it calls did. `tests/auditing/test_no_trace.py` compares everything before and after each probe.
"""

from __future__ import annotations

import copy
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from touchstone.auditing.subject import Subject

DEPTH = 5
"""How deep random generators are looked for: trainer, loader, batch sampler, sampler, generator."""
SINGLETONS = ("AcceleratorState", "PartialState", "GradientState")
"""Classes of accelerate whose instances share one dict of state in the whole process."""


@contextmanager
def untouched(subject: Subject) -> Iterator[None]:
    """Restore everything of a subject and of the process when the block ends, however it ends."""
    undo = [
        *_globals(),
        *_model(subject.model),
        *_tokenizer(subject.tokenizer),
        *_collators(subject),
        *_generators(subject),
    ]
    trainer = subject.extra.get("trainer")
    if trainer is not None:
        undo += [*_trainer(trainer)]
    try:
        yield
    finally:
        for put_back in reversed(undo):
            put_back()


Undo = Callable[[], object]


def _globals() -> Iterator[Undo]:
    """Yield what restores the process: random generators, torch's switches, the environment, accelerate's state."""
    import numpy as np
    import torch

    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield lambda: random.setstate(python)
    yield lambda: np.random.set_state(numpy)
    yield lambda: torch.set_rng_state(cpu)
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        devices = torch.cuda.get_rng_state_all()
        yield lambda: torch.cuda.set_rng_state_all(devices)
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    yield lambda: torch.set_grad_enabled(grad)
    yield lambda: torch.set_default_dtype(dtype)
    folder, environment = os.getcwd(), dict(os.environ)
    yield lambda: os.chdir(folder)
    yield lambda: _refill(os.environ, environment)
    state = sys.modules.get("accelerate.state")
    for name in SINGLETONS if state is not None else ():
        shared = getattr(state, name)._shared_state
        yield from _contents(shared)


def _model(model: Any) -> Iterator[Undo]:
    """Yield what restores a model: training flags, gradients, hooks and configuration. Probes never write weights."""
    if model is None:
        return
    for module in model.modules():
        # `train()` and `eval()` set one attribute; a hook is an entry of one of the dicts.
        yield _setter(module, "training", module.training)
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            if getattr(module, name, None) is not None:
                yield from _contents(getattr(module, name))
    for parameter in model.parameters():
        yield _setter(parameter, "requires_grad", parameter.requires_grad)
        if parameter.grad is None:
            yield _setter(parameter, "grad", None)
    for name in ("config", "generation_config"):
        part = getattr(model, name, None)
        if part is not None and hasattr(part, "__dict__"):
            yield from _contents(part.__dict__)


def _tokenizer(tokenizer: Any) -> Iterator[Undo]:
    """Yield what restores a tokenizer: a call with truncation or padding changes the state of its backend."""
    if tokenizer is None:
        return
    for name in ("padding_side", "truncation_side", "model_max_length"):
        if hasattr(tokenizer, name):
            yield _setter(tokenizer, name, getattr(tokenizer, name))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    truncation, padding = backend.truncation, backend.padding
    yield lambda: backend.enable_truncation(**truncation) if truncation else backend.no_truncation()
    yield lambda: backend.enable_padding(**padding) if padding else backend.no_padding()


def _trainer(trainer: Any) -> Iterator[Undo]:
    """Yield what restores a Trainer: its attributes, and those of its arguments, state, control and callbacks."""
    yield from _contents(trainer.__dict__)
    for name in ("args", "state", "control", "callback_handler", "accelerator", "data_collator"):
        part = getattr(trainer, name, None)
        if hasattr(part, "__dict__"):
            yield from _contents(part.__dict__)
    handler = getattr(trainer, "callback_handler", None)
    if handler is not None:
        callbacks = list(handler.callbacks)
        yield lambda: handler.callbacks.__setitem__(slice(None), callbacks)
        for callback in callbacks:
            if hasattr(callback, "__dict__"):
                yield from _contents(callback.__dict__)
    for part in (trainer.optimizer, trainer.lr_scheduler):
        yield from _optimizer(part)


def _optimizer(part: Any) -> Iterator[Undo]:
    """Yield what restores an optimizer or a schedule."""
    if part is None or not hasattr(part, "__dict__"):
        return
    yield from _contents(part.__dict__)
    for group in getattr(part, "param_groups", ()):
        yield from _contents(group)
    state = getattr(part, "state", None)
    if isinstance(state, Mapping):
        yield from _contents(state)


def _collators(subject: Subject) -> Iterator[Undo]:
    """Yield what restores the attributes of collators: some make a random generator when they are first called."""
    for split in (subject.train, subject.evaluation):
        attributes = None if split is None else getattr(split.collate, "__dict__", None)
        if isinstance(attributes, dict):
            yield from _contents(attributes)


def _generators(subject: Subject) -> Iterator[Undo]:
    """Yield what restores the random generators inside data sets, collators, samplers and loaders."""
    roots = [subject.extra.get("trainer")]
    for split in (subject.train, subject.evaluation):
        if split is not None:
            roots += [split.dataset, split.collate, split.loader]
    for generator in _found(roots):
        yield _rewind(generator)


def _found(roots: list[Any]) -> list[Any]:
    """Return all random generators that can be reached from some objects through attributes, lists and dicts."""
    import numpy as np
    import torch

    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
    found, seen, level = [], set(), [root for root in roots if root is not None]
    for _ in range(DEPTH):
        below = []
        for each in level:
            if id(each) in seen or isinstance(each, (str, bytes, int, float, torch.Tensor, torch.nn.Module, type)):
                continue
            seen.add(id(each))
            if isinstance(each, kinds):
                found.append(each)
            elif isinstance(each, Mapping) and len(each) < 100:
                below += list(each.values())
            elif isinstance(each, (list, tuple)) and len(each) < 100:
                below += each
            elif callable(each) and getattr(each, "__closure__", None):
                below += [cell.cell_contents for cell in each.__closure__ if _filled(cell)]
            elif hasattr(each, "__dict__"):
                below += [value for name, value in vars(each).items() if name not in ("_data", "_indices")]
        level = below
    return found


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - reading an empty cell raises
    except ValueError:
        return False
    return True


def _rewind(generator: Any) -> Undo:
    """Return what puts a random generator back to its present state."""
    if hasattr(generator, "bit_generator"):
        state = copy.deepcopy(generator.bit_generator.state)
        return lambda: setattr(generator.bit_generator, "state", state)
    read, write = ("getstate", "setstate") if hasattr(generator, "getstate") else ("get_state", "set_state")
    saved = getattr(generator, read)()
    return lambda: getattr(generator, write)(saved)


def _contents(table: Any) -> Iterator[Undo]:
    """Yield what gives a dict its present keys and values again."""
    saved = dict(table)
    yield lambda: _refill(table, saved)


def _refill(table: Any, saved: Mapping[Any, Any]) -> None:
    for key in [key for key in table if key not in saved]:
        del table[key]
    for key, value in saved.items():
        if key not in table or table[key] is not value:
            table[key] = value


def _setter(owner: Any, name: str, value: Any) -> Undo:
    def put_back() -> None:
        if getattr(owner, name) is not value:
            setattr(owner, name, value)

    return put_back
