"""Publish a trained model on the Hugging Face hub, with a model card.

Nothing is published unless the user requests it. The files are first written to a directory, which is kept if the
upload fails: the training is not lost, and the upload can be repeated by hand.
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
"""The packages whose versions the card lists."""
HELP = "Log in with `hf auth login`, or set HF_TOKEN to a token with write access"


class PublishingError(Exception):
    """The model was not published. The message gives the reason, and where the files are."""


@dataclass(frozen=True)
class Provenance:
    """What the card says that neither the run nor the pipeline knows.

    Attributes:
        engine: the name of the engine.
        recipe, execution: those of the run.
        dataset: the training data: a hub id or a description.
        base_model: the checkpoint that training started from: a hub id or a description (`from scratch`).
        dataset_revision: the version of the data, if it has one.
        hardware: a description of the machine.
        license: an identifier of the hub (`apache-2.0`); None if nobody has chosen one.
        language: codes of the languages of the texts (`en`).
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
    """Push model, tokenizer and card to `repo` in one commit. The repository is created if it does not exist.

    Args:
        run: a finished run; it does not change.
        pipeline: the pipeline that was trained.
        repo: `user/name`.
        staging: an empty or new directory for the files, which stay there. By default a temporary directory is used,
            and kept only on failure.
        private: whether a new repository is private; None: the default of the account.
        endpoint, token: another hub and another token than the environment's.

    Raises:
        PublishingError: the name is invalid, access is denied, or the upload failed in any other way.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise PublishingError(f"{repo!r} cannot name a repository on the hub: {error}") from error
    if run.model is None:
        raise PublishingError(f"{repo}: the run has no model to publish")
    folder = staging or Path(tempfile.mkdtemp(prefix="touchstone-publish-"))
    with quiet():
        run.model.save_pretrained(folder)
        pipeline.tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(str(model_card(run, pipeline, repo, card=card)), encoding="utf-8")
    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        api = HfApi(endpoint=endpoint, token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        message = f"Train {pipeline.task} with Touchstone"
        commit: CommitInfo = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except Exception as error:  # from the hub, the network or the file system
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


def model_card(run: TrainingRun, pipeline: Pipeline, repo: str, *, card: Provenance) -> ModelCard:
    """Return the card of a run: metadata for the hub's search, then usage, results, samples, settings and versions."""
    scores = run.evaluations[-1].scores if run.evaluations else ()
    before = {score.name: score.value for score in run.evaluations[0].scores} if run.evaluations else {}
    metadata = ModelCardData(
        base_model=card.base_model if _is_hub_id(card.base_model) else None,
        datasets=[card.dataset] if _is_hub_id(card.dataset) else None,
        language=list(card.language) or None,
        library_name="transformers",
        license=card.license,
        metrics=[score.name for score in scores] or None,
        pipeline_tag=pipeline.hub_task,
        tags=["touchstone", pipeline.task],
    )
    data = f"{card.dataset} ({card.dataset_revision})" if card.dataset_revision else card.dataset
    settings = {**card.recipe.model_dump(mode="json"), **pipeline.options.model_dump(mode="json")}
    settings |= {"seed": card.execution.seed, "precision": card.execution.precision, "engine": card.engine}
    settings |= {"hardware": card.hardware} if card.hardware else {}
    seconds = run.phases.get("train", 0.0)
    settings["training"] = f"{len(run.trajectory):,} steps, {run.tokens:,} tokens, {seconds:.0f} s"
    sections = [
        f"# {_text(repo.rpartition('/')[2])}",
        f"A {_text(type(run.model).__name__)} of {run.parameters:,} parameters, trained for {_text(pipeline.task)} on "
        f"{_text(data)}, starting from {_text(card.base_model)}.",
        "## Use",
        "\n".join(["```python", *pipeline.usage(repo), "```"]),
    ]
    if scores:
        rows = [(s.name, f"{before[s.name]:.4f}", f"{s.value:.4f}", f"{s.n:,}", f"`{s.signature}`") for s in scores]
        head = ("metric", "before training", f"after {run.evaluations[-1].epoch:g} epochs", "n", "signature")
        sections += ["## Results on validation", _table(head, rows)]
    if shown := {moment: lines for moment, lines in run.sample_outputs.items() if lines}:
        sections.append("## Sample outputs")
        for moment, lines in shown.items():  # indented, not fenced: no line can end the block
            sections += [f"{moment.capitalize()} training:", "\n".join(f"    {line}" for line in lines)]
    sections += [
        "## Training",
        _table(("setting", "value"), [(name, str(value)) for name, value in settings.items()]),
        "## Versions",
        _table(("package", "version"), [(package, version(package)) for package in PACKAGES]),
    ]
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_text(cell, code=cell.startswith('`')) for cell in line)} |" for line in lines)


def _text(value: str, *, code: bool = False) -> str:
    """Return one line of Markdown that shows `value` literally: no markup, no HTML, no end of a table cell."""
    line = " ".join(value.split())
    if not code:
        line = html.escape(line, quote=False)
        for mark in "\\`*_[]#":
            line = line.replace(mark, f"\\{mark}")
    return line.replace("|", "\\|")


def _causes(error: BaseException | None) -> str:
    """Return the error and its causes: the hub's client gives the reason of a failed upload only in a cause."""
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
