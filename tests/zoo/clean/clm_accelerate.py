"""A causal language model with Accelerate, as in the course: key tokens weigh more, accumulation, decay groups.

The schedule is planned for the optimizer steps, the last group of an epoch is not lost, and the evaluation loss is one
mean over all tokens.
"""

import torch
from accelerate import Accelerator
from datasets import load_dataset
from torch.nn import CrossEntropyLoss
from torch.optim import AdamW
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoTokenizer, GPT2LMHeadModel, default_data_collator, get_scheduler

torch.manual_seed(0)
context_length = 64
tokenizer = AutoTokenizer.from_pretrained("tiny-gpt2")
raw_datasets = load_dataset("json", data_files={"train": "programs.train.jsonl", "valid": "programs.validation.jsonl"})


def tokenize(element):
    """Join all programs, each with its end of text, and cut them into pieces of context_length tokens."""
    joined = []
    for code in element["code"]:
        joined += tokenizer(code)["input_ids"] + [tokenizer.eos_token_id]
    pieces = [joined[i : i + context_length] for i in range(0, len(joined), context_length)]
    return {"input_ids": [piece for piece in pieces if len(piece) == context_length]}


tokenized_datasets = raw_datasets.map(tokenize, batched=True, remove_columns=raw_datasets["train"].column_names)
tokenized_datasets.set_format("torch")
train_dataloader = DataLoader(tokenized_datasets["train"], batch_size=8, shuffle=True, collate_fn=default_data_collator)
eval_dataloader = DataLoader(tokenized_datasets["valid"], batch_size=8, collate_fn=default_data_collator)

keytoken_ids = []
for keyword in ["plt", "pd", "sk", "fit", "predict", " plt", " pd", " sk", " fit", " predict", "import"]:
    ids = tokenizer(keyword).input_ids
    if len(ids) == 1:
        keytoken_ids.append(ids[0])


def keytoken_weighted_loss(inputs, logits, keytoken_ids, alpha=1.0):
    # Shift so that tokens < n predict n
    shift_labels = inputs[..., 1:].contiguous()
    shift_logits = logits[..., :-1, :].contiguous()
    loss_fct = CrossEntropyLoss(reduction="none")
    loss = loss_fct(shift_logits.view(-1, shift_logits.size(-1)), shift_labels.view(-1))
    # Average of each sample's loss
    loss_per_sample = loss.view(shift_logits.size(0), shift_logits.size(1)).mean(axis=1)
    weights = torch.zeros(inputs.size(0), device=inputs.device)
    for key in keytoken_ids:
        weights += (inputs == key).float().sum(axis=1)
    return (loss_per_sample * alpha * (1.0 + weights)).mean()


weight_decay = 0.1


def get_grouped_params(model, no_decay=["bias", "ln_1.weight", "ln_2.weight", "ln_f.weight"]):
    params_with_wd, params_without_wd = [], []
    for n, p in model.named_parameters():
        if any(nd in n for nd in no_decay):
            params_without_wd.append(p)
        else:
            params_with_wd.append(p)
    return [
        {"params": params_with_wd, "weight_decay": weight_decay},
        {"params": params_without_wd, "weight_decay": 0.0},
    ]


def evaluate():
    model.eval()
    total, count = torch.tensor(0.0), torch.tensor(0)
    for batch in eval_dataloader:
        with torch.no_grad():
            logits = model(batch["input_ids"]).logits
        labels = batch["input_ids"][:, 1:]
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].reshape(-1, logits.size(-1)), labels.reshape(-1), reduction="none"
        )
        losses = accelerator.gather_for_metrics(losses.view(labels.shape))
        total += losses.sum()
        count += losses.numel()
    loss = total / count
    return loss.item(), torch.exp(loss).item()


config = AutoConfig.from_pretrained(
    "tiny-gpt2",
    vocab_size=len(tokenizer),
    n_ctx=context_length,
    bos_token_id=tokenizer.bos_token_id,
    eos_token_id=tokenizer.eos_token_id,
)
model = GPT2LMHeadModel(config)
optimizer = AdamW(get_grouped_params(model), lr=5e-4)
gradient_accumulation_steps = 4
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=gradient_accumulation_steps)
model, optimizer, train_dataloader, eval_dataloader = accelerator.prepare(
    model, optimizer, train_dataloader, eval_dataloader
)

num_train_epochs = 2
num_update_steps_per_epoch = -(-len(train_dataloader) // gradient_accumulation_steps)
num_training_steps = num_train_epochs * num_update_steps_per_epoch
lr_scheduler = get_scheduler(
    name="linear",
    optimizer=optimizer,
    num_warmup_steps=2,
    num_training_steps=num_training_steps,
)
eval_steps = 4
completed_steps = 0
for epoch in range(num_train_epochs):
    model.train()
    for step, batch in tqdm(enumerate(train_dataloader, start=1), total=len(train_dataloader)):
        with accelerator.accumulate(model):
            logits = model(batch["input_ids"]).logits
            loss = keytoken_weighted_loss(batch["input_ids"], logits, keytoken_ids)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if accelerator.sync_gradients:
                lr_scheduler.step()
                completed_steps += 1
            optimizer.zero_grad()
        if accelerator.sync_gradients and completed_steps % eval_steps == 0:
            eval_loss, perplexity = evaluate()
            accelerator.print({"loss/eval": eval_loss, "perplexity": perplexity})
            model.train()
accelerator.wait_for_everyone()
accelerator.unwrap_model(model).save_pretrained("codeparrot-ds-accelerate", save_function=accelerator.save)
