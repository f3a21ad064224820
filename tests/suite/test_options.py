"""Values on the command line: what they mean, and the one sentence that a wrong one ends in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.samples import OPEN, SPEC, write_spec
from touchstone.interface import options, plan
from touchstone.interface.options import OptionError, Overrides

ROOT = Path(__file__).parents[2]

TASKS = ("token-classification", "masked-lm")


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("42", (42,)), ("1,2,3", (1, 2, 3)), ("1-4", (1, 2, 3, 4)), ("0, 7-8", (0, 7, 8)), ("3-3", (3,))],
)
def test_seeds_are_named_never_counted(text: str, seeds: tuple[int, ...]) -> None:
    assert options.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "one", "1,,2", "-1", "3-1", "1,1", "1-3,2", "1.5", "1-99999", "9999999999"])
def test_what_is_no_list_of_seeds_is_an_error_that_repeats_it(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--seeds"):
        options.parse_seeds(text)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1.5s", 1.5), ("15m", 900), ("2h", 7200)])
def test_a_time_is_in_seconds_unless_it_says_otherwise(text: str, seconds: float) -> None:
    assert options.parse_timeout(text) == seconds


@pytest.mark.parametrize("text", ["0", "-5", "soon", "5d", "1e9", "inf"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--timeout"):
        options.parse_timeout(text)


def test_an_assignment_is_a_task_and_a_path_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus").mkdir()
    given = options.parse_assignments(["masked-lm=corpus"], option="--dataset", tasks=TASKS)
    assert {"masked-lm": str(tmp_path / "corpus")} == given
    overrides = Overrides(datasets=given)
    assert {"dataset": str(tmp_path / "corpus")} == overrides.given("masked-lm")
    assert overrides.given("token-classification") == {}


@pytest.mark.parametrize(
    ("items", "told"),
    [
        (["masked-lm"], "write --dataset TASK=PATH"),
        (["=x"], "write --dataset TASK=PATH"),
        (["masked-lm="], "write --dataset TASK=PATH"),
        (["maskedlm=."], "did you mean masked-lm"),
        (["masked-lm=.", "masked-lm=.."], "given twice for masked-lm"),
        (["masked-lm=/no/such/place"], "there is nothing at /no/such/place"),
    ],
)
def test_a_wrong_assignment_is_told_with_the_remedy(items: list[str], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        options.parse_assignments(items, option="--dataset", tasks=TASKS)


def test_a_mirror_is_a_directory(tmp_path: Path) -> None:
    assert options.parse_mirror(None) is None
    assert options.parse_mirror(str(tmp_path)) == tmp_path
    with pytest.raises(OptionError, match="is no directory"):
        options.parse_mirror(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("built", "gpus", "asked", "device"),
    [(True, 1, "auto", "cuda"), (True, 0, "auto", "cpu"), (False, 1, "auto", "cpu"), (True, 2, "cuda:1", "cuda:1")],
)
def test_auto_is_a_gpu_where_both_gpu_and_torch_are_fit(
    monkeypatch: pytest.MonkeyPatch, built: bool, gpus: int, asked: str, device: str
) -> None:
    monkeypatch.setattr(options, "_torch_is_built_for_cuda", lambda: built)
    monkeypatch.setattr(options, "_count_gpus", lambda: gpus)
    assert options.resolve_device(asked) == device


@pytest.mark.parametrize(
    ("built", "gpus", "asked", "told"),
    [
        (False, 1, "cuda", "built without CUDA"),
        (True, 1, "cuda:1", "shows 1 NVIDIA GPU here"),
        (True, 0, "cuda", "shows no NVIDIA GPUs here"),
        (True, 1, "gpu", "possible: auto, cpu"),
    ],
)
def test_a_device_that_is_not_to_be_had_is_an_error(
    monkeypatch: pytest.MonkeyPatch, built: bool, gpus: int, asked: str, told: str
) -> None:
    monkeypatch.setattr(options, "_torch_is_built_for_cuda", lambda: built)
    monkeypatch.setattr(options, "_count_gpus", lambda: gpus)
    with pytest.raises(OptionError, match=told):
        options.resolve_device(asked)


@pytest.mark.parametrize(("mask", "count"), [("", 0), ("-1", 0), ("0", 1), ("3,5", 2)])
def test_a_mask_of_devices_is_heeded(monkeypatch: pytest.MonkeyPatch, mask: str, count: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    assert options._count_gpus() == count


def test_what_torch_was_built_for_is_read_right() -> None:
    import torch

    assert options._torch_is_built_for_cuda() == (torch.version.cuda is not None)


def test_half_precision_needs_a_gpu() -> None:
    assert options.check_precision("bf16", device="cpu") == "bf16"
    with pytest.raises(OptionError, match="fp16"):
        options.check_precision("fp16", device="cpu")
    with pytest.raises(OptionError, match="possible: fp32, bf16, fp16"):
        options.check_precision("fp8", device="cuda")


def test_a_launcher_beside_this_python_comes_before_those_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
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
    ("text", "device", "told"),
    [
        ("", "cpu", "the command is empty; give one such as .torchrun"),
        ("torchrun '2", "cpu", "No closing quotation; write it as for a shell"),
        ("no-such-launcher -n 2", "cpu", "no command 'no-such-launcher' beside this Python or on PATH"),
        ("env", "cuda:1", "with --device cuda:1: each process takes a GPU of its own; use cuda or cpu"),
    ],
)
def test_a_launcher_that_cannot_be_meant_is_told(text: str, device: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        options.parse_launch(text, device=device)


def test_what_is_planned_needs_nothing_that_trains() -> None:
    """Engines and models take seconds to import, which the processes that train do while others plan."""
    code = (
        "import sys; from touchstone.interface import plan\n"
        "plan.choose_specs([], profile='embedded'); plan.choose_engines(['packed'])\n"
        "print(*{'torch', 'accelerate', 'transformers.modeling_utils', 'transformers.trainer'} & set(sys.modules))"
    )

    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert process.stdout.strip() == "torch"


def test_all_tasks_and_variants_are_chosen_unless_some_are_named() -> None:
    every = [spec.name for spec in plan.choose_specs([], profile="embedded")]
    assert set(every) >= {"masked-lm", "token-classification", "token-classification+first"}
    assert sorted(every) == every, "a fixed order"
    (first,) = plan.choose_specs(["token-classification+first"], profile="embedded")
    assert first.variant == "first"
    (main,) = plan.choose_specs(["token-classification"], profile="embedded")
    assert main.variant is None


def test_the_open_division_is_trained_only_where_it_is_named(tmp_path: Path) -> None:
    file = write_spec(tmp_path, text=SPEC + OPEN)

    def names(*tasks: str) -> list[str]:
        return [spec.name for spec in plan.choose_specs(tasks, profile="embedded", files=[file])]

    assert names() == ["ner", "ner+first"]
    assert names("ner") == ["ner"]
    assert names("ner+fast", "ner") == ["ner", "ner+fast"]
    with pytest.raises(OptionError, match=r"possible: ner, ner\+first, ner\+fast; did you mean ner\+fast"):
        names("ner+fats")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: plan.choose_specs(["token-clasification"], profile="embedded"), "did you mean token-classification"),
        (lambda: plan.choose_specs(["masked-lm+first"], profile="embedded"), "possible: .*token-classification.first"),
        (lambda: plan.choose_specs(["masked-lm+"], profile="embedded"), "write TASK or TASK.VARIANT"),
        (lambda: plan.choose_specs([], profile="huge"), "--profile huge: .*possible: embedded, small, course"),
        (lambda: plan.choose_engines(["warp"]), "possible: trainer, loop"),
    ],
)
def test_what_there_is_not_is_told_with_what_there_is(call: Callable[[], object], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        call()


def test_trials_are_every_spec_on_every_engine_with_every_seed_in_a_fixed_order() -> None:
    from touchstone.runs.trials import Conditions

    specs = plan.choose_specs(["masked-lm"], profile="embedded")
    engines = plan.choose_engines([])
    trials = plan.make_trials(
        specs, engines=engines, seeds=(2, 1), named=["masked-lm"], overrides=Overrides(), conditions=Conditions()
    )
    assert [f"masked-lm-{engine}-seed{seed}" for engine in engines for seed in (2, 1)] == [t.name for t in trials]


@pytest.mark.parametrize(
    ("named", "expected"), [([], ["trainer"]), (["causal-lm+key-tokens"], ["trainer", "loop"])], ids=["all", "named"]
)
def test_a_variant_that_nobody_named_is_trained_by_one_engine(named: list[str], expected: list[str]) -> None:
    from touchstone.runs.trials import Conditions

    trials = plan.make_trials(
        plan.choose_specs(named, profile="embedded"),
        engines=plan.choose_engines([]),
        seeds=(1,),
        named=named,
        overrides=Overrides(),
        conditions=Conditions(),
    )
    assert [trial.engine for trial in trials if trial.spec.name == "causal-lm+key-tokens"] == expected
