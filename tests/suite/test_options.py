"""Command-line values: what they mean, and the one-sentence error for a wrong value."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.samples import OPEN, SPEC, write_spec
from touchstone.interface import options, plan
from touchstone.interface.options import OptionError, Overrides
from touchstone.runs.trials import Conditions

ROOT = Path(__file__).parents[2]

TASKS = ("token-classification", "masked-lm")


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("42", (42,)), ("1,2,3", (1, 2, 3)), ("1-4", (1, 2, 3, 4)), ("0, 7-8", (0, 7, 8)), ("3-3", (3,))],
)
def test_parse_seeds_reads_seeds_and_ranges(text: str, seeds: tuple[int, ...]) -> None:
    assert options.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "one", "1,,2", "-1", "3-1", "1,1", "1-3,2", "1.5", "1-99999", "9999999999"])
def test_parse_seeds_refuses_other_text(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--seeds"):
        options.parse_seeds(text)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("15m", 900), ("2h", 7200)])
def test_parse_timeout_reads_seconds_minutes_and_hours(text: str, seconds: float) -> None:
    assert options.parse_timeout(text) == seconds


@pytest.mark.parametrize("text", ["0", "-5", "soon", "5d", "1e9", "inf"])
def test_parse_timeout_refuses_other_text(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--timeout"):
        options.parse_timeout(text)


def test_parse_assignments_reads_a_task_and_an_existing_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus").mkdir()
    given = options.parse_assignments(["masked-lm=corpus"], option="--dataset", tasks=TASKS)
    assert {"masked-lm": str(tmp_path / "corpus")} == given
    overrides = Overrides(datasets=given)
    assert {"dataset": str(tmp_path / "corpus")} == overrides.given("masked-lm")
    assert overrides.given("token-classification") == {}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["masked-lm"], "write --dataset TASK=PATH"),
        (["=x"], "write --dataset TASK=PATH"),
        (["masked-lm="], "write --dataset TASK=PATH"),
        (["maskedlm=."], "did you mean masked-lm"),
        (["masked-lm=.", "masked-lm=.."], "given twice for masked-lm"),
        (["masked-lm=/no/such/place"], "/no/such/place does not exist"),
    ],
)
def test_parse_assignments_explains_a_wrong_item(items: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        options.parse_assignments(items, option="--dataset", tasks=TASKS)


def test_parse_mirror_accepts_directories_only(tmp_path: Path) -> None:
    assert options.parse_mirror(None) is None
    assert options.parse_mirror(str(tmp_path)) == tmp_path
    with pytest.raises(OptionError, match="is not a directory"):
        options.parse_mirror(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("built", "gpus", "value", "device"),
    [(True, 1, "auto", "cuda"), (True, 0, "auto", "cpu"), (False, 1, "auto", "cpu"), (True, 2, "cuda:1", "cuda:1")],
)
def test_resolve_device_chooses_a_gpu_if_torch_can_use_it(
    monkeypatch: pytest.MonkeyPatch, built: bool, gpus: int, value: str, device: str
) -> None:
    monkeypatch.setattr(options, "_torch_is_built_for_cuda", lambda: built)
    monkeypatch.setattr(options, "_count_gpus", lambda: gpus)
    assert options.resolve_device(value) == device


@pytest.mark.parametrize(
    ("built", "gpus", "value", "message"),
    [
        (False, 1, "cuda", "built without CUDA"),
        (True, 1, "cuda:1", "finds 1 NVIDIA GPU$"),
        (True, 0, "cuda", "finds no NVIDIA GPUs"),
        (True, 1, "gpu", "possible: auto, cpu"),
    ],
)
def test_resolve_device_refuses_an_unavailable_device(
    monkeypatch: pytest.MonkeyPatch, built: bool, gpus: int, value: str, message: str
) -> None:
    monkeypatch.setattr(options, "_torch_is_built_for_cuda", lambda: built)
    monkeypatch.setattr(options, "_count_gpus", lambda: gpus)
    with pytest.raises(OptionError, match=message):
        options.resolve_device(value)


@pytest.mark.parametrize(("mask", "count"), [("", 0), ("-1", 0), ("0", 1), ("3,5", 2)])
def test_count_gpus_respects_cuda_visible_devices(monkeypatch: pytest.MonkeyPatch, mask: str, count: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    assert options._count_gpus() == count


def test_torch_is_built_for_cuda_agrees_with_torch() -> None:
    import torch

    assert options._torch_is_built_for_cuda() == (torch.version.cuda is not None)


def test_check_precision_refuses_fp16_on_cpu() -> None:
    assert options.check_precision("bf16", device="cpu") == "bf16"
    with pytest.raises(OptionError, match="fp16"):
        options.check_precision("fp16", device="cpu")
    with pytest.raises(OptionError, match="possible: fp32, bf16, fp16"):
        options.check_precision("fp8", device="cuda")


def test_parse_launch_prefers_the_directory_of_this_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "torchrun").touch(mode=0o755)
    (tmp_path / "there" / "srun").touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "here" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "there"))

    assert options.parse_launch(None, device="cuda:1") == ()
    found = options.parse_launch("torchrun --nproc-per-node 2 --tee '0: 3'", device="cpu")
    assert (str(tmp_path / "here" / "torchrun"), "--nproc-per-node", "2", "--tee", "0: 3") == found
    assert (str(tmp_path / "there" / "srun"), "python") == options.parse_launch("srun python", device="cuda")


@pytest.mark.parametrize(
    ("text", "device", "message"),
    [
        ("", "cpu", "the command is empty; give one such as .torchrun"),
        ("torchrun '2", "cpu", "No closing quotation; quote it as in a shell"),
        ("no-such-launcher -n 2", "cpu", "no command 'no-such-launcher' in the directory of this Python or on PATH"),
        ("env", "cuda:1", "with --device cuda:1: each process takes a different GPU; use cuda or cpu"),
    ],
)
def test_parse_launch_explains_a_wrong_command(text: str, device: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        options.parse_launch(text, device=device)


def test_planning_imports_no_training_code() -> None:
    """The fork server imports engines and models while the main process plans."""
    code = (
        "import sys; from touchstone.interface import plan\n"
        "plan.choose_specs([], profile='embedded'); plan.choose_engines(['packed'])\n"
        "print(*{'torch', 'accelerate', 'transformers.modeling_utils', 'transformers.trainer'} & set(sys.modules))"
    )

    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert process.stdout.strip() == "torch"


def test_choose_specs_returns_all_tasks_and_variants_by_default() -> None:
    every = [spec.name for spec in plan.choose_specs([], profile="embedded")]
    assert set(every) >= {"masked-lm", "token-classification", "token-classification+first"}
    assert sorted(every) == every, "a fixed order"
    (first,) = plan.choose_specs(["token-classification+first"], profile="embedded")
    assert first.variant == "first"
    (main,) = plan.choose_specs(["token-classification"], profile="embedded")
    assert main.variant is None


def test_choose_specs_returns_the_open_division_only_if_it_is_named(tmp_path: Path) -> None:
    file = write_spec(tmp_path, text=SPEC + OPEN)

    def names(*tasks: str) -> list[str]:
        return [spec.name for spec in plan.choose_specs(tasks, profile="embedded", files=[file])]

    assert names() == ["ner", "ner+first"]
    assert names("ner") == ["ner"]
    assert names("ner+fast", "ner") == ["ner", "ner+fast"]
    with pytest.raises(OptionError, match=r"possible: ner, ner\+first, ner\+fast; did you mean ner\+fast"):
        names("ner+fats")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan.choose_specs(["token-clasification"], profile="embedded"), "did you mean token-classification"),
        (lambda: plan.choose_specs(["masked-lm+first"], profile="embedded"), "possible: .*token-classification.first"),
        (lambda: plan.choose_specs(["masked-lm+"], profile="embedded"), "write TASK or TASK.VARIANT"),
        (lambda: plan.choose_specs([], profile="huge"), "--profile huge: .*possible: embedded, small, course"),
        (lambda: plan.choose_engines(["warp"]), "possible: trainer, loop"),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_the_possible_names(call: Callable[[], object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        call()


def trial_names(*engines: str, tasks: Sequence[str] = (), seeds: Sequence[int] = (1,)) -> list[str]:
    trials = plan.make_trials(
        plan.choose_specs(tasks, profile="embedded"),
        engines=engines,
        seeds=seeds,
        overrides=Overrides(),
        conditions=Conditions(),
    )
    return [trial.name for trial in trials]


def test_make_trials_orders_by_spec_engine_and_seed() -> None:
    assert trial_names("loop", "trainer", tasks=["masked-lm"], seeds=(2, 1)) == [
        "masked-lm-trainer-seed2",
        "masked-lm-trainer-seed1",
        "masked-lm-loop-seed2",
        "masked-lm-loop-seed1",
    ]


def test_by_default_trainer_trains_everything_and_loop_trains_two_tasks() -> None:
    names = trial_names()
    assert [name.removesuffix("-trainer-seed1") for name in names if "-trainer-" in name] == [
        spec.name for spec in plan.choose_specs([], profile="embedded")
    ]
    assert [name for name in names if "-trainer-" not in name] == [
        "token-classification-loop-seed1",
        "translation-loop-seed1",
    ]
    assert trial_names(tasks=["masked-lm"]) == ["masked-lm-trainer-seed1"]


def test_named_engines_train_everything() -> None:
    specs = [spec.name for spec in plan.choose_specs([], profile="embedded")]
    both = [f"{name}-{engine}-seed1" for name in specs for engine in ("trainer", "loop")]
    assert trial_names("trainer", "loop") == both
    assert trial_names("loop") == both[1::2]
