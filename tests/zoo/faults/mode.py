"""Faults of training and evaluation mode."""

from tests.zoo.fault import Fault

FAULTS = (
    Fault(
        id="no-training-mode-after-evaluation",
        script="ner_own_sampler",
        says="An overridden training step does not call model.train(): dropout is off after the first evaluation.",
        edits=(("        model.train()\n", ""),),
        probes=("dropout-on-in-training",),
        cause="does not call model.train",
        seen="https://github.com/shubhamagarwal92/mmd/issues/14",
    ),
    Fault(
        id="dropout-on-in-prediction",
        script="ner_own_sampler",
        says="The overridden prediction step puts the model into training mode.",
        edits=(("        model.eval()\n", "        model.train()\n"),),
        probes=("dropout-off-in-evaluation",),
        cause="calls model.train",
        seen="https://github.com/IBM/pytorch-seq2seq/issues/33",
    ),
    Fault(
        id="dropout-always-on",
        script="ner_own_sampler",
        says="The forward of a subclass drops logits whether or not the model is in training mode.",
        edits=(
            (
                "def compute_metrics(p):\n",
                "class Noisy(BertForTokenClassification):\n"
                "    def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, labels=None):\n"
                "        hidden = self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state\n"
                "        logits = self.classifier(torch.nn.functional.dropout(hidden, 0.1))\n"
                "        loss = None\n"
                "        if labels is not None:\n"
                "            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())\n"
                "        return TokenClassifierOutput(loss=loss, logits=logits)\n\n\n"
                "def compute_metrics(p):\n",
            ),
            ("    AutoModelForTokenClassification,\n", "    BertForTokenClassification,\n"),
            (
                "    TrainingArguments,\n)\n\nraw",
                "    TrainingArguments,\n)\nfrom transformers.modeling_outputs import TokenClassifierOutput\n\nraw",
            ),
            ("AutoModelForTokenClassification.from_pretrained(", "Noisy.from_pretrained("),
        ),
        probes=("dropout-off-in-evaluation",),
        cause="training=self.training",
        seen="https://github.com/huggingface/transformers/issues/33844",
    ),
    Fault(
        id="evaluation-leaves-gradients",
        script="ner_own_sampler",
        says="The prediction step calls backward to measure a gradient norm, and leaves the gradients there.",
        edits=(
            (
                "        with torch.no_grad():\n            outputs = model(**inputs)\n"
                "        return outputs.loss, outputs.logits, inputs",
                "        with torch.enable_grad():\n            outputs = model(**inputs)\n"
                "            outputs.loss.backward()\n"
                "        return outputs.loss.detach(), outputs.logits.detach(), inputs",
            ),
        ),
        probes=("evaluation-changes-nothing",),
        cause="next training step adds",
    ),
)
