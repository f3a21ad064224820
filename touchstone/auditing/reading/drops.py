"""Sees the dropout that is on while a model runs, whoever calls it."""

from __future__ import annotations

from typing import Any

from torch.overrides import TorchFunctionMode


class Drops(TorchFunctionMode):
    """Notes the dropout that is on: functions of torch called with a positive rate, to be applied."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        name = getattr(func, "__name__", "")
        if "dropout" in name:
            rate = options.get("p", args[1] if len(args) > 1 else 0.5)
            on = options.get("training", options.get("train", args[2] if len(args) > 2 else True))
        elif name == "scaled_dot_product_attention":
            rate, on = options.get("dropout_p", args[4] if len(args) > 4 else 0.0), True
        else:
            rate, on = 0.0, False
        if on and isinstance(rate, float) and rate > 0:
            self.dropped = f"{name} with a rate of {rate:g}"
        return func(*args, **options)
