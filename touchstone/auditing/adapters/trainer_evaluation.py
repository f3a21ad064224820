"""The evaluation, the metric and the order of rows of a transformers.Trainer, run on a copy that leaves no trace."""

from __future__ import annotations

import contextlib
import copy
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from touchstone.auditing.adapters.evaluated import FIGURES, Change, EvaluationRecord, Pair, Prediction
from touchstone.auditing.copies import copy_of
from touchstone.auditing.finding import NotChecked
from touchstone.auditing.reading.order import Draws
from touchstone.auditing.reading.streams import hold, is_stream

if TYPE_CHECKING:
    from touchstone.auditing.subject import Subject

ROWS = 10
NEW_TOKENS = 8
STREAMED = 64
MANY_ROWS = 3_000
"""Lengths of more rows than these are not measured: the order is then that of the first ones."""
QUIET_ARGUMENTS: dict[str, Any] = {
    "fp16_full_eval": False,
    "bf16_full_eval": False,
    "torch_compile": False,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": None,
    "dataloader_persistent_workers": False,
    "dataloader_pin_memory": False,
}


def add_evaluation(subject: Subject, trainer: Any) -> None:
    """Give a subject the evaluation, the metric and the order of rows of its trainer."""
    from touchstone.auditing.adapters.trainer_resume import resumed

    if subject.evaluation is not None:
        subject.evaluate = TrainerEvaluation(subject, trainer)
        subject.extra["evaluation_order"] = lambda: evaluation_order(trainer)
        if str(getattr(trainer.args.eval_strategy, "value", trainer.args.eval_strategy)) == "no":
            subject.settings.metric_for_best = None
        if trainer.compute_metrics is not None:
            subject.extra["metric_function"] = trainer.compute_metrics
            subject.compute_metrics = lambda predictions, labels: compute_metrics(trainer, predictions, labels)
    if subject.train is not None:
        if hasattr(trainer.train_dataset, "__len__"):
            subject.order = TrainerOrder(trainer)
            subject.extra["resume"] = lambda: resumed(subject, trainer)
        else:
            subject.extra["stream"] = lambda epoch: stream_of(trainer, epoch)
        subject.extra["training_loader"] = lambda: training_loader(trainer)
        subject.extra["training_modules"] = lambda: training_modules(subject, trainer)


def compute_metrics(trainer: Any, predictions: Any, labels: Any) -> Mapping[str, Any]:
    """Call the user's metric with predictions and labels as the Trainer would at the end of an evaluation."""
    from transformers import EvalPrediction

    options = {"compute_result": True} if getattr(trainer.args, "batch_eval_metrics", False) else {}
    return dict(trainer.compute_metrics(EvalPrediction(predictions=predictions, label_ids=labels), **options))


@contextlib.contextmanager
def sandbox(trainer: Any, model: Any) -> Iterator[Any]:
    """Yield a copy of a trainer that has another model, no callbacks, and a temporary output folder.

    The state that all accelerators share is put back at the end.
    """
    from transformers import DefaultFlowCallback

    trial = copy.copy(trainer)
    trial.args = copy.copy(trainer.args)
    trial.state, trial.control = copy.deepcopy(trainer.state), copy.deepcopy(trainer.control)
    trial.model = trial.model_wrapped = model
    trial.optimizer = trial.lr_scheduler = None
    handler = type(trainer.callback_handler)
    trial.callback_handler = handler([DefaultFlowCallback()], model, trainer.processing_class, None, None)
    trial.accelerator = copy.copy(trainer.accelerator)
    for name in ("_models", "_dataloaders", "_optimizers", "_schedulers"):
        if hasattr(trial.accelerator, name):
            setattr(trial.accelerator, name, [])
    trial.log = lambda *_, **__: None
    trial.__dict__.pop("_eval_dataloaders", None)
    trial.is_in_train = False
    shared = getattr(type(trainer.accelerator.gradient_state), "_shared_state", {})
    saved = dict(shared)
    with tempfile.TemporaryDirectory() as folder:
        trial.args.output_dir = folder
        for name, value in QUIET_ARGUMENTS.items():
            if hasattr(trial.args, name):
                setattr(trial.args, name, value)
        try:
            yield trial
        finally:
            shared.clear()
            shared.update(saved)


