"""Make a subject of a training loop that was observed."""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from touchstone.auditing.adapters.loop_batches import named
from touchstone.auditing.adapters.loop_order import evaluation_order, order_of
from touchstone.auditing.adapters.loop_steps import observed_steps
from touchstone.auditing.finding import NotChecked
from touchstone.auditing.observing.calls import logits_of, loss_of, unwrapped
from touchstone.auditing.observing.record import Recorder
from touchstone.auditing.observing.trace import Forward, LossCall, Trace
from touchstone.auditing.subject import IGNORED, UNKNOWN, Batch, MapCall, Settings, Split, Subject, task_of

if TYPE_CHECKING:
    from torch import Tensor, nn

INPUTS = ("input_ids", "idx", "inputs", "input", "x", "tokens", "src", "ids")
LABELS = ("labels", "targets", "target", "label", "y", "tgt", "lm_labels")
MASKS = ("attention_mask", "mask", "padding_mask")
OBSERVED = 16
"""Batches of each split that are kept."""


def subject_of(
    recorder: Recorder, *, maps: Sequence[MapCall] = (), task: str | None = None, name: str = "the loop"
) -> Subject:
    """Return the subject of a loop that has taken at least one optimizer step.

    Args:
        recorder: what was observed.
        maps: observed calls of `Dataset.map`.
        task: the task, where the head does not tell.
        name: what is audited, for the report.
    """
    trace = recorder.trace
    wrapped = _trained_module(recorder)
    called = unwrapped(wrapped)
    model = _named(_bare(called), _first_batch(recorder, called))
    _complete(recorder, wrapped)
    tokenizer = _tokenizer(recorder, called)
    id2label = getattr(getattr(model, "config", None), "id2label", None)
    evaluation = _evaluation(recorder)
    return Subject(
        name=name,
        task=task or (known if (known := task_of(model)) != UNKNOWN else _task(trace.forwards, called)),
        model=model,
        tokenizer=tokenizer,
        train=_split("train", _training_loader(recorder), [each for each in trace.forwards if each.grad], trace),
        evaluation=evaluation,
        names=[str(id2label[index]) for index in range(len(id2label))] if id2label else None,
        maps=maps,
        settings=_settings(recorder),
        steps=observed_steps(recorder, called),
        trace=trace,
        order=order_of(trace),
        extra={
            "evaluation_order": lambda: evaluation_order(trace),
            "training_loader": lambda: _training_loader(recorder),
        },
        aligned=any(each.aligned for each in trace.forwards),
    )


def _trained_module(recorder: Recorder) -> nn.Module:
    """Return the module, as the script called it, that has most of the parameters that the optimizers hold."""
    held = {
        id(parameter)
        for facts in recorder.trace.optimizers
        for group in facts.optimizer.param_groups
        for parameter in group["params"]
    }
    called = {id(call.module): call.module for call in recorder.calls}
    trained = {
        id(recorder.calls[index].module) for update in recorder.trace.updates for index in update.forwards
    } or set(called)

    def rank(module: nn.Module) -> tuple[bool, int, int]:
        sizes = [(parameter.numel(), id(parameter) in held) for parameter in module.parameters()]
        return id(module) in trained, sum(size for size, own in sizes if own), sum(size for size, _ in sizes)

    return max(called.values(), key=rank)


def _bare(module: Any) -> Any:
    """Return a model whose `forward` is that of its class, sharing all parameters; Accelerate may have wrapped it."""
    if "forward" not in vars(module):
        return module
    bare = copy.copy(module)
    bare.__dict__ = {key: value for key, value in vars(module).items() if key not in ("forward", "_original_forward")}
    return bare


def _first_batch(recorder: Recorder, model: nn.Module) -> Batch:
    """Return a batch under the model's own names, of a call in which it returned all logits."""
    pairs = zip(recorder.calls, recorder.trace.forwards, strict=True)
    return next(
        (each.batch for call, each in pairs if unwrapped(call.module) is model and each.grad and each.batch), {}
    )


def _named(model: Any, batch: Batch) -> Any:
    """Return a model that takes the usual names, such as `input_ids`, and returns an object with logits.

    It shares all parameters. It is the model itself if that has the usual names.
    """
    names = plain_names(batch)
    if not names:
        return model
    own = {plain: name for name, plain in names.items()}
    kind = type(model)

    def forward(self: Any, **inputs: Any) -> Any:
        given = {own.get(name, name): value for name, value in inputs.items()}
        target = own.get("labels", "labels")
        dummy = target in batch and target not in given  # without targets, some models return the last logits only
        if dummy:
            given[target] = given[own.get("input_ids", "input_ids")]
        output = kind.forward(self, **given)
        if hasattr(output, "logits"):
            return output
        loss = None if dummy else loss_of(output)
        return SimpleNamespace(loss=loss, **logits_of(output))

    named = copy.copy(model)
    named.__dict__ = dict(vars(model))
    named.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    return named


