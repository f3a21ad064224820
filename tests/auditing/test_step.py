"""A Trainer's step on chosen batches, the reading of its loss, and the probes of steps, optimizers and schedules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
)

from tests.auditing.fingerprint import fingerprint
from touchstone.auditing.adapters.trainer import subject_of
from touchstone.auditing.finding import Finding, NotChecked
from touchstone.auditing.probe import load_probes, run_probe
from touchstone.auditing.probes.optimizer import is_the_base
from touchstone.auditing.reading.loss import FITS, read_loss
from touchstone.auditing.reading.schedule import follow
from touchstone.auditing.reading.steps import ragged_batch, relation, single_rows
from touchstone.auditing.subject import Subject

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def bert(head: Any = BertForTokenClassification) -> Any:
    torch.manual_seed(1)
    count = 2 if head is BertForQuestionAnswering else 5
    return head(BertConfig(vocab_size=50, num_labels=count, pad_token_id=0, initializer_range=0.3, **SIZES))


def gpt2() -> Any:
    torch.manual_seed(1)
    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=0))


def rows(count: int = 12) -> list[dict[str, list[int]]]:
    """Return rows of different lengths whose first and last token have no label."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for index in range(count):
        size = 6 + index % 5
        ids = torch.randint(1, 50, (size,), generator=generator).tolist()
        tags = torch.randint(0, 5, (size,), generator=generator).tolist()
        made.append({"input_ids": ids, "labels": [-100, *tags[1:-1], -100]})
    return made


