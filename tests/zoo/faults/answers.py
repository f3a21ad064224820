"""Faults of spans and windows of question answering."""

from tests.zoo.fault import Fault

DOCS = "https://huggingface.co/docs/transformers/tasks/question_answering"

FAULTS = (
    Fault(
        id="qa-end-exclusive",
        script="qa_trainer",
        says="The end label is the token after the answer.",
        edits=(("end_positions.append(idx + 1)", "end_positions.append(idx + 2)"),),
        probes=("spans-hold-the-answer",),
        cause="the token after the answer",
        seen="https://github.com/huggingface/transformers/pull/10217",
    ),
    Fault(
        id="qa-offsets-of-the-question",
        script="qa_squad_v2",
        says="The answer's characters are looked up in the question, whose offsets begin at 0 as well.",
        edits=(
            ("context_index = 1 if pad_on_right else 0", "context_index = 0 if pad_on_right else 1"),
            (
                "whole = inside and offsets[inside[0]][0] <= start_char and offsets[inside[-1]][1] >= end_char",
                "whole = inside",
            ),
        ),
        probes=("spans-hold-the-answer",),
        cause="lie in the question",
    ),
    Fault(
        id="qa-end-by-the-length-of-the-text",
        script="qa_squad_v2",
        says="The end is the start plus the number of the answer's characters.",
        edits=(
            (
                "append(inside[-1] if whole else cls_index)",
                'append(\n            inside[0] + len(answers["text"][0]) if whole else cls_index\n        )',
            ),
        ),
        probes=("spans-hold-the-answer",),
        cause="start plus the number of characters",
    ),
    Fault(
        id="qa-start-one-late",
        script="qa_trainer",
        says="The start label is the token after the answer's first.",
        edits=(("start_positions.append(idx - 1)", "start_positions.append(idx)"),),
        probes=("spans-hold-the-answer",),
        cause="one token off",
    ),
    Fault(
        id="qa-answers-by-window",
        script="qa_squad_v2",
        says="The answer is that of the example with the window's number, not of the window's example.",
        edits=(
            ('examples["answers"][sample_mapping[i]]', 'examples["answers"][min(i, len(examples["answers"]) - 1)]'),
        ),
        probes=("spans-hold-the-answer",),
        cause="another example's answer",
    ),
    Fault(
        id="qa-characters-as-tokens",
        script="qa_left_padding",
        says="The labels are the answer's characters instead of its tokens.",
        edits=(
            ("torch.tensor(start)", "torch.tensor(min(first, self.max_len - 1))"),
            ("torch.tensor(end)", "torch.tensor(min(last, self.max_len - 1))"),
        ),
        probes=("spans-hold-the-answer",),
        cause="characters",
    ),
    Fault(
        id="qa-search-runs-past-the-context",
        script="qa_trainer",
        says="The search for the start does not stop at the end of the context, as in run_qa.py.",
        edits=(
            ("while idx <= context_end and offset[idx][0]", "while idx < len(offset) and offset[idx][0]"),
            ("max_length = 48", "max_length = 50"),  # a window ends with an answer of one token
        ),
        probes=("spans-are-in-order",),
        cause="runs past the end of the context",
        seen="https://github.com/huggingface/transformers/blob/main/examples/pytorch/question-answering/run_qa.py",
    ),
    Fault(
        id="qa-null-place-is-padding",
        script="qa_trainer",
        says="Rows are padded at the left, and (0, 0) stands for no answer.",
        edits=(
            ("from_pretrained(model_checkpoint)\n\n\n", 'from_pretrained(model_checkpoint, padding_side="left")\n\n\n'),
        ),
        probes=("null-place-is-seen",),
        cause="cls_token_id",
    ),
    Fault(
        id="qa-padded-after-labels",
        script="qa_squad_v2",
        says="The collator pads at the left after the labels were made, and does not move them.",
        edits=(
            (
                "tokenizer = AutoTokenizer.from_pretrained(MODEL)",
                'tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")',
            ),
        ),
        probes=("spans-hold-the-answer",),
        cause="not moved by the padding",
    ),
    Fault(
        id="qa-positions-within-the-context",
        script="qa_trainer",
        says="The labels count tokens from the start of the context.",
        edits=(
            ("start_positions.append(idx - 1)", "start_positions.append(idx - 1 - context_start)"),
            ("end_positions.append(idx + 1)", "end_positions.append(idx + 1 - context_start)"),
        ),
        probes=("spans-hold-the-answer",),
        cause="from the start of the context",
    ),
    Fault(
        id="qa-cut-answers-labelled",
        script="qa_trainer",
        says="A window that holds a part of the answer is labelled with that part, as in the documentation.",
        edits=(
            (
                "offset[context_start][0] > start_char or offset[context_end][1] < end_char",
                "offset[context_start][0] > end_char or offset[context_end][1] < start_char",
            ),
        ),
        probes=("cut-answers-have-no-span",),
        cause="part of the answer",
        seen=DOCS,
    ),
    Fault(
        id="qa-every-answer-missed",
        script="qa_trainer",
        says="The answer's end is compared with the row's last token, which has no characters.",
        edits=(("offset[context_end][1] < end_char", "offset[-1][1] < end_char"),),
        probes=("spans-hold-the-answer",),
        cause="labelled as having none",
    ),
)
