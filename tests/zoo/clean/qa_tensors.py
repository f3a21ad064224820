"""Question answering on a TensorDataset of five tensors, as in run_squad.py before there was `datasets`; plain loop."""

import json

import torch
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, get_linear_schedule_with_warmup

MAX_SEQ_LENGTH = 96
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")
with open("questions.train.jsonl") as lines:
    examples = [json.loads(line) for line in lines]


def convert_example_to_feature(example):
    encoding = tokenizer(
        example["question"],
        example["context"],
        truncation="only_second",
        max_length=MAX_SEQ_LENGTH,
        padding="max_length",
        return_offsets_mapping=True,
    )
    first = example["answers"]["answer_start"][0]
    last = first + len(example["answers"]["text"][0])
    context = [
        (place, start, end)
        for place, (which, (start, end)) in enumerate(zip(encoding.sequence_ids(), encoding["offset_mapping"]))
        if which == 1
    ]
    answer = [place for place, start, end in context if start < last and end > first]
    start_position, end_position = (answer[0], answer[-1]) if context[-1][2] >= last else (0, 0)
    ids, mask, segments = (encoding[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
    return ids, mask, segments, start_position, end_position


features = [convert_example_to_feature(example) for example in examples]
dataset = TensorDataset(*(torch.tensor(column) for column in zip(*features)))
train_dataloader = DataLoader(dataset, sampler=RandomSampler(dataset), batch_size=12)
model = AutoModelForQuestionAnswering.from_pretrained("tiny-bert", dtype=torch.float32)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-5)
epochs = 2
scheduler = get_linear_schedule_with_warmup(optimizer, 0, len(train_dataloader) * epochs)
for epoch in range(epochs):
    for step, batch in enumerate(train_dataloader):
        model.train()
        inputs = {
            "input_ids": batch[0],
            "attention_mask": batch[1],
            "token_type_ids": batch[2],
            "start_positions": batch[3],
            "end_positions": batch[4],
        }
        loss = model(**inputs)[0]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        model.zero_grad()
    print(f"epoch {epoch}, last loss {loss.item():.3f}")
