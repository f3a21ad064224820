"""Causal language modelling token by token: a chunk ends as soon as it is full or its document ends."""

from collections.abc import Iterator, Sequence

import torch

from tests.independent.ignored import IGNORED


def chunk_documents(
    documents: Sequence[Sequence[int]], *, length: int, remainder: str = "drop", eos_id: int | None = None
) -> list[list[int]]:
    """See `docs/contract.md`."""
    if length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    if remainder not in ("drop", "keep", "join"):
        raise ValueError(f"remainder {remainder!r} is not 'drop', 'keep' or 'join'")
    if (eos_id is not None) != (remainder == "join"):
        raise ValueError(
            f"eos_id is required for remainder 'join' and not allowed otherwise, got {eos_id} with {remainder!r}"
        )

    chunks: list[list[int]] = []
    filling: list[int] = []
    for token in stream(documents, eos_id):
        if token is not None:
            filling.append(token)
        if filling and (len(filling) == length or (token is None and remainder == "keep")):
            chunks.append(filling)
            filling = []
        if token is None and remainder == "drop":
            filling = []
    return chunks


def stream(documents: Sequence[Sequence[int]], eos_id: int | None) -> Iterator[int | None]:
    """Yield every token, and after each document its end of text, or `None` without one."""
    for document in documents:
        yield from (int(token) for token in document)
        yield eos_id


def causal_labels(input_ids: Sequence[Sequence[int]], *, attention_mask: Sequence[Sequence[int]]) -> torch.Tensor:
    """See `docs/contract.md`."""
    ids, mask = rectangle(input_ids), rectangle(attention_mask)
    if ids.shape != mask.shape:
        raise ValueError(f"input_ids {tuple(ids.shape)} and attention_mask {tuple(mask.shape)} differ in shape")
    for place in torch.nonzero(mask * (mask - 1)).tolist():
        raise ValueError(f"attention_mask at {place} is {int(mask[tuple(place)])}, neither 0 nor 1")
    return ids.masked_fill(mask.logical_not(), IGNORED)


def rectangle(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return (B, T). torch raises ValueError for lists of different lengths."""
    tensor = torch.tensor([[int(cell) for cell in row] if hasattr(row, "__len__") else int(row) for row in rows])
    if tensor.dim() != 2:
        raise ValueError(f"a batch is (B, T), got {tuple(tensor.shape)}")
    return tensor.long()


def key_token_weights(
    input_ids: Sequence[Sequence[int]], *, key_ids: Sequence[int], alpha: float = 1.0
) -> torch.Tensor:
    """See `docs/contract.md`."""
    if alpha < 0 or alpha != alpha:
        raise ValueError(f"alpha {alpha} is not a weight")
    for key in key_ids:
        if key < 0:
            raise ValueError(f"key id {key} is negative")
    ids = rectangle(input_ids)
    found = torch.zeros(len(ids), dtype=torch.float64)
    for key in {int(key) for key in key_ids}:
        found += (ids == key).sum(dim=1)
    return alpha * (1 + found)