# The trace


def _complete(recorder: Recorder, main: nn.Module) -> None:
    """Turn what was recorded into plain values: only calls of the model, named batches, floats."""
    trace = recorder.trace
    inner = unwrapped(main)
    everywhere = {id(each) for call in recorder.calls for each in call.module.parameters()}
    places = [index for index, call in enumerate(recorder.calls) if unwrapped(call.module) is inner]
    new = {old: index for index, old in enumerate(places)}
    trace.forwards = [trace.forwards[index] for index in places]
    recorder.calls = [recorder.calls[index] for index in places]
    for forward in trace.forwards:
        forward.loss = _float(forward.loss)
        for loss in forward.losses:
            loss.value = _float(loss.value)
        if forward.batch:
            forward.batch, forward.aligned = plain_batch(forward)
    for reported in trace.reported:
        reported.forwards = sum(place < reported.forwards for place in places)
    for update in trace.updates:
        update.forwards = [new[each] for each in update.forwards if each in new]
        update.losses = [(_float(each) or 0.0) / update.scale for each in update.losses]
        update.leftover = _float(update.leftover)
        for clip in update.clips:
            clip.norm = _float(clip.norm)
    names = {id(parameter): name for name, parameter in inner.named_parameters()}
    gradients = {name for kept in recorder.kept.values() for name in kept.gradients or ()}
    stepped = [facts.optimizer for facts in trace.optimizers]
    others = [each for each in recorder.optimizers if not any(each is known for known in stepped)]
    waiting = {names.get(id(each)) for other in others for group in other.param_groups for each in group["params"]}
    for facts in trace.optimizers:
        held = Counter(id(each) for group in facts.optimizer.param_groups for each in group["params"])
        trainable = {id(each): name for name, each in inner.named_parameters() if each.requires_grad}
        facts.missing = [name for each, name in trainable.items() if each not in held]
        facts.foreign = sum(
            id(each) not in everywhere and each.grad is None and each not in facts.optimizer.state
            for group in facts.optimizer.param_groups
            for each in group["params"]
        )
        facts.groups = [
            [names[id(each)] for each in group["params"] if id(each) in names] for group in facts.optimizer.param_groups
        ]
        facts.unmoved = [
            name for name in facts.missing if name not in waiting and any(each.endswith(name) for each in gradients)
        ]
        facts.decays = [float(group.get("weight_decay", 0.0)) for group in facts.optimizer.param_groups]
        facts.twice = [names[each] for each, times in held.items() if times > 1 and each in names]
    _read_loops(recorder)


def _read_loops(recorder: Recorder) -> None:
    trace, loops = recorder.trace, list(recorder.loops)
    trace.breaks = any(loop.breaks for loop in loops)
    if not trace.training_passes():
        counted = [loop.length for loop in loops if loop.counted]
        if counted and all(each is not None for each in counted) and len(counted) == len(loops):
            trace.max_steps = _product(counted)
        return
    while loops and loops[-1].counted and len(loops) > 1:
        loops.pop()  # a loop within the loop over the loader
    around = loops[:-1] if loops and not loops[-1].counted else []
    if loops and not loops[-1].counted and all(loop.counted and loop.length is not None for loop in around):
        trace.epochs = _product([loop.length for loop in around])
    elif len(loops) == 1 and loops[0].counted:
        trace.max_steps = loops[0].length


def _product(values: Sequence[int | None]) -> int:
    product = 1
    for value in values:
        product *= value or 0
    return product


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def plain_batch(forward: Forward) -> tuple[Batch, bool]:
    """Return a batch under the usual names, with the labels that the loss saw, and whether they are shifted already."""
    names = plain_names(forward.batch)
    batch = {names.get(name, name): value for name, value in forward.batch.items()}
    ids = batch.get("input_ids")
    for call in forward.losses:
        if call.ignore_index != IGNORED and "labels" in batch:
            import torch

            batch["labels"] = torch.where(batch["labels"] == call.ignore_index, IGNORED, batch["labels"])
    if ids is None or not _is_ids(ids):
        return batch, False
    if "labels" not in batch and "start_positions" not in batch:
        batch.update(_labels_of(forward.losses, ids, batch))
    labels = batch.get("labels")
    aligned = bool(
        labels is not None
        and labels.shape == ids.shape
        and ids.shape[1] > 1
        and any(call.target.numel() == labels.numel() for call in forward.losses)
        and _is_next(ids, labels)
    )
    return batch, aligned


