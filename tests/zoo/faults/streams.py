"""Faults in rows of streams, which are found through `IterableDataset.map`."""

from tests.zoo.fault import Fault

FAULTS = (
    Fault(
        id="stream-labels-of-the-next-word",
        script="ner_streaming",
        says="In a stream, each word gets the tag of the word before it.",
        edits=(('example["tags"][word]', 'example["tags"][max(word - 1, 0)]'),),
        probes=("labels-follow-tags",),
        cause="each word has the tag of the word 1 before it",
    ),
    Fault(
        id="stream-labels-special-tokens",
        script="ner_streaming",
        says="In a stream, special tokens have the label O.",
        edits=(("            labels.append(-100)\n        elif", "            labels.append(0)\n        elif"),),
        probes=("special-tokens-unlabelled",),
        cause="-100",
    ),
    Fault(
        id="stream-answers-one-late",
        script="qa_streaming",
        says="In a stream, the end label is the token after the answer.",
        edits=(("end_positions.append(idx + 1)", "end_positions.append(idx + 2)"),),
        probes=("spans-hold-the-answer",),
        cause="the token after the answer",
    ),
    Fault(
        id="stream-padding-scored",
        script="ner_streaming",
        says="The metric of a streamed evaluation counts positions without a label as O.",
        edits=(
            (
                "    kept = [row != -100 for row in labels]\n",
                "    labels = np.where(labels == -100, 0, labels)\n    kept = [row != -100 for row in labels]\n",
            ),
        ),
        probes=("ignored-positions-not-scored",),
        cause="-100",
    ),
)
