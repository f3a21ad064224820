"""Faults of scripts that make their own tensors of words, texts and targets, without `Dataset.map`."""

from tests.zoo.fault import Fault

FAULTS = (
    Fault(
        id="tensors-one-label-a-word",
        script="ner_tensors",
        says="Each word gives one label, though it gives several tokens.",
        edits=(
            (
                "kept.extend([tag2idx[label]] + [tag2idx[inside]] * (len(pieces) - 1))",
                "kept.append(tag2idx[label])",
            ),
        ),
        probes=("labels-follow-tags",),
        cause="put on the tokens one by one",
    ),
    Fault(
        id="tensors-no-label-for-cls",
        script="ner_tensors",
        says="[CLS] stands in the tokens and not in the labels.",
        edits=(('["[CLS]"], [-100]', '["[CLS]"], []'),),
        probes=("labels-follow-tags",),
        cause="1 token too far to the left",
    ),
    Fault(
        id="tensors-mask-inverted",
        script="ner_tensors",
        says="The mask is 1 at padding, as torch's key_padding_mask.",
        edits=(("masks = (input_ids != 0).long()", "masks = (input_ids == 0).long()"),),
        probes=("mask-marks-padding",),
        cause="mask is inverted",
    ),
    Fault(
        id="spans-of-the-row-before",
        script="ner_char_spans",
        says="A row has the entities of the row before it.",
        edits=(
            (
                'for first, last, kind in record["entities"]:',
                'for first, last, kind in self.records[index - 1]["entities"]:',
            ),
        ),
        probes=("labels-follow-tags",),
        cause="labels do not follow the tags",
    ),
    Fault(
        id="spans-counted-from-one",
        script="ner_char_spans",
        says="The tool counts characters from 1, and the script from 0.",
        edits=(("if start >= first and end <= last:", "if start > first and end <= last + 1:"),),
        probes=("subwords-open-no-entity",),
        cause="counted from 0",
    ),
    Fault(
        id="tensors-labels-everywhere",
        script="mlm_tensors",
        says="Labels are a copy of all ids, padding included.",
        edits=(("inputs.labels[~mask_arr] = -100\n", ""),),
        probes=("masks-labelled",),
        cause="% of the tokens are replaced, but the loss is over all",
        seen="https://stackoverflow.com/questions/61470768/how-does-masked-lm-labels-argument-work-in-bertformaskedlm",
    ),
    Fault(
        id="tensors-labels-where-nothing-was-chosen",
        script="mlm_tensors",
        says="The condition is turned round: the masked tokens have no label, and all others have one.",
        edits=(("inputs.labels[~mask_arr] = -100", "inputs.labels[mask_arr] = -100"),),
        probes=("masks-hide-tokens",),
        cause="over the tokens that were not chosen",
    ),
    Fault(
        id="tensors-specials-masked-beforehand",
        script="mlm_tensors",
        says="[CLS] and [SEP] are masked once, before the loader.",
        edits=(("torch.tensor(special))", "torch.tensor(special[2:]))"),),
        probes=("mask-special-tokens",),
        cause=r"\[CLS\] \d+ times",
    ),
    Fault(
        id="tensors-masked-with-the-unknown-token",
        script="mlm_tensors",
        says="Chosen tokens become [UNK] instead of [MASK].",
        edits=(("= tokenizer.mask_token_id", "= tokenizer.unk_token_id"),),
        probes=("masks-hide-tokens",),
        cause="use tokenizer.mask_token_id",
    ),
    Fault(
        id="tensors-chosen-tokens-hidden",
        script="mlm_tensors",
        says="The attention mask is 0 at the masked tokens.",
        edits=(
            (
                "inputs.input_ids[mask_arr] = tokenizer.mask_token_id",
                "inputs.input_ids[mask_arr] = tokenizer.mask_token_id\ninputs.attention_mask[mask_arr] = 0",
            ),
        ),
        probes=("mask-marks-padding",),
        cause="hides",
    ),
    Fault(
        id="frames-first-token-never-learned",
        script="summarization_frames",
        says="Decoder inputs are y[:, :-1] and labels y[:, 1:], though T5's targets have no start token.",
        edits=(
            ("lm_labels = y.clone().detach()", "lm_labels = y[:, 1:].clone().detach()"),
            ("lm_labels[y == tokenizer", "lm_labels[y[:, 1:] == tokenizer"),
            ("labels=lm_labels)", "labels=lm_labels, decoder_input_ids=y[:, :-1].contiguous())"),
        ),
        probes=("decoder-input-shifted",),
        cause="never learns to begin",
        seen="https://github.com/huggingface/transformers/issues/5987",
    ),
    Fault(
        id="frames-labels-without-their-first-token",
        script="summarization_frames",
        says="Labels are moved by the loop, and the model moves them again.",
        edits=(
            ("lm_labels = y.clone().detach()", "lm_labels = y[:, 1:].clone().detach()"),
            ("lm_labels[y == tokenizer", "lm_labels[y[:, 1:] == tokenizer"),
        ),
        probes=("target-whole",),
        cause="moves them once more",
    ),
    Fault(
        id="frames-summary-of-the-row-before",
        script="summarization_frames",
        says="Each document is given the summary of the row before it.",
        edits=(("text_target=[self.summary[index]]", "text_target=[self.summary[index - 1]]"),),
        probes=("target-of-its-source",),
        cause="row 1 before it",
    ),
    Fault(
        id="translation-sources-sorted-alone",
        script="translation_trainer",
        says="Sources are sorted by length, and targets are not.",
        edits=(('inputs = examples["source"]', 'inputs = sorted(examples["source"], key=len)'),),
        probes=("target-of-its-source",),
        cause="reorder both together",
    ),
)
