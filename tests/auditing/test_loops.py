"""Scripts with a loop of their own: what is recorded, when they end, and that nothing is left behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import touchstone
from touchstone.auditing import script
from touchstone.auditing.adapters import loop
from touchstone.auditing.finding import Report
from touchstone.auditing.observing.enclosing import loops_around
from touchstone.auditing.script import CannotJudge, audit_script
from touchstone.auditing.subject import Subject

HEAD = """
import sys
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)

class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, 3)

    def forward(self, input_ids):
        return self.head(self.drop(self.table(input_ids)))

model = Tagger()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
ids = torch.randint(20, (30, 6))
loader = DataLoader(TensorDataset(ids, ids % 3), batch_size=4, shuffle=True, num_workers=WORKERS)
loss_function = nn.CrossEntropyLoss()

def train_epoch(accumulation):
    model.train()
    for index, (x, y) in enumerate(loader, start=1):
        loss = loss_function(model(x).view(-1, 3), y.view(-1)) / accumulation
        loss.backward()
        if index % accumulation == 0 or index == len(loader):
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
"""
PLAIN = HEAD + "\nfor epoch in range(3):\n    train_epoch(2)\n"


def written(folder: Path, text: str, *, workers: int = 0) -> Path:
    path = folder / "train.py"
    path.write_text(text.replace("WORKERS", str(workers)))
    return path


def subject_of(path: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """Run a script under observation and return the subject in place of a report."""
    subjects: list[Subject] = []

    def keep(subject: Subject, **_: Any) -> Report:
        subjects.append(subject)
        return Report("", "", [])

    monkeypatch.setattr(script, "run_probes", keep)
    audit_script(path, arguments)
    return subjects[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_gradients_of_observed_steps_are_computed_again_exactly(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same dropout masks, also at the last, shorter step, and before clipping."""
    subject = subject_of(written(tmp_path, PLAIN, workers=workers), monkeypatch=monkeypatch)
    assert [len(step.batches) for step in subject.steps][:3] == [2, 2, 2]
    for step in subject.steps:
        total = torch.zeros(())
        for index, batch in enumerate(step.batches):
            logits = step.logits(index)
            assert torch.equal(logits, step.pulls[index]["logits"].logits)
            total = total + torch.nn.functional.cross_entropy(logits.view(-1, 3), batch["labels"].view(-1)) / 2
        found = torch.autograd.grad(total, list(step.parameters.values()))
        for name, gradient in zip(step.parameters, found, strict=True):
            torch.testing.assert_close(gradient, step.gradients[name])


def test_the_trace_tells_passes_steps_and_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(written(tmp_path, PLAIN), monkeypatch=monkeypatch)
    trace = subject.need("trace")
    first = trace.passes[0]
    assert (first.batches, first.ended, first.training) == (8, True, True)
    assert sorted(index for batch in first.indices for index in batch) == list(range(30))
    assert [len(update.losses) for update in trace.updates][:4] == [2, 2, 2, 2]
    assert all(update.leftover == 0.0 for update in trace.updates[1:])
    assert all(clip.backwards == 2 for update in trace.updates for clip in update.clips)
    assert (trace.epochs, trace.breaks, subject.settings.accumulation) == (3, False, 2)
    assert subject.train is not None
    assert (len(subject.train), subject.train.batch_size) == (30, 4)
    assert subject.train.loader is not None
    again = [row for batch in subject.train.loader() for row in batch[0].tolist()]
    assert sorted(again) == sorted(subject.train.dataset.tensors[0].tolist())


def test_the_rows_of_each_epoch_are_told_with_persistent_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PLAIN.replace("num_workers=WORKERS", "num_workers=2, persistent_workers=True")
    first, second = subject_of(written(tmp_path, text), monkeypatch=monkeypatch).need("trace").training_passes()[:2]
    assert sorted(index for batch in first.indices for index in batch) == list(range(30))
    seen = [index for batch in second.indices[: second.batches] for index in batch]
    assert len(seen) == len(set(seen)) == 4 * min(second.batches, 7) + 2 * (second.batches == 8)


def test_every_patched_function_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = (torch.nn.Module, torch.autograd, torch.nn.functional, torch.optim.Optimizer, torch.nn.utils)
    owners += (torch.utils.data.DataLoader, torch.optim.lr_scheduler.LRScheduler)
    before = [dict(vars(owner)) for owner in owners]
    subject_of(written(tmp_path, PLAIN), monkeypatch=monkeypatch)
    assert [dict(vars(owner)) for owner in owners] == before


