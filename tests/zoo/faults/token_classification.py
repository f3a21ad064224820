"""Faults of labels on tokens."""

from tests.zoo.fault import Fault

FAULTS = (
    Fault(
        id="ner-labels-on-special-tokens",
        script="ner_trainer",
        says="Special tokens are labelled O instead of -100.",
        edits=(("new_labels.append(-100)", "new_labels.append(0)"),),
        probes=("special-tokens-unlabelled",),
        cause="-100",
        seen="https://huggingface.co/learn/llm-course/chapter7/2",
    ),
)
