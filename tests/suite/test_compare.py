"""Comparison of records: like with like, significance and size, and one exit code for each outcome."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

import touchstone
from tests.support.samples import (
    SPEC,
    hardware,
    launch,
    open_spec,
    record,
    sample_spec,
    software,
    training_run,
    write_spec,
)
from touchstone.comparing.compare import Comparison, Row, compare, mean_text, split_engines
from touchstone.comparing.difference import Sample, cost_difference, quality_difference
from touchstone.records.energy import Energy
from touchstone.records.record import Record, RecordError, read_record, write_record
from touchstone.specs.spec import Spec, load_spec

OTHER = {"id": "fedcba9876543210", "name": "epyc-8c-64g"}


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return sample_spec(tmp_path)


def runs(
    spec: Spec, *, f1: Sequence[float], seconds: Sequence[float], machine: dict[str, Any] | None = None, **changes: Any
) -> list[Record]:
    return [
        record(
            spec, seed=seed, run=training_run(f1=value, seconds=time), hardware=hardware(**(machine or {})), **changes
        )
        for seed, (value, time) in enumerate(zip(f1, seconds, strict=True))
    ]


F1 = (0.90, 0.91, 0.905)
TIME = (10.0, 10.1, 10.05)


def row(comparison: Comparison, measure: str) -> Row:
    return next(row for row in comparison.pairs[0].rows if row.measure == measure)


def outcome(comparison: Comparison, measure: str) -> str:
    difference = row(comparison, measure).difference
    assert difference is not None
    return difference.outcome


def text(comparison: Comparison, *, width: int = 160) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(comparison)
    return out.getvalue()


def test_compare_does_not_import_torch() -> None:
    """Torch takes seconds to import, and records may be compared on a machine without it."""
    code = "import sys, touchstone.comparing.compare; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_a_run_compared_with_itself_is_the_same(spec: Spec) -> None:
    found = compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=TIME))

    assert found.exit_code == 0
    assert [outcome(found, measure) for measure in ("f1", "training", "peak host memory")] == ["same"] * 3


def test_compare_reads_paths_and_names_the_sides_by_them(spec: Spec, tmp_path: Path) -> None:
    for name, seconds in (("before", TIME), ("after", (12.0, 12.1, 12.05))):
        for one in runs(spec, f1=F1, seconds=seconds):
            write_record(one, tmp_path / name)

    found = touchstone.compare(tmp_path / "before", str(tmp_path / "after"))

    assert found.names == ("before", "after")
    assert found.exit_code == 1
    assert touchstone.compare(tmp_path / "before", tmp_path / "before").names[0].startswith("A: ")
    assert touchstone.compare(tmp_path / "before", runs(spec, f1=F1, seconds=TIME)).names == ("A", "B")
    with pytest.raises(RecordError, match="/no/such"):
        touchstone.compare("/no/such", tmp_path)


def test_print_shows_a_comparison_as_plain_tables(spec: Spec) -> None:
    shown = str(compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=TIME)))

    assert "B is nowhere significantly worse than A (exit code 0)" in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_slower_than_noise_explains_is_worse(spec: Spec) -> None:
    found = compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=(12.0, 12.1, 12.05), machine=OTHER))

    assert (outcome(found, "training"), found.exit_code) == ("worse", 1)
    difference = row(found, "training").difference
    assert difference is not None
    assert difference.ratio == pytest.approx(12.05 / 10.05)


def test_the_fraction_of_the_floor_is_shown_without_a_verdict(spec: Spec) -> None:
    found = compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=(5.0, 5.1, 5.05)))
    floor = row(found, "floor / training")

    assert pytest.approx((floor.a.values[0], floor.b.values[0])) == (100 * 0.6 / 10.0, 100 * 0.6 / 5.0)
    assert floor.difference is None, "it repeats the time"
    assert "floor / training [%]" in text(found)


def test_records_without_a_floor_are_compared_without_it(spec: Spec) -> None:
    def bare(records: list[Record]) -> list[Record]:
        cut = {"floor": None, "utilisation": None}
        return [r.model_copy(update={"efficiency": r.efficiency.model_copy(update=cut)}) for r in records]

    with_floor = runs(spec, f1=F1, seconds=TIME)

    assert "floor / training" not in text(compare(bare(with_floor), bare(with_floor)))
    assert row(compare(bare(with_floor), with_floor), "floor / training").a.n == 0


def test_faster_is_better_and_not_a_regression(spec: Spec) -> None:
    found = compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=(5.0, 5.1, 5.05)))

    assert (outcome(found, "training"), found.exit_code) == ("better", 0)


def test_significant_but_small_is_the_same(spec: Spec) -> None:
    found = compare(runs(spec, f1=F1, seconds=(10.0, 10.01, 10.02)), runs(spec, f1=F1, seconds=(10.3, 10.31, 10.32)))

    assert (outcome(found, "training"), found.exit_code) == ("same", 0)
    assert "but the change is below 5%" in text(found)


def test_large_but_noisy_is_the_same(spec: Spec) -> None:
    found = compare(runs(spec, f1=F1, seconds=(8.0, 10.0, 14.0)), runs(spec, f1=F1, seconds=(11.0, 13.0, 17.0)))

    assert (outcome(found, "training"), found.exit_code) == ("same", 0)
    assert "not significant" in text(found)


@pytest.mark.parametrize(
    ("f1", "expected", "code"), [((0.80, 0.81, 0.805), "worse", 1), ((0.97, 0.98, 0.975), "better", 0)]
)
def test_quality_is_compared_in_its_direction(spec: Spec, f1: tuple[float, ...], expected: str, code: int) -> None:
    found = compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=f1, seconds=TIME))

    assert (outcome(found, "f1"), found.exit_code) == (expected, code)


def test_one_seed_gives_no_verdict(spec: Spec) -> None:
    found = compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=(0.1,), seconds=(99.0,)))

    assert (outcome(found, "f1"), found.exit_code) == ("no verdict", 0)
    assert "one seed: no verdict" in text(found)


def test_one_seed_per_side_is_not_reported_as_the_same(spec: Spec) -> None:
    found = compare(runs(spec, f1=(0.9,), seconds=(10.0,)), runs(spec, f1=(0.9,), seconds=(10.0,)))

    assert not found.tested
    assert "no difference could be tested: at least two seeds per side are needed (exit code 0)" in text(found)


def test_a_side_that_diverged_is_worse_even_with_one_seed(spec: Spec) -> None:
    found = compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=(math.nan,), seconds=(10.0,)))

    assert (outcome(found, "f1"), found.exit_code) == ("worse", 1)


def test_runs_of_different_specs_are_not_compared(spec: Spec, tmp_path: Path) -> None:
    changed = load_spec(write_spec(tmp_path, text=SPEC.replace("epochs = 1", "epochs = 2")), profile="embedded")

    found = compare(runs(spec, f1=F1, seconds=TIME), runs(changed, f1=F1, seconds=TIME))

    assert found.exit_code == 2
    assert f"spec hash differs: {spec.hash[:12]} in A, {changed.hash[:12]} in B" in text(found)


def test_runs_on_different_data_are_not_compared(spec: Spec) -> None:
    found = compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=TIME, dataset_fingerprint="sha256:def"))

    assert found.exit_code == 2
    assert "dataset fingerprint differs" in text(found)


def test_runs_in_different_precisions_are_not_compared(spec: Spec) -> None:
    found = compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=TIME, precision="bf16"))

    assert found.exit_code == 2
    assert "precision differs: fp32 here, bf16 in B" in text(found)


def test_a_missing_counterpart_is_exit_code_3(spec: Spec) -> None:
    both = runs(spec, f1=F1, seconds=TIME) + runs(spec, f1=F1, seconds=TIME, engine="trainer")

    found = compare(both, runs(spec, f1=F1, seconds=TIME), names=("left", "right"))

    assert found.exit_code == 3
    assert "ner · embedded · trainer · fp32: missing in right" in text(found)


def test_a_regression_takes_precedence_over_a_missing_counterpart(spec: Spec) -> None:
    both = runs(spec, f1=F1, seconds=TIME) + runs(spec, f1=F1, seconds=TIME, engine="trainer")

    assert compare(both, runs(spec, f1=F1, seconds=(20.0, 20.1, 20.2))).exit_code == 1


def test_nothing_in_common_is_exit_code_2(spec: Spec) -> None:
    found = compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=TIME, engine="trainer"))

    assert found.exit_code == 2


def test_engines_of_one_machine_are_compared_by_engine(spec: Spec) -> None:
    records = runs(spec, f1=F1, seconds=TIME) + runs(spec, f1=F1, seconds=(5.0, 5.1, 5.05), engine="trainer")

    sides = split_engines(records)
    found = compare(*sides.values(), names=("loop", "trainer"), by="engine")

    assert (len(found.pairs), found.exit_code) == (1, 0)
    assert outcome(found, "training") == "better"


def test_split_engines_refuses_other_than_two_engines(spec: Spec) -> None:
    records = runs(spec, f1=F1, seconds=TIME) + runs(spec, f1=F1, seconds=TIME, engine="trainer")

    assert list(split_engines(records, engines=("trainer", "loop"))) == ["trainer", "loop"]
    with pytest.raises(RecordError, match="no record of engine 'packed'; engines found: loop, trainer"):
        split_engines(records, engines=("loop", "packed"))
    with pytest.raises(RecordError, match="exactly two engines; engines found: loop;"):
        split_engines(runs(spec, f1=F1, seconds=TIME))
    assert "A has runs of several engines" in text(compare(records, records, by="engine"))


def test_engines_of_different_machines_are_not_compared(spec: Spec) -> None:
    found = compare(
        runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=TIME, engine="trainer", machine=OTHER), by="engine"
    )

    assert (len(found.pairs), found.exit_code) == (0, 2)


def test_a_side_of_several_machines_is_refused(spec: Spec) -> None:
    mixed = runs(spec, f1=F1, seconds=TIME) + runs(spec, f1=F1, seconds=TIME, machine=OTHER)

    found = compare(mixed, runs(spec, f1=F1, seconds=TIME))

    assert found.exit_code == 2
    assert "A has runs of several machines" in text(found)


def test_only_the_newest_run_of_a_seed_is_used(spec: Spec) -> None:
    old = runs(spec, f1=(0.1, 0.1, 0.1), seconds=TIME)
    new = [
        one.model_copy(update={"finished": one.finished.replace(hour=13)}) for one in runs(spec, f1=F1, seconds=TIME)
    ]

    found = compare(new + old, runs(spec, f1=F1, seconds=TIME))

    assert row(found, "f1").a.values == F1
    assert "only the newest run of each seed is used" in text(found)


def test_metrics_with_different_signatures_are_not_compared(spec: Spec) -> None:
    other = [
        one.model_copy(update={"quality": tuple(q.model_copy(update={"signature": "lenient"}) for q in one.quality)})
        for one in runs(spec, f1=F1, seconds=TIME)
    ]

    found = compare(runs(spec, f1=F1, seconds=TIME), other)

    assert "f1" not in [row.measure for row in found.pairs[0].rows]
    assert "f1 is not comparable: its signature differs" in text(found)


def test_energy_from_different_counters_gives_no_verdict(spec: Spec) -> None:
    cpu, gpu = (Energy(joules=5.0, source=source, reason=None) for source in ("RAPL", "NVML"))

    found = compare(runs(spec, f1=F1, seconds=TIME, energy=cpu), runs(spec, f1=F1, seconds=TIME, energy=gpu))

    assert outcome(found, "energy") == "no verdict"


def test_costs_of_runs_that_shared_the_machine_give_no_verdict(spec: Spec) -> None:
    slow = tuple(2 * seconds for seconds in TIME)
    shared = software(environment={"PYTEST_XDIST_WORKER_COUNT": "2"})

    alone = compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=slow))
    found = compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=slow, software=shared))

    assert outcome(alone, "training") == "worse"
    assert outcome(found, "training") == "no verdict"
    assert outcome(found, "f1") == "same"
    assert "other runs shared the machine" in text(found, width=200)


def test_a_figure_that_some_seeds_lack_is_left_out(spec: Spec) -> None:
    half = runs(spec, f1=F1, seconds=TIME)
    half[0] = half[0].model_copy(update={"energy": Energy(joules=5.0, source="RAPL", reason=None)})
    whole = runs(spec, f1=F1, seconds=TIME, energy=Energy(joules=5.0, source="RAPL", reason=None))

    assert row(compare(half, whole), "energy").a.n == 0


def test_different_software_is_noted(spec: Spec) -> None:
    other = software(packages={"torch": "2.12.0"}, environment={"OMP_NUM_THREADS": "1"})

    shown = text(compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=TIME, software=other)))

    assert "torch: 2.13.0 in A, 2.12.0 in B" in shown
    assert "OMP_NUM_THREADS: none in A, 1 in B" in shown


def test_markup_in_a_record_is_printed_literally(spec: Spec, tmp_path: Path) -> None:
    path = write_record(record(spec, software=software(packages={"torch": "[red]2[/red] [bold"})), tmp_path)

    shown = text(compare([read_record(path)], runs(spec, f1=F1, seconds=TIME), names=("[b]A", "B[/b]")))

    assert "torch: [red]2[/red] [bold in A" in shown
    assert "A = [b]A, B = B[/b]" in shown


def test_the_output_fits_a_narrow_terminal_and_names_the_exit_code(spec: Spec) -> None:
    shown = text(compare(runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=TIME)), width=80)

    assert max(map(len, shown.splitlines())) <= 80
    assert "(exit code 0)" in shown


@pytest.mark.parametrize("n", [2, 3, 10])
def test_false_alarms_are_as_rare_as_stated(n: int) -> None:
    """1,000 pairs of equal samples: the share called different is below 1 in 100, but for a chance of one in a
    million.
    """
    rng = np.random.default_rng(11)
    bound = stats.binom.ppf(1 - 1e-6, 1000, 0.01)
    times, metrics = 0, 0
    for _ in range(1000):
        a, b = (Sample(tuple(rng.lognormal(2, 0.1, n).tolist())) for _ in range(2))
        times += cost_difference(a, b).outcome in ("better", "worse")
        metrics += quality_difference(a, b, higher_is_better=True).outcome in ("better", "worse")

    assert times <= bound
    assert metrics <= bound


def test_a_clear_change_is_found_with_three_seeds() -> None:
    rng = np.random.default_rng(12)
    found = sum(
        cost_difference(
            Sample(tuple(rng.lognormal(0, 0.01, 3).tolist())), Sample(tuple(rng.lognormal(0.2, 0.01, 3).tolist()))
        ).outcome
        == "worse"
        for _ in range(200)
    )

    assert found >= 190  # 20 % at a noise of 1 %


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((5.0, 5.0), (5.0, 5.0), "same"),
        ((5.0, 5.0), (6.0, 6.0), "no verdict"),
        ((), (5.0, 6.0), "no verdict"),
        ((0.0, 0.0), (1.0, 2.0), "no verdict"),
    ],
)
def test_costs_without_spread_or_measurement(a: tuple[float, ...], b: tuple[float, ...], expected: str) -> None:
    assert cost_difference(Sample(a), Sample(b)).outcome == expected


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((), "-"),
        ((0.889864321,), "0.88986"),
        ((123456.7,), "123,457"),
        ((0.8868, 0.8899, 0.8928), "0.8898 ± 0.0030"),
        ((675.4, 985.3), "830 ± 219"),
        ((2.0, 2.0), "2 ± 0"),
    ],
)
def test_mean_text_has_as_many_digits_as_the_spread_justifies(values: tuple[float, ...], text: str) -> None:
    assert mean_text(Sample(values)) == text


def test_different_numbers_of_processes_are_judged_by_quality_only(spec: Spec) -> None:
    one, two = (
        runs(spec, f1=F1, seconds=TIME),
        runs(spec, f1=(0.5, 0.51, 0.505), seconds=(50, 51, 52), launch=launch(2)),
    )
    found = compare(one, two)

    assert outcome(found, "f1") == "worse"
    assert {outcome(found, measure) for measure in ("training", "peak host memory")} == {"no verdict"}
    difference = row(found, "training").difference
    assert difference is not None
    assert difference.reason == "2 processes instead of 1 process"
    assert difference.ratio == pytest.approx(5.07, abs=0.01)
    assert found.pairs[0].sides == ("xeon-2c-24g-012345, 1 process, n=3", "xeon-2c-24g-012345, 2 processes, n=3")


def test_the_same_number_of_processes_is_judged_by_costs_too(spec: Spec) -> None:
    two = runs(spec, f1=F1, seconds=TIME, launch=launch(2))
    slower = runs(spec, f1=F1, seconds=(50, 51, 52), launch=launch(2))

    assert outcome(compare(two, slower), "training") == "worse"


def test_several_numbers_of_processes_on_a_side_are_paired_separately(spec: Spec) -> None:
    one, two = runs(spec, f1=F1, seconds=TIME), runs(spec, f1=F1, seconds=TIME, launch=launch(2))
    found = compare(one + two, two)

    assert [pair.title.partition(" (")[0] for pair in found.pairs] == ["ner · embedded · loop · 2 processes · fp32"]
    assert [(unpaired.title, unpaired.reason) for unpaired in found.unpaired] == [
        ("ner · embedded · loop · 1 process · fp32", "missing in B")
    ]


def test_the_open_division_is_not_compared_with_the_closed_one(spec: Spec, tmp_path: Path) -> None:
    fast = runs(open_spec(tmp_path), f1=(0.5, 0.51, 0.505), seconds=(10.0, 10.05, 10.1))
    found = compare(runs(spec, f1=F1, seconds=(20.0, 20.1, 20.2)), fast)

    assert (len(found.pairs), found.exit_code) == (0, 2)
    assert [one.title for one in found.unpaired] == [
        "ner · embedded · loop · fp32",
        "ner+fast · embedded · open division · loop · fp32",
    ]


def test_the_open_division_is_compared_with_itself(tmp_path: Path) -> None:
    fast = runs(open_spec(tmp_path), f1=F1, seconds=TIME)
    slower = runs(open_spec(tmp_path), f1=F1, seconds=(20.0, 20.1, 20.2))
    found = compare(fast, slower)

    assert (outcome(found, "training"), found.exit_code) == ("worse", 1)
    assert "open division" in found.pairs[0].title


def test_a_record_without_a_division_belongs_to_the_closed_one(spec: Spec, tmp_path: Path) -> None:
    old = record(spec)
    plain = {key: value for key, value in old.spec.resolved.items() if key != "division"}
    path = write_record(old.model_copy(update={"spec": old.spec.model_copy(update={"resolved": plain})}), tmp_path)

    assert read_record(path).spec.division == "closed"
    assert record(open_spec(tmp_path)).spec.division == "open"