@pytest.mark.parametrize(
    "saving",
    [
        "open('log.txt', 'w').write('x')",
        "torch.save(model.state_dict(), 'model.pt')",
        "import os; os.makedirs('out')",
        "import pathlib; pathlib.Path('out.json').write_text('{}')",
        "try:\n    open('a.txt', 'w')\nexcept BaseException:\n    open('b.txt', 'w')",
        "try:\n    open('a.txt', 'w')\nfinally:\n    sys.exit(3)",
    ],
)
def test_a_script_writes_no_file_after_its_training_began(
    saving: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, HEAD + "\nopen('before.txt', 'w').close()\ntrain_epoch(1)\n" + saving + "\n")
    subject = subject_of(path, monkeypatch=monkeypatch)
    assert "it would have written" in subject.need("trace").ended
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_file()) == ["before.txt", "train.py"]


def test_a_script_that_fails_after_training_is_judged_by_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, HEAD + "\ntrain_epoch(1)\nraise RuntimeError('no metric')\n")
    assert "no metric" in subject_of(path, monkeypatch=monkeypatch).need("trace").ended


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "\nraise RuntimeError('no data')\n", r"train.py:35: RuntimeError: no data \(before it trained\)"),
        (HEAD + "\nsys.exit(2)\n", "exited with 2 before it trained"),
        (HEAD + "\nprint(model(ids).shape)\n", "the model was called 1 times without backward"),
        (HEAD + "\nmodel(ids).sum().backward()\n", "backward was called 1 times, but no step"),
    ],
)
def test_a_script_that_does_not_train_cannot_be_judged(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CannotJudge, match=message):
        audit_script(written(tmp_path, text))


def test_a_script_has_its_own_arguments_and_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sizes.py").write_text("GROUPS = {'small': 2}\n")
    text = (
        HEAD
        + """
import argparse
from dataclasses import dataclass
from sizes import GROUPS

@dataclass
class Options:
    epochs: int

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int)
    options = Options(**vars(parser.parse_args()))
    for epoch in range(options.epochs):
        train_epoch(GROUPS["small"])
    return 0

if __name__ == "__main__":
    sys.exit(main())
"""
    )
    subject = subject_of(written(tmp_path, text), "--epochs", "5", monkeypatch=monkeypatch)
    assert subject.need("trace").epochs == 5
    monkeypatch.delitem(sys.modules, "sizes", raising=False)


def test_loops_around_a_line_are_read_without_running_code() -> None:
    class Options:
        epochs = 3

    options, accumulation, found = Options(), 4, []
    for _epoch in range(options.epochs):
        for _index, _batch in enumerate([1, 2]):
            if accumulation:
                for _micro in range(accumulation // 2):
                    if _micro == 7:
                        break
                    found = loops_around([sys._getframe()])
    assert [(each.counted, each.length, each.breaks) for each in found] == [
        (True, 3, False),
        (False, None, False),
        (True, 2, True),
    ]


SCALED = """
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
model.train()
for epoch in range(2):
    for x, y in loader:
        loss = loss_function(model(x).view(-1, 3), y.view(-1))
        scaler.scale(loss).backward()
        UNSCALE
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
"""


@pytest.mark.parametrize(("unscale", "outcome"), [("scaler.unscale_(optimizer)", "pass"), ("pass", "fail")])
def test_clipping_before_unscaling_is_found(unscale: str, outcome: str, tmp_path: Path) -> None:
    path = written(tmp_path, HEAD + SCALED.replace("UNSCALE", unscale))
    report = audit_script(
        path, probes=["clipping-after-accumulation", "accumulation-divided", "loss-is-the-mean-over-labels"]
    )
    assert [each.outcome for each in report] == [outcome, "pass", "pass"]


def trained(steps: int, *, watched: bool) -> tuple[list[float], dict[str, Any], torch.Tensor]:
    """Train a small tagger and return its losses, its weights, and the state of the random generator."""
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Embedding(20, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, steps)
    ids = torch.randint(20, (40, 6))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(ids, ids % 3), batch_size=4, shuffle=True)
    losses: list[float] = []
    if watched:
        touchstone.watch(object(), budget="default")
    while len(losses) < steps:
        for x, y in loader:
            loss = torch.nn.functional.cross_entropy(model(x).view(-1, 3), y.view(-1))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses, model.state_dict(), torch.get_rng_state()


def test_watched_training_is_the_same_bit_by_bit(capsys: pytest.CaptureFixture[str]) -> None:
    plain = trained(30, watched=False)
    call = torch.nn.Module.__call__
    watched = trained(30, watched=True)
    assert watched[0] == plain[0]
    assert all(torch.equal(watched[1][name], plain[1][name]) for name in plain[1])
    assert torch.equal(watched[2], plain[2])
    assert torch.nn.Module.__call__ is call
    report = capsys.readouterr().err
    assert "no fault" in report
    assert "optimizer and schedule" in report


