"""Source and target padded by torch, with rows reversed for padding on the left."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from tests.independent.collation import pad_batch
from tests.independent.ignored import IGNORED


def pad_seq2seq(
    features: Sequence[Mapping[str, Any]],
    *,
    pad_id: int,
    side: str = "right",
    multiple_of: int | None = None,
    length: int | None = None,
    label_length: int | None = None,
    label_side: str = "right",
) -> dict[str, torch.Tensor]:
    """See `docs/contract.md`."""
    if label_side not in ("right", "left"):
        raise ValueError(f"label_side {label_side!r} is neither 'right' nor 'left'")
    source = [{k: v for k, v in f.items() if k not in ("labels", "decoder_attention_mask")} for f in features]
    batch = pad_batch(source, pad_id=pad_id, side=side, multiple_of=multiple_of, length=length)
    masked = "decoder_attention_mask" in features[0]
    for index, feature in enumerate(features):
        if "labels" not in feature or not hasattr(feature["labels"], "__len__"):
            raise ValueError(f"feature {index} has no sequence of labels")
        size = len(feature["labels"])
        if ("decoder_attention_mask" in feature) != masked:
            raise ValueError(f"feature {index} and feature 0 differ in decoder_attention_mask")
        if masked and len(feature["decoder_attention_mask"]) != size:
            raise ValueError(f"feature {index}: decoder_attention_mask and its {size} labels differ in length")
        if label_length is not None and size > label_length:
            raise ValueError(f"feature {index} has {size} labels, label_length is {label_length}")
    for name, fill in {"labels": IGNORED, "decoder_attention_mask": 0}.items():
        if name == "labels" or masked:
            rows = [torch.tensor([int(cell) for cell in f[name]], dtype=torch.int64) for f in features]
            batch[name] = stack(rows, fill, label_side, multiple_of or 1, label_length)
    return batch


def stack(rows: list[torch.Tensor], fill: int, side: str, multiple: int, least: int | None) -> torch.Tensor:
    """Pad rows to one width and stack them; `least` is the width, None for the longest row."""
    width = max([row.numel() for row in rows] if least is None else [least])
    width += -width % multiple
    backwards = side == "left"
    rows = [row.flip(0) if backwards else row for row in rows]
    ruler = torch.zeros(width, dtype=torch.int64)  # makes the batch as wide as needed
    padded = pad_sequence([*rows, ruler], batch_first=True, padding_value=fill)[:-1]
    return (padded.flip(1) if backwards else padded).clone()


def shift_right(labels: Sequence[Sequence[int]], *, pad_id: int, start_id: int | None = None) -> torch.Tensor:
    """See `docs/contract.md`."""
    if hasattr(labels, "tolist"):
        labels = labels.tolist()
    result = []
    for index, row in enumerate(labels):
        if not hasattr(row, "__len__") or any(hasattr(cell, "__len__") for cell in row):
            raise ValueError(f"labels must be (B, T): row {index} is {row!r}")
        if len(row) != len(labels[0]):
            raise ValueError(f"row {index} has {len(row)} labels, row 0 has {len(labels[0])}")
        for cell in row:
            if cell < 0 and cell != IGNORED:
                raise ValueError(f"row {index} holds {cell}")
        row = [pad_id if cell == IGNORED else int(cell) for cell in row]
        tokens = [cell for cell in row if cell != pad_id]
        if tokens and row[0] == pad_id:
            raise ValueError(f"row {index} begins with padding: pad labels on the right")
        if start_id is None and not tokens:
            raise ValueError(f"row {index} has no token to begin with")
        read = [tokens[-1] if start_id is None else start_id, *row]
        result.append(read[: len(row)])
    return torch.tensor(result, dtype=torch.int64)