def plain_names(batch: Batch) -> dict[str, str]:
    """Return the usual names of arguments that a model calls otherwise, by its own names."""
    found = {}
    for name, names in (("input_ids", INPUTS), ("labels", LABELS), ("attention_mask", MASKS)):
        own = next((each for each in names if each in batch), None)
        if own is not None and own != name and name not in batch and getattr(batch[own], "ndim", 0) >= 1:
            found[own] = name
    first = next(iter(batch), None)
    if first is not None and "input_ids" not in batch and "input_ids" not in found.values() and _is_ids(batch[first]):
        found[first] = "input_ids"
    return found


def _is_ids(value: Any) -> bool:
    return getattr(value, "ndim", 0) == 2 and not value.is_floating_point()


def _labels_of(losses: Sequence[LossCall], ids: Tensor, batch: Batch) -> Batch:
    """Return the labels that `cross_entropy` was given, in the shape of the batch."""
    import torch

    rows, length = ids.shape
    decoder = batch.get("decoder_input_ids")
    if decoder is not None and _is_ids(decoder):
        length = decoder.shape[1]
    targets = []
    for call in losses:
        target = call.target
        if target.is_floating_point():
            continue
        targets.append(torch.where(target == call.ignore_index, IGNORED, target))
    if not targets:
        return {}
    first = targets[0]
    if first.numel() == rows * length:
        return {"labels": first.reshape(rows, length)}
    if length > 1 and first.numel() == rows * (length - 1):
        before = torch.full((rows, 1), IGNORED, dtype=first.dtype, device=first.device)
        return {"labels": torch.cat([before, first.reshape(rows, length - 1)], dim=1)}
    if first.numel() == rows and len(targets) == 2 and losses[0].shape == (rows, length):
        return {"start_positions": first.reshape(rows), "end_positions": targets[1].reshape(rows)}
    return {"labels": first.reshape(rows)} if first.numel() == rows else {}


def _is_next(ids: Tensor, labels: Tensor) -> bool:
    """Tell whether label i is input i + 1 wherever there is a label, as in nanoGPT's x and y."""
    here, following = labels[:, :-1], ids[:, 1:]
    counted = here != IGNORED
    return bool(counted.any()) and bool((here == following)[counted].float().mean() > 0.9)


# The parts


def _task(forwards: Sequence[Forward], model: nn.Module) -> str:
    """Return the task of a head of one's own: what its loss compares tells."""
    import torch

    tables = [each.num_embeddings for each in model.modules() if isinstance(each, torch.nn.Embedding)]
    for forward in forwards:
        labels, ids = forward.batch.get("labels"), forward.batch.get("input_ids")
        if ids is None or not forward.grad or not forward.losses:
            continue
        if forward.aligned:
            return "causal-lm"
        if "start_positions" in forward.batch:
            return "question-answering"
        if labels is None or labels.shape != ids.shape:
            continue
        call = forward.losses[0]
        if call.shape[1 if len(call.shape) == 3 else -1] < max(tables, default=0) // 2:
            return "token-classification" if call.target.numel() == labels.numel() else UNKNOWN
        if call.target.numel() < labels.numel() or bool((labels == ids).float().mean() > 0.99):
            return "causal-lm"
        if float((labels == IGNORED).float().mean()) > 0.5:
            return "masked-lm"
    return UNKNOWN


def _training_loader(recorder: Recorder) -> Any:
    passes = recorder.trace.training_passes()
    if not passes:
        return None
    index = Counter(each.loader for each in passes).most_common(1)[0][0]
    return recorder.trace.loaders[index]


def _evaluation(recorder: Recorder) -> Split | None:
    """Return the data that the model was called on without gradients, or that of a loader that was not used yet."""
    trace = recorder.trace
    training = _training_loader(recorder)
    dataset = getattr(training, "dataset", None)
    quiet = [each for each in trace.evaluation_forwards() if each.passing is not None]
    others = [trace.passes[each.passing].loader for each in quiet if each.passing is not None]
    candidates = [trace.loaders[index] for index in others]
    if not candidates and any(not each.grad for each in trace.forwards):
        candidates = [trace.loaders[each.loader] for each in trace.passes if not each.training]
    if not candidates:
        candidates = [each for each in recorder.made if each.dataset is not dataset and each.collate_fn is not None]
    for loader in candidates:
        if loader is not training:
            places = {index for index, each in enumerate(trace.loaders) if each is loader}
            calls = [each for each in quiet if each.passing is not None and trace.passes[each.passing].loader in places]
            return _split("evaluation", loader, calls, trace)
    loose = trace.evaluation_forwards()
    return _split("evaluation", None, loose, trace) if loose else None


