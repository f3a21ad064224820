"""Faults of the loss, the optimizer step, the optimizer and the schedule."""

from importlib.metadata import version

from tests.zoo.fault import Fault

MEAN = """            loss = cross_entropy(logits, labels.view(-1), reduction="sum") / num_items_in_batch"""
MLM_LOSS = f"""        if num_items_in_batch is None:
            loss = cross_entropy(logits, labels.view(-1))
        else:
{MEAN}
"""
OPTIMIZER = """        {
            "params": [p for n, p in model.named_parameters() if not any(part in n for part in no_decay)],
            "weight_decay": 0.01,
        },
        {
            "params": [p for n, p in model.named_parameters() if any(part in n for part in no_decay)],
            "weight_decay": 0.0,
        },
"""
STEPS = """steps = epochs * -(-len(data["train"]) // (batch_size * accumulation))
"""
GA_FIX = "https://huggingface.co/blog/gradient_accumulation"

FAULTS = (
    Fault(
        id="accumulation-not-divided-by-own-loss",
        script="mlm_accumulation_trainer",
        says="compute_loss takes the mean of each micro-batch and ignores num_items_in_batch, and nobody divides by 8.",
        edits=((MLM_LOSS, "        loss = cross_entropy(logits, labels.view(-1))\n"),),
        probes=("accumulation-divided",),
        cause=r"8\.0 times .*compute_loss\(\) at .*:\d+ ignores num_items_in_batch",
        seen=GA_FIX,
    ),
    Fault(
        id="accumulation-not-divided-by-the-library",
        script="ner_trainer",
        says="A stock BERT head under accumulation: neither the head nor the Trainer divides.",
        edits=(("per_device_train_batch_size=8,", "per_device_train_batch_size=2, gradient_accumulation_steps=4,"),),
        probes=("accumulation-divided",),
        cause=r"4\.0 times .*transformers#47688",
        seen="https://github.com/huggingface/transformers/issues/47688",
    ),
    Fault(
        id="accumulation-divided-twice",
        script="mlm_accumulation_trainer",
        says="The loss is divided by the labels of the whole step and by the accumulation as well.",
        edits=(
            (MEAN, f"{MEAN} / self.args.gradient_accumulation_steps"),
            # Every step whole, so that only the second division is wrong.
            ('train_dataset=data["train"],', 'train_dataset=data["train"].select(range(192)),'),
        ),
        probes=("accumulation-divided",),
        cause=r"divided twice, .* 8\.0 times too small",
        seen="https://github.com/unslothai/unsloth-zoo/pull/1023",
    ),
    Fault(
        id="last-partial-step-divided-by-the-accumulation",
        script="mlm_accumulation_trainer",
        says="compute_loss divides by gradient_accumulation_steps, also in the last step, which has fewer batches.",
        edits=(
            (
                MLM_LOSS,
                "        loss = cross_entropy(logits, labels.view(-1)) / self.args.gradient_accumulation_steps\n",
            ),
            ("per_device_train_batch_size=4", "per_device_train_batch_size=16"),
        ),
        probes=("last-partial-step",),
        cause="5 of 8 micro-batches, but is divided by 8",
        seen="https://github.com/modelscope/ms-swift/issues/10084",
    ),
    Fault(
        id="loss-summed",
        script="mlm_accumulation_trainer",
        says="The loss is the sum over the labels of the step.",
        edits=(
            (" / num_items_in_batch\n", "\n"),
            ("cross_entropy(logits, labels.view(-1))\n", "cross_entropy(logits, labels.view(-1), reduction='sum')\n"),
        ),
        probes=("loss-is-the-mean-over-labels", "evaluation-loss-by-token"),
        cause="sum over (labels, not their mean: gradients are .* times|its tokens, not their mean)",
        seen="https://discuss.pytorch.org/t/loss-reduction-sum-vs-mean-when-to-use-each/115641",
    ),
    Fault(
        id="loss-averaged-over-padding",
        script="mlm_accumulation_trainer",
        says="The losses of single tokens are averaged over all positions, those without a label included.",
        edits=(
            (MLM_LOSS, "        loss = cross_entropy(logits, labels.view(-1), reduction='none').mean()\n"),
            ("gradient_accumulation_steps=8", "gradient_accumulation_steps=1"),
        ),
        probes=("loss-is-the-mean-over-labels",),
        cause="divided by all positions",
    ),
    Fault(
        id="loss-learns-ignored-positions",
        script="clm_own_loss_trainer",
        says="A loss of one's own turns -100 into id 0, because cross_entropy was thought to refuse it.",
        edits=(
            (
                '    grouped["labels"] = [list(ids) for ids in grouped["input_ids"]]\n',
                '    grouped["labels"] = [[-100] * 8 + list(ids[8:]) for ids in grouped["input_ids"]]\n',
            ),
            ("labels[..., 1:].contiguous()", "labels[..., 1:].clamp(min=0).contiguous()"),
        ),
        probes=("loss-is-the-mean-over-labels",),
        cause=r"label is -100 are learned as label 0 \(<\|endoftext\|>\)",
    ),
    Fault(
        id="own-loss-shifts-twice",
        script="clm_own_loss_trainer",
        says="Labels are rolled to the next token and then shifted once more.",
        edits=(('labels = inputs.pop("labels")', 'labels = inputs.pop("labels").roll(-1, dims=1)'),),
        probes=("labels-shifted-once",),
        cause="2 places later",
        seen="https://github.com/huggingface/transformers/pull/47395",
    ),
    Fault(
        id="own-loss-does-not-shift",
        script="clm_own_loss_trainer",
        says="A loss of one's own compares each logit with the token that it was computed from.",
        edits=(
            ("outputs.logits[..., :-1, :].contiguous()", "outputs.logits"),
            ("labels[..., 1:].contiguous()", "labels"),
        ),
        probes=("labels-shifted-once",),
        cause="learns to copy",
    ),
    Fault(
        id="own-loss-shifts-aligned-labels",
        script="translation_smoothing_trainer",
        says="The loss shifts the labels of a translation as those of a causal model.",
        edits=(
            ("logp = log_softmax(outputs.logits, dim=-1)", "logp = log_softmax(outputs.logits[:, :-1], dim=-1)"),
            ("        ignored = labels.eq(-100)", "        labels = labels[:, 1:]\n        ignored = labels.eq(-100)"),
        ),
        probes=("loss-is-the-mean-over-labels",),
        cause="learns the next label instead of the label at its own place",
        seen="https://github.com/huggingface/transformers/pull/46784",
    ),
    Fault(
        id="smoothing-reaches-padding",
        script="translation_smoothing_trainer",
        says="The smoothing term is not masked: the more padding, the stronger the pull to the uniform distribution.",
        edits=(("        smooth = smooth.masked_fill(ignored, 0.0)\n", ""),),
        probes=("label-smoothing-as-set",),
        cause="label smoothing reaches positions without a label",
        seen="https://github.com/k-tahiro/bert-summarizer/pull/41",
    ),
    Fault(
        id="smoothing-set-but-not-applied",
        script="translation_smoothing_trainer",
        says="label_smoothing_factor is set, but the loss of the subclass has no smoothing.",
        edits=(("epsilon = self.args.label_smoothing_factor", "epsilon = 0.0"),),
        probes=("label-smoothing-as-set",),
        cause="label_smoothing_factor is 0.1, but the loss has none",
    ),
    Fault(
        id="optimizer-of-another-model",
        script="ner_own_model_trainer",
        says="The optimizer holds the parameters of a model that is made anew afterwards.",
        edits=(("\ntrainer = Trainer(", '\nmodel = Tagger("tiny-bert", len(names))\ntrainer = Trainer('),),
        probes=("optimizer-holds-the-model",),
        cause="not the model's.*built for a model that was then copied, replaced or resized",
        seen="https://github.com/huggingface/accelerate/issues/2665",
    ),
    Fault(
        id="optimizer-without-the-head",
        script="ner_own_model_trainer",
        says="The optimizer gets the encoder's parameters only: the head stays as it was initialised.",
        edits=((OPTIMIZER, '        {"params": list(model.encoder.parameters()), "weight_decay": 0.01},\n'),),
        probes=("optimizer-holds-the-model",),
        cause=r"\d+ of \d+ trainable parameters are not in the optimizer",
        seen="https://discuss.pytorch.org/t/does-the-optimizer-update-parameters-not-passed-to-it/20413",
    ),
    Fault(
        id="parameters-in-the-optimizer-twice",
        script="ner_own_model_trainer",
        says="The head's parameters are in a group of all parameters once more.",
        edits=(
            (
                OPTIMIZER,
                '        {"params": [*model.parameters(), *model.classifier.parameters()], "weight_decay": 0.0},\n',
            ),
        ),
        probes=("optimizer-holds-the-model",),
        cause="in the optimizer twice",
        seen="https://github.com/pytorch/pytorch/issues/40967",
    ),
    Fault(
        id="decay-groups-exchanged",
        script="ner_own_model_trainer",
        says="Weight decay acts on biases and norms, and not on matrices.",
        edits=((OPTIMIZER, OPTIMIZER.replace("0.01", "nothing").replace("0.0,", "0.01,").replace("nothing", "0.0")),),
        probes=("decay-groups",),
        cause="biases and norms only",
    ),
    Fault(
        id="encoder-without-gradients",
        script="ner_own_model_trainer",
        says="The encoder runs under no_grad, though it is trainable and in the optimizer.",
        edits=(
            (
                "        hidden = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state\n",
                "        with torch.no_grad():\n"
                "            hidden = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state\n",
            ),
        ),
        probes=("every-parameter-learns",),
        cause="cut off from them: .*no_grad",
    ),
    Fault(
        id="encoder-detached",
        script="ner_own_model_trainer",
        says="The encoder's output is detached before the head.",
        edits=(("self.classifier(self.dropout(hidden))", "self.classifier(self.dropout(hidden.detach()))"),),
        probes=("every-parameter-learns",),
        cause="cut off from them: .*detach",
    ),
    Fault(
        id="loop-encoder-without-gradients",
        script="ner_own_head",
        says="In a plain loop, the encoder runs under no_grad, though the optimizer has a learning rate for it.",
        edits=(
            (
                "        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state\n",
                "        with torch.no_grad():\n"
                "            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]\n",
            ),
        ),
        probes=("every-parameter-learns",),
        cause="cut off from them: .*no_grad",
    ),
    Fault(
        id="schedule-planned-for-batches",
        script="ner_own_model_trainer",
        says="The schedule is planned for the batches of the run, but it is stepped once in four batches.",
        edits=((STEPS, 'steps = epochs * -(-len(data["train"]) // batch_size)\n'),),
        probes=("schedule-fits-the-run",),
        cause=r"planned for 200 steps, but the run takes 52 .*batches instead of steps \(accumulation is 4\)",
        seen="https://huggingface.co/learn/llm-course/chapter7/6",
    ),
    Fault(
        id="schedule-planned-for-one-epoch",
        script="ner_own_model_trainer",
        says="The schedule is planned for one of four epochs.",
        edits=(("steps = epochs * -(-len", "steps = -(-len"),),
        probes=("schedule-fits-the-run",),
        cause="is 0 in the last 75% of the run .*planned for 13 steps",
    ),
    Fault(
        id="warm-up-longer-than-the-run",
        script="mlm_accumulation_trainer",
        says="The warm-up of a large run is kept for a small one, so that the learning rate never gets to its value.",
        edits=(("warmup_steps=3", "warmup_steps=500"),),
        probes=("schedule-fits-the-run",),
        cause="warm-up is longer than the run: .*14 steps and warm-up about 500 steps",
    ),
    Fault(
        id="learning-rate-zero",
        script="ner_own_model_trainer",
        says="An integer division makes the schedule 0 at every step.",
        edits=(
            (
                "get_linear_schedule_with_warmup(optimizer, num_warmup_steps=steps // 10, num_training_steps=steps)",
                "torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (steps - step - 1) // steps)",
            ),
        ),
        probes=("schedule-fits-the-run",),
        cause="is 0 at every one of 52 steps",
    ),
    Fault(
        id="everything-frozen",
        script="ner_frozen_weighted",
        says="All parameters are frozen, the head's as well.",
        edits=(("for parameter in model.distilbert.embeddings.parameters():", "for parameter in model.parameters():"),),
        probes=("optimizer-holds-the-model",),
        cause="everything is frozen",
        seen="https://discuss.huggingface.co/t/84911",
    ),
    Fault(
        id="freezing-without-effect",
        script="ner_frozen_weighted",
        says="requires_grad is set on a module, which freezes nothing.",
        edits=(
            (
                "for parameter in model.distilbert.embeddings.parameters():\n    parameter.requires_grad = False\n",
                "model.distilbert.embeddings.requires_grad = False\n",
            ),
        ),
        probes=("frozen-parameters-stay-frozen",),
        cause=r"`distilbert\.embeddings\.requires_grad = False` freezes nothing",
        seen="https://github.com/pytorch/test-infra/tree/main/tools/torchfix",
    ),
    Fault(
        id="tied-head-replaced",
        script="mlm_accumulation_trainer",
        says="A new output layer takes the place of the one that is tied to the input embeddings.",
        edits=(
            (
                "\nclass MaskedTrainer(Trainer):",
                "\nimport torch\n\n"
                "model.cls.predictions.decoder = torch.nn.Linear(model.config.hidden_size, len(tokenizer))\n\n\n"
                "class MaskedTrainer(Trainer):",
            ),
        ),
        probes=("tied-weights-stay-tied",),
        cause="two tensors, though the configuration ties them",
        seen="https://github.com/NVIDIA-NeMo/Automodel/pull/2511",
    ),
)

