"""Run other tools on the zoo and keep a record of what they say: `python -m tests.zoo.peers`.

The tools are pytest-torch, torchtest2 and trainproof, each with the checks that are meant for training. They run in a
virtual environment of their own:

    python -m venv peers && peers/bin/pip install pytest-torch torchtest2 trainproof torch transformers ...

pytest-torch and torchtest2 look at one model and one batch, which this module takes from the script at its first
optimizer step (of a loop) or when it calls `Trainer.train`. trainproof watches the whole training.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import os
import runpy
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.zoo.fault import all_faults, clean_scripts
from tests.zoo.peers_page import PAGE, RECORD, page
from tests.zoo.run import NEIGHBOURS, forked, make_assets

TIMEOUT = 240
LOSSES: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "nanogpt": lambda output, here: output[1],
    "clm_plain": lambda output, here: output[1],
    "ner_own_head": lambda output, here: here["masked_loss"](output, here["tags"], here["mask"]),
    "ner_plain": lambda output, here: (
        here["loss_fn"](output.logits.view(-1, len(here["names"])), here["labels"].view(-1)) / here["count"]
    ),
    "clm_accelerate": lambda output, here: here["keytoken_weighted_loss"](
        here["batch"]["input_ids"], output.logits, here["keytoken_ids"]
    ),
}
"""The loss of scripts that do not get it from the model, from the model's output and the script's variables."""
FROZEN = {
    "pairs_frozen": ("bert.embeddings", "bert.encoder"),
    "clm_lora": ("transformer.wte", "transformer.wpe", "lm_head"),
}
"""What a user of these scripts would name as frozen."""


@dataclass
class Setup:
    """What a tool needs: a model, one batch, a loss and an optimizer.

    Args:
        model: the model.
        inputs: one batch, labels included, as the model is called: a dict, or a tuple of positional arguments.
        loss: from the model's output to the loss.
        optimizer: the optimizer of the run.
        trainer: the Trainer, if there is one.
        calls_loss: runs the training forward pass where the loss is not made from the output alone.
    """

    model: Any
    inputs: Any
    loss: Callable[[Any], Any]
    optimizer: Any
    trainer: Any = None
    calls_loss: Callable[[Any, Any], Any] | None = None

    @property
    def questions(self) -> Any:
        """The inputs without labels."""
        if not isinstance(self.inputs, dict):
            return self.inputs
        kept = {key: value for key, value in self.inputs.items() if key not in ("labels", "start_positions")}
        kept.pop("end_positions", None)
        labels = self.inputs.get("labels")
        if getattr(getattr(self.model, "config", None), "is_encoder_decoder", False) and labels is not None:
            kept.setdefault("decoder_input_ids", self.model.prepare_decoder_input_ids_from_labels(labels=labels))
        return kept


@dataclass
class Verdict:
    """What one tool says about one script."""

    fail: list[tuple[str, str]] = field(default_factory=list)
    warn: list[tuple[str, str]] = field(default_factory=list)
    error: str = ""


class _Enough(BaseException):
    """Ends the script."""


def peers_of(script: str, setup: Setup) -> dict[str, Verdict]:
    """Run the tools that look at one model and one batch."""
    return {"pytest-torch": _pytest_torch(script, setup), "torchtest2": _torchtest2(script, setup)}


def _pytest_torch(script: str, setup: Setup) -> Verdict:
    import pytest_torch as pt

    verdict = Verdict()
    model, inputs, loss = setup.model, setup.inputs, setup.loss
    trained = _with_its_loss(setup) if setup.calls_loss is not None else model
    resting = copy.deepcopy(model).eval()
    if hasattr(resting, "config"):
        resting.config.use_cache = False  # a cache is no output that can be compared

    def contract() -> None:
        report = pt.check_inference_contract(resting, setup.questions, raise_on_failure=False)
        if not report.ok:
            raise AssertionError("; ".join(f"{each.name}: {each.message}" for each in report.failures))

    checks: dict[str, Callable[[], Any]] = {
        "check_inference_contract": contract,
        "assert_optimizer_coverage": lambda: pt.assert_optimizer_coverage(model, setup.optimizer),
        "assert_gradients_finite": lambda: pt.assert_gradients_finite(copy.deepcopy(trained).train(), inputs, loss),
        "assert_all_params_receive_grad": lambda: pt.assert_all_params_receive_grad(
            copy.deepcopy(trained).train(), inputs, loss
        ),
        "assert_loss_decreases": lambda: pt.assert_loss_decreases(trained, inputs, loss),
        "assert_overfits_one_batch": lambda: pt.assert_overfits_one_batch(trained, inputs, loss),
    }
    if isinstance(inputs, dict) and "input_ids" in inputs:
        mask = inputs.get("attention_mask")
        checks["assert_padding_invariant"] = lambda: pt.assert_padding_invariant(resting, setup.questions)
        if mask is not None and mask.dim() == 2 and not bool(mask.all()):
            checks["assert_mask_invariant"] = lambda: pt.assert_mask_invariant(resting, setup.questions)
    if script in FROZEN:
        patterns = [f"{each}*" for each in FROZEN[script]]
        checks["assert_frozen"] = lambda: pt.assert_frozen(model, inputs, loss, patterns)
    for name, check in checks.items():
        try:
            check()
        except AssertionError as error:
            verdict.fail.append((name, _line(str(error))))
        except Exception as error:
            verdict.error += f"{name}: {type(error).__name__}: {_line(str(error))}; "
    return verdict


def _with_its_loss(setup: Setup) -> Any:
    """Return a module that gives the loss of the user's `compute_loss`."""
    import torch

    class WithLoss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = setup.model

        def forward(self, **inputs: Any) -> Any:
            return {"loss": setup.calls_loss(self.model, inputs)}

    return WithLoss()


