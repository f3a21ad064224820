"""Faults of the activation before a loss, and of parameters that cannot leave their first value."""

from tests.zoo.fault import Fault

TRAINER = "    trainer = Trainer(\n        model,\n"
BINARY = """    class MultiLabelTrainer(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = torch.nn.BCEWithLogitsLoss()(torch.sigmoid(outputs.logits), labels)
            return (loss, outputs) if return_outputs else loss

    trainer = MultiLabelTrainer(
        model,
"""

FAULTS = (
    Fault(
        id="nll-loss-of-logits",
        script="clm_own_loss_trainer",
        says="NLLLoss is given logits instead of log-probabilities: the loss falls below zero without end.",
        edits=(
            ("from torch.nn import CrossEntropyLoss", "from torch.nn import NLLLoss"),
            ("loss = CrossEntropyLoss()(", "loss = NLLLoss()("),
        ),
        probes=("loss-is-the-mean-over-labels",),
        cause=r"nll_loss\(logits\).*falls without end",
    ),
    Fault(
        id="sigmoid-twice-in-a-loop",
        script="ner_plain",
        says="A loop puts the logits through a sigmoid before the cross-entropy.",
        edits=(("loss_fn(logits.view(-1, len(names)),", "loss_fn(logits.sigmoid().view(-1, len(names)),"),),
        probes=("loss-is-the-mean-over-labels",),
        cause=r"cross_entropy\(sigmoid\(logits\)\)",
    ),
    Fault(
        id="softmax-twice-of-two-classes",
        script="pairs_tensors",
        says="The loss of two classes is the cross-entropy of their probabilities.",
        edits=(
            (
                "attention_mask=b_input_mask, labels=b_labels)\n",
                "attention_mask=b_input_mask)\n        result.loss = torch.nn.functional.cross_entropy("
                "torch.softmax(result.logits, dim=1), b_labels)\n",
            ),
        ),
        probes=("loss-inputs-fit", "loss-is-the-mean-over-labels"),
        cause=r"the loss cannot fall below log\(1 \+ 1/e\) = 0\.313|a right and sure answer is still 0\.313",
    ),
    Fault(
        id="sigmoid-before-binary-loss",
        script="libraries_multilabel",
        says="BCEWithLogitsLoss is given probabilities.",
        edits=((TRAINER, BINARY),),
        probes=("loss-is-the-mean-over-labels",),
        cause=r"binary_cross_entropy_with_logits\(sigmoid\(logits\)\)",
    ),
)
