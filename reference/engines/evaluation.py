"""The evaluation that all engines share: each validation example counts exactly once.

Predictions are kept by the index of their example. Therefore batch size, order and number of processes cannot change,
duplicate or drop one. (The course gathers batches that DistributedSampler has padded with duplicates:
https://github.com/huggingface/accelerate/issues/226.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from touchstone.engines.device import resolve_device
from touchstone.engines.order import evaluation_batches
from touchstone.engines.ranks import Ranks
from touchstone.engines.training import Execution
from touchstone.pipelines.pipeline import Batch, Pipeline, Score, evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HALF_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The dtype of the matrix products, where it is not float32."""


def to_device(batch: Mapping[str, Any], device: torch.device) -> Batch:
    """Move the tensors of a batch to the device. The counts stay on the host."""
    if device.type == "cpu":
        return dict(batch)
    return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def predict_share(
    pipeline: Pipeline,
    *,
    model: torch.nn.Module,
    device: torch.device,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    on_batch: Callable[[int], None] | None = None,
) -> dict[int, Any]:
    """Return the predictions of one rank's share of the validation split, by example.

    Args:
        model: put into evaluation mode, and back into its own afterwards.
        rank, world: which share, of how many.
        on_batch: called after every batch with the number of examples so far.
    """
    loader, indices = evaluation_batches(
        pipeline, batch_size=batch_size, workers=workers, pinned=device.type == "cuda", rank=rank, world=world
    )
    predictions: list[Any] = []
    with evaluating(model):
        for batch in loader:
            predictions += pipeline.predict(model, to_device(batch, device))
            if on_batch is not None:
                on_batch(len(predictions))
    return dict(zip(indices, predictions, strict=True))


def predict_validation(pipeline: Pipeline, model: PreTrainedModel, *, execution: Execution) -> list[Any]:
    """Predict every example of the validation split on one device: what an engine's `evaluate` is by default.

    Returns:
        predictions[i] is of example i; `pipeline.score` takes them.
    """
    device = resolve_device(execution.device, precision=execution.precision)
    dtype = HALF_PRECISION.get(execution.precision)
    model.to(device)  # type: ignore[arg-type]
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        share = predict_share(
            pipeline,
            model=model,
            device=device,
            batch_size=execution.eval_batch_size,
            workers=execution.workers,
        )
    return in_order(share)


def in_order(predictions: Mapping[int, Any]) -> list[Any]:
    """Return the predictions of all examples in the order of the data."""
    return [predictions[index] for index in range(len(predictions))]


def gather_shares(share: Mapping[int, Any], *, ranks: Ranks) -> list[dict[int, Any]]:
    """Return the shares of all ranks on rank 0, and an empty list on other ranks. They travel as JSON."""
    if ranks.world == 1:
        return [dict(share)]
    kind = next((type(prediction) for prediction in share.values()), tuple)  # no rank has more examples than rank 0
    rows = [[index, *map(_plain, prediction)] for index, prediction in share.items()]
    return [{index: kind(*map(_field, fields)) for index, *fields in rows} for rows in ranks.gather(rows)]


def _plain(value: Any) -> Any:
    return {"dtype": value.dtype.name, "values": value.tolist()} if isinstance(value, np.ndarray) else value


def _field(value: Any) -> Any:
    return np.asarray(value["values"], dtype=value["dtype"]) if isinstance(value, dict) else value


def score_shares(pipeline: Pipeline, shares: Iterable[Mapping[int, Any]]) -> list[Score]:
    """Return the scores of all shares together.

    Raises:
        ValueError: an example is missing or duplicated.
    """
    predictions: dict[int, Any] = {}
    for share in shares:
        if twice := predictions.keys() & share.keys():
            raise ValueError(f"example {min(twice)} of validation was predicted twice")
        predictions |= share
    size = len(next(iter(pipeline.columns("validation").values())))
    if missing := set(range(size)) - predictions.keys():
        raise ValueError(f"example {min(missing)} of validation was not predicted ({len(missing)} of {size} were not)")
    return pipeline.score([predictions[index] for index in range(size)])