def _torchtest2(script: str, setup: Setup) -> Verdict:
    import torchtest2

    verdict = Verdict()
    from transformers import PreTrainedModel

    extra: dict[str, Any] = {"inputs": setup.inputs}
    if setup.calls_loss is not None:
        extra["forward_fn"] = lambda model, inputs, targets: setup.calls_loss(model, inputs)
        extra["loss_fn"] = lambda loss: loss
    elif isinstance(setup.model, PreTrainedModel) and isinstance(setup.inputs, dict) and "labels" in setup.inputs:
        extra = {"inputs": setup.questions, "targets": setup.inputs["labels"], "plugin": "huggingface"}
    elif not (isinstance(setup.inputs, dict) and "start_positions" in setup.inputs):
        extra["loss_fn"] = setup.loss
    if script in FROZEN:
        names = [name for name, _ in setup.model.named_parameters()]
        extra["frozen"] = [each for each in FROZEN[script] if any(name.startswith(each) for name in names)]
    try:
        report = torchtest2.check_model(setup.model, optimizer=setup.optimizer, **extra)
    except Exception as error:
        return Verdict(error=f"{type(error).__name__}: {_line(str(error))}")
    verdict.fail = [(each.name, _line(each.message)) for each in report.failures]
    verdict.warn = [(each.name, _line(each.message)) for each in report.warnings]
    return verdict


def _trainproof(records: list[dict[str, float]], printed: str) -> Verdict:
    """The rules on the log of the whole training, and what the callback printed about the objective."""
    from trainproof.epoch import check_records

    if not records:
        return Verdict(error="nothing was logged")
    verdict = Verdict()
    before_step_1 = printed.partition("the objective is broken before step 1:")[2].partition("No loss curve")[0]
    for line in before_step_1.splitlines():
        if line.strip().startswith("[FAIL]"):
            verdict.fail.append(("objective_check", _line(line.split("]", 1)[1])))
    for each in check_records(records).get("findings", []):
        if each.get("level") in ("FAIL", "WARN"):
            found = (each["id"], _line(f"{each['message']} {each.get('evidence', '')}"))
            (verdict.fail if each["level"] == "FAIL" else verdict.warn).append(found)
    return verdict


def _line(text: str) -> str:
    return " ".join(text.split())[:200]


# How a script is taken apart


