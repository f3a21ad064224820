"""Describe everything that an audit could leave behind, so that two descriptions can be compared."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Any

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.restore import _found
from touchstone.auditing.subject import Subject


def fingerprint(subject: Subject, folders: list[Path]) -> dict[str, Any]:
    """Return a dict from what was looked at to a value that can be compared."""
    import numpy as np
    import torch

    # First, because a data set may tokenize its rows when they are read, and that changes the tokenizer.
    facts: dict[str, Any] = {
        f"{split.name} data": _data(split.dataset) for split in (subject.train, subject.evaluation) if split is not None
    }
    facts |= {
        "random": _hash(repr(random.getstate())),
        "numpy": _hash(repr([_plain(each) for each in np.random.get_state()])),
        "torch": _hash(torch.get_rng_state().numpy().tobytes()),
        "grad enabled": torch.is_grad_enabled(),
        "default dtype": str(torch.get_default_dtype()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "files": _files(folders),
    }
    if subject.model is not None:
        facts |= _model(subject.model)
    if subject.tokenizer is not None:
        facts |= _tokenizer(subject.tokenizer)
    trainer = subject.extra.get("trainer")
    if trainer is not None:
        facts |= _trainer(trainer)
    roots = [trainer]
    for split in (subject.train, subject.evaluation):
        if split is not None:
            roots += [split.dataset, split.collate, split.loader]
    facts["generators"] = [_hash(repr(_state(each))) for each in _found(roots)]
    return facts


def _model(model: Any) -> dict[str, Any]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "weights": {name: _hash(tensor.detach().cpu().numpy().tobytes()) for name, tensor in tensors.items()},
        "written weights": {name: tensor._version for name, tensor in tensors.items()},
        "gradients": {name: each.grad is None for name, each in model.named_parameters()},
        "trainable": {name: each.requires_grad for name, each in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": {
            name: (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
            for name, module in model.named_modules()
        },
        "modules": {name: type(module).__name__ for name, module in model.named_modules()},
        "dropout": {
            name: module.p for name, module in model.named_modules() if isinstance(getattr(module, "p", 0), float)
        },
        "forward": "forward" in vars(model),
        "config": repr(getattr(model, "config", None)),
        "generation config": repr(getattr(model, "generation_config", None)),
    }


def _tokenizer(tokenizer: Any) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return {
        "tokenizer": _hash(backend.to_str()) if backend is not None else "",
        "tokenizer sides": (tokenizer.padding_side, tokenizer.truncation_side, tokenizer.model_max_length),
        "tokenizer tokens": repr(tokenizer.special_tokens_map),
    }


def _trainer(trainer: Any) -> dict[str, Any]:
    from accelerate.state import AcceleratorState, GradientState, PartialState

    return {
        "trainer": {name: id(value) for name, value in vars(trainer).items()},
        "arguments": repr(sorted(trainer.args.to_dict().items())),
        "state": repr(trainer.state),
        "control": repr(trainer.control),
        "callbacks": [id(each) for each in trainer.callback_handler.callbacks],
        "callback state": [repr(sorted(map(str, vars(each)))) for each in trainer.callback_handler.callbacks],
        "accelerator": {name: id(value) for name, value in vars(trainer.accelerator).items()},
        "accelerator's models": len(trainer.accelerator._models),
        "accelerate": [
            {name: id(value) for name, value in kind._shared_state.items()}
            for kind in (AcceleratorState, GradientState, PartialState)
        ],
        "active loaders": len(GradientState._shared_state.get("dataloader_references", ())),
        "collator": repr(vars(trainer.data_collator)) if hasattr(trainer.data_collator, "__dict__") else "",
    }


def _data(dataset: Any) -> Any:
    parts = [getattr(dataset, "_fingerprint", ""), repr(getattr(dataset, "format", ""))]
    try:
        parts.append(_hash(repr([_plain(dataset[index]) for index in range(min(50, len(dataset)))])))
    except (TypeError, NotChecked):  # a stream, or the stand-in of an observed loop's data
        parts.append(repr(sorted(map(str, vars(dataset).items()))))
    return parts


def _plain(value: Any) -> Any:
    """Return a row with lists in place of arrays and tensors, whose text is slow and leaves out the middle."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (tuple, list)) and any(hasattr(each, "tolist") for each in value):
        return [_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _state(generator: Any) -> Any:
    if hasattr(generator, "bit_generator"):
        return generator.bit_generator.state
    return generator.getstate() if hasattr(generator, "getstate") else generator.get_state()


def _files(folders: list[Path]) -> dict[str, tuple[int, int]]:
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name != "log.txt":
                status = path.stat()
                found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


def _hash(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]
