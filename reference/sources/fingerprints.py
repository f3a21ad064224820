"""A digest of what a data set says, for records."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import datasets

from touchstone.sources.normalization import label_names


def fingerprint(dataset: datasets.Dataset) -> str:
    """SHA-256, in hexadecimal, of the rows: column names, label names, and values in order.

    The same on every machine and with every version of `datasets`, whose own `_fingerprint` is a digest of how the
    data was made.
    """
    columns = sorted(dataset.column_names)
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=repr)
        digest.update(text.encode("utf-8", "surrogatepass") + b"\n")

    add({"rows": len(dataset), "columns": {column: label_names(dataset.features[column]) for column in columns}})
    for batch in dataset.with_format(None).iter(batch_size=1000):
        for row in zip(*(batch[column] for column in columns), strict=True):
            add(row)
    return digest.hexdigest()
