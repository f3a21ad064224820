"""Translation with Accelerate, counted in steps: batches come from an endless generator, two to a step."""

import sacrebleu
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import load_dataset
from torch.utils.data import DataLoader
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq, get_constant_schedule_with_warmup

MAX_STEPS, ACCUM, EVAL_EVERY = 20, 2, 10


def cycle(loader):
    while True:
        for batch in loader:
            yield batch


def evaluate(accelerator, model, loader, tokenizer):
    model.eval()
    hyps, refs = [], []
    for batch in loader:
        with torch.no_grad():
            out = accelerator.unwrap_model(model).generate(
                batch["input_ids"], attention_mask=batch["attention_mask"], max_length=40
            )
        out = accelerator.pad_across_processes(out, dim=1, pad_index=tokenizer.pad_token_id)
        labels = accelerator.pad_across_processes(batch["labels"], dim=1, pad_index=-100)
        out, labels = accelerator.gather_for_metrics((out, labels))
        labels = torch.where(labels != -100, labels, tokenizer.pad_token_id)
        hyps += [t.strip() for t in tokenizer.batch_decode(out, skip_special_tokens=True)]
        refs += [t.strip() for t in tokenizer.batch_decode(labels, skip_special_tokens=True)]
    model.train()
    return sacrebleu.corpus_bleu(hyps, [refs]).score


def main():
    set_seed(5)
    accelerator = Accelerator(log_with=None)
    tokenizer = AutoTokenizer.from_pretrained("tiny-marian")
    model = AutoModelForSeq2SeqLM.from_pretrained("tiny-marian")
    raw = load_dataset("json", data_files={s: f"translations.{s}.jsonl" for s in ("train", "validation")})

    def preprocess(examples):
        enc = tokenizer(examples["source"], max_length=63, truncation=True)
        enc["labels"] = tokenizer(text_target=examples["target"], max_length=63, truncation=True)["input_ids"]
        return enc

    data = raw.map(preprocess, batched=True, remove_columns=["source", "target"])
    collator = DataCollatorForSeq2Seq(tokenizer, model=model)
    train = DataLoader(data["train"], batch_size=8, shuffle=True, collate_fn=collator)
    valid = DataLoader(data["validation"], batch_size=16, collate_fn=collator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    model, optimizer, train, valid = accelerator.prepare(model, optimizer, train, valid)
    scheduler = get_constant_schedule_with_warmup(optimizer, num_warmup_steps=5)
    model.train()
    it = cycle(train)
    for step in range(1, MAX_STEPS + 1):
        for _ in range(ACCUM):
            batch = next(it)
            loss = model(**batch).loss
            accelerator.backward(loss / ACCUM)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step % EVAL_EVERY == 0:
            accelerator.print(step, loss.item(), evaluate(accelerator, model, valid, tokenizer))
    accelerator.unwrap_model(model).save_pretrained("out", save_function=accelerator.save)


main()