def chosen(dataset: Any, rows: Sequence[int] | None, count: int) -> Any:
    """Return some rows of a data set as a data set of the same kind."""
    if isinstance(dataset, dict):
        return {key: chosen(part, rows, count) for key, part in dataset.items()}
    if is_stream(dataset):
        if rows is None and hasattr(dataset, "take"):
            return dataset.take(count)
        first = hold(dataset, count if rows is None else max(rows, default=0) + 1)
        if rows is not None and any(row >= len(first) for row in rows):
            raise NotChecked(f"the first {len(first)} rows of a streamed evaluation set do not hold the rows looked at")
        return list(first) if rows is None else [first[row] for row in rows]
    picked = list(range(min(count, len(dataset)))) if rows is None else [int(row) for row in rows]
    if hasattr(dataset, "select") and hasattr(dataset, "column_names"):
        return dataset.select(picked)
    import torch

    return torch.utils.data.Subset(dataset, picked)


class TrainerEvaluation:
    """Runs the evaluation of a Trainer on a few rows. See `Evaluator`."""

    def __init__(self, subject: Subject, trainer: Any) -> None:
        self._subject = subject
        self._trainer = trainer
        self._done: dict[Any, EvaluationRecord] = {}

    def __call__(
        self,
        batch_size: int | None = None,
        rows: Sequence[int] | None = None,
        *,
        quiet: bool = True,
        change: Change | None = None,
        again: bool = False,
    ) -> EvaluationRecord:
        key = (batch_size, None if rows is None else tuple(rows), quiet)
        if again or key not in self._done:
            record = self._run(batch_size, rows, quiet, None, None)
            if again:
                return record
            self._done[key] = record
        record = self._done[key]
        if change is None:
            return record
        if not record.predictions:
            raise NotChecked("the evaluation does not use prediction_step: its predictions cannot be replaced")
        return self._run(batch_size, rows, quiet, change, record.need())

    def _rows(self) -> int:
        """Return how many rows are evaluated, so that the logits stay small."""
        if self._trainer.compute_metrics is None:
            return ROWS
        split, model = self._subject.evaluation, self._subject.model
        assert split is not None
        vocabulary = getattr(getattr(model, "config", None), "vocab_size", 0) or 0
        if self._subject.task in ("token-classification", "question-answering"):
            return ROWS
        try:
            longest = max(len(row.get("labels") or row.get("input_ids") or ()) for row in split.rows(ROWS))
        except (NotChecked, TypeError, ValueError, RuntimeError):
            longest = 128
        return max(3, min(ROWS, FIGURES // max(longest * vocabulary, 1)))

    def _run(
        self,
        batch_size: int | None,
        rows: Sequence[int] | None,
        quiet: bool,
        change: Change | None,
        replay: EvaluationRecord | None,
    ) -> EvaluationRecord:
        trainer = self._trainer
        model = self._subject.quiet_model if quiet else copy_of(self._subject.need("model"))
        record = EvaluationRecord()
        with sandbox(trainer, model) as trial, _watched(model, record, quiet=quiet) as finish:
            trial.eval_dataset = chosen(trainer.eval_dataset, rows, self._rows())
            if batch_size is not None:
                trial.args.per_device_eval_batch_size = batch_size
            if quiet:
                trial.accelerator.native_amp = False
            _record_metric(trial, record)
            if replay is None:
                _record_predictions(trial, record)
            else:
                _replay_predictions(trial, record, replay, change)
            try:
                record.metrics = dict(trial.evaluate())
            except NotChecked:
                raise
            except Exception as error:
                record.error = error
            finish()
        return record


@contextlib.contextmanager
def _watched(model: Any, record: EvaluationRecord, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Record what happens to a model: arguments of `generate`, training flags, changed parameters."""
    import torch

    before = {} if quiet else {name: part.detach().clone() for name, part in _learned(model)}
    for part in model.parameters():
        part.grad = None
    flags: dict[str, None] = {}
    handles = []
    for name, module in model.named_modules():

        def note(module: Any, _: Any, name: str = name) -> None:
            if module.training:
                flags[name] = None

        handles.append(module.register_forward_pre_hook(note))
    config = copy.deepcopy(getattr(model, "generation_config", None))
    generate = getattr(model, "generate", None)
    own = "generate" in vars(model)

    def watched_generate(*arguments: Any, **options: Any) -> Any:
        given = dict(options)
        if arguments:
            given["inputs"] = arguments[0]
        record.generations.append(given)
        for name in ("max_length", "min_length", "min_new_tokens"):
            options.pop(name, None)
        options["max_new_tokens"] = NEW_TOKENS
        if quiet:
            options["num_beams"] = 1
        assert generate is not None
        return generate(*arguments, **options)

    def finish() -> None:
        record.training = list(flags)
        record.leftover = any(part.grad is not None for part in model.parameters())
        now = dict(_learned(model)) if before else {}
        record.changed = [
            name for name, part in before.items() if not torch.allclose(part, now[name], 0.0, 0.0, equal_nan=True)
        ]

    if generate is not None:
        model.generate = watched_generate
    try:
        yield finish
    finally:
        for handle in handles:
            handle.remove()
        if generate is not None:
            if own:
                model.generate = generate
            else:
                del model.generate
        if config is not None:
            model.generation_config = config


def _learned(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parameters and the batch statistics of a model, by name."""
    yield from model.named_parameters()
    yield from ((name, part) for name, part in model.named_buffers() if "running_" in name)


def _record_metric(trial: Any, record: EvaluationRecord) -> None:
    metric = trial.compute_metrics
    if metric is None:
        return

    def recorded(given: Any, *arguments: Any, **options: Any) -> Any:
        record.calls.append((given.predictions, given.label_ids))
        return metric(given, *arguments, **options)

    trial.compute_metrics = recorded


def _record_predictions(trial: Any, record: EvaluationRecord) -> None:
    step = trial.prediction_step

    def recorded(model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        batch = dict(inputs)
        result = step(model, inputs, *arguments, **options)
        loss, outputs, labels = result
        record.gradient = record.gradient or bool(getattr(loss, "requires_grad", False))
        record.predictions.append(Prediction(batch, None if loss is None else float(loss), outputs, labels))
        return result

    trial.prediction_step = recorded


def _replay_predictions(trial: Any, record: EvaluationRecord, replay: EvaluationRecord, change: Change | None) -> None:
    import torch

    def replayed(model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
        index = len(record.predictions)
        known = replay.predictions[index]
        outputs, labels = known.outputs, known.labels
        if change is not None and outputs is not None:
            changed = change(known, index)
            outputs, labels = changed if isinstance(changed, Pair) else (changed, labels)
        record.predictions.append(Prediction(dict(inputs), known.loss, outputs, labels))
        loss = None if known.loss is None else torch.tensor(known.loss)
        return loss, outputs, labels

    trial.prediction_step = replayed


def evaluation_order(trainer: Any) -> tuple[list[int], int]:
    """Return the indices of the rows that one evaluation draws, and the number of rows there are."""
    with sandbox(trainer, trainer.model) as trial:
        if isinstance(trial.eval_dataset, dict):
            trial.eval_dataset = next(iter(trial.eval_dataset.values()))
        if not hasattr(trial.eval_dataset, "__len__"):
            raise NotChecked("the evaluation data is a stream without a length")
        if len(trial.eval_dataset) > MANY_ROWS and _by_length(trial.args):
            raise NotChecked("the evaluation rows are grouped by length, and are too many to measure")
        draws = Draws(trial.get_eval_dataloader(), *_large(trainer))
        return draws.epoch(0), draws.length


class TrainerOrder:
    """Gives the order in which a Trainer draws its training rows. See `Subject.order`."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._known: dict[tuple[int | None, int], list[list[int]]] = {}
        self.total: int | None = None
        """The number of rows that are looked at, if these are not all."""

    def __call__(self, epoch: int, seed: int | None = None, *, drawn_before: int = 0, again: bool = False) -> list[int]:
        """Return the indices of the rows of one epoch, in the order they are drawn. It is cached.

        Args:
            epoch: the epoch, from 0.
            seed: another seed than that of the run, or None.
            drawn_before: random numbers that are drawn from each global generator before.
            again: draw again, although the same epoch was drawn before.
        """
        if again:
            return self._draw(epoch + 1, seed, drawn_before)[epoch]
        key = (seed, drawn_before)
        epochs = self._known.setdefault(key, [])
        if len(epochs) <= epoch:
            epochs[:] = self._draw(epoch + 1, seed, drawn_before)
        return epochs[epoch]

    def _draw(self, count: int, seed: int | None, drawn_before: int) -> list[list[int]]:
        import random

        import numpy as np
        import torch
        from transformers import set_seed

        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        shared: list[Any] = []
        try:
            with sandbox(self._trainer, self._trainer.model) as trial:
                dataset = trial.train_dataset
                if seed is not None:
                    trial.args.seed = seed
                    if getattr(trial.args, "data_seed", None) is not None:
                        trial.args.data_seed = seed
                        _set_data_seed(trial.accelerator, seed)
                    set_seed(seed)
                for _ in range(drawn_before):
                    random.random(), np.random.rand(), torch.rand(())
                if len(dataset) > MANY_ROWS and _by_length(trial.args) and hasattr(dataset, "select"):
                    trial.train_dataset = dataset.select(range(MANY_ROWS))
                    self.total = MANY_ROWS
                draws = Draws(trial.get_train_dataloader(), *_large(self._trainer))
                shared = draws.global_generators()
                return [draws.epoch(each) for each in range(count)]
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
            for put_back in shared:
                put_back()

    @property
    def sampler(self) -> Any:
        """The sampler of the training rows, for what it says of itself."""
        with sandbox(self._trainer, self._trainer.model) as trial:
            return Draws(trial.get_train_dataloader(), *_large(self._trainer)).sampler


def _large(trainer: Any) -> list[Any]:
    """Return the parts of a trainer that a sampler may refer to and that must not be copied."""
    return [trainer, trainer.model, trainer.train_dataset, trainer.eval_dataset]


def _set_data_seed(accelerator: Any, seed: int) -> None:
    configuration = getattr(accelerator, "dataloader_config", None)
    if hasattr(configuration, "data_seed"):
        accelerator.dataloader_config = copy.copy(configuration)
        accelerator.dataloader_config.data_seed = seed


def _by_length(arguments: Any) -> bool:
    grouped = getattr(arguments, "group_by_length", False)
    return bool(grouped) or getattr(arguments, "train_sampling_strategy", "") == "group_by_length"


def training_loader(trainer: Any) -> Any:
    """Return the training loader with its workers, as `train()` makes it."""
    with sandbox(trainer, trainer.model) as trial:
        for name in QUIET_ARGUMENTS:
            if name.startswith("dataloader_") and hasattr(trial.args, name):
                setattr(trial.args, name, getattr(trainer.args, name))
        return trial.get_train_dataloader()


def stream_of(trainer: Any, epoch: int) -> tuple[list[str], bool]:
    """Return the first rows of a streaming data set in an epoch, as text, and whether it is shuffled."""
    with sandbox(trainer, trainer.model) as trial:
        try:
            trial.train_dataset = copy.deepcopy(trainer.train_dataset)
        except TypeError as error:
            raise NotChecked(f"the stream cannot be copied: {error}") from error
        loader = trial.get_train_dataloader()
        dataset = getattr(getattr(loader, "base_dataloader", loader), "dataset", trial.train_dataset)
        if hasattr(loader, "set_epoch") and hasattr(dataset, "set_epoch"):
            dataset.set_epoch(epoch)
        return [str(row) for row in itertools.islice(dataset, STREAMED)], _is_shuffled(dataset)


def _is_shuffled(dataset: Any) -> bool:
    """Return whether a stream of `datasets` has a step that shuffles."""
    step = getattr(dataset, "_ex_iterable", None)
    while step is not None:
        if "Shuffl" in type(step).__name__:
            return True
        step = getattr(step, "ex_iterable", None)
    return getattr(dataset, "_shuffling", None) is not None


def training_modules(subject: Subject, trainer: Any) -> dict[str, bool]:
    """Run one training step on a copy whose model is in evaluation mode, and return the flags of its modules.

    An evaluation leaves the model in evaluation mode, so the step itself must set training mode.
    """
    model = copy_of(subject.need("model")).eval()
    flags: dict[str, bool] = {}
    for name, module in model.named_modules():

        def note(module: Any, _: Any, name: str = name) -> None:
            flags[name] = module.training

        module.register_forward_pre_hook(note)
    assert subject.train is not None
    batch = subject.train.batch(subject.train.rows(2))
    with sandbox(trainer, model) as trial:
        trial.current_gradient_accumulation_steps = 1
        inputs = trial._prepare_inputs(batch) if hasattr(trial, "_prepare_inputs") else batch
        try:
            trial.training_step(model, inputs)
        except Exception as error:
            raise NotChecked(f"a training step on two rows raised {type(error).__name__}: {error}") from error
    return flags
