"""Faults of translation and summarization."""

from tests.zoo.fault import Fault

ENCODE = "    return tokenizer(inputs, text_target=targets, max_length=max_length, truncation=True)\n"
LABELS = '    model_inputs["labels"] = labels["input_ids"]\n'
COLLATOR = "data_collator = DataCollatorForSeq2Seq(tokenizer, model=model)"

FAULTS = (
    Fault(
        id="seq2seq-decoder-input-is-the-label",
        script="translation_trainer",
        says="The collator gives the labels as decoder inputs without moving them.",
        edits=(
            (
                COLLATOR,
                "stock_collator = DataCollatorForSeq2Seq(tokenizer)\n\n\n"
                "def data_collator(features):\n"
                "    batch = stock_collator(features)\n"
                '    batch["decoder_input_ids"] = batch["labels"].masked_fill(\n'
                '        batch["labels"] == -100, tokenizer.pad_token_id\n'
                "    )\n"
                "    return batch",
            ),
        ),
        probes=("decoder-input-shifted",),
        cause="very token that the decoder must predict",
        seen="https://github.com/huggingface/transformers/issues/27714",
    ),
    Fault(
        id="seq2seq-start-token",
        script="translation_trainer",
        says="The collator's decoder inputs begin with the end token, but generation begins with padding.",
        edits=(
            (
                COLLATOR,
                "stock_collator = DataCollatorForSeq2Seq(tokenizer)\n\n\n"
                "def data_collator(features):\n"
                "    batch = stock_collator(features)\n"
                '    ids = batch["labels"].masked_fill(batch["labels"] == -100, tokenizer.pad_token_id)\n'
                '    batch["decoder_input_ids"] = ids.roll(1, dims=1)\n'
                '    batch["decoder_input_ids"][:, 0] = tokenizer.eos_token_id\n'
                "    return batch",
            ),
            ("max_length = 128\n", "max_length = 128\nmodel.config.forced_bos_token_id = None\n"),
        ),
        probes=("decoder-input-shifted",),
        cause="begins with </s>.*generation",
        seen="https://github.com/huggingface/transformers/issues/18985",
    ),
    Fault(
        id="seq2seq-target-without-end",
        script="summarization_trainer",
        says="Targets are tokenized without special tokens, so no label is the end of the text.",
        edits=(
            (
                'tokenizer(text_target=examples["summary"], max_length=max_target_length, truncation=True)',
                'tokenizer(text_target=examples["summary"], max_length=max_target_length, add_special_tokens=False)',
            ),
        ),
        probes=("target-ends",),
        cause="maximal length.*add_special_tokens",
        seen="https://discuss.huggingface.co/t/t5-generates-very-short-summaries/1277",
    ),
    Fault(
        id="seq2seq-labels-moved-before-the-model",
        script="summarization_trainer",
        says="Labels are the target without its first token, and the model moves them once more.",
        edits=((LABELS, '    model_inputs["labels"] = [ids[1:] for ids in labels["input_ids"]]\n'),),
        probes=("target-whole",),
        cause="the first token of 'summary' has no label",
    ),
    Fault(
        id="seq2seq-target-cut-by-source",
        script="translation_trainer",
        says="Labels are cut to the length of their source.",
        edits=(
            (
                ENCODE,
                "    encoded = tokenizer(inputs, text_target=targets, max_length=max_length, truncation=True)\n"
                '    encoded["labels"] = [\n'
                "        ids if len(ids) <= len(source) else ids[: len(source) - 1] + ids[-1:]\n"
                '        for ids, source in zip(encoded["labels"], encoded["input_ids"])\n'
                "    ]\n"
                "    return encoded\n",
            ),
        ),
        probes=("target-whole",),
        cause="cut to the length of their own source",
    ),
    Fault(
        id="seq2seq-source-holds-target",
        script="summarization_trainer",
        says="The summary stands in the source too, from a line that was written for a causal model.",
        edits=(
            (
                'inputs = [prefix + document for document in examples["document"]]',
                "inputs = [\n"
                '        f"{prefix}{summary} {document}"\n'
                '        for document, summary in zip(examples["document"], examples["summary"])\n'
                "    ]",
            ),
        ),
        probes=("source-without-target",),
        cause="target is joined to the source",
    ),
    Fault(
        id="seq2seq-target-is-the-source",
        script="translation_trainer",
        says="Source and target are made of the same column.",
        edits=(('targets = examples["target"]', 'targets = examples["source"]'),),
        probes=("source-without-target",),
        cause="source and target are the same text",
    ),
    Fault(
        id="seq2seq-padding-supervised",
        script="translation_trainer",
        says="Targets are padded in map, and the padding keeps its id as label.",
        edits=(
            (
                "text_target=targets, max_length=max_length, truncation=True)",
                'text_target=targets, max_length=max_length, truncation=True, padding="max_length")',
            ),
        ),
        probes=("label-padding-ignored",),
        cause="padding tokens have a label.*-100",
        seen="https://github.com/huggingface/transformers/pull/7828",
    ),
    Fault(
        id="seq2seq-evaluation-without-prefix",
        script="summarization_trainer",
        says="Evaluation sources are prepared by a second function without the prefix.",
        edits=(
            (
                "collator = DataCollatorForSeq2Seq",
                'prefix = ""\n'
                'tokenized["validation"] = raw["validation"].map(\n'
                '    preprocess_function, batched=True, remove_columns=["document", "summary"]\n'
                ")\n"
                "collator = DataCollatorForSeq2Seq",
            ),
        ),
        probes=("source-prefix-same",),
        cause="all training sources begin with 'summarize:'",
        seen="https://huggingface.co/docs/transformers/model_doc/t5",
    ),
)