@contextlib.contextmanager
def caught(script: str, setups: list[Setup]) -> Iterator[None]:
    """Append the setup to a list when a script begins to train, and end the script."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook
    from transformers import Trainer

    calls: list[tuple[Any, Any, Any]] = []
    depth = 0
    call, train = torch.nn.Module.__call__, Trainer.train

    def outermost(module: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        depth += 1
        try:
            output = call(module, *args, **kwargs)
        finally:
            depth -= 1
        if depth == 0 and torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters()):
            calls.append((module, args, kwargs))
        return output

    def before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        module, given, named = calls[-1]
        here = _variables("train.py")
        own = LOSSES.get(script)
        loss = (lambda output: own(output, here)) if own else _loss_of_output
        bare = getattr(optimizer, "optimizer", optimizer)  # Accelerate wraps it
        for group in bare.param_groups:
            group["lr"] = group.get("initial_lr", group["lr"])  # a warm-up begins at zero
        setups.append(Setup(module, _by_name(module, given, named), loss, bare))
        raise _Enough

    def begin(trainer: Any, *args: Any, **kwargs: Any) -> None:
        batch = {key: value.to(trainer.model.device) for key, value in _first(trainer.get_train_dataloader()).items()}
        optimizer = trainer.create_optimizer() or trainer.optimizer
        own = type(trainer).compute_loss is not Trainer.compute_loss or trainer.label_smoother is not None
        loss = (lambda model, inputs: trainer.compute_loss(model, dict(inputs))) if own else None
        setups.append(Setup(trainer.model, batch, _loss_of_output, optimizer, trainer, loss))
        raise _Enough

    hook = register_optimizer_step_pre_hook(before_step)
    torch.nn.Module.__call__, Trainer.train = outermost, begin
    try:
        yield
    finally:
        hook.remove()
        torch.nn.Module.__call__, Trainer.train = call, train


def _by_name(module: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """Return positional arguments by name if there are keyword arguments as well."""
    import inspect

    if not given:
        return dict(named)
    if not named:
        return given[0] if len(given) == 1 else given
    names = list(inspect.signature(module.forward).parameters)
    return {**dict(zip(names, given, strict=False)), **named}


def _loss_of_output(output: Any) -> Any:
    return output["loss"] if isinstance(output, dict) else output.loss


def _first(loader: Any) -> Any:
    return next(iter(loader))


def _variables(script: str) -> dict[str, Any]:
    """Return the variables of the script's innermost running function, with the globals below them."""
    frame: Any = sys._getframe(1)
    while frame is not None and os.path.basename(frame.f_code.co_filename) != script:
        frame = frame.f_back
    return {} if frame is None else {**frame.f_globals, **frame.f_locals}


