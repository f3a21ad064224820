"""A causal language model on chunks of one length, made on the fly from a shuffled stream, as for CodeParrot."""

import torch
from datasets import load_dataset
from torch.utils.data import IterableDataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed


class ConstantLengthDataset(IterableDataset):
    """
    Iterable dataset that returns constant length chunks of tokens from stream of text files.
    """

    def __init__(
        self, tokenizer, dataset, infinite=False, seq_length=128, num_of_sequences=16, chars_per_token=3.6, shuffle=True
    ):
        self.tokenizer = tokenizer
        self.concat_token_id = tokenizer.eos_token_id
        self.dataset = dataset
        self.seq_length = seq_length
        self.input_characters = seq_length * chars_per_token * num_of_sequences
        self.infinite = infinite
        self.current_size = 0

    def __iter__(self):
        iterator = iter(self.dataset)
        more_examples = True
        while more_examples:
            buffer, buffer_len = [], 0
            while True:
                if buffer_len >= self.input_characters:
                    break
                try:
                    buffer.append(next(iterator)["code"])
                    buffer_len += len(buffer[-1])
                except StopIteration:
                    if self.infinite:
                        iterator = iter(self.dataset)
                    else:
                        more_examples = False
                        break
            tokenized_inputs = self.tokenizer(buffer, truncation=False)["input_ids"]
            all_token_ids = []
            for tokenized_input in tokenized_inputs:
                all_token_ids.extend(tokenized_input + [self.concat_token_id])
            for i in range(0, len(all_token_ids), self.seq_length):
                input_ids = all_token_ids[i : i + self.seq_length]
                if len(input_ids) == self.seq_length:
                    self.current_size += 1
                    yield {"input_ids": torch.LongTensor(input_ids), "labels": torch.LongTensor(input_ids)}


set_seed(0)
tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
train_data = load_dataset("json", data_files="programs.train.jsonl", split="train", streaming=True)
train_data = train_data.shuffle(buffer_size=100, seed=0)
valid_data = load_dataset("json", data_files="programs.validation.jsonl", split="train", streaming=True)
train_dataset = ConstantLengthDataset(tokenizer, train_data, infinite=True)
valid_dataset = ConstantLengthDataset(tokenizer, valid_data, infinite=False)

config = AutoConfig.from_pretrained("tiny-gpt2", vocab_size=len(tokenizer), use_cache=False)
model = AutoModelForCausalLM.from_config(config)
args = TrainingArguments(
    "codeparrot",
    max_steps=200,
    per_device_train_batch_size=4,
    per_device_eval_batch_size=4,
    gradient_accumulation_steps=4,
    gradient_checkpointing=True,
    weight_decay=0.1,
    warmup_steps=20,
    lr_scheduler_type="cosine",
    learning_rate=5e-4,
    logging_steps=10,
    report_to="none",
    eval_strategy="steps",
    eval_steps=100,
)
Trainer(model=model, args=args, train_dataset=train_dataset, eval_dataset=valid_dataset).train()
