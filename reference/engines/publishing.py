"""A trained model on the hub, with a card that says what it is and how it came about.

Nothing is ever published unasked. The files are written to a directory first and kept there when the hub fails, so that
training is not lost and the upload can be repeated by hand.
"""

from __future__ import annotations

import html
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, exported lazily
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from touchstone.engines.session import quiet
from touchstone.engines.training import Execution, Recipe, TrainingRun
from touchstone.pipelines.pipeline import Pipeline

PACKAGES = ("torch", "transformers", "datasets", "tokenizers", "accelerate")
HELP = "Log in with `hf auth login` or set HF_TOKEN to a token that may write there"


class PublishingError(Exception):
    """The hub did not take the model: says why, and where the files are."""


@dataclass(frozen=True)
class Provenance:
    """What the card says that neither the run nor the pipeline knows.

    Attributes:
        engine: which engine trained.
        recipe, execution: how.
        dataset: what it was trained on: a hub id, or some words.
        dataset_revision: which version of it, where there are several.
        base_model: the checkpoint that training began with: a hub id, or some words (`from scratch`).
        hardware: what it ran on.
        license: an identifier of the hub (`apache-2.0`); None where nobody has chosen one.
        language: codes (`en`) of the texts.
    """

    engine: str
    recipe: Recipe
    execution: Execution
    dataset: str
    base_model: str
    dataset_revision: str | None = None
    hardware: str | None = None
    license: str | None = None
    language: tuple[str, ...] = ()


def publish(
    run: TrainingRun,
    pipeline: Pipeline,
    repo: str,
    *,
    card: Provenance,
    staging: Path | None = None,
    private: bool | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> CommitInfo:
    """Push model, tokenizer and card to `repo` (`user/name`), made if it is not there, in one commit.

    Args:
        run: a finished run. It is not changed, whatever happens.
        pipeline: the one it trained.
        repo: where to.
        card: what the card is to say beyond that.
        staging: an empty or new directory for the files; they stay there. Without it they are kept only on failure.
        private: who may see it, where it is made anew; None: as the account's settings say.
        endpoint: another hub than HF_ENDPOINT's.
        token: another than the one logged in with.

    Raises:
        PublishingError: an impossible name, no leave to write, no answer, or any other refusal.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise PublishingError(f"{repo!r} cannot name a repository on the hub: {error}") from error
    folder = staging or Path(tempfile.mkdtemp(prefix="touchstone-publish-"))
    write_files(run, pipeline, repo, card=card, folder=folder)
    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        api = HfApi(endpoint=endpoint, token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        message = f"Train {pipeline.task} with Touchstone"
        commit: CommitInfo = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except Exception as error:  # the hub's, the network's, the file system's: all the same to a finished run
        raise PublishingError(
            f"{repo} was not published: {_causes(error)}\n"
            f"The model is kept in {folder}. {HELP}, then: hf upload {repo} {folder}"
        ) from error
    finally:
        if not silent:
            enable_progress_bars()
    if staging is None:
        shutil.rmtree(folder)
    return commit


def write_files(run: TrainingRun, pipeline: Pipeline, repo: str, *, card: Provenance, folder: Path) -> None:
    """Everything that `publish` sends: weights and config, tokenizer, `README.md`."""
    if run.model is None:
        raise PublishingError(f"{repo}: the run has no model to publish")
    with quiet():
        run.model.save_pretrained(folder)
        pipeline.tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(str(model_card(run, pipeline, repo, card=card)), encoding="utf-8")


def model_card(run: TrainingRun, pipeline: Pipeline, repo: str, *, card: Provenance) -> ModelCard:
    """The card of a run: metadata for the hub's search, then what a reader wants to know."""
    model_type = type(run.model).__name__
    metadata = ModelCardData(
        base_model=card.base_model if _is_hub_id(card.base_model) else None,
        datasets=[card.dataset] if _is_hub_id(card.dataset) else None,
        language=list(card.language) or None,
        library_name="transformers",
        license=card.license,
        metrics=[score.name for score in run.evaluations[-1].scores] if run.evaluations else None,
        pipeline_tag=pipeline.hub_task,
        tags=["touchstone", pipeline.task],
    )
    name = repo.rpartition("/")[2]
    sections = [
        f"# {_text(name)}",
        f"A {_text(model_type)} of {run.parameters:,} parameters, trained for {_text(pipeline.task)} "
        f"on {_text(card.dataset)}{f' ({_text(card.dataset_revision)})' if card.dataset_revision else ''}, "
        f"beginning with {_text(card.base_model)}.",
        *_usage(pipeline, repo),
        *_results(run),
        *_probes(run),
        *_training(run, pipeline, card),
        "## Versions",
        _table(("package", "version"), [(package, version(package)) for package in PACKAGES]),
    ]
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _usage(pipeline: Pipeline, repo: str) -> list[str]:
    return ["## Use", "\n".join(["```python", *pipeline.usage(repo), "```"])]


def _results(run: TrainingRun) -> list[str]:
    if not run.evaluations:
        return []
    first, last = run.evaluations[0], run.evaluations[-1]
    before = {score.name: score for score in first.scores}
    rows = [
        (score.name, f"{before[score.name].value:.4f}", f"{score.value:.4f}", f"{score.n:,}", f"`{score.signature}`")
        for score in last.scores
    ]
    table = _table(("metric", "before training", f"after {last.epoch:g} epochs", "n", "signature"), rows)
    return ["## Results on validation", table]


def _probes(run: TrainingRun) -> list[str]:
    shown = {moment: lines for moment, lines in run.sample_outputs.items() if lines}
    if not shown:
        return []
    # Indented, not fenced: no line of a probe can end it.
    blocks = [
        f"{moment.capitalize()} training:\n\n" + "\n".join(f"    {line}" for line in lines)
        for moment, lines in shown.items()
    ]
    return ["## Probe", *blocks]


def _training(run: TrainingRun, pipeline: Pipeline, card: Provenance) -> list[str]:
    facts = {**card.recipe.model_dump(mode="json"), **pipeline.options.model_dump(mode="json")}
    facts |= {"seed": card.execution.seed, "precision": card.execution.precision, "engine": card.engine}
    if card.hardware:
        facts["hardware"] = card.hardware
    facts["training"] = f"{len(run.trajectory):,} steps, {run.tokens:,} tokens, {run.phases.get('train', 0.0):.0f} s"
    return ["## Training", _table(("setting", "value"), [(name, str(value)) for name, value in facts.items()])]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(_text(cell, code=cell.startswith("`")) for cell in line) + " |" for line in lines
    )


def _text(value: str, *, code: bool = False) -> str:
    """One line of Markdown that shows `value` as it is: no markup, no HTML, no end of a table's cell."""
    line = " ".join(value.split())
    if not code:
        line = html.escape(line, quote=False)
        for mark in "\\`*_[]#":
            line = line.replace(mark, f"\\{mark}")
    return line.replace("|", "\\|")


def _causes(error: BaseException | None) -> str:
    """The error and what led to it: the hub's client tells the reason of a failed upload only in a cause."""
    lines = []
    while error is not None:
        lines.append(f"{type(error).__name__}: {error}")
        error = error.__cause__
    return ", because of ".join(lines)


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1
