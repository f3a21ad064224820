"""Predictions with a known score, names of metrics, orders of rows, and what the probes say of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler, WeightedRandomSampler

from touchstone.auditing.adapters.evaluated import EvaluationRecord, Prediction
from touchstone.auditing.adapters.loop_order import LoopOrder, counted_padding
from touchstone.auditing.finding import NotChecked
from touchstone.auditing.observing.trace import MetricCall, Pass, Trace
from touchstone.auditing.probes.leaks import no_training_example_in_evaluation
from touchstone.auditing.probes.order import epochs_differ, every_row_trained_once, same_seed_same_order
from touchstone.auditing.reading import gold, scores
from touchstone.auditing.reading.order import Draws
from touchstone.auditing.subject import Split, Subject

LABELS = torch.tensor([[-100, 1, 2, -100], [-100, 0, 1, 2]])


def prediction(outputs: Any, labels: Any = LABELS) -> Prediction:
    return Prediction({"labels": labels}, 1.0, outputs, labels)


# Gold


def test_gold_logits_choose_the_label_wherever_there_is_one() -> None:
    outputs = torch.randn(2, 4, 3)

    made = gold.replaced(prediction(outputs), gold.same)

    kept = LABELS != -100
    assert torch.equal(made.argmax(-1)[kept], LABELS[kept])
    assert torch.equal(made[~kept], outputs[~kept])


def test_gold_logits_of_a_causal_model_choose_the_next_label() -> None:
    made = gold.replaced(prediction(torch.randn(2, 4, 3)), gold.same, shift=True)

    assert made.argmax(-1)[0, :2].tolist() == [1, 2]
    assert made.argmax(-1)[1, :3].tolist() == [0, 1, 2]


def test_gold_logits_keep_the_other_outputs_of_a_tuple() -> None:
    hidden = torch.randn(2, 4, 5)

    made = gold.replaced(prediction((torch.randn(2, 4, 3), hidden)), gold.same)

    assert made[1] is hidden


def test_gold_ids_begin_with_the_start_token_and_end_with_padding() -> None:
    made = gold.replaced(prediction(torch.full((2, 3), 9)), gold.same, pad=7)

    assert made.tolist() == [[9, 1, 2, 7], [9, 0, 1, 2]]


def test_gold_spans_choose_the_labelled_positions() -> None:
    labels = (torch.tensor([1, 0]), torch.tensor([2, 3]))

    starts, ends = gold.replaced(prediction((torch.randn(2, 4), torch.randn(2, 4)), labels), gold.same)

    assert starts.argmax(-1).tolist() == [1, 0]
    assert ends.argmax(-1).tolist() == [2, 3]


def test_wrong_predictions_are_wrong_at_every_label() -> None:
    made = gold.replaced(prediction(torch.randn(2, 4, 3)), gold.wrong(3))

    kept = LABELS != -100
    assert not (made.argmax(-1)[kept] == LABELS[kept]).any()


def test_noise_leaves_labelled_positions_alone_and_adds_columns_without_labels() -> None:
    outputs = torch.randn(2, 4, 3)

    made, labels = gold.noise(prediction(outputs), extra=2)

    kept = LABELS != -100
    assert made.shape == (2, 6, 3)
    assert (labels[:, 4:] == -100).all()
    assert torch.equal(made[:, :4][kept], outputs[kept])


def test_noise_of_a_causal_model_spares_positions_that_predict_a_label() -> None:
    outputs = torch.randn(2, 4, 3)

    made, _ = gold.noise(prediction(outputs), shift=True)

    assert torch.equal(made[0, :3], outputs[0, :3])
    assert not torch.equal(made[0, 3], outputs[0, 3])


def test_partly_wrong_predictions_do_not_depend_on_padding() -> None:
    choose = gold.partly(3)
    padded = torch.nn.functional.pad(LABELS, (0, 3), value=-100)

    assert torch.equal(choose(LABELS), choose(padded)[:, :4])


def test_a_regression_predicts_its_labels_in_the_shape_of_the_outputs() -> None:
    numbers = prediction(torch.randn(2, 1), torch.tensor([0.5, 2.0]))

    assert gold.kind(numbers) == "numbers"
    assert gold.replaced(numbers, gold.same).tolist() == [[0.5], [2.0]]


def test_several_numbers_for_each_row_are_not_judged() -> None:
    with pytest.raises(NotChecked, match="several numbers"):
        gold.kind(prediction(torch.randn(2, 3), torch.rand(2, 3) + 0.1))


def test_flags_are_right_by_their_sigmoid_and_not_by_a_softmax() -> None:
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])

    made = gold.replaced(prediction(torch.randn(2, 3), labels), gold.same)

    assert torch.equal((made.sigmoid() >= 0.5).float(), labels)
    assert not torch.equal((made.softmax(-1) >= 0.5).float(), labels)


def test_two_labels_of_other_shapes_are_no_spans() -> None:
    outputs, labels = (torch.randn(2, 2), torch.randn(2, 4, 3)), (torch.tensor([0, 1]), LABELS)

    with pytest.raises(NotChecked, match="2 kinds of labels"):
        gold.kind(prediction(outputs, labels))


# Names of metrics


@pytest.mark.parametrize(
    "name", ["f1", "eval_accuracy", "overall_recall", "exact_match", "rougeLsum", "bleu", "micro_f1"]
)
def test_a_plain_score_is_one_whose_best_is_known(name: str) -> None:
    assert scores.is_score(name)


@pytest.mark.parametrize("name", ["loss", "perplexity", "f1_macro", "PER_f1", "gen_len", "bleu_std", "wer"])
def test_a_qualified_score_or_an_error_is_not_judged_as_a_plain_score(name: str) -> None:
    assert not scores.is_score(name)


def test_scores_of_an_evaluation_leave_out_losses_and_speed() -> None:
    record = EvaluationRecord({"eval_f1": 0.5, "eval_loss": 1.0, "eval_runtime": 2.0, "eval_steps_per_second": 3.0})

    assert record.scores() == {"f1": 0.5}


# Orders


class Rows(Sampler[int]):
    """Yields a list of indices for each epoch, the last list again and again."""

    def __init__(self, *epochs: list[int], length: int = 8) -> None:
        self.epochs, self.count, self.length = epochs, -1, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Any:
        self.count += 1
        return iter(self.epochs[min(self.count, len(self.epochs) - 1)])


class Order:
    """The order of a subject, drawn from a loader as an adapter does."""

    def __init__(self, sampler: Any, batch_size: int = 2, *, drop_last: bool = False) -> None:
        self.loader = DataLoader(list(range(8)), batch_size, sampler=sampler, drop_last=drop_last)  # type: ignore[arg-type]

    def __call__(self, epoch: int, seed: int | None = None, *, drawn_before: int = 0, again: bool = False) -> list[int]:
        if seed is not None:
            torch.manual_seed(seed)
        torch.rand(drawn_before + 1)
        draws = Draws(self.loader)
        return [draws.epoch(each) for each in range(epoch + 1)][-1]

    @property
    def sampler(self) -> Any:
        return Draws(self.loader).sampler


def subject(sampler: Any = None, **parts: Any) -> Subject:
    rows = [{"input_ids": [index] * (index + 2)} for index in range(8)]
    made = Subject(
        "a test", "unknown", None, train=Split("train", rows, None, 2, drop_last=parts.pop("drop_last", False))
    )
    made.order = None if sampler is None else Order(sampler)
    for name, value in parts.items():
        setattr(made, name, value)
    return made


ALL = list(range(8))


def test_rows_that_are_drawn_by_weight_may_repeat() -> None:
    found = every_row_trained_once(subject(WeightedRandomSampler([1.0] * 8, 8)))

    assert found.outcome == "pass"
    assert "by weights" in found.message or "replacement" in found.message


def test_rows_that_are_drawn_with_replacement_may_repeat() -> None:
    assert every_row_trained_once(subject(RandomSampler(ALL, replacement=True))).outcome == "pass"


def test_a_subset_on_purpose_is_a_warning() -> None:
    assert every_row_trained_once(subject(Rows(ALL[:4], length=4))).outcome == "warn"


def test_a_sampler_that_draws_fewer_rows_than_it_says_is_a_fault() -> None:
    found = every_row_trained_once(subject(Rows(ALL[:6])))

    assert found.outcome == "fail"
    assert "says that it draws 8 rows, and draws 6" in found.cause


def test_rows_that_repeat_while_the_same_others_are_left_out_are_a_fault() -> None:
    assert every_row_trained_once(subject(Rows([0, 1, 2, 3, 0, 1, 2, 3]))).outcome == "fail"


def test_rows_that_repeat_by_chance_are_a_warning() -> None:
    assert every_row_trained_once(subject(Rows([0, 0, 1, 2, 3, 4, 5, 6], [7, 7, 6, 5, 4, 3, 2, 1]))).outcome == "warn"


def test_an_order_of_lengths_that_never_changes_is_a_warning() -> None:
    assert epochs_differ(subject(Rows(ALL[::-1]))).outcome == "warn"


def test_an_unshuffled_order_is_a_warning() -> None:
    assert epochs_differ(subject(Rows(ALL))).outcome == "warn"


def test_a_draw_leaves_the_sampler_alone() -> None:
    sampler = Rows(ALL, ALL[::-1])
    order = Order(sampler)

    assert order(1) == ALL[::-1]
    assert sampler.count == -1


def test_a_random_order_from_the_global_generator_is_no_fault() -> None:
    assert same_seed_same_order(subject(RandomSampler(ALL))).outcome == "pass"


# Leaks


def leak(train: list[list[int]], evaluation: list[list[int]]) -> str:
    def split(name: str, rows: list[list[int]]) -> Split:
        return Split(name, [{"input_ids": row} for row in rows], None, 2)

    return no_training_example_in_evaluation(
        subject(train=split("train", train), evaluation=split("evaluation", evaluation))
    ).outcome


def test_short_texts_that_repeat_within_the_training_rows_may_recur() -> None:
    texts = [[1], [2], [3], [4]]

    assert leak(texts * 5, texts) == "warn"


def test_texts_that_recur_only_in_the_evaluation_are_a_leak() -> None:
    texts = [[index, index + 1] for index in range(20)]

    assert leak(texts, texts[:5]) == "fail"


def test_one_text_in_both_splits_is_a_warning() -> None:
    texts = [[index, index + 1] for index in range(20)]

    assert leak(texts, [texts[0], *([100, index] for index in range(9))]) == "warn"


# Loops


def test_an_accuracy_of_padding_is_a_fault() -> None:
    call = MetricCall("accuracy.add_batch", torch.tensor([1, 2]), torch.tensor([1, -100]))

    assert counted_padding(Trace(metrics=[call])).outcome == "fail"


def test_two_epochs_of_a_loop_that_begin_alike_are_compared_over_what_was_seen_of_both() -> None:
    loader = DataLoader(ALL, 2, shuffle=True)  # type: ignore[arg-type]
    seen = Trace(passes=[Pass(0, [[3, 1], [0, 2]], training=True), Pass(0, [[3, 1]], training=True)], loaders=[loader])

    assert LoopOrder(seen).beginnings() == ([3, 1], [3, 1])
