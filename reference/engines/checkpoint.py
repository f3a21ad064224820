"""Checkpoints: their files besides the weights, and the check that a run may resume from one.

A checkpoint is a directory `checkpoint-STEP`. It has the weights in safetensors, the states of optimizer, schedule and
generators as the engine wrote them (read back with `weights_only=True`, which runs no code), and `run.json`. That file
is written last: a directory without it is an interrupted save, which is ignored.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import AliasChoices, ConfigDict, Field, ValidationError
from safetensors.torch import load_model
from transformers import PreTrainedModel

from touchstone.engines.training import EngineError, Evaluation, Point, Recipe, TrainingRun
from touchstone.fields import FrozenModel
from touchstone.pipelines.pipeline import Columns, Pipeline
from touchstone.stages.ragged import Ragged

RUN = "run.json"
WEIGHTS = "model.safetensors"


class Identity(FrozenModel):
    """Everything that must be equal for a run to resume from a checkpoint."""

    engine: str
    task: str
    options: dict[str, Any]
    recipe: Recipe
    seed: int
    data: str
    world_size: int = 1


class Saved(FrozenModel):
    """The content of `run.json`: the progress of a run."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    format: Literal[2] = 2
    identity: Identity
    step: int
    trajectory: list[Point]
    evaluations: list[Evaluation]
    phases: dict[str, float]
    step_seconds: list[float]
    padded_tokens: int
    items: int
    sample_outputs: dict[str, list[str]] = Field(validation_alias=AliasChoices("sample_outputs", "probes"))

    @classmethod
    def of(cls, run: TrainingRun, *, identity: Identity, step: int, phases: Mapping[str, float]) -> Saved:
        return cls(
            identity=identity,
            step=step,
            trajectory=run.trajectory,
            evaluations=run.evaluations,
            phases=dict(phases),
            step_seconds=run.step_seconds,
            padded_tokens=run.padded_tokens,
            items=run.items,
            sample_outputs=run.sample_outputs,
        )

    def restore(self, run: TrainingRun) -> None:
        """Copy this progress into a new run, except for the phases, which belong to the clock."""
        run.trajectory = list(self.trajectory)
        run.evaluations = list(self.evaluations)
        run.step_seconds = list(self.step_seconds)
        run.tokens = run.trajectory[-1].tokens if run.trajectory else 0
        run.padded_tokens, run.items = self.padded_tokens, self.items
        run.sample_outputs = dict(self.sample_outputs)


def identify(pipeline: Pipeline, *, engine: str, recipe: Recipe, seed: int, world_size: int = 1) -> Identity:
    """Return the identity of a run."""
    columns = pipeline.columns("train")
    options = pipeline.options.model_dump(mode="json")
    data = _fingerprint(columns)
    return Identity(
        engine=engine,
        task=pipeline.task,
        options=options,
        recipe=recipe,
        seed=seed,
        data=data,
        world_size=world_size,
    )


def _fingerprint(columns: Columns) -> str:
    digest = hashlib.sha256()
    for name in sorted(columns):
        column = columns[name]
        digest.update(name.encode())
        for array in (column.offsets, column.values) if isinstance(column, Ragged) else (column,):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_run(directory: Path, saved: Saved) -> None:
    """Write `run.json` atomically, which completes the checkpoint in `directory`."""
    partial = directory / f"{RUN}.partial"
    partial.write_text(saved.model_dump_json(), encoding="utf-8")
    os.replace(partial, directory / RUN)


def checkpoints(save_dir: Path) -> list[tuple[int, Path]]:
    """Return the step and path of each complete checkpoint, the newest last."""
    found = [(re.fullmatch(r"checkpoint-(\d+)", path.parent.name), path.parent) for path in save_dir.glob(f"*/{RUN}")]
    return sorted((int(match[1]), path) for match, path in found if match)


def newest(save_dir: Path, *, identity: Identity) -> tuple[Path, Saved] | None:
    """Return the newest complete checkpoint, or None if there is none.

    Raises:
        EngineError: it cannot be read, or it belongs to another run.
    """
    found = checkpoints(save_dir)
    if not found:
        return None
    path = found[-1][1]
    try:
        saved = Saved.model_validate_json((path / RUN).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise EngineError(f"{path / RUN} cannot be read: {error}\nDelete {path} to resume from an older one") from error
    then, now = saved.identity.model_dump(mode="json"), identity.model_dump(mode="json")
    then, now = then | then.pop("recipe"), now | now.pop("recipe")
    for key in now:
        if then.get(key) != now[key]:
            raise EngineError(
                f"{path} was made by a run with {key} {then.get(key)!r}, this one has {now[key]!r}: "
                "use the same, or choose another save_dir"
            )
    return path, saved


def load_weights(model: PreTrainedModel, directory: Path) -> None:
    """Load the weights of a checkpoint into a model of the same kind.

    Raises:
        EngineError: the file is missing or broken, or does not fit the model.
    """
    try:
        missing, unexpected = load_model(model, directory / WEIGHTS, strict=False, device=str(model.device))
    except Exception as error:  # safetensors raises its own type, OSError, or RuntimeError for shapes
        raise EngineError(f"{directory / WEIGHTS} cannot be loaded: {error}") from error
    # A model need not save tensors that it can compute, such as Marian's sinusoidal positions.
    computed = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    for what, keys in (("lacks", set(missing) - computed), ("holds", set(unexpected))):
        if keys:
            raise EngineError(f"{directory / WEIGHTS} does not fit the model: it {what} {', '.join(sorted(keys))}")


def load_state(directory: Path, name: str) -> Any:
    """Load a file of tensors and plain values. No code in the file is run.

    Raises:
        EngineError: the file is missing or broken, or holds other objects.
    """
    try:
        return torch.load(directory / name, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch each raise types of their own
        raise EngineError(f"{directory / name} cannot be loaded: {error}") from error
