"""Faults of the losses and perplexities that a run reports."""

from tests.zoo.fault import Fault

TRAINER = "class MaskedTrainer(Trainer):\n"
STEP = """class MaskedTrainer(Trainer):
    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        inputs = self._prepare_inputs(inputs)
        loss = self.compute_loss(model, inputs)
        self.accelerator.backward(loss / self.current_gradient_accumulation_steps)
        return loss.detach()

"""

FAULTS = (
    Fault(
        id="training-loss-logged-too-large",
        script="mlm_accumulation_trainer",
        says="A training_step of its own divides the loss for backward, and returns it undivided.",
        edits=((TRAINER, STEP),),
        probes=("training-loss-as-trained",),
        cause=r"logged is 8\.0 times too large.*training_step\(\) at .*:\d+",
    ),
    Fault(
        id="loop-reports-a-divided-loss",
        script="ner_adapters",
        says="The loss is divided by the accumulation before it is added up for the report.",
        edits=(
            ("        (loss / ACCUMULATE).backward()\n", "        loss = loss / ACCUMULATE\n        loss.backward()\n"),
        ),
        probes=(),
        warns=("training-loss-as-trained",),
        cause=r"is 4\.0 times too small",
    ),
    Fault(
        id="loop-reports-a-sum-of-micro-batches",
        script="ner_adapters",
        says="The losses of all micro-batches are added up and divided by the number of optimizer steps.",
        edits=(("bar.set_postfix(loss=running / step)", "bar.set_postfix(loss=running / (step // ACCUMULATE))"),),
        probes=(),
        warns=("training-loss-as-trained",),
        cause=r"is 4\.0 times too large",
    ),
    Fault(
        id="loop-evaluates-the-last-batch",
        script="ner_adapters",
        says="The validation loss is that of the last batch.",
        edits=(
            ("            n = (labels != -100).sum().item()\n            total += loss.item() * n\n", ""),
            ("            count += n\n    return total / count\n", "    return loss.item()\n"),
        ),
        probes=("evaluation-loss-by-token",),
        cause=r"the loss of the last of \d+ batches alone",
    ),
    Fault(
        id="loop-divides-by-the-rows",
        script="ner_adapters",
        says="The validation loss is the sum of the batches' means, divided by the number of rows.",
        edits=(
            ("            n = (labels != -100).sum().item()\n", "            n = len(labels)\n"),
            ("total += loss.item() * n\n", "total += loss.item()\n"),
        ),
        probes=("evaluation-loss-by-token",),
        cause=r"divided by the \d+ rows",
    ),
    Fault(
        id="loop-averages-perplexities",
        script="clm_left_padding",
        says="The perplexity is the mean of the perplexities of batches.",
        edits=(
            (
                'DataLoader(dataset["validation"], batch_size=batch_size',
                'DataLoader(dataset["validation"], batch_size=2',
            ),
            ('reduction="sum")', 'reduction="mean")'),
            ("            total += loss.item()\n", "            total += loss.exp().item()\n"),
            ("            count += int((target != -100).sum())\n", "            count += 1\n"),
            ("torch.tensor(total / count).exp().item()", "total / count"),
        ),
        probes=("perplexity-of-mean-loss",),
        cause=r"the mean of the exponentials of the batches' losses",
    ),
    Fault(
        id="loop-averages-perplexities-of-rows",
        script="mlm_accelerate",
        says="The perplexity is the mean of the exponentials of the repeated losses.",
        edits=(("math.exp(torch.mean(losses))", "torch.mean(torch.exp(losses)).item()"),),
        probes=("perplexity-of-mean-loss",),
        cause=r"the mean of the exponentials of the batches' losses",
    ),
    Fault(
        id="loop-reports-perplexity-of-a-sum",
        script="mlm_accelerate",
        says="The losses are added up and never divided before exp.",
        edits=(
            ("loss.repeat(batch_size)", "loss.reshape(1)"),
            ("math.exp(torch.mean(losses))", "math.exp(torch.sum(losses))"),
        ),
        probes=("perplexity-of-mean-loss",),
        cause=r"exp of the sum of the means of \d+ batches",
    ),
    Fault(
        id="loop-counts-the-last-batch-as-full",
        script="summarization_bf16",
        says="Each mean is multiplied by the batch size, also that of the last batch, which is smaller.",
        edits=(
            ('ds["validation"], batch_size=4', 'ds["validation"], batch_size=8'),
            ('            n = (batch["labels"] != -100).sum().item()\n', "            n = valid_loader.batch_size\n"),
            ("            weight += n\n", '            weight += len(batch["labels"])\n'),
        ),
        probes=("evaluation-loss-by-token",),
        cause=r"also the last one, which has \d+",
    ),
    Fault(
        id="both-gates-at-zero",
        script="ner_adapters",
        says="The gate of each adapter and the projection behind it begin at zero: no adapter ever moves.",
        edits=(("nn.Parameter(torch.ones(1))", "nn.Parameter(torch.zeros(1))"),),
        probes=("every-parameter-learns",),
        cause=r"are all zero, and each holds back the gradient of the others",
    ),
)
