"""transformers.Trainer, as the course uses it, with the current API.

Trainer's loop, optimizer, schedule and checkpoints are used. Its documented hooks correct one error: under gradient
accumulation, Trainer sums the means of the micro-batches instead of taking the mean over the step's tokens, for every
head that takes keyword arguments and ignores `num_items_in_batch`. This affects BERT and DistilBERT: their gradients
are 8 times too large at 8 accumulation steps (https://github.com/huggingface/transformers/issues/47688).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from touchstone.engines.checkpoint import load_state
from touchstone.engines.evaluation import to_device
from touchstone.engines.order import EpochLoader
from touchstone.engines.session import Session, divisor
from touchstone.engines.training import Execution, Recipe, Report, TrainingRun
from touchstone.pipelines.pipeline import Batch, BatchSize, Pipeline

TRAINING_ARGUMENTS = "training_args.bin"


def train(pipeline: Pipeline, *, recipe: Recipe, execution: Execution, report: Report | None = None) -> TrainingRun:
    """Train a pipeline with the recipe; see `touchstone.engines.engine.Train`.

    Raises:
        EngineError: the device, precision or checkpoint cannot be used, or a loss is not finite.
    """
    session = Session(pipeline, engine="trainer", recipe=recipe, execution=execution, report=report)
    with prepared(session) as trainer:
        if session.start is None:
            trainer.train()
        elif session.done < session.steps:
            for name in ("optimizer.pt", "scheduler.pt"):
                load_state(session.start[0], name)  # Trainer loads them, but does not report which file is broken
            trainer.train(resume_from_checkpoint=str(session.start[0]))
        trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return session.run


@contextmanager
def prepared(session: Session) -> Iterator[PipelineTrainer]:
    """Open a session and give its trainer, which has not begun to train."""
    with session.open() as model, tempfile.TemporaryDirectory() as nowhere:
        arguments = _arguments(session, output=session.execution.save_dir or Path(nowhere))
        yield PipelineTrainer(session, model, arguments)


class OneDevice(TrainingArguments):
    """Arguments for exactly one device. Trainer would otherwise use all visible GPUs, starting with the first."""

    one: torch.device

    @property
    def device(self) -> torch.device:
        super().device  # noqa: B018 - sets up the distributed state and selects cuda:0
        if self.one.type == "cuda":
            torch.cuda.set_device(self.one)
        return self.one

    @property
    def n_gpu(self) -> int:
        return int(self.one.type == "cuda")


def _arguments(session: Session, *, output: Path) -> TrainingArguments:
    recipe, execution = session.recipe, session.execution
    OneDevice.one = session.device
    return OneDevice(
        output_dir=str(output),
        seed=session.ranks.seed(execution.seed),  # for dropout
        use_cpu=session.device.type == "cpu",
        bf16=execution.precision == "bf16",
        fp16=execution.precision == "fp16",
        num_train_epochs=recipe.epochs,
        max_steps=-1 if recipe.stop_after is None else session.steps,
        per_device_train_batch_size=recipe.batch_size,  # only for logs: the loader makes the batches
        gradient_accumulation_steps=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.scheduler_type,
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        adam_beta1=recipe.betas[0],
        adam_beta2=recipe.betas[1],
        adam_epsilon=recipe.epsilon,
        max_grad_norm=recipe.max_grad_norm,
        eval_on_start=session.start is None,
        eval_strategy="epoch",
        save_strategy="no" if execution.save_dir is None else "epoch",
        logging_strategy="no",
        logging_nan_inf_filter=False,  # would synchronize after every micro-batch; the session checks the losses
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )


class PipelineTrainer(Trainer):
    """A Trainer that trains a pipeline and reports to a session."""

    loss_is_scaled_for_ga = True  # compute_loss divides by the items of the whole optimizer step

    def __init__(self, session: Session, model: PreTrainedModel, arguments: TrainingArguments) -> None:
        self.session = session
        self.sizes: list[BatchSize] = []
        self.step_loss: torch.Tensor | None = None
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=session.loader.dataset,
            eval_dataset=session.loader.dataset,  # required, but `evaluate` uses the pipeline's
            callbacks=[Bookkeeper(session, self)],
        )
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> EpochLoader:
        return self.session.loader

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        return super().create_scheduler(self.session.scheduled_steps, optimizer)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], int]:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.sizes = [batch["size"] for batch in batches]
        self.step_loss = None
        return batches, self.session.items(self.sizes)

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> None:
        """Return nothing: `get_batch_samples` counts the items on the host, without a pass over the labels."""

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        return to_device(inputs, self.session.device)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        assert isinstance(num_items_in_batch, int)  # from `get_batch_samples`
        loss = self.session.pipeline.loss(model, inputs) / divisor(inputs, num_items_in_batch)
        self.step_loss = loss.detach() if self.step_loss is None else self.step_loss + loss.detach()
        return loss * self.session.ranks.world  # ranks average gradients, but the step needs the sum

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        assert isinstance(self.model, PreTrainedModel)
        evaluation = self.session.evaluate(self.model)
        metrics = {f"eval_{score.name}": score.value for score in evaluation.scores}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: Batch) -> int:
        """Return 0: Trainer's estimate would visit all parameters in every micro-batch."""
        return 0


class Bookkeeper(TrainerCallback):
    """Reports the events of Trainer's loop to the session."""

    def __init__(self, session: Session, trainer: PipelineTrainer) -> None:
        self.session = session
        self.trainer = trainer
        self.training: ExitStack | None = None
        self.pause = ExitStack()
        self.learning_rate = 0.0

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.training is None:  # the evaluation before training has ended
            self.training = ExitStack()
            self.training.enter_context(self.session.training())
        self.pause.close()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.learning_rate = kwargs["lr_scheduler"].get_last_lr()[0]  # before the schedule steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.trainer.step_loss is not None
        self.session.step_done(self.trainer.step_loss, sizes=self.trainer.sizes, learning_rate=self.learning_rate)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.pause.enter_context(self.session.between_epochs())

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if control.should_save:
            self.session.saving()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.session.ranks.wait()  # until each has saved the state of its generators
        if not self.session.ranks.first:
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (checkpoint / TRAINING_ARGUMENTS).unlink(missing_ok=True)  # a pickle that needs unsafe loading
        self.session.pipeline.tokenizer.save_pretrained(checkpoint)
        self.session.complete(checkpoint)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.pause.close()
        assert self.training is not None
        self.training.close()
