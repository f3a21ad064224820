"""One training run from spec to record, as it happens inside its own process (see `touchstone.runs.isolation`).

The fork server imports this module, so that a run does not wait for slow imports. Importing it must start no thread and
touch no device.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from touchstone.engines import EngineError, engine_names, engine_slug, load_engine
from touchstone.engines.publishing import Provenance, PublishingError, publish
from touchstone.engines.ranks import Ranks
from touchstone.engines.training import Execution, Progress, Report, TrainingRun
from touchstone.engines.work import minimum_work
from touchstone.pipelines import PIPELINES
from touchstone.pipelines.pipeline import Pipeline
from touchstone.records.efficiency import Efficiency, efficiency_of
from touchstone.records.energy import Energy, EnergyMeter, total_energy
from touchstone.records.machine import describe_hardware, describe_software, runs_alone, suite_version
from touchstone.records.rates import measure_rates, sum_over_ranks
from touchstone.records.record import Finished, Launch, Record
from touchstone.runs.isolation import Message, Refused, Send, describe_error
from touchstone.sources import (
    Access,
    HubCheckpoint,
    HubData,
    InstalledCode,
    Source,
    SourceError,
    fingerprint,
    open_source,
)
from touchstone.specs.expectation import Expectation, ExpectationError, load_expectations
from touchstone.specs.spec import Spec, SpecError, load_spec
from touchstone.specs.verdict import Verdict, judge

# Import the engines and the scorers now, so that a run does not wait for them. seqeval alone takes a second, which
# would count as evaluation.
for _name in engine_names():
    with suppress(EngineError):  # an engine that cannot be imported fails the runs that use it
        load_engine(_name)
for _name in ("seqeval.scheme", "sacrebleu.metrics.bleu", "rouge_score.rouge_scorer"):
    with suppress(ImportError):  # the pipeline that needs it reports what to install
        importlib.import_module(_name)


def train(payload: Message, send: Send) -> Message:
    """Train, score and judge.

    Args:
        payload: `Trial.payload()`.
        send: passes a message to the parent process.

    Returns:
        `record`, as plain data and on every rank, and `problem`: why the model was not published, or None.

    Raises:
        Refused: the spec, the data, the checkpoint or the engine's settings do not allow the run.
    """
    try:
        return _train(payload, send)
    except (SpecError, ExpectationError, SourceError, EngineError) as error:
        raise Refused(str(error)) from error


def _train(payload: Message, send: Send) -> Message:
    started = datetime.now(timezone.utc)
    engine = load_engine(payload["engine"])
    spec = read_spec(payload)
    access = Access(**{name: path_or_none(payload[name]) for name in ("mirror", "dataset", "checkpoint")})
    source = FingerprintedSource(open_source(spec.data, spec.checkpoint, access=access))
    pipeline = PIPELINES[spec.task](source, options=spec.options, seed=payload["seed"])
    ranks = Ranks.current()
    execution = Execution(
        seed=payload["seed"],
        device=ranks.own_device(payload["device"]),
        precision=payload["precision"],
        eval_batch_size=spec.eval_batch_size,
        save_dir=path_or_none(payload["save_dir"]),
        resume=payload["resume"],
    )

    with EnergyMeter(execution.device) as meter:
        run = engine.train(pipeline, recipe=spec.recipe, execution=execution, report=reporter(send))

    energies = gather_energies(meter, execution=execution, ranks=ranks)
    launch = None if payload["launcher"] is None else launch_of(run, launcher=payload["launcher"], ranks=ranks)
    efficiency = measure_efficiency(pipeline, run, execution)
    if not ranks.first:
        return {"record": ranks.from_first(dict), "problem": None}
    print_sample_outputs(run)
    data = source.fingerprint()
    expectations = {} if spec.overrides else load_expectations(spec, dataset_fingerprint=data)
    finished = Finished(
        spec=spec,
        engine=engine_slug(payload["engine"]),
        execution=execution,
        run=run,
        dataset_fingerprint=data,
        verdicts=judge_run(run, spec=spec, expectations=expectations),
        energy=total_energy(energies),
        efficiency=efficiency,
        hardware=describe_hardware(execution.device),
        software=describe_software(run.model),
        suite=suite_version(),
        launch=launch,
        started=started,
        finished=datetime.now(timezone.utc),
    )
    record = ranks.from_first(lambda: Record.of(finished).model_dump(mode="json"))
    return {"record": record, "problem": publish_model(pipeline, finished, repo=payload["push_to"])}


def read_spec(payload: Message) -> Spec:
    """Read the spec that the payload names, with the user's overrides.

    Raises:
        Refused: the file has changed since the parent process read it.
    """
    spec = load_spec(Path(payload["spec"]), profile=payload["profile"], variant=payload["variant"])
    spec = spec.overridden(dataset=payload["dataset"], checkpoint=payload["checkpoint"])
    if spec.hash != payload["hash"]:
        raise Refused(f"{spec.path} was changed after the suite had read it: run the suite again")
    return spec


def gather_energies(meter: EnergyMeter, *, execution: Execution, ranks: Ranks) -> list[Energy]:
    """Return what all energy counters of the run measured, on rank 0; elsewhere an empty list.

    Each rank reads the counter of its GPU. All ranks on a node share the counters of its processors, so only one rank
    of each node reads them.
    """
    energy = meter.energy if runs_alone() else Energy.unknown("no energy: other runs of this session used the counter")
    reads = execution.device != "cpu" or ranks.local_rank == 0
    energies = ranks.gather(energy.model_dump(mode="json") if reads else None)
    return [Energy.model_validate(energy) for energy in energies if energy is not None]


def launch_of(run: TrainingRun, *, launcher: str, ranks: Ranks) -> Launch:
    """Return how the ranks were started, and the memory of each. Every rank must call this function."""
    nodes = int(ranks.sum([ranks.local_rank == 0])[0])  # each node has one rank with local rank 0
    device_bytes = None if run.device_bytes is None else tuple(run.device_bytes)
    return Launch(
        launcher=launcher,
        processes=ranks.world,
        nodes=nodes,
        host_bytes=tuple(run.host_bytes),
        device_bytes=device_bytes,
    )


def measure_efficiency(pipeline: Pipeline, run: TrainingRun, execution: Execution) -> Efficiency:
    """Count the minimum work of the run, and measure the machine's rates. Every rank must call this function.

    This happens after training, so that it affects neither the training nor its times.
    """
    work, reason = None, None
    try:
        work = minimum_work(pipeline, run, seed=execution.seed)
    except Exception as error:  # the rest of the record is still valid
        reason = describe_error(error)
        print(f"the flops of the run could not be counted: {reason}")
    ranks = Ranks.current()
    ranks.wait()  # ranks may share a machine, so all must measure at the same time
    size = work.state_bytes if work else 16 * run.parameters
    rates = measure_rates(execution.device, precision=execution.precision, state_bytes=size)
    rates = sum_over_ranks(rates, ranks=ranks)
    return efficiency_of(work, rates=rates, train_seconds=run.phases.get("train", 0.0), reason=reason)


def judge_run(run: TrainingRun, *, spec: Spec, expectations: Mapping[str, Expectation]) -> list[Verdict]:
    """Judge every metric that the spec asserts, in the spec's order.

    Raises:
        Refused: the spec asserts a metric that the pipeline does not score.
    """
    values = {score.name: score.value for score in run.evaluations[-1].scores}
    if missing := [name for name in spec.assertions if name not in values]:
        raise Refused(
            f"{spec.path} asserts {', '.join(missing)}, which {spec.task} does not score: use {', '.join(values)}"
        )
    return [judge([values[name]], expectation=expectations.get(name), metric=name) for name in spec.assertions]


def print_sample_outputs(run: TrainingRun) -> None:
    for moment, lines in run.sample_outputs.items():
        print(f"sample outputs {moment} training:", *lines, sep="\n  ")


def publish_model(pipeline: Pipeline, finished: Finished, *, repo: str | None) -> str | None:
    """Upload the model to the hub if a repository is given. Returns why that failed, or None."""
    if repo is None:
        return None
    try:
        commit = publish(finished.run, pipeline, repo, card=provenance(finished))
    except PublishingError as error:  # the record of the run is still valid
        return str(error)
    print(f"published: {commit.repo_url.url}")
    return None


def provenance(finished: Finished) -> Provenance:
    """Return where the model comes from, for its model card. It contains no paths of this machine."""
    spec = finished.spec
    dataset, revision, base_model = "the embedded data of Touchstone", None, "from scratch"
    if "dataset" in spec.overrides:
        dataset = "a user-supplied data set"
    elif isinstance(spec.data, HubData):
        dataset, revision = spec.data.id, spec.data.revision
    elif isinstance(spec.data, InstalledCode):
        dataset = f"the installed Python sources of {', '.join(spec.data.packages)}"
    if "checkpoint" in spec.overrides:
        base_model = "a user-supplied checkpoint"
    elif isinstance(spec.checkpoint, HubCheckpoint):
        base_model = spec.checkpoint.id
    return Provenance(
        engine=finished.engine,
        recipe=spec.recipe,
        execution=finished.execution,
        dataset=dataset,
        dataset_revision=revision,
        base_model=base_model,
        hardware=finished.hardware.name,
    )


class FingerprintedSource:
    """A source that remembers which rows were read, so that the record can identify the data."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.read: dict[str, datasets.Dataset] = {}

    def examples(self, split: str, *, columns: tuple[str, ...]) -> datasets.Dataset:
        data = self.source.examples(split, columns=columns)
        self.read[f"{split}:{','.join(columns)}"] = data
        return data

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.source.tokenizer()

    def config(self) -> PreTrainedConfig:
        return self.source.config()

    def model(self, auto_class: Any, **config: Any) -> PreTrainedModel:
        return self.source.model(auto_class, **config)

    def fingerprint(self) -> str:
        """Return a SHA-256 of the fingerprints of all splits that were read."""
        lines = [f"{name}={fingerprint(data)}\n" for name, data in sorted(self.read.items())]
        return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def reporter(send: Send) -> Report:
    """Return a function that sends the engine's progress to the parent process as plain data."""

    def report(progress: Progress) -> None:
        score = progress.score
        send(
            {
                "phase": progress.phase,
                "step": progress.step,
                "steps": progress.steps,
                "loss": progress.loss,
                "score": None if score is None else {"name": score.name, "value": score.value},
            }
        )

    return report


def path_or_none(text: str | None) -> Path | None:
    return None if text is None else Path(text)
