"""Write docs/peers.md from the record of a run of the peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.zoo import matrix
from tests.zoo.fault import all_faults
from tests.zoo.page import table

PAGE = Path(__file__).parents[2] / "docs" / "peers.md"
RECORD = Path(__file__).parent / "peers.json"
SCRIPTS = {fault.id: fault.script for fault in all_faults()}
INTRODUCTION = """\
# Other tools on the same scripts

Three packages for testing a training run were run on scripts of [the zoo](zoo.md), with the calls that their
documentation gives for the purpose:

* **pytest-torch** checks a model and one batch: the inference contract, padding and masks, the optimizer's parameters,
  gradients, and that a batch can be learned. Its check of frozen parameters runs where a script freezes some. Its
  checks of accumulation and resume are left out: they need the training step as a function of one's own.
* **torchtest2** runs its whole list of checks on a model, one batch and the optimizer.
* **trainproof** watches the training to its end and judges the log; its check of the objective is switched on.

The zoo was written along with the audit, so the audit's own share is no surprise. What the page shows is which kinds
of faults can be seen from a model and a batch, which from a log, and which only from the data, the loss and the
evaluation together.

A tool has *found* a fault if a check fails that passes on the clean script. A *false alarm* is a clean script on which
a check fails. The scripts train tiny models for some dozen steps, often at a low learning rate; rules on the curve of a
loss are not made for that, and their alarms say little about real runs.

This page is written by `python -m tests.zoo.peers` from a run in a virtual environment with the peers.
"""
ATTACH = {
    "touchstone": ("a script", "touchstone audit train.py"),
    "pytest-torch": (
        "a model and a batch",
        """\
def test_run(trainer, batch):
    model, loss = trainer.model, lambda output: output.loss
    questions = {key: value for key, value in batch.items() if key != "labels"}
    check_inference_contract(model.eval(), questions)
    assert_padding_invariant(model, questions)
    assert_mask_invariant(model, questions)
    assert_optimizer_coverage(model, trainer.create_optimizer())
    assert_gradients_finite(model.train(), batch, loss)
    assert_all_params_receive_grad(model, batch, loss)
    assert_loss_decreases(model, batch, loss)
    assert_overfits_one_batch(model, batch, loss)""",
    ),
    "torchtest2": (
        "a model, a batch, an optimizer",
        """\
batch = next(iter(trainer.get_train_dataloader()))
labels, optimizer = batch.pop("labels"), trainer.create_optimizer()
print(check_model(trainer.model, dict(batch), labels, optimizer=optimizer, plugin="huggingface"))""",
    ),
    "trainproof": ("the log of a training", "trainer.add_callback(TrainproofCallback(objective_check=True))"),
}
"""What each tool looks at, and the lines that attach it to a Trainer, imports aside."""
PEERS = ("pytest-torch", "torchtest2", "trainproof")


def page(record: dict[str, Any]) -> str:
    """Return the page as Markdown."""
    ours = matrix.load()
    scope = f"The record holds {len(record['faults'])} faulty and {len(record['clean'])} clean scripts.\n"
    return "\n".join(
        (
            INTRODUCTION,
            scope,
            _tools(record, ours),
            _attach(),
            _beyond(record, ours),
            _faults(record, ours),
            _alarms(record),
        )
    )


def found_by(record: dict[str, Any], name: str, peer: str, outcome: str = "fail") -> list[str]:
    """Return the checks of a peer that fail (or warn) on a faulty script and not on its clean twin."""
    twin = record["clean"].get(SCRIPTS.get(name, ""), {}).get(peer, {})
    usual = {check for each in ("fail", outcome) for check, _ in twin.get(each, ())}
    return sorted({check for check, _ in record["faults"][name][peer][outcome]} - usual)


def _tools(record: dict[str, Any], ours: dict[str, Any]) -> str:
    faults, clean = record["faults"], record["clean"]
    rows: list[tuple[Any, ...]] = [
        (
            "touchstone",
            "",
            *_attached("touchstone"),
            sum(bool(ours["faults"].get(name, {}).get("fail")) for name in faults),
            "",
            sum(bool(ours["clean"].get(name, {}).get("fail")) for name in clean),
            sum("error" in ours["clean"].get(name, {}) for name in clean),
        )
    ]
    for peer in PEERS:
        found = [name for name in faults if found_by(record, name, peer)]
        warned = [name for name in faults if name not in found and found_by(record, name, peer, "warn")]
        rows.append(
            (
                peer,
                record["versions"][peer],
                *_attached(peer),
                len(found),
                len(warned),
                sum(bool(entry[peer]["fail"]) for entry in clean.values()),
                sum(bool(entry[peer]["error"]) for entry in clean.values()),
            )
        )
    heads = (
        "tool",
        "version",
        "looks at",
        "lines to attach",
        f"found, of {len(faults)}",
        "only a new warning",
        f"false alarms, of {len(clean)}",
        "clean scripts on which a check broke",
    )
    return table(heads, rows)


def _attached(tool: str) -> tuple[str, int]:
    what, code = ATTACH[tool]
    return what, 0 if tool == "touchstone" else len(code.splitlines())


def _attach() -> str:
    parts = ["## How each was attached", "", "To a Trainer; imports aside.", ""]
    for tool, (_, code) in ATTACH.items():
        parts += [f"{tool}:", "", *(f"    {line}" for line in code.splitlines()), ""]
    parts.append("A loop of one's own has no place for trainproof's callback. It was given a log of every step.")
    return "\n".join(parts) + "\n"


def _beyond(record: dict[str, Any], ours: dict[str, Any]) -> str:
    rows = []
    for name in record["faults"]:
        if ours["faults"].get(name, {}).get("fail"):
            continue
        for peer in PEERS:
            messages = dict(record["faults"][name][peer]["fail"])
            rows += [(f"`{name}`", peer, f"`{check}`", messages[check]) for check in found_by(record, name, peer)]
    title = "## What a peer finds and the audit does not\n\n"
    return title + (table(("fault", "tool", "check", "message"), rows) if rows else "Nothing in this zoo.\n")


def _faults(record: dict[str, Any], ours: dict[str, Any]) -> str:
    rows = []
    for name, entry in record["faults"].items():
        cells = [", ".join(f"`{each}`" for each in ours["faults"].get(name, {}).get("fail", ())) or "-"]
        for peer in PEERS:
            found = ", ".join(f"`{each}`" for each in found_by(record, name, peer))
            warned = ", ".join(f"`{each}`" for each in found_by(record, name, peer, "warn"))
            broke = "a check broke" if entry[peer]["error"] and not found else ""
            cells.append("; ".join(filter(None, (found, warned and f"warns: {warned}", broke))) or "-")
        rows.append((f"`{name}`", *cells))
    return "## Faulty scripts\n\n" + table(("fault", "touchstone", *PEERS), rows)


def _alarms(record: dict[str, Any]) -> str:
    rows = [
        (f"`{name}`", peer, f"`{check}`", message)
        for name, entry in record["clean"].items()
        for peer in PEERS
        for check, message in entry[peer]["fail"]
    ]
    return "## False alarms on clean scripts\n\n" + table(("script", "tool", "check", "message"), rows)