def test_watch_names_a_fault_of_the_loop(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", lambda *_, **__: None)
    trained(10, watched=True)
    assert "gradients are not zeroed" in " ".join(capsys.readouterr().err.split())


def test_watch_does_nothing_under_an_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = HEAD + "\nimport touchstone\nassert touchstone.watch(model) is model\ntrain_epoch(1)\ntrain_epoch(1)\n"
    assert subject_of(written(tmp_path, text), monkeypatch=monkeypatch).need("trace").updates


def test_names_of_arguments_are_the_usual_ones() -> None:
    ids = torch.zeros(2, 3, dtype=torch.long)
    assert loop.plain_names({"idx": ids, "targets": ids}) == {"idx": "input_ids", "targets": "labels"}
    assert loop.plain_names({"input_ids": ids, "labels": ids}) == {}


def look(tmp_path: Path, probe: str, *edits: tuple[str, str], loop: str = "train_epoch(1)") -> Any:
    """Audit a loop of three epochs with some edits by one probe, and return its finding."""
    text = HEAD + f"\nfor epoch in range(3):\n    {loop}\n"
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return next(iter(audit_script(written(tmp_path, text), probes=[probe])))


RATE = "lr=0.1, momentum=0.9)\n"
STEPPED = ("            optimizer.step()\n", "            optimizer.step()\n            schedule.step()\n")


def test_a_learning_rate_of_0_is_found(tmp_path: Path) -> None:
    finding = look(tmp_path, "schedule-fits-the-run", (RATE, "lr=0.0)\n"))
    assert (finding.outcome, "made with a learning rate of 0" in finding.cause) == ("fail", True)


def test_a_schedule_that_multiplies_a_learning_rate_of_0_is_found(tmp_path: Path) -> None:
    made = (RATE, "lr=0.0)\nschedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)\n")
    assert look(tmp_path, "schedule-fits-the-run", made, STEPPED).outcome == "fail"


def test_a_cycle_that_sets_the_learning_rate_is_no_fault(tmp_path: Path) -> None:
    cycle = "torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=24)"
    made = (RATE, f"lr=0.0, momentum=0.9)\nschedule = {cycle}\n")
    assert look(tmp_path, "schedule-fits-the-run", made, STEPPED).outcome == "pass"


def test_an_optimizer_that_chooses_its_rate_is_no_fault(tmp_path: Path) -> None:
    adafactor = ("torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)", "Adafactor(model.parameters())")
    imported = ("import torch\n", "import torch\nfrom transformers import Adafactor\n")
    assert look(tmp_path, "schedule-fits-the-run", adafactor, imported).outcome == "not-checked"


def test_two_steps_are_seen_of_a_long_epoch_with_accumulation(tmp_path: Path) -> None:
    planned = "schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=3 * len(loader))\n"
    finding = look(
        tmp_path,
        "schedule-fits-the-run",
        ("(30, 6)", "(800, 6)"),
        ("def train_epoch", f"{planned}\ndef train_epoch"),
        STEPPED,
        loop="train_epoch(8)",
    )
    assert (finding.outcome, finding.message) == ("fail", "the schedule is planned for 600 steps but takes 75")


@pytest.mark.parametrize(("held", "outcome"), [("model.parameters()", "pass"), ("model.head.parameters()", "fail")])
def test_a_layer_that_the_optimizer_does_not_hold_is_found(held: str, outcome: str, tmp_path: Path) -> None:
    finding = look(tmp_path, "optimizer-holds-the-model", ("SGD(model.parameters()", f"SGD({held}"))
    assert finding.outcome == outcome


def test_parameters_of_an_optimizer_that_has_not_stepped_yet_are_not_left_out(tmp_path: Path) -> None:
    other = "\nslow = torch.optim.SGD(model.table.parameters(), lr=0.1)\n"
    finding = look(
        tmp_path,
        "optimizer-holds-the-model",
        ("SGD(model.parameters()", "SGD(model.head.parameters()"),
        (RATE, RATE + other),
    )
    assert finding.outcome == "warn"
    assert "took no step" in finding.message


def test_a_last_step_that_is_divided_by_too_much_is_a_warning(tmp_path: Path) -> None:
    finding = look(tmp_path, "last-partial-step", loop="train_epoch(3)")
    assert (finding.outcome, "has 2 of 3 micro-batches, but is divided by 3" in finding.message) == ("warn", True)
