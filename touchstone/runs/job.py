"""One training run from spec to record, as it happens inside its own process (`touchstone.runs.isolation`).

The fork server imports this module, so that a run finds imported what is slow to import: importing it must start no
thread and touch no device.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import UTC, datetime
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
from touchstone.pipelines.pipeline import Pipeline, Score
from touchstone.records.efficiency import Efficiency, efficiency_of
from touchstone.records.energy import Energy, EnergyMeter, shared_counter, total_energy
from touchstone.records.machine import describe_hardware, describe_software, runs_alone
from touchstone.records.rates import measure_rates, together
from touchstone.records.record import Launch, make_record, suite_version
from touchstone.runs.isolation import Message, Refused, Send, describe
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

for _name in engine_names():  # so that they are imported before a run and not during it
    with suppress(EngineError):  # an engine that cannot be imported fails the runs that use it
        load_engine(_name)


def train(payload: Message, send: Send) -> Message:
    """Train, score, judge. The payload is `Trial.payload()`; the result holds the record, on every rank.

    Raises:
        Refused: the spec, the data, the checkpoint or the engine's settings do not allow the run.
    """
    try:
        return _train(payload, send)
    except (SpecError, ExpectationError, SourceError, EngineError) as error:
        raise Refused(str(error)) from error


def _train(payload: Message, send: Send) -> Message:
    started = datetime.now(UTC)
    engine = load_engine(payload["engine"])
    access = Access(**{name: path_or_none(payload[name]) for name in ("mirror", "dataset", "checkpoint")})
    spec = load_spec(Path(payload["spec"]), profile=payload["profile"], variant=payload["variant"])
    spec = spec.overridden(dataset=payload["dataset"], checkpoint=payload["checkpoint"])
    if spec.hash != payload["hash"]:
        raise Refused(f"{spec.path} was changed since the suite read it: run the suite again")
    source = NotedSource(open_source(spec.data, spec.checkpoint, access=access))
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
    # The counters of processors are their node's: one rank of each reads them. Of GPUs every rank has its own.
    reads = execution.device != "cpu" or ranks.local_rank == 0
    energy = meter.energy if runs_alone() else shared_counter()
    energies = ranks.gather(energy.model_dump(mode="json") if reads else None)
    launch = None if payload["launcher"] is None else launch_of(run, launcher=payload["launcher"], ranks=ranks)
    use = efficiency(pipeline, run, execution)
    if not ranks.first:
        return {"record": ranks.from_first(dict), "problem": None}
    data = source.fingerprint()
    expectations = {} if spec.overrides else load_expectations(spec, dataset_fingerprint=data)
    for moment, lines in run.sample_outputs.items():
        print(f"sample outputs {moment} training:", *lines, sep="\n  ")
    record = make_record(
        spec,
        run=run,
        seed=execution.seed,
        engine=engine_slug(payload["engine"]),
        implementation="reference",
        precision=execution.precision,
        dataset_fingerprint=data,
        verdicts=verdicts(spec, run=run, expectations=expectations),
        energy=total_energy([Energy.model_validate(energy) for energy in energies if energy is not None]),
        efficiency=use,
        hardware=describe_hardware(execution.device),
        software=describe_software(run.model),
        suite=suite_version(),
        started=started,
        finished=datetime.now(UTC),
        launch=launch,
    )
    plain = ranks.from_first(lambda: record.model_dump(mode="json"))
    problem = None
    if payload["push_to"] is not None:
        try:
            commit = publish(run, pipeline, payload["push_to"], card=provenance(spec, payload["engine"], execution))
            print(f"published: {commit.repo_url.url}")
        except PublishingError as error:  # what was trained and measured is worth its record all the same
            problem = str(error)
    return {"record": plain, "problem": problem}


def launch_of(run: TrainingRun, *, launcher: str, ranks: Ranks) -> Launch:
    """How the ranks were started, and what each of them held. Each node has one rank that is its first."""
    nodes = int(ranks.sum([ranks.local_rank == 0])[0])
    held = None if run.device_bytes is None else tuple(run.device_bytes)
    return Launch(
        launcher=launcher, processes=ranks.world, nodes=nodes, host_bytes=tuple(run.host_bytes), device_bytes=held
    )


def efficiency(pipeline: Pipeline, run: TrainingRun, execution: Execution) -> Efficiency:
    """What the run had to do, counted, and how fast the machine is, measured: now that all else is done, so that
    neither is in the way of the training or in its figures."""
    work, reason = None, None
    try:
        work = minimum_work(pipeline, run, seed=execution.seed)
    except Exception as error:  # what was trained and measured is worth its record all the same
        reason = describe(error)
        print(f"the run's arithmetic could not be counted: {reason}")
    ranks = Ranks.current()
    ranks.wait()  # so that all measure at once: ranks may share a machine
    size = work.state_bytes if work else 16 * run.parameters
    rates = measure_rates(execution.device, precision=execution.precision, state_bytes=size)
    return efficiency_of(
        work, rates=together(rates, ranks=ranks), train_seconds=run.phases.get("train", 0.0), reason=reason
    )


def provenance(spec: Spec, engine: str, execution: Execution) -> Provenance:
    """What the model card says of where the model comes from; nothing of this machine's paths."""
    dataset, revision, base_model = "the embedded microworld", None, "from scratch"
    if "dataset" in spec.overrides:
        dataset = "a data set of one's own"
    elif isinstance(spec.data, HubData):
        dataset, revision = spec.data.id, spec.data.revision
    elif isinstance(spec.data, InstalledCode):
        dataset = f"the Python sources of {', '.join(spec.data.packages)}, as they were installed"
    if "checkpoint" in spec.overrides:
        base_model = "a checkpoint of one's own"
    elif isinstance(spec.checkpoint, HubCheckpoint):
        base_model = spec.checkpoint.id
    return Provenance(
        engine=engine,
        recipe=spec.recipe,
        execution=execution,
        dataset=dataset,
        dataset_revision=revision,
        base_model=base_model,
        hardware=describe_hardware(execution.device).name,
    )


def verdicts(spec: Spec, *, run: TrainingRun, expectations: dict[str, Expectation]) -> list[Verdict]:
    """Of every metric that the spec asserts, in the spec's order.

    Raises:
        Refused: the pipeline scores no metric of that name.
    """
    scores: dict[str, Score] = {score.name: score for score in run.evaluations[-1].scores}
    if missing := [name for name in spec.assertions if name not in scores]:
        has = ", ".join(scores)
        raise Refused(f"{spec.path} asserts {', '.join(missing)}, which {spec.task} does not score: it has {has}")
    return [judge([scores[name].value], expectation=expectations.get(name), metric=name) for name in spec.assertions]


class NotedSource:
    """A source that remembers which rows were read, so that the record can say what data this was."""

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
        """sha256 of the fingerprints of all splits that were read."""
        lines = [f"{name}={fingerprint(data)}\n" for name, data in sorted(self.read.items())]
        return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def reporter(send: Send) -> Report:
    """Passes progress on as plain data."""

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
