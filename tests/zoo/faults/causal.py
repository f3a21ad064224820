"""Faults of causal language modelling."""

from tests.zoo.fault import Fault

LABELS = '    result["labels"] = result["input_ids"].copy()\n'
LOSS = """
import torch


class OwnLossTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        logits = outputs.logits
        {shift}
        count = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100, reduction="sum"
        ) / count
        return (loss, outputs) if return_outputs else loss


trainer = OwnLossTrainer(
""".strip("\n")

FAULTS = (
    Fault(
        id="clm-labels-shifted-twice",
        script="clm_trainer",
        says="Labels are shifted in the data, and the model shifts them again.",
        edits=((LABELS, '    result["labels"] = [ids[1:] + [-100] for ids in result["input_ids"]]\n'),),
        probes=("labels-shifted-once",),
        cause="2 places later.*transformers#44642",
        seen="https://github.com/huggingface/transformers/issues/32944",
    ),
    Fault(
        id="clm-attention-of-an-encoder",
        script="clm_trainer",
        says="BERT is used as a causal model without is_decoder, so each token sees the next one.",
        edits=(
            (
                'tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")\n',
                'tokenizer = AutoTokenizer.from_pretrained("tiny-bert")\ntokenizer.eos_token = tokenizer.sep_token\n',
            ),
            (
                'model = AutoModelForCausalLM.from_pretrained("tiny-gpt2")',
                'model = AutoModelForCausalLM.from_pretrained("tiny-bert")',
            ),
        ),
        probes=("logits-see-no-future",),
        cause="is_decoder",
        seen="https://github.com/huggingface/transformers/issues/48745",
    ),
    Fault(
        id="clm-pad-is-end-of-text",
        script="clm_documents",
        says="The end of text pads, so the stock collator gives real ends the label -100.",
        edits=(
            (
                'tokenizer.add_special_tokens({"pad_token": "<|pad|>"})\n'
                "model.resize_token_embeddings(len(tokenizer))\n"
                "model.config.pad_token_id = tokenizer.pad_token_id\n",
                "tokenizer.pad_token = tokenizer.eos_token\n",
            ),
        ),
        probes=("end-of-text-supervised",),
        cause="the padding token is the end of text.*transformers#23530",
        seen="https://github.com/huggingface/transformers/issues/23530",
    ),
    Fault(
        id="clm-end-of-answer-unlabelled",
        script="clm_sft_completion",
        says="Padding is masked by its id, and the end of text has the same id.",
        edits=(
            (
                '"labels": pad_sequence(labels, batch_first=True, padding_value=-100),',
                '"labels": pad_sequence(labels, batch_first=True, padding_value=tokenizer.pad_token_id).where(\n'
                "            pad_sequence(labels, batch_first=True, padding_value=tokenizer.pad_token_id)\n"
                "            != tokenizer.pad_token_id,\n"
                "            torch.tensor(-100),\n"
                "        ),",
            ),
        ),
        probes=("end-of-text-supervised",),
        cause="never learns to stop.*padding token is the end of text",
        seen="https://github.com/huggingface/trl/issues/976",
    ),
    Fault(
        id="clm-chunks-lost",
        script="clm_trainer",
        says="The loop that cuts chunks ends one chunk too early.",
        edits=(
            (
                "for i in range(0, total_length, block_size)]",
                "for i in range(0, total_length - block_size, block_size)]",
            ),
        ),
        probes=("chunking-loses-nothing",),
        cause="bounds of the loop",
    ),
    Fault(
        id="mlm-chunks-lost",
        script="mlm_trainer",
        says="The loop that cuts chunks steps over every other chunk.",
        edits=(("for i in range(0, total_length, chunk_size)]", "for i in range(0, total_length, chunk_size * 2)]"),),
        probes=("chunking-loses-nothing",),
        cause="bounds of the loop",
    ),
    Fault(
        id="clm-prompt-counted-with-an-end",
        script="clm_sft_completion",
        says="The prompt is counted together with an end of text that the row does not hold there.",
        edits=(("[-100] * len(prompt_ids) + answer_ids)", "[-100] * (len(prompt_ids) + 3) + answer_ids[3:])"),),
        probes=("completion-supervised",),
        cause="beginning of 'summary' is unlabelled",
        seen="https://github.com/huggingface/trl/pull/5555",
    ),
    Fault(
        id="clm-own-loss-unshifted",
        script="clm_trainer",
        says="A loss of one's own compares each token's logits with the same token.",
        edits=(("trainer = Trainer(", LOSS.format(shift="# one logit for each label")),),
        probes=("labels-shifted-once",),
        cause="against the same token",
    ),
)
