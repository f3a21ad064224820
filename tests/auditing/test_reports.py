"""Losses and perplexities that a script reports: how they are read, and how they are judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer

from tests.auditing.test_loops import look as look_at_loop
from tests.auditing.test_step import bert, look, rows, trainer_of
from touchstone.auditing.adapters.trainer import subject_of
from touchstone.auditing.observing.reported import losses_in


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("loss: 2.5", [("loss", 2.5)]),
        ("Epoch 3 | train_loss=0.25 | val_loss=1.5e-3", [("train_loss", 0.25), ("val_loss", 0.0015)]),
        ("Average validation loss is 0.125.", [("Average validation loss", 0.125)]),
        ("{'eval_loss': np.float64(1.5), 'eval_f1': 0.5}", [("eval_loss", 1.5)]),
        ("PPL 12.5", [("PPL", 12.5)]),
        ("loss scale 65536.0", []),
        ("glossary 1.5, floss 2.5", []),
        ("loss nan, losses [1.5, 2.5], 3 losses", []),
        ("accuracy 0.5", []),
    ],
)
def test_losses_are_found_in_texts(text: str, found: list[tuple[str, float]]) -> None:
    assert [(name.split("| ")[-1], value) for name, value, _ in losses_in(text)] == found


def test_the_precision_of_a_number_is_half_a_unit_of_its_last_digit() -> None:
    assert [tolerance for _, _, tolerance in losses_in("loss 2.50, val loss 2.5e-1")] == [
        pytest.approx(0.005),
        pytest.approx(0.005),
    ]


EVALUATE = """
dev = torch.randint(20, (11, 6))
dev[8:] = 1
dev_labels = dev % 3
dev_labels[:8, 2:] = -100
dev_loader = DataLoader(TensorDataset(dev, dev_labels), batch_size=4)

def evaluate():
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for x, y in dev_loader:
            loss = loss_function(model(x).view(-1, 3), y.view(-1)).item()
            n = int((y != -100).sum())
            total += loss * n
            count += n
    return total / count