SINCE_5 = (
    "accumulation-not-divided-by-own-loss",
    "accumulation-not-divided-by-the-library",
    "accumulation-divided-twice",
    "last-partial-step-divided-by-the-accumulation",
)
"""Faults because BERT's heads take **kwargs since transformers 5, so that the Trainer leaves the division to them."""

if int(version("transformers").partition(".")[0]) < 5:
    FAULTS = tuple(fault for fault in FAULTS if fault.id not in SINCE_5)
else:
    FAULTS += (
        Fault(
            id="own-optimizer-never-made",
            script="mlm_accumulation_trainer",
            says="A subclass overrides create_optimizer_and_scheduler, which transformers 5 never calls.",
            edits=(
                (
                    "class MaskedTrainer(Trainer):\n",
                    "class MaskedTrainer(Trainer):\n"
                    "    def create_optimizer_and_scheduler(self, num_training_steps):\n"
                    "        from torch.optim import SGD\n"
                    "        from torch.optim.lr_scheduler import ConstantLR\n\n"
                    "        self.optimizer = SGD(self.model.parameters(), lr=0.1, momentum=0.9)\n"
                    "        self.lr_scheduler = ConstantLR(self.optimizer, factor=1.0)\n\n",
                ),
            ),
            probes=("optimizer-as-set",),
            cause=r"create_optimizer_and_scheduler\(\) at .*:\d+ is never called",
        ),
    )
