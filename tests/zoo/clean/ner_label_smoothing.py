"""Fine-tune DistilBERT for NER. Settings come from dataclasses, as in the example scripts; labels are smoothed."""

import sys
from dataclasses import dataclass, field
from typing import Optional

from datasets import load_dataset
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    set_seed,
)


@dataclass
class ModelArguments:
    model_name_or_path: str = field(default="tiny-distilbert", metadata={"help": "Path of the pretrained model."})
    cache_dir: Optional[str] = field(default=None)


@dataclass
class DataTrainingArguments:
    train_file: str = field(default="sentences.train.jsonl")
    validation_file: str = field(default="sentences.validation.jsonl")
    max_seq_length: int = field(default=64)
    label_all_tokens: bool = field(default=False)


def main():
    parser = HfArgumentParser((ModelArguments, DataTrainingArguments, TrainingArguments))
    defaults = ["--output_dir", "out", "--label_smoothing_factor", "0.1", "--report_to", "none", "--seed", "7"]
    model_args, data_args, training_args = parser.parse_args_into_dataclasses(args=defaults + sys.argv[1:])
    set_seed(training_args.seed)

    files = {"train": data_args.train_file, "validation": data_args.validation_file}
    raw_datasets = load_dataset("json", data_files=files, cache_dir=model_args.cache_dir)
    label_list = sorted(set(tag for example in raw_datasets["train"] for tag in example["tags"]))
    label_to_id = {label: i for i, label in enumerate(label_list)}
    # An I- label for every B- label, for continuation tokens.
    b_to_i_label = [
        label_list.index(label.replace("B-", "I-")) if label.startswith("B-") else i
        for i, label in enumerate(label_list)
    ]

    config = AutoConfig.from_pretrained(model_args.model_name_or_path, num_labels=len(label_list))
    config.label2id = label_to_id
    config.id2label = {i: label for label, i in label_to_id.items()}
    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path, use_fast=True)
    model = AutoModelForTokenClassification.from_pretrained(model_args.model_name_or_path, config=config)

    def tokenize_and_align_labels(examples):
        tokenized_inputs = tokenizer(
            examples["words"], max_length=data_args.max_seq_length, truncation=True, is_split_into_words=True
        )
        labels = []
        for i, label in enumerate(examples["tags"]):
            word_ids = tokenized_inputs.word_ids(batch_index=i)
            previous_word_idx = None
            label_ids = []
            for word_idx in word_ids:
                if word_idx is None:
                    label_ids.append(-100)
                elif word_idx != previous_word_idx:
                    label_ids.append(label_to_id[label[word_idx]])
                else:
                    label_ids.append(b_to_i_label[label_to_id[label[word_idx]]] if data_args.label_all_tokens else -100)
                previous_word_idx = word_idx
            labels.append(label_ids)
        tokenized_inputs["labels"] = labels
        return tokenized_inputs

    train_dataset = raw_datasets["train"].map(tokenize_and_align_labels, batched=True)
    eval_dataset = raw_datasets["validation"].map(tokenize_and_align_labels, batched=True)
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        data_collator=DataCollatorForTokenClassification(tokenizer, pad_to_multiple_of=8),
    )
    trainer.train()
    print(trainer.evaluate())


if __name__ == "__main__":
    main()