def train_epoch"""
RUN = "train_epoch(2); LINE"


def judged(tmp_path: Path, probe: str, line: str, *edits: tuple[str, str]) -> Any:
    return look_at_loop(tmp_path, probe, ("\ndef train_epoch", EVALUATE), *edits, loop=RUN.replace("LINE", line))


TOTAL = "            total += loss * n\n"
COUNT = "            count += n\n"


@pytest.mark.parametrize(
    ("edits", "outcome", "cause"),
    [
        ([], "pass", ""),
        ([(TOTAL, "            total += loss\n"), (COUNT, "            count += 1\n")], "warn", "batches' means, so"),
        (
            [(TOTAL, "            total += loss * len(y)\n"), (COUNT, "            count += len(y)\n")],
            "warn",
            "weighted by rows",
        ),
        ([(TOTAL, "            total += loss\n"), ("return total / count", "return total")], "warn", "the sum of"),
        ([("return total / count", "return loss")], "fail", "last of 3 batches"),
        ([(TOTAL, "            total += loss\n"), (COUNT, "            count += len(y)\n")], "fail", "the 11 rows"),
        (
            [(TOTAL, "            total += loss * 4\n"), (COUNT, "            count += len(y)\n")],
            "fail",
            "also the last one, which has 3",
        ),
        ([("return total / count", "return 0.9 * total / count")], "not-checked", ""),
    ],
)
def test_an_evaluation_loss_is_judged_by_the_losses_of_its_batches(
    edits: list[tuple[str, str]], outcome: str, cause: str, tmp_path: Path
) -> None:
    finding = judged(tmp_path, "evaluation-loss-by-token", 'print("val loss", evaluate())', *edits)
    assert finding.outcome == outcome, finding.message
    assert cause in finding.cause


@pytest.mark.parametrize("name", ["total val loss", "last batch loss"])
def test_a_loss_that_is_called_what_it_is_is_no_fault(name: str, tmp_path: Path) -> None:
    returned = "total" if "total" in name else "loss"
    edits = [(TOTAL, "            total += loss\n"), ("return total / count", f"return {returned}")]
    assert judged(tmp_path, "evaluation-loss-by-token", f'print("{name}", evaluate())', *edits).outcome == "not-checked"


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("print('perplexity', math.exp(evaluate()))", "pass"),
        ("print('perplexity', 2 ** evaluate())", "fail"),
        ("print(f'ppl {math.exp(evaluate()):.3f}')", "pass"),
        ("print('best perplexity', 17.25)", "not-checked"),
    ],
)
def test_a_perplexity_is_judged_by_the_losses_of_the_batches(line: str, outcome: str, tmp_path: Path) -> None:
    assert judged(tmp_path, "perplexity-of-mean-loss", f"import math; {line}").outcome == outcome


def test_a_log_record_that_cannot_be_formatted_stops_no_script(tmp_path: Path) -> None:
    logger = "import logging; log = logging.getLogger('own'); log.propagate = False; log.warning('%d', 'loss')"
    line = f"{logger}; print('val loss', evaluate())"
    assert judged(tmp_path, "evaluation-loss-by-token", line).outcome == "pass"


def test_a_logged_loss_is_judged(tmp_path: Path) -> None:
    line = "import logging; logging.warning('epoch %d val_loss %.6f', 0, evaluate())"
    assert judged(tmp_path, "evaluation-loss-by-token", line).outcome == "pass"


LOOP = "        loss.backward()\n"


@pytest.mark.parametrize(
    ("report", "outcome"),
    [
        ("print('loss', loss.item() * accumulation)", "pass"),
        ("print('loss', loss.item())", "warn"),
        ("print('learning rate', 0.1)", "not-checked"),
        ("seen = 0.9 * vars().get('seen', 0.0) + 0.1 * loss.item(); print('loss', seen)", "not-checked"),
    ],
)
def test_a_training_loss_is_judged_by_the_losses_of_the_batches(report: str, outcome: str, tmp_path: Path) -> None:
    after = ("            optimizer.zero_grad()\n", f"            optimizer.zero_grad()\n            {report}\n")
    finding = look_at_loop(tmp_path, "training-loss-as-trained", after, loop="train_epoch(2)")
    assert finding.outcome == outcome, finding.message


def test_a_mean_over_a_pass_that_the_audit_ended_is_not_judged(tmp_path: Path) -> None:
    edits = [
        ("torch.randint(20, (30, 6))", "torch.randint(20, (4000, 6))"),
        ("    model.train()\n", "    model.train()\n    running = 0.0\n"),
        (LOOP, LOOP + "        running += loss.item()\n"),
        (
            "            optimizer.zero_grad()\n",
            "            optimizer.zero_grad()\n    print('loss', running / 500)\n",
        ),
    ]
    finding = look_at_loop(tmp_path, "training-loss-as-trained", *edits, loop="train_epoch(2)")
    assert finding.outcome == "not-checked", finding.message


def own_step(divided: str, returned: str) -> type[Trainer]:
    class Own(Trainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            model.train()
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
            parts = self.args.gradient_accumulation_steps
            values = {"mean": loss, "part": loss / parts, "twice": loss / parts**2, "other": 0.5 * loss / parts}
            self.accelerator.backward(values[divided])
            return values[returned].detach()

    return Own


@pytest.mark.parametrize(
    ("divided", "returned", "accumulation", "outcome"),
    [
        ("part", "part", 4, "pass"),
        ("part", "mean", 4, "fail"),
        ("part", "twice", 4, "fail"),
        ("part", "other", 4, "warn"),
        ("mean", "mean", 4, "pass"),
        ("part", "mean", 1, "pass"),
    ],
)
def test_the_loss_that_a_trainer_logs_is_compared_with_the_one_trained_on(
    divided: str, returned: str, accumulation: int, outcome: str, tmp_path: Path
) -> None:
    trainer = trainer_of(
        tmp_path, bert(), own_step(divided, returned), rows(), gradient_accumulation_steps=accumulation
    )
    finding = look(subject_of(trainer), "training-loss-as-trained")
    assert finding.outcome == outcome, finding.message


@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_loss_that_a_stock_trainer_logs_is_the_one_trained_on(accumulation: int, tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, bert(), gradient_accumulation_steps=accumulation)
    assert look(subject_of(trainer), "training-loss-as-trained").outcome == "pass"
