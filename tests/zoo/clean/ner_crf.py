"""NER with a CRF on BERT: special tokens have the tag O, as the CRF wants its first position, and padding is masked."""

import json

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoTokenizer, BertForTokenClassification, Trainer, TrainingArguments


class CRF(nn.Module):
    def __init__(self, num_tags):
        super().__init__()
        self.start_transitions = nn.Parameter(torch.empty(num_tags))
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags))
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.uniform_(self.start_transitions, -0.1, 0.1)
        nn.init.uniform_(self.transitions, -0.1, 0.1)

    def forward(self, emissions, tags, mask):
        rows = torch.arange(len(tags))
        score = self.start_transitions[tags[:, 0]] + emissions[rows, 0, tags[:, 0]]
        alpha = self.start_transitions + emissions[:, 0]
        for t in range(1, tags.shape[1]):
            m = mask[:, t].bool()
            score = torch.where(
                m, score + self.transitions[tags[:, t - 1], tags[:, t]] + emissions[rows, t, tags[:, t]], score
            )
            alpha = torch.where(
                m[:, None], torch.logsumexp(alpha[:, :, None] + self.transitions, 1) + emissions[:, t], alpha
            )
        return (score - torch.logsumexp(alpha, 1)).mean()


class BertCRFForTokenClassification(BertForTokenClassification):
    def __init__(self, config):
        super().__init__(config)
        self.crf = CRF(config.num_labels)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, labels=None):
        logits = self.classifier(
            self.dropout(self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0])
        )
        out = (logits,)
        if labels is not None:
            out = (-self.crf(logits, labels, attention_mask),) + out
        return out


tags = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]
tokenizer = AutoTokenizer.from_pretrained("tiny-bert")


class Sents(Dataset):
    def __init__(self, path, max_len=64):
        self.rows, self.max_len = [json.loads(item) for item in open(path)], max_len

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        tokens, labels = ["[CLS]"], ["O"]
        for word, tag in zip(self.rows[i]["words"], self.rows[i]["tags"]):
            pieces = tokenizer.tokenize(word)
            tokens += pieces
            labels += [tag] + ["I-" + tag[2:] if tag != "O" else "O"] * (len(pieces) - 1)
        tokens, labels = tokens[: self.max_len - 1] + ["[SEP]"], labels[: self.max_len - 1] + ["O"]
        n = self.max_len - len(tokens)
        return {
            "input_ids": torch.tensor(tokenizer.convert_tokens_to_ids(tokens) + [0] * n),
            "attention_mask": torch.tensor([1] * len(tokens) + [0] * n),
            "labels": torch.tensor([tags.index(item) for item in labels] + [0] * n),
        }


model = BertCRFForTokenClassification.from_pretrained(
    "tiny-bert", num_labels=len(tags), id2label=dict(enumerate(tags)), label2id={t: i for i, t in enumerate(tags)}
)
model.crf.reset_parameters()  # from_pretrained does not know how
Trainer(
    model,
    TrainingArguments("crf", per_device_train_batch_size=8, report_to="none"),
    train_dataset=Sents("sentences.train.jsonl"),
    eval_dataset=Sents("sentences.validation.jsonl"),
).train()