@contextlib.contextmanager
def logged(records: list[dict[str, float]]) -> Iterator[None]:
    """Record what a log of a loop would have (loss, learning rate, norm of the gradient), and add trainproof's callback
    to a Trainer, which then logs every step."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook
    from trainproof.integrations.hf import TrainproofCallback
    from transformers import Trainer

    losses: list[float] = []
    inside = threading.Event()
    backward, train = torch.Tensor.backward, Trainer.train

    def record_loss(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        losses.append(float(tensor.detach()))
        return backward(tensor, *args, **kwargs)

    def before_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        if inside.is_set() or not losses:
            return
        gradients = [p.grad.norm() for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        records.append(
            {
                "step": float(len(records) + 1),
                "loss": math.fsum(losses) / len(losses),
                "lr": float(optimizer.param_groups[0]["lr"]),
                "grad_norm": float(torch.stack(gradients).norm()) if gradients else 0.0,
            }
        )
        losses.clear()

    def begin(trainer: Any, *args: Any, **kwargs: Any) -> None:
        trainer.args.logging_steps = 1
        trainer.args.logging_strategy = type(trainer.args.logging_strategy)("steps")
        trainer.add_callback(TrainproofCallback(objective_check=True))
        trainer.args.save_strategy = type(trainer.args.save_strategy)("no")
        trainer.args.load_best_model_at_end = False
        inside.set()
        train(trainer, *args, **kwargs)
        from trainproof.integrations.hf import _convert_state_to_records

        records.extend(_convert_state_to_records(trainer.state))
        raise _Enough

    hook = register_optimizer_step_pre_hook(before_step)
    torch.Tensor.backward, Trainer.train = record_loss, begin
    try:
        yield
    finally:
        hook.remove()
        torch.Tensor.backward, Trainer.train = backward, train


# One script in a forked process


def judge(script: str, text: str, assets: Path) -> dict[str, dict[str, Any]]:
    """Run all tools on one script and return what they say, by tool."""
    import shutil

    result: dict[str, Any] = {}
    for part in ("batch", "training"):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            folder = Path(temporary) / "run"
            shutil.copytree(assets, folder)
            for module in NEIGHBOURS.glob("*.py"):
                shutil.copy(module, folder)
            (folder / "train.py").write_text(text, encoding="utf-8")
            process = forked(_judge, str(folder), script, part)
            process.join(TIMEOUT)
            late = process.is_alive()
            if late:
                process.kill()
                process.join()
            path = folder / "verdicts.json"
            if path.exists():
                result.update(json.loads(path.read_text()))
            else:
                reason = f"not ready after {TIMEOUT} s" if late else f"exit code {process.exitcode}"
                for tool in ("pytest-torch", "torchtest2") if part == "batch" else ("trainproof",):
                    result[tool] = vars(Verdict(error=reason))
    return result


def _judge(folder: str, script: str, part: str) -> None:
    os.chdir(folder)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import datasets

    datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
    sys.argv, sys.path[0:0] = ["train.py"], [folder]
    tools = ("pytest-torch", "torchtest2") if part == "batch" else ("trainproof",)
    verdicts: dict[str, Verdict] = {}
    try:
        if part == "batch":
            setups: list[Setup] = []
            with contextlib.suppress(_Enough), caught(script, setups):
                runpy.run_path("train.py", run_name="__main__")
            verdicts.update(peers_of(script, setups[0]))
        else:
            records: list[dict[str, float]] = []
            with contextlib.suppress(_Enough), logged(records):
                runpy.run_path("train.py", run_name="__main__")
            sys.stdout.flush()
            verdicts["trainproof"] = _trainproof(records, Path("log.txt").read_text(errors="replace"))
    except BaseException:
        line = traceback.format_exc().strip().splitlines()[-1]
        for tool in tools:
            verdicts.setdefault(tool, Verdict(error=f"the script or its glue failed: {_line(line)}"))
    Path("verdicts.json").write_text(json.dumps({tool: vars(each) for tool, each in verdicts.items()}))


def main() -> int:
    """Run the tools on the zoo, and write the record and docs/peers.md."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo.peers", description=__doc__.splitlines()[0])
    parser.add_argument("-j", "--jobs", type=int, default=2, help="scripts at a time (2)")
    parser.add_argument("--only", default="", help="only scripts whose name has this text; nothing is written")
    parser.add_argument("--missing", action="store_true", help="only scripts that the record lacks")
    parser.add_argument("--render", action="store_true", help="write docs/peers.md from the record of the last run")
    options = parser.parse_args()
    record = load() if options.missing or options.render else {"versions": {}, "clean": {}, "faults": {}}
    entries = [("clean", path.stem, path.stem, path.read_text(encoding="utf-8")) for path in clean_scripts()]
    entries += [("faults", fault.id, fault.script, fault.text()) for fault in all_faults()]
    entries = [each for each in entries if options.only in each[1] and each[1] not in record[each[0]]]
    if not options.render:
        run_entries(entries, record, options.jobs, keep=not options.only)
    if not options.only:
        PAGE.write_text(page(load()), encoding="utf-8")
    return 0


def run_entries(entries: list[tuple[str, str, str, str]], record: dict[str, Any], jobs: int, *, keep: bool) -> None:
    """Run the tools on scripts, and save the record after each, so that `--missing` goes on where a run ended."""
    from importlib.metadata import version

    packages = ("pytest-torch", "torchtest2", "trainproof", "torch", "transformers")
    record["versions"] = {name: version(name) for name in packages}
    lock, started = threading.Lock(), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(jobs) as pool:
        assets = make_assets(Path(temporary) / "assets")

        def run(entry: tuple[str, str, str, str]) -> None:
            kind, name, script, text = entry
            verdicts = judge(script, text, assets)
            said = {
                tool: [check for check, _ in verdict["fail"]] or verdict["error"] for tool, verdict in verdicts.items()
            }
            with lock:
                print(f"[{time.monotonic() - started:.0f} s] {name}: {said}", file=sys.stderr, flush=True)
                record[kind][name] = verdicts
                if keep:
                    save(record)

        list(pool.map(run, entries))


def save(record: dict[str, Any]) -> None:
    """Write the record, one script a line."""
    parts = [f' "versions": {json.dumps(record["versions"])}']
    for kind in ("faults", "clean"):
        entries = sorted(record[kind].items())
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries)
        parts.append(f' "{kind}": {{\n{lines}\n }}')
    RECORD.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def load() -> dict[str, Any]:
    """Return the record of the last run."""
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return record


if __name__ == "__main__":
    sys.exit(main())
