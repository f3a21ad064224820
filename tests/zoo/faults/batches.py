"""Faults of batches: masks, padding, collators, classes."""

from tests.zoo.fault import Fault

FAULTS = (
    Fault(
        id="ner-labels-padded-with-zero",
        script="ner_torch_dataset",
        says="The collator pads labels with 0, which is the label O, instead of -100.",
        edits=(("padding_value=-100", "padding_value=0"),),
        probes=("padding-unlabelled",),
        cause="padded with 0 .*-100",
    ),
    Fault(
        id="ner-mask-padded-with-ones",
        script="ner_torch_dataset",
        says="The collator pads the attention mask with 1.",
        edits=(("batch_first=True, padding_value=0)", "batch_first=True, padding_value=1)"),),
        probes=("mask-marks-padding",),
        cause="pad attention_mask with 0",
        seen="https://github.com/JoakimEdin/medical-coding-reproducibility/issues/13",
    ),
    Fault(
        id="ner-mask-dropped-by-the-collator",
        script="ner_torch_dataset",
        says="The collator returns no attention mask, so tokens attend to padding.",
        edits=(
            (
                '        "attention_mask": pad_sequence([f["attention_mask"] for f in features], '
                "batch_first=True, padding_value=0),\n",
                "",
            ),
        ),
        probes=("mask-marks-padding",),
        cause="no attention mask",
        seen="https://github.com/huggingface/transformers/issues/12998",
    ),
    Fault(
        id="ner-mask-padded-on-the-other-side",
        script="ner_torch_dataset",
        says="Ids and labels are padded at the left, and the mask at the right.",
        edits=(
            ("padding_value=tokenizer.pad_token_id", 'padding_value=tokenizer.pad_token_id, padding_side="left"'),
            ("padding_value=-100", 'padding_value=-100, padding_side="left"'),
        ),
        probes=("mask-marks-padding",),
        cause="hides",
        seen="https://github.com/NVIDIA-NeMo/Automodel/pull/3704",
    ),
    Fault(
        id="ner-head-too-small",
        script="ner_torch_dataset",
        says="The head has a class less than the data.",
        edits=(("num_labels=len(unique_tags)", "num_labels=len(unique_tags) - 1"),),
        probes=("labels-in-range",),
        cause="num_labels=9",
        seen="https://github.com/huggingface/transformers/issues/10051",
    ),
    Fault(
        id="ner-collator-takes-labels-out-of-rows",
        script="ner_torch_dataset",
        says="The collator pops the labels of rows that are kept in memory: the second epoch has none.",
        edits=(
            ('[f["labels"] for f in features]', '[f.pop("labels") for f in features]'),
            (
                "train_dataset=NERDataset(train_texts, train_tags)",
                "train_dataset=list(NERDataset(train_texts, train_tags))",
            ),
            (
                'num_train_epochs=1, report_to="none"',
                'num_train_epochs=2, remove_unused_columns=False, report_to="none"',
            ),
        ),
        probes=("collator-keeps-its-rows",),
        cause="KeyError",
        seen="https://huggingface.co/learn/llm-course/chapter7/3",
    ),
    Fault(
        id="ner-unknown-tags-ignored",
        script="ner_torch_dataset",
        says="Tags are looked up in lower case and found nowhere, so every label is -100.",
        edits=(
            ("targets.extend([tag2id[tag]] +", "targets.extend([tag2id.get(tag.lower(), -100)] +"),
            ("[tag2id[inside]] *", "[tag2id.get(inside.lower(), -100)] *"),
        ),
        probes=("rows-have-labels",),
        cause="no label at all",
    ),
)
