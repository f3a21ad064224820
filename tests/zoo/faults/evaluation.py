"""Faults of evaluations: rows, metrics, decoding, leaks, the best checkpoint."""

from tests.zoo.fault import Fault

FAULTS = (
    Fault(
        id="evaluation-drops-last-batch",
        script="ner_trainer",
        says="dataloader_drop_last, set for training, also drops the last evaluation rows.",
        edits=(('        report_to="none",\n', '        report_to="none",\n        dataloader_drop_last=True,\n'),),
        probes=("every-example-evaluated-once",),
        cause="4 of 60 evaluation rows.*dataloader_drop_last",
        seen="https://github.com/thuml/Autoformer/issues/104",
    ),
    Fault(
        id="evaluation-on-training-rows",
        script="ner_trainer",
        says="The training split is passed as eval_dataset.",
        edits=(('eval_dataset=tokenized_datasets["validation"]', 'eval_dataset=tokenized_datasets["train"]'),),
        probes=("no-training-example-in-evaluation",),
        cause="same object|training data",
    ),
    Fault(
        id="validation-rows-in-training",
        script="ner_own_sampler",
        says="The training files include the validation file.",
        edits=(
            (
                '"train": "sentences.train.jsonl", "validation"',
                '"train": ["sentences.train.jsonl", "sentences.validation.jsonl"], "validation"',
            ),
        ),
        probes=("no-training-example-in-evaluation",),
        cause="60 of 60 evaluation rows.*splits overlap",
    ),
    Fault(
        id="entity-scores-exchanged",
        script="ner_trainer",
        says="Predictions are passed to seqeval as the true tags: precision and recall are exchanged.",
        edits=(
            ("precision_score(true_labels, true_predictions)", "precision_score(true_predictions, true_labels)"),
            ("recall_score(true_labels, true_predictions)", "recall_score(true_predictions, true_labels)"),
        ),
        probes=("metric-arguments-in-order",),
        cause="exchanged.*course#641",
        seen="https://github.com/huggingface/course/issues/641",
    ),
    Fault(
        id="metric-of-labels-and-labels",
        script="ner_own_sampler",
        says="The list of predicted tags is filled with labels.",
        edits=(
            ("found.append([tags[guess] for guess in row[keep]])", "found.append([tags[i] for i in labels[keep]])"),
        ),
        probes=("gold-scores-best",),
        cause="does not look at the predictions",
    ),
    Fault(
        id="accuracy-over-padding",
        script="clm_token_metrics",
        says="The accuracy also counts positions with the label -100.",
        edits=(("float((preds == labels)[mask].mean())", "float((preds == labels).mean())"),),
        probes=("ignored-positions-not-scored",),
        cause="-100.*are counted",
    ),
    Fault(
        id="token-accuracy-not-shifted",
        script="clm_token_metrics",
        says="Predictions of a causal model are compared with the label at the same position.",
        edits=(("    preds = preds[:, :-1]\n", "    preds = preds[:, 1:]\n"),),
        probes=("gold-scores-best",),
        cause="belongs to label j \\+ 1",
    ),
    Fault(
        id="perplexity-mean-of-exponentials",
        script="clm_token_metrics",
        says="The perplexity is the mean of the perplexities of tokens.",
        edits=(
            ("    mean = float(losses[mask].sum() / mask.sum())\n", "    ppl = float(np.exp(losses[mask]).mean())\n"),
            ('"perplexity": math.exp(mean)', '"perplexity": ppl'),
            ("import math\n", "import numpy as np\n"),
        ),
        probes=("perplexity-of-mean-loss",),
        cause="mean of the exponentials",
    ),
    Fault(
        id="perplexity-greater-is-better",
        script="clm_token_metrics",
        says="metric_for_best_model is the perplexity, and greater_is_better is left at its default.",
        edits=(("        greater_is_better=False,\n", ""),),
        probes=("best-metric-picks-the-best",),
        cause="worst checkpoint.*greater_is_better=False",
    ),
    Fault(
        id="best-metric-not-reported",
        script="ner_own_sampler",
        says="metric_for_best_model is a name that compute_metrics does not return.",
        edits=(
            (
                "        load_best_model_at_end=True,\n",
                '        load_best_model_at_end=True,\n        metric_for_best_model="accuracy",\n',
            ),
        ),
        probes=("best-metric-picks-the-best",),
        cause="KeyError.*reported are",
        seen="https://github.com/huggingface/transformers/pull/31450",
    ),
    Fault(
        id="batch-metric-averaged",
        script="ner_batch_metrics",
        says="The scores of the last batch are reported as those of the evaluation.",
        edits=(
            (
                "    def __call__(self, eval_pred, compute_result=False):\n",
                "    def __call__(self, eval_pred, compute_result=False):\n"
                "        self.true, self.predicted = [], []\n",
            ),
        ),
        probes=("metric-independent-of-batches",),
        cause="only the last batch counts",
    ),
    Fault(
        id="decode-labels-with-minus-100",
        script="translation_generate",
        says="Labels are decoded with their -100.",
        edits=(("    labels = np.where(labels != -100, labels, tokenizer.pad_token_id)\n", ""),),
        probes=("no-negative-id-decoded",),
        cause="OverflowError.*-100",
        seen="https://github.com/huggingface/transformers/pull/10046",
    ),
    Fault(
        id="decode-predictions-with-minus-100",
        script="translation_generate",
        says="Predictions of different lengths are decoded with the -100 that the Trainer pads them with.",
        edits=(("    preds = np.where(preds != -100, preds, tokenizer.pad_token_id)\n", ""),),
        probes=("no-negative-id-decoded",),
        cause="-100.*only padded to 20",
        seen="https://github.com/amazon-science/mm-cot/issues/69",
    ),
    Fault(
        id="special-tokens-in-predictions",
        script="translation_generate",
        says="Predictions are decoded with their special tokens, references without.",
        edits=(("tokenizer.batch_decode(preds, skip_special_tokens=True)", "tokenizer.batch_decode(preds)"),),
        probes=("gold-scores-best",),
        cause="skip_special_tokens",
    ),
    Fault(
        id="generate-continues-the-reference",
        script="translation_generate",
        says="An overridden prediction step passes the collator's decoder inputs to generate.",
        edits=(
            (
                "trainer = Seq2SeqTrainer(\n",
                "class GeneratingTrainer(Seq2SeqTrainer):\n"
                "    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):\n"
                "        inputs = self._prepare_inputs(inputs)\n"
                "        given = {key: value for key, value in inputs.items() if key != 'labels'}\n"
                "        generated = model.generate(**given, max_length=40)\n"
                "        with torch.no_grad():\n"
                "            loss = model(**inputs).loss\n"
                "        return loss, generated, inputs['labels']\n\n\n"
                "trainer = GeneratingTrainer(\n",
            ),
            ("import sacrebleu\n", "import sacrebleu\nimport torch\n"),
        ),
        probes=("generate-sees-no-label",),
        cause="continues the reference",
    ),
    Fault(
        id="loop-evaluation-drops-last-batch",
        script="ner_plain",
        says="The loader of the evaluation drops its last batch.",
        edits=(
            (
                "DataLoader(dev_data, batch_size=16, collate_fn=collate)",
                "DataLoader(dev_data, batch_size=16, drop_last=True, collate_fn=collate)",
            ),
        ),
        probes=("every-example-evaluated-once",),
        cause="12 of 60 evaluation rows.*dropped",
        seen="https://github.com/thuml/Autoformer/issues/104",
    ),
    Fault(
        id="metric-with-another-list-of-names",
        script="ner_trainer",
        says="compute_metrics reads the label ids by a list in another order than the model's.",
        edits=(
            (
                "def compute_metrics(eval_preds):\n",
                'label_names = sorted({tag for tags in raw["train"]["tags"] for tag in tags})\n\n\n'
                "def compute_metrics(eval_preds):\n",
            ),
            (
                "true_labels = [[names[label] for label in row if label != -100] for row in labels]",
                "true_labels = [[label_names[label] for label in row if label != -100] for row in labels]",
            ),
            (
                "        [names[guess] for guess, label in zip(guesses, row) if label != -100]",
                "        [label_names[guess] for guess, label in zip(guesses, row) if label != -100]",
            ),
        ),
        probes=("metric-arguments-in-order",),
        cause="label_names of the metric has .* for label",
    ),
)
