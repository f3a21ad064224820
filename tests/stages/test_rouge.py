"""ROUGE against torchmetrics and by hand; sentences and leads by hand."""

from __future__ import annotations

from typing import Any

import pytest

from touchstone.stages import lead, rouge, split_sentences
from touchstone.stages.metrics import Rouge

PREDICTIONS = ["The cats were sitting.\nHe went home.", "Nothing to say", ""]
REFERENCES = ["He went home early.\nA cat sat, generously fed.", "Nothing was said.", "No word."]
KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
EXACT = 1e-9
"""The same arithmetic in double precision, in another order."""


def test_rouge_agrees_with_torchmetrics() -> None:
    """ROUGE-Lsum is left out: torchmetrics splits sentences with NLTK, which downloads a model for it."""
    from torchmetrics.functional.text import rouge_score

    keys = KINDS[:3]
    expected = rouge_score(PREDICTIONS, REFERENCES, use_stemmer=True, rouge_keys=keys)
    came = rouge(PREDICTIONS, references=REFERENCES)

    # float32
    assert {kind: pytest.approx(100 * expected[f"{kind}_fmeasure"].item(), rel=1e-5) for kind in keys} == {
        kind: came[kind]
        for kind in keys  # type: ignore[literal-required]
    }


def test_rouge_equals_a_count_by_hand() -> None:
    """`cats` and `cat` share a stem. 3 of 4 and 3 of 6 words match, 1 of 3 and 1 of 5 pairs; in order: cat, sat."""
    came = rouge(["The cats sat mat"], references=["A cat sat there on mats"])

    assert pytest.approx(came["rouge1"], rel=EXACT) == 100 * 2 * 3 / (4 + 6)
    assert pytest.approx(came["rouge2"], rel=EXACT) == 100 * 2 * 1 / (3 + 5)
    assert pytest.approx(came["rougeL"], rel=EXACT) == 100 * 2 * 3 / (4 + 6)
    assert came["number"] == 1


def test_the_order_of_sentences_changes_only_rouge_l() -> None:
    came = rouge(["alpha bravo.\ncider dog."], references=["cider dog.\nalpha bravo."])

    assert pytest.approx((came["rougeL"], came["rougeLsum"]), rel=EXACT) == (50.0, 100.0)


def test_the_separator_of_sentences_is_not_counted_as_a_word() -> None:
    usual = rouge(["a b.\nc d."], references=["c d.\na b n."])
    came = rouge(["a b.<n>c d."], references=["c d.<n>a b n."], newline="<n>")

    assert {kind: usual[kind] for kind in KINDS} == {kind: came[kind] for kind in KINDS}  # type: ignore[literal-required]
    assert "sentences:'<n>'" in came["signature"]


@pytest.mark.parametrize(
    ("predictions", "references", "options", "message"),
    [
        ([], [], {}, "no predictions: ROUGE needs at least one text"),
        (["a"], [], {}, "1 predictions for 0 references"),
        (["a"], ["a"], {"newline": ""}, "newline is empty"),
    ],
)
def test_rouge_refuses_invalid_texts(
    predictions: list[str], references: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rouge(predictions, references=references, **options)


def test_the_evaluate_metric_equals_rouge() -> None:
    metric = Rouge(keep_in_memory=True)
    metric.add_batch(predictions=PREDICTIONS[:2], references=REFERENCES[:2])
    metric.add_batch(predictions=PREDICTIONS[2:], references=REFERENCES[2:])

    assert rouge(PREDICTIONS, references=REFERENCES) == metric.compute()


SENTENCES = [
    ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
    ("He paid 3.14 at 5.30. Then he left.", ["He paid 3.14 at 5.30.", "Then he left."]),
    ("J. R. Smith and U.S. troops. Dr. No.", ["J. R. Smith and U.S. troops.", "Dr.", "No."]),
    ('"Go!" he said. (He did.) So', ['"Go!"', "he said.", "(He did.)", "So"]),
    ("Wait... What?! Yes…", ["Wait...", "What?!", "Yes…"]),
    ("A headline\nA sentence. \r\n\n Another", ["A headline", "A sentence.", "Another"]),
    ("vitamin c. Then", ["vitamin c.", "Then"]),
    ("example.com/a?b=c", ["example.com/a?b=c"]),
    (" \n\t", []),
]


@pytest.mark.parametrize(("text", "sentences"), SENTENCES)
def test_a_text_is_split_into_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


def test_long_runs_of_marks_are_split_in_linear_time() -> None:
    """A quadratic split would take minutes. The bound of a second is a hundred times the usual time."""
    assert len(split_sentences("." * 300_000 + "x")) == 1
    assert len(split_sentences("A. " * 100_000)) == 1


def test_lead_returns_the_first_sentences_one_per_line() -> None:
    assert lead("One. Two. Three.", sentences=2) == "One.\nTwo."
    assert lead("One.") == "One."
    assert lead("") == ""
    with pytest.raises(ValueError, match="sentences is 0: a lead needs at least one"):
        lead("One.", sentences=0)
