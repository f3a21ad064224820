"""The audit leaves no trace: everything is the same before and after every probe, and training goes on unchanged."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import traceback
from pathlib import Path
from typing import Any

import pytest

from tests.zoo.fault import CLEAN
from tests.zoo.run import forked, log_to

SCRIPTS = (
    "clm_accelerate",
    "clm_sft_completion",
    "clm_stream_loop",
    "clm_trainer",
    "mlm_streaming",
    "mlm_trainer",
    "mlm_whole_word",
    "mlm_workers",
    "ner_on_the_fly",
    "ner_own_sampler",
    "ner_plain",
    "ner_trainer",
    "qa_trainer",
    "summarization_frames",
    "summarization_trainer",
    "translation_generate",
)
"""Clean scripts of the zoo: all six tasks, loops, streams, workers, rows tokenized when read, random samplers."""
TRAINERS = ("clm_trainer", "mlm_streaming", "ner_own_sampler", "qa_trainer", "translation_generate")
"""Those whose training is compared with and without an audit."""


def in_a_process(job: Any, folder: Path, *arguments: Any) -> Any:
    """Call a function in a forked process with `folder` as its working folder, and return what it returns."""
    process = forked(_call, job, str(folder), arguments)
    process.join(300)
    assert (folder / "answer.json").exists(), (
        f"exit code {process.exitcode}: {(folder / 'log.txt').read_text()[-2000:]}"
    )
    answer = json.loads((folder / "answer.json").read_text())
    assert "error" not in answer, answer["error"]
    return answer["result"]


def _call(job: Any, folder: str, arguments: tuple[Any, ...]) -> None:
    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)
    log_to("log.txt")
    try:
        answer = {"result": job(*arguments)}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    Path("answer.json").write_text(json.dumps(answer))


def changes_per_probe(script: str, budget: str) -> dict[str, list[str]]:
    """Audit a script and return, for each probe that left a trace, what is different after it.

    Nothing runs between two probes, so a probe is compared with what was found after the one before it.
    """
    from tests.auditing.fingerprint import fingerprint
    from touchstone.auditing import probe
    from touchstone.auditing.script import audit_script

    changed: dict[str, list[str]] = {}
    before: dict[str, Any] = {}
    run = probe.run_probe

    def watched(each: Any, subject: Any) -> Any:
        nonlocal before
        folders = [Path.cwd()]
        before = before or fingerprint(subject, folders)
        finding = run(each, subject)
        after = fingerprint(subject, folders)
        different = [name for name in before if before[name] != after[name]]
        if different:
            changed[each.id] = [f"{name}: {_difference(before[name], after[name])}" for name in different]
        before = after
        return finding

    probe.run_probe = watched
    audit_script(Path(script), budget=budget, seconds=10_000)  # type: ignore[arg-type]
    return changed


def _difference(before: Any, after: Any) -> str:
    if isinstance(before, dict):
        keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        return ", ".join(f"{key}: {before.get(key)} -> {after.get(key)}" for key in keys[:3])
    return f"{str(before)[:200]} -> {str(after)[:200]}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_probe_leaves_a_trace(script: str, zoo_assets: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(zoo_assets, folder)
    shutil.copy(CLEAN / f"{script}.py", folder / "train.py")
    assert in_a_process(changes_per_probe, folder, "train.py", "deep") == {}


def trained_weights(script: str, audited: bool) -> str:
    """Run a script whose training is cut to three steps, with or without an audit before it; return a weight hash."""
    import hashlib
    import runpy

    from transformers import Trainer

    import touchstone

    train = Trainer.train
    weights = []

    def audited_train(trainer: Any, *arguments: Any, **options: Any) -> Any:
        trainer.args.max_steps, trainer.args.save_strategy = 3, "no"
        if audited:
            Trainer.train = train  # type: ignore[method-assign]
            touchstone.audit(trainer)
        train(trainer, *arguments, **options)
        digest = hashlib.sha256()
        for parameter in trainer.model.parameters():
            digest.update(parameter.detach().numpy().tobytes())
        weights.append(digest.hexdigest())
        raise SystemExit

    Trainer.train = audited_train  # type: ignore[method-assign]
    with contextlib.suppress(SystemExit):
        runpy.run_path(script, run_name="__main__")
    return weights[0]


@pytest.mark.parametrize("script", TRAINERS)
def test_training_after_an_audit_gives_the_same_weights(script: str, zoo_assets: Path, tmp_path: Path) -> None:
    found = []
    for audited in (False, True):
        folder = tmp_path / str(audited)
        shutil.copytree(zoo_assets, folder)
        shutil.copy(CLEAN / f"{script}.py", folder / "train.py")
        found.append(in_a_process(trained_weights, folder, "train.py", audited))
    assert found[0] == found[1]
