"""What probes look at: the model, tokenizer, data, loss and settings of one training run.

An adapter makes a `Subject`: `trainer.py` of a transformers.Trainer, `loop.py` of an observed loop, `parts.py` of
plain parts. A probe never looks at a framework's object. A part that an adapter cannot give is None, or a method that
raises `NotChecked` with the reason.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from touchstone.auditing.copies import copy_of
from touchstone.auditing.finding import NotChecked

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from touchstone.auditing.adapters.evaluated import Evaluator
    from touchstone.auditing.observing.trace import Trace

Made = TypeVar("Made")
Batch = dict[str, Any]
"""What the model receives: tensors by argument name, such as `input_ids`, `attention_mask` and `labels`."""
Row = dict[str, Any]
"""One row of a data set."""

TASKS = (
    "token-classification",
    "masked-lm",
    "translation",
    "summarization",
    "causal-lm",
    "question-answering",
)
SEQ2SEQ = ("translation", "summarization")
UNKNOWN = "unknown"
IGNORED = -100


@dataclass(frozen=True)
class MapCall:
    """One observed call of `Dataset.map`: the function, what went in, and what came out.

    Args:
        function: the user's function.
        source: the data set before the call.
        result: the data set after the call.
        batched: the function takes a batch of rows, as a dict of lists.
        options: all other arguments of the call (`remove_columns`, `fn_kwargs`, `load_from_cache_file` ...).
        where: `file:line` of the call in the user's code.
    """

    function: Callable[..., Any]
    source: Any
    result: Any
    batched: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    def need_dicts(self) -> None:
        """Check that rows of the source are dicts.

        Raises:
            NotChecked: the source is set to the format of Arrow, pandas or polars, so that the function takes tables.
        """
        kind = (getattr(self.source, "format", None) or {}).get("type")
        if kind in ("arrow", "pandas", "polars"):
            raise NotChecked(f"a function of map takes tables of {kind}, which cannot be repeated ({self.where})")

    def apply(self, indices: Sequence[int]) -> list[Row]:
        """Call the function again on some rows of the source, in one batch if it is batched, and return its rows.

        Raises:
            NotChecked: the function takes tables instead of dicts.
        """
        self.need_dicts()
        rows = [self.source[int(index)] for index in indices]
        extra = dict(self.options.get("fn_kwargs") or {})
        columns = self.options.get("input_columns")
        if isinstance(columns, str):
            columns = [columns]
        positions = list(indices)
        if not self.batched:
            made = []
            for index, row in zip(positions, rows, strict=True):
                given = [row[column] for column in columns] if columns else [dict(row)]
                if self.options.get("with_indices"):
                    given.append(index)
                made.append(dict(self.function(*given, **extra)))
            return made
        table = {key: [row[key] for row in rows] for key in rows[0]} if rows else {}
        given = [table[column] for column in columns] if columns else [table]
        if self.options.get("with_indices"):
            given.append(positions)
        return rows_of(self.function(*given, **extra))


@dataclass
class Split:
    """The training or the evaluation data of a run, after all preprocessing.

    Args:
        name: `train` or `evaluation`.
        dataset: rows as the collator receives them, apart from columns that are dropped before it.
        collate: turns a list of rows into a batch.
        batch_size: rows in a batch.
        loader: a function that returns a new loader whose use leaves no trace, or None.
        observed: batches that the model received while the run was observed.
        drop_last: an incomplete last batch is dropped.
        columns: the columns that reach the collator, or None if all do.
    """

    name: str
    dataset: Any
    collate: Callable[[list[Any]], Any] | None
    batch_size: int
    loader: Callable[[], Any] | None = None
    observed: list[Batch] = field(default_factory=list)
    drop_last: bool = False
    columns: Sequence[str] | None = None

    def __len__(self) -> int:
        try:
            return len(self.dataset)
        except TypeError:
            raise NotChecked(f"the {self.name} data is a stream without a length") from None

    def rows(self, count: int, *, start: int = 0) -> list[Row]:
        """Return up to `count` rows as the collator receives them, from index `start`. A stream is copied and read.

        Raises:
            NotChecked: the data cannot be indexed, or its rows are not dicts.
        """
        return [self._named(row) for row in self.items(count, start=start)]

    def items(self, count: int, *, start: int = 0) -> list[Any]:
        """Return the same as `rows`, but of any type, such as tuples.

        Raises:
            NotChecked: the data cannot be indexed.
        """
        if hasattr(self.dataset, "__len__"):
            return [self.kept(self.dataset[index]) for index in range(start, min(start + count, len(self)))]
        return [self.kept(row) for row in islice(self._copied(), start, start + count)]

    def stream(self) -> Iterator[Row]:
        """Yield the rows of a stream as the collator receives them, read from a copy of it."""
        for row in self._copied():
            yield self._named(self.kept(row))

    def kept(self, row: Any) -> Any:
        """Return a row of the data set without the columns that are dropped before the collator."""
        if not isinstance(row, Mapping):
            return row
        return {key: value for key, value in row.items() if self.columns is None or key in self.columns}

    def _copied(self) -> Any:
        try:
            return copy.deepcopy(self.dataset)
        except Exception as error:
            raise NotChecked(
                f"the {self.name} data is a stream that cannot be read without a trace: {error}"
            ) from error

    def _named(self, row: Any) -> Row:
        if not isinstance(row, dict):
            raise NotChecked(f"rows of the {self.name} data are {type(row).__name__}, not dicts of columns")
        return row

    def batch(self, rows: Sequence[Row] | None = None) -> Batch:
        """Return the rows as a batch (by default the first observed batch, or the first `batch_size` rows).

        Rows are copied before the collator gets them.
        """
        if rows is None and self.observed:
            return self.observed[0]
        if self.collate is None:
            raise NotChecked(f"there is no collator for the {self.name} data: pass collator=")
        given = self.rows(self.batch_size) if rows is None else rows
        return as_batch(self.collate([copy.deepcopy(row) for row in given]))  # each alone: a row may be given twice

    def batches(self, count: int) -> list[Batch]:
        """Return up to `count` batches, observed ones first, then consecutive rows."""
        found = self.observed[:count]
        if not found:
            for start in range(0, count * self.batch_size, self.batch_size):
                rows = self.rows(self.batch_size, start=start)
                if rows:
                    found.append(self.batch(rows))
        return found


@dataclass
class Pull:
    """The logits of one micro-batch, and the gradient of the step's loss with respect to them.

    Args:
        logits: their values.
        gradient: None while backward has not reached them.
    """

    logits: Tensor
    gradient: Tensor | None = None

    def add(self, gradient: Tensor) -> None:
        """Add a gradient. It serves as the hook of a tensor."""
        gradient = gradient.detach()
        self.gradient = gradient.clone() if self.gradient is None else self.gradient + gradient


@dataclass
class Step:
    """One optimizer step: its micro-batches, and the losses and gradients that led to the update.

    Args:
        batches: the micro-batches as the model received them, labels included.
        losses: the values on which backward was called, one per micro-batch (as reported by the code, undivided, if
            `scale` says so).
        gradients: the accumulated gradients before clipping, by parameter name.
        logits: computes the logits of one micro-batch exactly as in the step (same weights, same dropout masks), with
            a graph to the parameters that `parameters` names.
        parameters: the parameters that `logits` depends on, by name.
        last: it is the last, shorter step of an epoch.
        reported: the loss of each micro-batch as the code reports it. Empty if it is not known.
        pulls: the logits of each micro-batch and their gradients, by the name of the output (`logits`, or
            `start_logits` and `end_logits`). Empty if they were not recorded.
    """

    batches: list[Batch]
    losses: list[float]
    gradients: dict[str, Tensor]
    logits: Callable[[int], Any]
    parameters: dict[str, Tensor]
    last: bool = False
    reported: list[float] = field(default_factory=list)
    pulls: list[dict[str, Pull]] = field(default_factory=list)


class Stepper(Protocol):
    """Runs the user's own code for one optimizer step on chosen micro-batches, on a copy without dropout in float32.

    `accumulation` is the number of micro-batches that the settings announce; by default as many as there are. `model`
    takes the place of the copy.
    """

    def __call__(
        self, batches: Sequence[Batch], /, *, accumulation: int | None = None, model: nn.Module | None = None
    ) -> Step: ...


@dataclass
class Settings:
    """The settings of a run, as far as they are known. None means unknown."""

    accumulation: int | None = None
    epochs: float | None = None
    max_steps: int | None = None
    planned_steps: int | None = None
    warmup_steps: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    max_grad_norm: float | None = None
    label_smoothing: float = 0.0
    seed: int | None = None
    precision: str = "fp32"
    world_size: int = 1
    metric_for_best: str | None = None
    greater_is_better: bool | None = None
    skips_no_data: bool = False


@dataclass
class Subject:
    """A training run as probes see it.

    Args:
        name: what is audited, for the report.
        task: one of `TASKS`, or `unknown`.
        model: the user's model. Probes never change it: they use `quiet_model`.
        tokenizer: the tokenizer, or None.
        train: the training data.
        evaluation: the evaluation data, or None.
        names: label names by id, or None.
        maps: the observed calls of `Dataset.map`, in order. Those on streams go to `streamed`.
        raw: the rows that the training rows were made of, index by index, if the user passed them.
        raw_columns: the columns of `raw` that matter, such as ("tokens", "ner_tags").
        settings: known settings.
        step: runs one optimizer step of the user's code, or None.
        steps: optimizer steps that were observed.
        evaluate: runs the user's evaluation on a few rows, and returns what it did.
        compute_metrics: the user's metric: `compute_metrics(predictions, labels) -> dict`.
        optimizer: makes an optimizer and a schedule as the run would, for a given model: (model) -> (optimizer,
            schedule).
        order: the order of training rows: `order(epoch, seed=None) -> list[int]`.
        extra: anything else an adapter knows, by name. Probes of one adapter only may use it.
        repro: how a user runs one probe again; `{probe}` stands for its id.
        where: `file:line` of the user's code by part, such as `collator`, `compute_metrics`, `loss`.
        trace: what an observed loop did, or None.
        aligned: label i of a batch belongs to logits i, although the model predicts next tokens (nanoGPT's x and y).
    """

    name: str
    task: str
    model: nn.Module | None
    tokenizer: Any = None
    train: Split | None = None
    evaluation: Split | None = None
    names: Sequence[str] | None = None
    maps: Sequence[MapCall] = ()
    raw: Any = None
    raw_columns: Sequence[str] | None = None
    settings: Settings = field(default_factory=Settings)
    step: Stepper | None = None
    steps: Sequence[Step] = ()
    evaluate: Evaluator | None = None
    compute_metrics: Callable[[Any, Any], Mapping[str, Any]] | None = None
    optimizer: Callable[[nn.Module], tuple[Any, Any]] | None = None
    order: Callable[..., list[int]] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    repro: str = "touchstone.audit(trainer, probes=['{probe}'])"
    where: dict[str, str] = field(default_factory=dict)
    trace: Trace | None = None
    aligned: bool = False
    _made: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.streamed: list[MapCall] = [each for each in self.maps if not hasattr(each.source, "__len__")]
        """The observed calls of `IterableDataset.map`, whose rows cannot be read by index."""
        self.maps = [each for each in self.maps if hasattr(each.source, "__len__")]

    def once(self, key: str, make: Callable[[], Made]) -> Made:
        """Return `make()`, made once per subject, so that probes share what is slow to compute.

        Raises:
            NotChecked: the first call raised it. The reason is kept too.
        """
        if key not in self._made:
            try:
                self._made[key] = make()
            except NotChecked as reason:
                self._made[key] = reason
        made = self._made[key]
        if isinstance(made, NotChecked):
            raise made
        return cast("Made", made)

    def need(self, part: str) -> Any:
        """Return a part of the subject.

        Raises:
            NotChecked: the adapter could not give it.
        """
        value = getattr(self, part)
        if value is None:
            raise NotChecked(_MISSING.get(part, f"there is no {part}"))
        return value

    @cached_property
    def quiet_model(self) -> nn.Module:
        """A copy of the model in float32, in evaluation mode, with every dropout rate at 0.

        Probes may run it and differentiate it. They must not change its parameters.
        """
        return quiet(self.need("model"))

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids of the tokenizer's special tokens."""
        return frozenset(getattr(self.need("tokenizer"), "all_special_ids", ()))

    def token_texts(self, ids: Any) -> list[str]:
        """Return the token text of each id; ids that the tokenizer does not know are shown as numbers."""
        flat = [int(each) for each in ids]
        tokenizer = self.tokenizer
        if tokenizer is None:
            return [str(each) for each in flat]
        texts = tokenizer.convert_ids_to_tokens([max(each, 0) for each in flat])
        return [str(each) if each < 0 or text is None else text for each, text in zip(flat, texts, strict=True)]

    def label_text(self, label: int) -> str:
        """Return the name of a label id, or the number if it has none."""
        if label == IGNORED:
            return "-100"
        if self.names is not None and 0 <= label < len(self.names):
            return str(self.names[label])
        return str(label)


_MISSING = {
    "model": "there is no model: pass model=",
    "tokenizer": "there is no tokenizer: pass tokenizer=, or processing_class= to the Trainer",
    "train": "there is no training data",
    "evaluation": "there is no evaluation data",
    "evaluate": "there is no evaluation to run: pass evaluate=",
    "compute_metrics": "there is no metric: pass compute_metrics= to the Trainer",
    "step": "a training step cannot be repeated on chosen batches",
    "optimizer": "the optimizer cannot be made again",
    "order": "the order of the training rows cannot be read",
    "trace": "only an observed loop shows it: run the script with `touchstone audit`",
    "names": "the label names are not known: pass names=",
}


def quiet(model: nn.Module) -> nn.Module:
    """Return a copy of a model in float32, in evaluation mode, with every dropout rate at 0, without gradients."""
    from torch import nn

    copied = copy_of(model).float().eval()
    for module in copied.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "activation_dropout", "dropout_prob", "layerdrop"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    for parameter in copied.parameters():
        parameter.grad = None
    return copied


def as_batch(collated: Any) -> Batch:
    """Return what a collator returned as a dict of tensors by name.

    Raises:
        NotChecked: it has no names, such as a tuple of tensors.
    """
    if isinstance(collated, Mapping):
        return dict(collated)
    if hasattr(collated, "data") and isinstance(collated.data, Mapping):
        return dict(collated.data)
    raise NotChecked(f"batches are {type(collated).__name__}, not dicts: the names of their parts are not known")


def rows_of(table: Mapping[str, Sequence[Any]]) -> list[Row]:
    """Turn a dict of lists into a list of rows.

    >>> rows_of({"a": [1, 2], "b": [3, 4]})
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
    """
    columns = dict(table)
    length = min((len(column) for column in columns.values()), default=0)
    return [{key: column[index] for key, column in columns.items()} for index in range(length)]


def ints(values: Any) -> list[int]:
    """Return a row of ids as a list of ints, whether it is a list, an array or a tensor."""
    return [int(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]


def tensor(values: Any) -> torch.Tensor:
    """Return values as a tensor."""
    import torch

    return values if isinstance(values, torch.Tensor) else torch.as_tensor(values)


def unadapted(model: Any) -> Any:
    """Return the model that PEFT has put its adapters into, or the model itself."""
    base = getattr(model, "get_base_model", None)
    return base() if callable(base) else model


def task_of(model: Any) -> str:
    """Return the task of a head, or `unknown`. Encoder-decoders count as translation: the head does not tell."""
    name = type(unadapted(model)).__name__
    if name.endswith("ForTokenClassification"):
        return "token-classification"
    if name.endswith("ForQuestionAnswering"):
        return "question-answering"
    if name.endswith(("ForMaskedLM", "ForPreTraining")) and not name.startswith("GPT"):
        return "masked-lm"
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False) and hasattr(model, "generate"):
        return "translation"
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal-lm"
    return UNKNOWN
