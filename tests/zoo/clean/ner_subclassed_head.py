"""NER with a subclass of BERT's head: a BiLSTM, several samples of dropout, and a loss that counts O half."""

import torch
from datasets import load_dataset
from torch import nn
from transformers import (
    AutoTokenizer,
    BertForTokenClassification,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)
from transformers.modeling_outputs import TokenClassifierOutput

TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC"]


class BertBiLSTM(BertForTokenClassification):
    """BERT, a BiLSTM over its output, multi-sample dropout, and cross-entropy with fewer O"""

    def __init__(self, config):
        super().__init__(config)
        h = config.hidden_size
        self.lstm = nn.LSTM(h, h // 2, batch_first=True, bidirectional=True)
        self.drops = nn.ModuleList([nn.Dropout(p) for p in (0.1, 0.2, 0.3)])
        self.classifier = nn.Linear(h, config.num_labels)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, nn.LSTM):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, labels=None):
        x = self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
        lengths = attention_mask.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        x, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.size(1))
        logits = torch.stack([self.classifier(d(x)) for d in self.drops]).mean(0)
        loss = None
        if labels is not None:
            w = torch.ones(self.config.num_labels, device=logits.device)
            w[0] = 0.5
            loss = nn.CrossEntropyLoss(weight=w)(logits.view(-1, self.config.num_labels), labels.view(-1))
        return TokenClassifierOutput(loss=loss, logits=logits)


tok = AutoTokenizer.from_pretrained("tiny-bert")
raw = load_dataset("json", data_files={"train": "sentences.train.jsonl", "dev": "sentences.validation.jsonl"})


def align(ex):
    out = tok(ex["words"], is_split_into_words=True, truncation=True)
    last, lab = None, []
    for w in out.word_ids():
        lab.append(-100 if w is None or w == last else TAGS.index(ex["tags"][w]))
        last = w
    out["labels"] = lab
    return out


data = raw.map(align, remove_columns=["words", "tags"])
model = BertBiLSTM.from_pretrained(
    "tiny-bert", num_labels=len(TAGS), id2label=dict(enumerate(TAGS)), label2id={t: i for i, t in enumerate(TAGS)}
)
Trainer(
    model,
    TrainingArguments("bilstm", per_device_train_batch_size=8, report_to="none", num_train_epochs=2),
    DataCollatorForTokenClassification(tok),
    data["train"],
    data["dev"],
    tok,
).train()
