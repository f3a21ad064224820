"""Probes of batches: which positions have labels, what is padded, what the collator does."""

from __future__ import annotations

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed
from touchstone.auditing.probe import probe
from touchstone.auditing.subject import IGNORED, Subject, ints


@probe(
    "special-tokens-unlabelled",
    group="batches",
    says="Special tokens and padding have no label.",
    tasks=("token-classification",),
    budget="fast",
)
def special_tokens_unlabelled(subject: Subject) -> Finding:
    """Look for labels on special tokens, which are no words and have no tag."""
    special = subject.special_ids
    train = subject.need("train")
    wrong = []
    seen = 0
    for batch in train.batches(4):
        if "labels" not in batch:
            raise NotChecked("batches have no labels")
        for row in range(len(batch["input_ids"])):
            ids, labels = ints(batch["input_ids"][row]), ints(batch["labels"][row])
            places = [place for place, each in enumerate(ids) if each in special]
            seen += len(places)
            labelled = [place for place in places if labels[place] != IGNORED]
            if labelled:
                wrong.append((ids, labels, labelled))
    if not wrong:
        return passed(f"{seen} special and padding tokens have no label")
    ids, labels, labelled = wrong[0]
    cells = [(token, subject.label_text(label)) for token, label in zip(subject.token_texts(ids), labels, strict=True)]
    return fail(
        f"{len(wrong)} rows have labels at special tokens",
        cause="the labels are not aligned with the tokens: give special tokens the label -100",
        measured=len(labelled),
        expected=0,
        example=Example(("token", "label"), cells, marked=labelled, caption="a row of a training batch"),
    )