def _split(name: str, loader: Any, forwards: Sequence[Forward], trace: Trace) -> Split | None:
    observed = [each.batch for each in forwards if each.batch][:OBSERVED]
    if loader is None:
        if not observed:
            return None
        return Split(name, _NoRows(), None, len(next(iter(observed[0].values()))), observed=observed)
    sampler = loader.batch_sampler
    size = loader.batch_size or getattr(sampler, "batch_size", None) or 1
    return Split(
        name,
        loader.dataset,
        named(loader.collate_fn, loader, trace),
        int(size),
        loader=lambda: _again(loader),
        observed=observed,
        drop_last=bool(getattr(sampler, "drop_last", loader.drop_last)),
    )


class _NoRows:
    """The data of a loop that makes its batches without a data set: a stream of which nothing is known."""

    def __iter__(self) -> Iterator[Any]:
        raise NotChecked("the loop makes its batches without a data set or a DataLoader")


def _again(loader: Any) -> Any:
    """Return a new loader of the same rows, batches and order, without workers, that shares no generator."""
    from torch.utils.data import DataLoader

    options: dict[str, Any] = {"collate_fn": loader.collate_fn}
    if loader.batch_sampler is not None:
        memo = {id(loader.dataset): loader.dataset}
        return DataLoader(loader.dataset, batch_sampler=copy.deepcopy(loader.batch_sampler, memo), **options)
    return DataLoader(loader.dataset, batch_size=loader.batch_size, drop_last=loader.drop_last, **options)


def _tokenizer(recorder: Recorder, model: Any) -> Any:
    """Return the tokenizer of the collator, or else the one that was called most and fits the model's vocabulary."""
    own = getattr(getattr(_training_loader(recorder), "collate_fn", None), "tokenizer", None)
    if own is not None and hasattr(own, "convert_ids_to_tokens"):
        return own
    return called_tokenizer(recorder, model)


def called_tokenizer(recorder: Recorder, model: Any) -> Any:
    """Return the tokenizer called most that fits the model's vocabulary, or one that the script's variables hold."""
    known = [tokenizer for tokenizer, _ in sorted(recorder.tokenizers.values(), key=lambda pair: -pair[1])]
    named = list(vars(sys.modules["__main__"]).values())
    named += [vars(each).get("tokenizer") for each in named if hasattr(each, "__dict__")]
    known += [each for each in named if hasattr(type(each), "convert_ids_to_tokens")]
    rows = None
    try:
        rows = model.get_input_embeddings().weight.shape[0]
    except (AttributeError, NotImplementedError):
        rows = getattr(getattr(model, "config", None), "vocab_size", None)
    fitting = [each for each in known if rows is None or len(each) <= rows]
    return next(iter([*fitting, *known]), None)


def _settings(recorder: Recorder) -> Settings:
    trace = recorder.trace
    first = trace.updates[0]
    groups = trace.optimizers[0].optimizer.param_groups
    calls = [call for forward in trace.forwards for call in forward.losses]
    limits = [clip.limit for update in trace.updates for clip in update.clips]
    accelerator = recorder.accelerator
    planned, warmup = planned_steps(trace)
    return Settings(
        accumulation=Counter(len(update.losses) for update in trace.updates).most_common(1)[0][0] or None,
        epochs=trace.epochs,
        max_steps=trace.max_steps,
        planned_steps=planned,
        warmup_steps=warmup,
        learning_rate=float(groups[0].get("initial_lr", first.rates[0])),
        weight_decay=max(trace.optimizers[0].decays, default=0.0),
        max_grad_norm=limits[0] if limits else None,
        label_smoothing=max((call.label_smoothing for call in calls), default=0.0),
        precision=str(getattr(accelerator, "mixed_precision", "fp32")).replace("no", "fp32"),
        world_size=int(getattr(accelerator, "num_processes", 1)),
    )


def planned_steps(trace: Trace) -> tuple[int | None, int | None]:
    """Return the steps that the schedule is planned for, and its steps of warm-up, as far as it tells."""
    if any(hasattr(schedule, "_schedulers") for schedule in trace.schedules):
        return None, None  # a chain of schedules
    for schedule in trace.schedules:
        for function in getattr(schedule, "lr_lambdas", ()):
            options = getattr(function, "keywords", {})
            if "num_training_steps" in options:
                warmup = options.get("num_warmup_steps")
                return int(options["num_training_steps"]), None if warmup is None else int(warmup)
        for name in ("total_steps", "T_max"):
            if isinstance(getattr(schedule, name, None), int) and getattr(schedule, name) > 0:
                return int(getattr(schedule, name)), None
    return None, None
