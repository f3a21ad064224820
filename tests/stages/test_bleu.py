"""BLEU against sacreBLEU's command line, torchmetrics, and a count by hand."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from touchstone.stages import bleu
from touchstone.stages.metrics import Bleu

PREDICTIONS = ["The cat sat on the mat.", "It's 3.14, isn't it?", "", "He went home (late)."]
REFERENCES = [
    ["The cat sat on a mat.", "On the mat sat the cat."],
    ["It's 3.14, is it not?", "It is 3.14, isn't it?"],
    ["Nothing was said.", "No word."],
    ["He went home late.", "Late he went home (late)."],
]
EXACT = 1e-9
"""The same arithmetic in double precision, in another order."""


def test_bleu_equals_sacrebleus_command_line(tmp_path: Path) -> None:
    """There are two files of references; the signature is the one that papers quote."""
    texts = {"first": [row[0] for row in REFERENCES], "second": [row[1] for row in REFERENCES], "out": PREDICTIONS}
    for name, lines in texts.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    command = [sys.executable, "-m", "sacrebleu", "first", "second", "-i", "out", "-m", "bleu", "-f", "text", "-w", "6"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    line = done.stdout.strip()
    came = bleu(PREDICTIONS, references=REFERENCES)

    assert f"BLEU|{came['signature']} = {came['bleu']:.6f} " in line
    assert f"(BP = {came['brevity_penalty']:.3f} " in line


def test_bleu_agrees_with_torchmetrics() -> None:
    from torchmetrics.functional.text import sacre_bleu_score

    references = [list(texts) for texts in REFERENCES]
    expected = 100 * sacre_bleu_score(PREDICTIONS, references).item()

    # torchmetrics uses float32 and no smoothing, so the texts must share a 4-gram
    assert expected == pytest.approx(bleu(PREDICTIONS, references=REFERENCES)["bleu"], rel=1e-5)


def test_bleu_equals_a_count_by_hand() -> None:
    """5 of 6 words, 4 of 5 pairs, 3 of 4 triples and 2 of 3 quadruples match; the lengths are equal."""
    came = bleu(["a b c d e x"], references=["a b c d e f"])

    assert came["precisions"] == pytest.approx([100 * 5 / 6, 80, 75, 100 * 2 / 3], rel=EXACT)
    assert pytest.approx(came["bleu"], rel=EXACT) == 100 * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    assert came["brevity_penalty"] == 1.0
    assert came["number"] == 1


def test_bleu_penalizes_a_prediction_of_half_the_length() -> None:
    came = bleu(["a b c d"], references=["a b c d e f g h"])

    assert 100 * math.exp(-1) == pytest.approx(came["bleu"], rel=EXACT)


def test_orders_without_a_match_are_smoothed_by_halving() -> None:
    came = bleu(["a b x y z"], references=["a b c d e"])

    assert came["precisions"] == pytest.approx([40, 25, 100 / 2 / 3, 100 / 4 / 2], rel=EXACT)


def test_texts_without_a_4_gram_have_bleu_0_against_themselves() -> None:
    assert bleu(["a b c"], references=["a b c"])["bleu"] == 0.0
    assert bleu([""], references=["a b c d"])["bleu"] == 0.0


WRONG: list[tuple[list[Any], list[Any], str]] = [
    ([], [], "no predictions: BLEU needs at least one text"),
    (["a"], [], "1 predictions for 0 references"),
    (["a", "b"], [["a"], []], r"references\[1\] is empty: an example needs at least one reference"),
    (["a", "b"], [["a"], ["a", "b"]], r"references\[1\] has 2 texts, references\[0\] has 1"),
    (["a", None], ["a", "b"], "example 1 holds None: predictions and references must be texts"),
]


@pytest.mark.parametrize(("predictions", "references", "message"), WRONG)
def test_bleu_refuses_invalid_texts(predictions: list[Any], references: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bleu(predictions, references=references)


@pytest.mark.parametrize("references", [REFERENCES, [texts[0] for texts in REFERENCES]], ids=["lists", "texts"])
def test_the_evaluate_metric_equals_bleu(references: Any) -> None:
    metric = Bleu(keep_in_memory=True)
    for start in (0, 2):
        metric.add_batch(predictions=PREDICTIONS[start : start + 2], references=references[start : start + 2])

    assert bleu(PREDICTIONS, references=references) == metric.compute()
