"""Reports for the tests of what people see."""

from __future__ import annotations

from touchstone.auditing.finding import Example, Finding, Report

WORDS = ["[CLS]", "Ada", "Love", "##lace", "wrote", "the", "first", "program", ".", "<script>alert(1)</script>", "&"]
WORDS += ["[SEP]", "[PAD]", "[PAD]", "[PAD]"]


def faulty() -> Report:
    """A report with every kind of finding."""
    labels = ["B-PER"] * 4 + ["O"] * 8 + ["-100"] * 3
    example = Example(
        ("token", "label"),
        [(word[:12], label) for word, label in zip(WORDS, labels, strict=True)],
        marked=(0, 11),
        caption="row 3 of the first training batch",
    )
    findings = [
        Finding(
            "special-tokens-unlabelled",
            "fail",
            "32 rows have labels at special tokens",
            "the labels are not aligned with the tokens: give special tokens the label -100 (train.py:31)",
            measured=2,
            expected=0,
            example=example,
            repro="touchstone audit --probe special-tokens-unlabelled train.py --output_dir out",
        ),
        Finding(
            "gradient",
            "fail",
            "gradients are 8.0 times those of the mean over the labelled tokens",
            "accumulation (8) is not divided (transformers#47688); divide the loss by 8",
            measured=7.998123456,
            expected=1.0,
            example=Example(("step", "loss"), [(0, 0.5), (1, float("nan"))]),
        ),
        Finding("evaluation-loss", "warn", "the mean of batch means", "see transformers#39241 and nobody/here#1"),
        Finding("names", "warn", "names are LABEL_0 ...", ignored="the names are set later"),
        *(Finding(f"probe-{i}", "pass", f"{i} tokens are right") for i in range(12)),
        *(Finding(f"deep-{i}", "not-checked", "needs --budget deep") for i in range(3)),
        Finding("broken", "not-checked", "the probe itself failed: IndexError: <b>", cause="raised at x.py:3 in y"),
    ]
    rows = [
        (word, label, "padding" if word == "[PAD]" else "supervised") for word, label in zip(WORDS, labels, strict=True)
    ]
    batch = Example(("token", "label", "seen"), rows, caption="row 0 of the first training batch")
    return Report("train.py", "token-classification", findings, batch=(batch,))
