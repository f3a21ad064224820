"""Faults of training loops: gradients, clipping, schedules, modes and metrics."""

from tests.zoo.fault import Fault

COURSE = "https://huggingface.co/learn/llm-course/chapter7"
FAULTS = (
    Fault(
        id="mlm-loop-without-zero-grad",
        script="mlm_plain",
        says="Gradients are never zeroed, so that each step adds to all steps before.",
        edits=(("            optimizer.zero_grad()\n", ""),),
        probes=("gradients-zeroed",),
        cause="zero_grad",
        seen="https://stackoverflow.com/questions/48001598",
    ),
    Fault(
        id="mlm-loop-zero-grad-before-step",
        script="mlm_plain",
        says="zero_grad stands between backward and step, so that nothing is learned.",
        edits=(
            ("            optimizer.zero_grad()\n", ""),
            ("            loss.backward()\n", "            loss.backward()\n            optimizer.zero_grad()\n"),
        ),
        probes=("gradients-kept",),
        cause="no gradient reaches the step",
    ),
    Fault(
        id="nanogpt-zero-grad-in-every-micro-step",
        script="clm_plain",
        says="Gradients are zeroed in every micro-step, so that only the last one counts.",
        edits=(
            (
                '        X, Y = get_batch("train")\n        loss.backward()\n',
                '        X, Y = get_batch("train")\n        optimizer.zero_grad(set_to_none=True)\n'
                "        loss.backward()\n",
            ),
            ("    optimizer.zero_grad(set_to_none=True)\n    iter_num", "    iter_num"),
        ),
        probes=("gradients-kept",),
        cause="only 1 of 2",
    ),
    Fault(
        id="mlm-loop-clips-after-step",
        script="mlm_plain",
        says="Gradients are clipped after the optimizer step.",
        edits=(
            ("            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)\n", ""),
            (
                "            optimizer.step()\n",
                "            optimizer.step()\n"
                "            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)\n",
            ),
        ),
        probes=("clipping-after-accumulation",),
        cause="after the optimizer step",
    ),
    Fault(
        id="clm-accelerate-clips-in-every-micro-step",
        script="clm_accelerate",
        says="Gradients are clipped in every micro-step, not only before the optimizer step.",
        edits=(
            (
                "            if accelerator.sync_gradients:\n                accelerator.clip_grad_norm_",
                "            if True:\n                accelerator.clip_grad_norm_",
            ),
        ),
        probes=("clipping-after-accumulation",),
        cause="before they are complete",
        seen="https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation",
    ),
    Fault(
        id="mlm-loop-optimizer-of-another-model",
        script="mlm_plain",
        says="The model is copied after the optimizer was made of its parameters.",
        edits=(
            ("import argparse\n", "import argparse\nimport copy\n"),
            ("    model.train()\n    for epoch", "    model = copy.deepcopy(model)\n    model.train()\n    for epoch"),
        ),
        probes=("optimizer-holds-the-model",),
        cause="none of the parameters",
        seen="https://github.com/huggingface/accelerate/issues/2665",
    ),
    Fault(
        id="clm-accelerate-schedule-planned-for-batches",
        script="clm_accelerate",
        says="The schedule is planned for all batches, but stepped once per group of four.",
        edits=(
            (
                "num_update_steps_per_epoch = -(-len(train_dataloader) // gradient_accumulation_steps)\n",
                "num_update_steps_per_epoch = len(train_dataloader)\n",
            ),
        ),
        probes=("schedule-fits-the-run",),
        cause="planned for 258 steps but takes 6[46]",
        seen=f"{COURSE}/6",
    ),
    Fault(
        id="ner-accelerate-schedule-never-stepped",
        script="ner_accelerate",
        says="The schedule is made and never stepped.",
        edits=(("        lr_scheduler.step()\n", ""),),
        probes=("schedule-fits-the-run",),
        cause="never stepped",
    ),
    Fault(
        id="qa-accelerate-schedule-stepped-once-per-epoch",
        script="qa_accelerate",
        says="A schedule that is planned in steps is stepped once per epoch.",
        edits=(
            ("        lr_scheduler.step()\n", ""),
            ("    # Evaluation\n", "    lr_scheduler.step()\n\n    # Evaluation\n"),
        ),
        probes=("schedule-fits-the-run",),
        cause="once per epoch",
    ),
    Fault(
        id="nanogpt-evaluates-in-train-mode",
        script="clm_plain",
        says="estimate_loss runs with dropout.",
        edits=(("    model.eval()\n", ""),),
        probes=("dropout-off-in-evaluation",),
        cause="model.eval",
    ),
    Fault(
        id="translation-accelerate-generates-in-train-mode",
        script="translation_accelerate",
        says="Translations are generated with dropout.",
        edits=(("    model.eval()\n", ""),),
        probes=("dropout-off-in-evaluation",),
        cause="generates in training mode",
    ),
    Fault(
        id="translation-accelerate-metric-arguments-exchanged",
        script="translation_accelerate",
        says="BLEU is given the references as hypotheses.",
        edits=(
            (
                "sacrebleu.corpus_bleu(all_predictions, [all_references])",
                "sacrebleu.corpus_bleu(all_references, [all_predictions])",
            ),
        ),
        probes=("metric-arguments-in-order",),
        cause="exchanged",
    ),
    Fault(
        id="nanogpt-accumulation-not-divided",
        script="clm_plain",
        says="The loss is not divided by the number of micro-steps.",
        edits=(("            loss = loss / gradient_accumulation_steps\n", ""),),
        probes=("accumulation-divided",),
        cause="accumulation .2. is not divided",
        seen="https://huggingface.co/blog/gradient_accumulation",
    ),
    Fault(
        id="nanogpt-targets-not-shifted",
        script="clm_plain",
        says="get_batch returns the inputs as targets, so that the model copies what it reads.",
        edits=(("data[i + 1 : i + 1 + block_size]", "data[i : i + block_size]"),),
        probes=("labels-shifted-once",),
        cause="learns to copy",
    ),
    Fault(
        id="clm-accelerate-accumulation-divided-twice",
        script="clm_accelerate",
        says="The loss is divided by the accumulation, which accelerator.backward does too.",
        edits=(
            (
                'loss = keytoken_weighted_loss(batch["input_ids"], logits, keytoken_ids)',
                'loss = model(batch["input_ids"], labels=batch["input_ids"]).loss / gradient_accumulation_steps',
            ),
            ('            logits = model(batch["input_ids"]).logits\n            loss =', "            loss ="),
        ),
        probes=("accumulation-divided",),
        cause="divided twice",
        seen="https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation",
    ),
    Fault(
        id="ner-plain-loss-counts-padding",
        script="ner_plain",
        says="The loss of the script counts positions labelled -100 as O.",
        edits=(("labels.view(-1)) / count", "labels.view(-1).clamp(min=0)) / count"),),
        probes=("special-tokens-unlabelled", "padding-unlabelled"),
        cause="-100",
    ),
    Fault(
        id="mlm-loop-seeds-every-epoch",
        script="mlm_plain",
        says="The seed is set in every epoch, so that each has the same order.",
        edits=(("        running = 0.0\n", "        running = 0.0\n        torch.manual_seed(0)\n"),),
        probes=("epochs-differ",),
        cause="seed is made anew",
    ),
    Fault(
        id="ner-plain-loss-shifts-labels",
        script="ner_plain",
        says="The loss shifts the labels as for a language model, so that each word gets the tag of the next.",
        edits=(
            (
                "loss_fn(logits.view(-1, len(names)), labels.view(-1)) / count",
                "loss_fn(logits[:, :-1].reshape(-1, len(names)), labels[:, 1:].reshape(-1)) / count",
            ),
        ),
        probes=("loss-is-the-mean-over-labels",),
        cause="do not shift",
    ),
    Fault(
        id="ner-accelerate-train-mode-in-first-epoch-only",
        script="ner_accelerate",
        says="model.train() stands before the loop, so that dropout is off from the second epoch on.",
        edits=(
            (
                "for epoch in range(num_train_epochs):\n    # Training\n    model.train()\n",
                "model.train()\nfor epoch in range(num_train_epochs):\n    # Training\n",
            ),
            (
                "    # Save\n    accelerator.wait_for_everyone()\n"
                "    unwrapped_model = accelerator.unwrap_model(model)\n"
                '    unwrapped_model.save_pretrained("bert-finetuned-ner", save_function=accelerator.save)\n',
                "",
            ),
            ('    if accelerator.is_main_process:\n        tokenizer.save_pretrained("bert-finetuned-ner")\n', ""),
        ),
        probes=("dropout-on-in-training",),
        cause="model.train",
        seen="https://discuss.pytorch.org/t/model-train-and-model-eval/5744",
    ),
    Fault(
        id="ner-plain-never-in-train-mode",
        script="ner_plain",
        says="model.train() is never called after from_pretrained, so that dropout is off.",
        edits=(("        model.train()\n", ""),),
        probes=("dropout-on-in-training",),
        cause="from_pretrained returns a model in evaluation mode",
    ),
    Fault(
        id="mlm-loop-evaluates-in-train-mode",
        script="mlm_plain",
        says="The evaluation runs with dropout.",
        edits=(("    model.eval()\n", ""),),
        probes=("dropout-off-in-evaluation",),
        cause="model.eval",
    ),
    Fault(
        id="ner-accelerate-metric-arguments-exchanged",
        script="ner_accelerate",
        says="postprocess returns labels first but is unpacked predictions first: precision and recall change places.",
        edits=(
            (
                "true_labels, true_predictions = postprocess(predictions_gathered",
                "true_predictions, true_labels = postprocess(predictions_gathered",
            ),
        ),
        probes=("metric-arguments-in-order",),
        cause="exchanged",
        seen="https://github.com/huggingface/course/issues/641",
    ),
)