def pad(features: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    size = max(len(each["input_ids"]) for each in features)
    padded = {
        name: torch.tensor([each[name] + [filler] * (size - len(each[name])) for each in features])
        for name, filler in (("input_ids", 0), ("labels", -100))
    }
    return {**padded, "attention_mask": (padded["input_ids"] != 0).long()}


def trainer_of(tmp_path: Path, model: Any, kind: type[Trainer] = Trainer, data: Any = None, **options: Any) -> Trainer:
    parts = {name: options.pop(name) for name in ("optimizers", "compute_loss_func") if name in options}
    settings = {"per_device_train_batch_size": 2, "report_to": "none", "use_cpu": True, **options}
    arguments = TrainingArguments(output_dir=str(tmp_path), **settings)
    data = rows() if data is None else data
    return kind(model=model, args=arguments, train_dataset=data, data_collator=parts.pop("collator", pad), **parts)


def look(subject: Subject, probe: str) -> Finding:
    return run_probe(load_probes()[probe], subject)


class TestStepper:
    """The step of a Trainer on chosen batches."""

    @pytest.mark.parametrize("accumulation", [1, 3])
    def test_a_step_leaves_no_trace(self, tmp_path: Path, accumulation: int) -> None:
        trainer = trainer_of(tmp_path, bert(), gradient_accumulation_steps=accumulation)
        subject = subject_of(trainer)
        batches = [subject.train.batch(rows()[start : start + 2]) for start in (0, 2, 4)]
        before = fingerprint(subject, [tmp_path])
        copies = [{name: value.clone() for name, value in batch.items()} for batch in batches]
        assert subject.step is not None
        subject.step(batches)
        assert fingerprint(subject, [tmp_path]) == before
        assert all(
            torch.equal(one[name], other[name]) for one, other in zip(batches, copies, strict=True) for name in one
        )

    def test_probes_leave_no_trace_of_a_passed_optimizer(self, tmp_path: Path) -> None:
        model = bert()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer)
        subject = subject_of(trainer_of(tmp_path, model, optimizers=(optimizer, schedule)))
        before = fingerprint(subject, [tmp_path]), optimizer.state_dict(), schedule.state_dict()
        for name, each in load_probes().items():
            if each.group in ("loss and step", "optimizer and schedule"):
                look(subject, name)
        assert (fingerprint(subject, [tmp_path]), optimizer.state_dict(), schedule.state_dict()) == before

    def test_a_step_gives_the_gradient_of_plain_code(self, tmp_path: Path) -> None:
        subject = subject_of(trainer_of(tmp_path, bert()))
        batch = subject.train.batch(rows()[:3])
        step = subject.step([batch])
        model = subject.quiet_model
        loss = model(**batch).loss
        loss.backward()
        plain = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
        assert relation(step.gradients, plain).is_multiple(1)
        assert step.losses == [pytest.approx(loss.item(), rel=1e-5)]
        assert torch.allclose(step.logits(0), model(**batch).logits, atol=1e-5)

    def test_dropout_is_off_though_the_model_is_in_training_mode(self, tmp_path: Path) -> None:
        modes = []

        class Own(Trainer):
            def compute_loss(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
                modes.append(model.training)
                return super().compute_loss(model, inputs, *rest, **options)

        subject = subject_of(trainer_of(tmp_path, bert(), Own))
        batch = subject.train.batch(rows()[:3])
        first, second = subject.step([batch]), subject.step([batch])
        assert first.losses == second.losses
        assert modes == [True, True]

    def test_code_that_uses_the_trainers_model_gets_the_copy(self, tmp_path: Path) -> None:
        class Own(Trainer):
            def compute_loss(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
                return self.model(**inputs).loss

        trainer = trainer_of(tmp_path, bert(), Own)
        subject = subject_of(trainer)
        assert subject.step([subject.train.batch(rows()[:2])]).gradients
        assert all(each.grad is None for each in trainer.model.parameters())

    def test_a_global_model_cannot_be_audited(self, tmp_path: Path) -> None:
        original = bert()

        class Own(Trainer):
            def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
                loss = original(**inputs).loss
                loss.backward()
                return loss.detach()

        subject = subject_of(trainer_of(tmp_path, original, Own))
        with pytest.raises(NotChecked, match="another model"):
            subject.step([subject.train.batch(rows()[:2])])
        assert all(each.grad is None for each in original.parameters())

    def test_an_error_in_the_users_code_is_no_fault(self, tmp_path: Path) -> None:
        class Own(Trainer):
            def compute_loss(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
                raise KeyError("weights")

        finding = look(subject_of(trainer_of(tmp_path, bert(), Own)), "loss-is-the-mean-over-labels")
        assert finding.outcome == "not-checked"
        assert "weights" in finding.message

    def test_lists_that_the_users_code_fills_stay_as_they_were(self, tmp_path: Path) -> None:
        class Own(Trainer):
            def compute_loss(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
                self.seen["losses"].append(1)
                return super().compute_loss(model, inputs, *rest, **options)

        trainer: Any = trainer_of(tmp_path, bert(), Own)
        trainer.seen = {"losses": []}
        subject = subject_of(trainer)
        subject.step([subject.train.batch(rows()[:2])])
        assert trainer.seen == {"losses": []}


class TestReading:
    """The loss read off the gradient of its logits."""

    labels = torch.tensor([[-100, 3, 1, 4, -100, -100], [-100, 1, 5, 2, 6, -100]])

    def read(self, loss: Any, **options: Any) -> Any:
        torch.manual_seed(0)
        logits = (2 * torch.randn(2, 6, 9)).requires_grad_()
        loss(logits).backward()
        assert logits.grad is not None
        return read_loss(logits.detach(), logits.grad, self.labels, **options)

    def test_a_mean_gives_every_label_the_same_weight(self) -> None:
        found = self.read(lambda logits: cross_entropy(logits.flatten(0, 1), self.labels.flatten()))
        assert (found.shift, found.count, found.stray) == (0, 7, 0)
        assert found.misfit < 1e-9
        assert found.common_weight()[0] == pytest.approx(1 / 7, rel=1e-5)

    @pytest.mark.parametrize("shift", [1, 2])
    def test_a_shift_is_found(self, shift: int) -> None:
        found = self.read(
            lambda logits: cross_entropy(logits[:, :-shift].flatten(0, 1), self.labels[:, shift:].flatten())
        )
        assert found.shift == shift
        assert found.misfit < 1e-9

    def test_smoothing_is_measured(self) -> None:
        def loss(logits: Any) -> Any:
            return cross_entropy(logits.flatten(0, 1), self.labels.flatten(), label_smoothing=0.2)

        found = self.read(loss)
        assert found.smoothing == pytest.approx(0.2, abs=1e-3)
        assert self.read(loss, smoothing=0.2).misfit < 1e-9

    def test_ignored_positions_that_are_learned_are_found(self) -> None:
        found = self.read(lambda logits: cross_entropy(logits.flatten(0, 1), self.labels.clamp(min=0).flatten()))
        assert (found.strays, found.stray_target, found.stray_uniform) == (5, 0, False)

    def test_another_loss_does_not_fit(self) -> None:
        def focal(logits: Any) -> Any:
            each = cross_entropy(logits.flatten(0, 1), self.labels.flatten(), reduction="none")
            return ((1 - (-each).exp()) ** 2 * each).mean()

        found = self.read(lambda logits: focal(logits) + 1e-2 * logits.pow(2).mean())
        assert found.misfit > FITS

    def test_class_weights_show_as_weights(self) -> None:
        weight = torch.linspace(0.5, 2, 9)
        found = self.read(lambda logits: cross_entropy(logits.flatten(0, 1), self.labels.flatten(), weight=weight))
        ratio = found.common_weight(found.targets == 6)[0] / found.common_weight(found.targets == 1)[0]
        assert ratio == pytest.approx(float(weight[6] / weight[1]), rel=1e-4)


class TestLossProbes:
    """Probes of the loss and of accumulation."""

    def test_stock_token_classification_passes(self, tmp_path: Path) -> None:
        subject = subject_of(trainer_of(tmp_path, bert()))
        for probe in ("loss-is-the-mean-over-labels", "label-smoothing-as-set", "accumulation-divided"):
            assert look(subject, probe).outcome == "pass"

    def test_stock_smoothing_passes(self, tmp_path: Path) -> None:
        subject = subject_of(trainer_of(tmp_path, bert(), label_smoothing_factor=0.1))
        assert look(subject, "loss-is-the-mean-over-labels").outcome == "pass"
        assert "0.1" in look(subject, "label-smoothing-as-set").message

    def test_a_question_has_the_mean_of_two_losses(self, tmp_path: Path) -> None:
        data = [
            {"input_ids": each["input_ids"], "start_positions": 1 + index % 3, "end_positions": 3 + index % 2}
            for index, each in enumerate(rows())
        ]

        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            padded = pad([{"input_ids": each["input_ids"], "labels": []} for each in features])
            padded.pop("labels")
            places = {
                name: torch.tensor([each[name] for each in features]) for name in ("start_positions", "end_positions")
            }
            return {**padded, **places}

        trainer = trainer_of(tmp_path, bert(BertForQuestionAnswering), data=data)
        trainer.data_collator = collate
        subject = subject_of(trainer)
        assert look(subject, "loss-is-the-mean-over-labels").outcome == "pass"
        assert look(subject, "accumulation-divided").outcome == "pass"

    def test_the_unshifted_count_of_gpt2_is_a_warning(self, tmp_path: Path) -> None:
        data = [{"input_ids": each["input_ids"], "labels": each["input_ids"]} for each in rows()]
        subject = subject_of(trainer_of(tmp_path, gpt2(), data=data, gradient_accumulation_steps=3))
        finding = look(subject, "loss-is-the-mean-over-labels")
        assert finding.outcome == "warn"
        assert "unshifted" in finding.message
        assert "GPT2LMHeadModel" in finding.cause
        assert look(subject, "accumulation-divided").outcome == "pass"
        assert look(subject, "micro-batches-weighted-by-labels").outcome == "pass"

    def test_a_mean_of_means_is_a_warning_under_accumulation(self, tmp_path: Path) -> None:
        model = bert()
        model.accepts_loss_kwargs = False
        subject = subject_of(trainer_of(tmp_path, model, gradient_accumulation_steps=4))
        assert look(subject, "accumulation-divided").outcome == "pass"
        assert look(subject, "micro-batches-weighted-by-labels").outcome == "warn"
        assert look(subject, "last-partial-step").outcome == "pass"

    def test_a_loss_function_that_uses_the_number_of_items_passes(self, tmp_path: Path) -> None:
        def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
            total = cross_entropy(outputs["logits"].flatten(0, 1), labels.flatten(), reduction="sum")
            return total / num_items_in_batch

        options: dict[str, Any] = {"compute_loss_func": loss, "gradient_accumulation_steps": 4}
        subject = subject_of(trainer_of(tmp_path, bert(), **options))
        for probe in (
            "loss-is-the-mean-over-labels",
            "accumulation-divided",
            "micro-batches-weighted-by-labels",
            "last-partial-step",
        ):
            assert look(subject, probe).outcome == "pass"

    def test_a_random_loss_is_not_accused(self, tmp_path: Path) -> None:
        class Own(Trainer):
            def compute_loss(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
                logits = model(**inputs).logits
                return (logits * torch.randn_like(logits)).mean()

        subject = subject_of(trainer_of(tmp_path, bert(), Own, gradient_accumulation_steps=2))
        assert look(subject, "accumulation-divided").outcome == "not-checked"
        assert look(subject, "loss-is-the-mean-over-labels").outcome == "warn"

    def test_a_loss_over_pairs_of_rows_is_not_accused(self, tmp_path: Path) -> None:
        class Own(Trainer):
            def compute_loss(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
                vectors = model(**inputs).logits.sum(1)
                return cross_entropy(vectors @ vectors.T, torch.arange(len(vectors)))

        subject = subject_of(trainer_of(tmp_path, bert(), Own, gradient_accumulation_steps=2))
        for probe in ("accumulation-divided", "loss-is-the-mean-over-labels", "last-partial-step"):
            assert look(subject, probe).outcome != "fail"

    def test_steps_use_short_rows_with_labels(self, tmp_path: Path) -> None:
        data = [{"input_ids": [1, 2, 3], "labels": [-100] * 3}, *rows()]
        subject = subject_of(trainer_of(tmp_path, bert(), data=data))
        assert len(single_rows(subject)[0][0]["input_ids"]) == 6
        assert ragged_batch(subject)["attention_mask"].sum(1).unique().numel() > 1


class TestOptimizerProbes:
    """Probes of optimizer and schedule."""

    def test_a_gate_that_begins_at_zero_does_not_cut_off_what_it_gates(self, tmp_path: Path) -> None:
        class Gated(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.table = nn.Embedding(50, 8)
                self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8, bias=False)
                self.head = nn.Linear(8, 5)
                nn.init.zeros_(self.up.weight)

            def forward(self, input_ids: Any, labels: Any = None, attention_mask: Any = None) -> Any:
                hidden = self.table(input_ids)
                logits = self.head(hidden + self.up(self.down(hidden)))
                return {"loss": cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}

        subject = subject_of(trainer_of(tmp_path, Gated()))
        assert look(subject, "every-parameter-learns").outcome == "pass"

    def test_a_frozen_encoder_is_no_fault(self, tmp_path: Path) -> None:
        model = bert()
        model.bert.requires_grad_(False)
        subject = subject_of(trainer_of(tmp_path, model))
        for probe in ("optimizer-holds-the-model", "frozen-parameters-stay-frozen", "every-parameter-learns"):
            assert look(subject, probe).outcome == "pass"

    def test_decayed_biases_are_a_warning(self, tmp_path: Path) -> None:
        model = bert()
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
        subject = subject_of(trainer_of(tmp_path, model, optimizers=(optimizer, None)))
        assert look(subject, "decay-groups").outcome == "warn"

    def test_settings_that_a_passed_optimizer_replaces_are_a_warning(self, tmp_path: Path) -> None:
        model = bert()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        subject = subject_of(trainer_of(tmp_path, model, optimizers=(optimizer, None), learning_rate=3e-4))
        finding = look(subject, "optimizer-as-set")
        assert finding.outcome == "warn"
        assert "0.0003" in finding.message

    def test_a_table_that_is_resized_after_the_optimizer_was_made_is_a_fault(self, tmp_path: Path) -> None:
        model = bert()
        optimizer = torch.optim.AdamW(model.parameters())
        model.set_input_embeddings(nn.Embedding(60, 16))
        finding = look(
            subject_of(trainer_of(tmp_path, model, optimizers=(optimizer, None))), "optimizer-holds-the-model"
        )
        assert finding.outcome == "fail"
        assert "resized" in finding.cause
        assert "word_embeddings" in finding.cause

    @pytest.mark.parametrize(
        ("held", "outcome"),
        [
            (r"classifier\.", "warn"),  # an optimizer of the head alone is a way to freeze the base model
            (r"bert\.", "fail"),
            (r"classifier\.|bert\.encoder\.", "fail"),
            (r"classifier\.|bert\.(?!encoder\.layer\.1)", "fail"),
        ],
    )
    def test_parameters_that_the_optimizer_lacks_are_a_fault_unless_they_are_the_base_model(
        self, held: str, outcome: str, tmp_path: Path
    ) -> None:
        model = bert()
        kept = [each for name, each in model.named_parameters() if re.match(held, name)]
        optimizer = torch.optim.AdamW(kept)
        subject = subject_of(trainer_of(tmp_path, model, optimizers=(optimizer, None)))
        assert look(subject, "optimizer-holds-the-model").outcome == outcome

    def test_one_of_two_pretrained_models_is_not_the_base(self) -> None:
        model = nn.ModuleDict({"one": bert().bert, "two": bert().bert, "head": nn.Linear(16, 2)})
        names = [name for name, _ in model.named_parameters()]
        assert is_the_base(model, [name for name in names if not name.startswith("head.")])
        assert not is_the_base(model, [name for name in names if name.startswith("one.")])

    def test_tied_embeddings_may_be_in_the_optimizer_of_a_head(self) -> None:
        model = gpt2()
        names = [name for name, _ in model.named_parameters()]
        assert is_the_base(model, names)
        assert is_the_base(model, [name for name in names if name != "transformer.wte.weight"])
        assert not is_the_base(model, ["transformer.wte.weight"])
        assert not is_the_base(nn.Linear(2, 2), ["weight"])

    def test_a_copy_of_a_passed_optimizer_holds_the_copied_model(self, tmp_path: Path) -> None:
        model = bert()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        subject = subject_of(trainer_of(tmp_path, model, optimizers=(optimizer, schedule)))
        before = [each.detach().clone() for each in model.parameters()]
        copied = subject.quiet_model
        made, _ = subject.need("optimizer")(copied)
        for each in copied.parameters():
            each.grad = torch.ones_like(each)
        made.step()
        assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))
        assert not any(torch.equal(one, other) for one, other in zip(copied.parameters(), before, strict=True))

    @pytest.mark.parametrize(
        ("make", "outcome", "text"),
        [
            (lambda optimizer, steps: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0), "pass", ""),
            (lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps), "pass", ""),
            (
                lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, steps // 2),
                "fail",
                "ends at",
            ),
            (lambda optimizer, steps: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps), "pass", ""),
            (lambda optimizer, steps: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4), "warn", "rises again"),
            (lambda optimizer, steps: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer), "not-checked", "metric"),
            (
                lambda optimizer, steps: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 - t / 4),
                "fail",
                "negative",
            ),
            (
                lambda optimizer, steps: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (t + 1) ** -0.5),
                "pass",
                "",
            ),
        ],
    )
    def test_schedules_are_followed(self, tmp_path: Path, make: Any, outcome: str, text: str) -> None:
        model = bert()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        schedule = make(optimizer, 12)
        subject = subject_of(trainer_of(tmp_path, model, optimizers=(optimizer, schedule), num_train_epochs=2))
        assert subject.settings.planned_steps == 12
        finding = look(subject, "schedule-fits-the-run")
        assert (finding.outcome, text in finding.message) == (outcome, True), finding.message
        assert (
            optimizer.param_groups[0]["lr"]
            == make(torch.optim.AdamW(bert().parameters(), lr=0.01), 12).get_last_lr()[0]
        )

    @pytest.mark.parametrize("kind", ["linear", "cosine", "constant_with_warmup", "polynomial", "inverse_sqrt"])
    def test_stock_schedules_pass(self, tmp_path: Path, kind: str) -> None:
        subject = subject_of(trainer_of(tmp_path, bert(), lr_scheduler_type=kind, warmup_steps=2))
        assert look(subject, "schedule-fits-the-run").outcome == "pass"

    def test_an_optimizer_without_learning_rate_is_no_fault(self, tmp_path: Path) -> None:
        from transformers.optimization import Adafactor, AdafactorSchedule

        model = bert()
        optimizer = Adafactor(model.parameters(), lr=None)
        subject = subject_of(trainer_of(tmp_path, model, optimizers=(optimizer, AdafactorSchedule(optimizer))))
        assert look(subject, "optimizer-as-set").outcome == "pass"
        assert look(subject, "schedule-fits-the-run").outcome == "not-checked"

    def test_two_models_in_one_are_not_tied(self, tmp_path: Path) -> None:
        from transformers import BertLMHeadModel, BertModel, EncoderDecoderModel

        settings = BertConfig(vocab_size=50, is_decoder=True, add_cross_attention=True, **SIZES)
        model = EncoderDecoderModel(encoder=bert(BertModel), decoder=BertLMHeadModel(settings))
        model.config.tie_word_embeddings = True
        subject = Subject("demo", "summarization", model)
        assert look(subject, "tied-weights-stay-tied").outcome == "pass"

    def test_long_runs_are_sampled(self) -> None:
        optimizer = torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 1_000_000)
        curve = follow(optimizer, schedule, 1_000_000, [1_000_000])
        assert len(curve.rates) < 3000
        assert curve.beyond == {1_000_000: 0}
