"""Run an evaluation that the user passes as a function of a model, on copies of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from touchstone.auditing.adapters.evaluated import Change, EvaluationRecord
from touchstone.auditing.copies import copy_of
from touchstone.auditing.finding import NotChecked
from touchstone.auditing.subject import quiet as quiet_copy


class PartsEvaluator:
    """The evaluator of `touchstone.audit(model=..., evaluate=...)`.

    The function chooses its own rows and batch size, so an evaluation of other rows, or one row at a time, cannot be
    run. Its predictions are not seen.
    """

    def __init__(self, function: Callable[[Any], Mapping[str, Any]], model: Any) -> None:
        self._function = function
        self._model = model
        self._done: dict[bool, EvaluationRecord] = {}

    def __call__(
        self,
        batch_size: int | None = None,
        rows: Sequence[int] | None = None,
        *,
        quiet: bool = True,
        change: Change | None = None,
        again: bool = False,
    ) -> EvaluationRecord:
        if batch_size == 1 or rows is not None or change is not None:
            raise NotChecked("evaluate= takes only a model: its rows, batches and predictions cannot be chosen")
        if again:
            return self._run(quiet)
        if quiet not in self._done:
            self._done[quiet] = self._run(quiet)
        return self._done[quiet]

    def _run(self, quiet: bool) -> EvaluationRecord:
        import torch

        model = quiet_copy(self._model) if quiet else copy_of(self._model)
        record = EvaluationRecord()
        training: dict[str, None] = {}

        def watch(name: str) -> Callable[..., None]:
            def hook(module: Any, *_: Any) -> None:
                if module.training:
                    training[name] = None
                record.gradient = record.gradient or torch.is_grad_enabled()

            return hook

        before = {name: value.detach().clone() for name, value in model.state_dict().items()}
        clean = all(parameter.grad is None for parameter in model.parameters())
        for name, module in model.named_modules():
            module.register_forward_pre_hook(watch(name))
        try:
            record.metrics = dict(self._function(model))
        except NotChecked:
            raise
        except Exception as error:
            record.error = error
        record.training = list(training)
        record.changed = [
            name for name, value in model.state_dict().items() if name in before and not _equal(value, before[name])
        ]
        record.leftover = clean and any(parameter.grad is not None for parameter in model.parameters())
        return record


def _equal(one: Any, other: Any) -> bool:
    import torch

    return torch.equal(torch.nan_to_num(one.detach().float()), torch.nan_to_num(other.float()))
