"""`touchstone`: what each command shows, what it writes, and its exit codes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.suite.test_plugin import write_spec
from tests.support import samples
from tests.support.environment import environment
from touchstone.__main__ import main
from touchstone.records.record import read_record, read_records
from touchstone.runs import trials
from touchstone.show import tables as common
from touchstone.show.tables import LONGEST_CELL, set_in_columns, visible
from touchstone.specs.expectation import load_expectations
from touchstone.specs.spec import load_spec

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A spec that was calibrated with two seeds, and what was shown."""
    spec = write_spec(tmp_path_factory.mktemp("calibrated"))
    options = ["--spec", str(spec), "--seeds", "1,2", "--device", "cpu", "--results", str(spec.parent / "results")]
    process = subprocess.run(
        [sys.executable, "-m", "suite", "calibrate", "tiny", *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=240,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return spec, process.stdout


def test_help_imports_nothing_that_is_slow() -> None:
    program = (
        "import sys; from touchstone.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "a first hour" in process.stdout
    for slow in ("torch", "transformers", "datasets", "numpy", "scipy", "pydantic", "rich", "pytest"):
        assert f"'{slow}'" not in process.stdout


@pytest.mark.parametrize("command", ["show", "calibrate", "hardware", "compare", "times"])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f"touchstone {command} " in text
    assert "examples:" in text
    assert "exit codes:" in text
    epilog = text[text.index("examples:") :]
    assert max(len(line) for line in epilog.splitlines()) <= 80


def test_without_a_command_it_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2


# ---- show


def test_show_sets_words_above_labels_and_tokens_above_labels(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "token-classification", "--samples", "2", "--seed", "3"]) == 0
    text = capsys.readouterr().out
    assert text.count(": words above their labels") == 2
    assert text.count(": tokens above their labels (strategy all)") == 2
    assert "ClassLabel" in text
    assert "A padded batch of 16" in text
    assert "[CLS]" in text
    assert "B-PER" in text
    assert "\x1b" not in text, "no colour in a pipe"
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if "tokens above their labels" in line)
    tokens, labels = lines[at + 1], lines[at + 2]
    assert tokens.index("[CLS]") == labels.index("-100"), "what belongs together begins in the same column"
    assert max(cell_len(line) for line in lines) <= 120


def test_show_draws_by_its_seed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for seed in ("3", "3", "4"):
        main(["show", "token-classification", "--samples", "1", "--seed", seed])
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0] != shown[2]


def test_show_of_a_variant_shows_the_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "token-classification+first", "--samples", "1"]) == 0
    assert "(strategy first)" in capsys.readouterr().out


def test_show_of_causal_lm_shows_programs_what_is_predicted_and_key_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "causal-lm+key-tokens", "--samples", "1"]) == 0
    out = capsys.readouterr().out
    for expected in (
        "Train program ",
        "Chunks of 64 tokens (the remainder of a document: drop)",
        "what the model reads, above what it is to predict there",
        "63 of 64 tokens are predicted: all but the first",
        "Key tokens in train",
        "input_ids (16, 64), attention_mask (16, 64), labels (16, 64), weights (16,)",
    ):
        assert expected in out


@pytest.mark.parametrize("task", ["translation"])
def test_show_of_a_task_that_writes_shows_pairs_and_what_the_decoder_reads(
    task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", task, "--samples", "1", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    for expected in (
        "source: Value('string')",
        "what the decoder reads, above what it is to write",
        "decoder_input_ids (32, ",
        "Tokens of each source",
        "Tokens of each target",
        "may be cut off",
    ):
        assert expected in out
    lines = out[out.index("what the decoder reads") :].splitlines()
    assert lines[1].split()[0] == "<pad>"  # above the first token of the target
    assert lines[1].split()[1] == lines[2].split()[0]


def test_show_of_question_answering_marks_the_answer_in_its_window(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "question-answering", "--samples", "1"]) == 0
    text = capsys.readouterr().out
    answer = text[text.index("answers:  ") :].splitlines()[0].removeprefix("answers:  ")
    assert f"[{answer}]" in text.replace("\n    ", " ")
    assert "window 1 of 1: tokens " in text
    assert "Windows of at most 96 tokens, neighbours share 24" in text
    assert "windows hold a whole answer" in text


def test_show_lets_the_checkpoints_model_answer_the_probe_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for _ in range(2):
        assert main(["show", "masked-lm", "--samples", "1", "--probe"]) == 0
        shown.append(capsys.readouterr().out.partition("makes of the probe\n")[2])
    assert len(shown[0].splitlines()) == 5, "five fillings, the likeliest first"
    assert "She lives in" in shown[0]
    assert shown[0] == shown[1], "what is untrained is drawn by the seed"


def test_show_of_masked_lm_shows_chunks_and_what_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "masked-lm", "--samples", "1"]) == 0
    text = capsys.readouterr().out
    assert "Chunks of 64 tokens" in text
    assert "[MASK]" in text
    assert "tokens are to be guessed" in text
    assert " of 64\n" in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["token-clasification"], "did you mean token-classification"),
        (["masked-lm", "--profile", "tiny"], "--profile tiny: there is no profile"),
        (["masked-lm", "--mirror", "/no/such/place"], "--mirror /no/such/place: "),
        (["masked-lm", "--spec", "/no/such/file.toml"], "there is no such file"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert len(err.splitlines()) == 1


def test_columns_hold_for_wide_combining_and_right_to_left_words() -> None:
    words = ["東京", "café", "cafe\u0301", "🙂", "👩\u200d👩\u200d👧", "مرحبا", "שלום", "x"]
    labels = ["B-LOC", "O", "O", "O", "O", "B-PER", "I-PER", "O"]
    first, second = set_in_columns([words, labels], width=200)
    for word, label in zip(words, labels, strict=True):
        before, found, _ = first.plain.partition(word)
        assert found
        assert second.plain[cell_len(before.replace("\u200e", "")) :].startswith(label)


def test_a_right_to_left_word_is_kept_from_its_neighbour() -> None:
    (line,) = set_in_columns([["مرحبا", "שלום"]], width=80)
    gap = line.plain[line.plain.index("م") : line.plain.index("ש")]
    assert "\u200e" in gap, "two right-to-left words that touch are drawn in each other's place"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\u241b[2J"),
        ("a\nb", "a\u240ab"),
        ("\u202eabc", "\\u202eabc"),
        ("\u200b", "\\u200b"),
        ("\x7f", "\u2421"),
        ("\ud800", "\\ud800"),
        ("é ☃", "é ☃"),
    ],
)
def test_what_could_move_the_cursor_or_hide_is_spelt_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_rows_go_on_below_where_the_width_ends_and_no_word_is_lost() -> None:
    words = [f"word{i}" for i in range(50)]
    lines = set_in_columns([words, [str(i) for i in range(50)]], width=40)
    assert max(cell_len(line.plain) for line in lines) <= 40
    blocks = [lines[i : i + 2] for i in range(0, len(lines), 3)]
    assert [word for block in blocks for word in block[0].plain.split()] == words
    assert [str(i) for i in range(50)] == [number for block in blocks for number in block[1].plain.split()]


def test_an_endless_or_empty_word_still_has_its_column() -> None:
    first, second = set_in_columns([["x" * 1000, "", "y"], ["A", "B", "C"]], width=100)
    assert cell_len(first.plain) < LONGEST_CELL + 20
    assert second.plain.split() == ["A", "B", "C"]
    assert set_in_columns([[], []], width=80) == []
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        set_in_columns([["a"], ["b", "c"]], width=80)


def test_the_share_of_padding_is_that_of_the_positions() -> None:
    import numpy as np

    assert common.padding_share(np.array([1, 4]), batch_size=2) == pytest.approx(3 / 8)
    assert common.padding_share(np.array([1, 4]), batch_size=1) == 0.0
    assert common.padding_share(np.array([], dtype=np.int64), batch_size=4) == 0.0


# ---- calibrate


def test_calibrate_writes_values_with_where_they_come_from(calibrated: tuple[Path, str]) -> None:
    path, text = calibrated
    spec = load_spec(path, profile="embedded")
    expectation = load_expectations(spec)["accuracy"]
    records = read_records(path.parent / "results")
    assert expectation.seeds == (1, 2)
    assert list(expectation.values) == [
        next(q.value for q in record.quality if q.name == "accuracy") for record in records
    ]
    assert expectation.provenance.kind == "measured"
    assert expectation.provenance.engine == "trainer"
    assert records[0].hardware.id in expectation.provenance.hardware
    assert expectation.provenance.software["torch"]
    assert expectation.stale is None
    assert expectation.higher_is_better
    for seed in (1, 2):
        assert f"  seed {seed}  accuracy " in text
    assert "band of one run" in text
    assert f"written: {path.parent / 'expectations' / 'tiny.embedded.json'}" in text


def test_a_calibration_goes_on_from_its_records(
    calibrated: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    house = Path(shutil.copytree(calibrated[0].parent, tmp_path / "house"))
    spec = house / "tiny.toml"
    options = ["calibrate", "tiny", "--spec", str(spec), "--device", "cpu", "--results", str(house / "results")]
    before = load_expectations(load_spec(spec, profile="embedded"))["accuracy"]
    assert main([*options, "--seeds", "1-3", "--resume"]) == 0

    text = capsys.readouterr().out
    after = load_expectations(load_spec(spec, profile="embedded"))["accuracy"]
    assert after.seeds == (1, 2, 3)
    assert before.values == after.values[:2]
    assert ["(recorded before)" in line for line in text.splitlines() if re.match(r"  seed \d  accuracy", line)] == [
        True,
        True,
        False,
    ]

    monkeypatch.setattr(trials, "JOB", "tests.support.jobs:first_killed")
    assert main([*options, "--seeds", "3,1", "--resume"]) == 0, "nothing is left to run"
    assert main([*options, "--seeds", "3,1"]) == 1


def test_a_calibration_by_several_processes_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(tmp_path / "house")
    results = tmp_path / "results"
    options = ["calibrate", "tiny", "--spec", str(spec), "--seeds", "1,2", "--device", "cpu", "--results", str(results)]
    options += ["--launch", "torchrun --standalone --nproc-per-node 2", "--timeout", "200"]
    assert main(options) == 0, capsys.readouterr()

    assert "each run started by torchrun --standalone --nproc-per-node 2" in capsys.readouterr().out
    provenance = load_expectations(load_spec(spec, profile="embedded"))["accuracy"].provenance
    assert provenance.kind == "measured"
    assert provenance.processes == 2
    assert [record.processes for record in read_records(results)] == [2, 2]

    monkeypatch.setattr(trials, "JOB", "tests.support.jobs:first_killed")
    assert main([*options, "--resume"]) == 0, "nothing is left to run"
    assert capsys.readouterr().out.count("(recorded before)") == 2
    path = next(results.glob("*/*.2-processes.seed1.json"))
    shutil.copy(path, path.with_name(path.name.replace("2-processes", "4-processes")))
    assert main([*options, "--resume"]) == 2
    assert "holds runs of several numbers of processes" in capsys.readouterr().err


def test_a_calibration_by_one_process_says_nothing_of_it(calibrated: tuple[Path, str]) -> None:
    """So that expectations of before there were several stay as they are."""
    path = calibrated[0].parent / "expectations" / "tiny.embedded.json"

    assert "processes" not in path.read_text()


def test_a_calibration_goes_on_from_no_record_of_another_run(
    calibrated: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    house = Path(shutil.copytree(calibrated[0].parent, tmp_path / "house"))
    spec, results = house / "tiny.toml", house / "results"
    options = ["calibrate", "tiny", "--spec", str(spec), "--seeds", "1,2", "--device", "cpu", "--resume"]
    assert main(options) == 2
    assert "name that directory too" in capsys.readouterr().err

    path = next(results.glob("*/*.seed2.json"))
    record = read_record(path)
    software = record.software.model_copy(update={"packages": record.software.packages | {"torch": "2.0.0"}})
    path.write_text(record.model_copy(update={"software": software}).model_dump_json())
    assert main([*options, "--results", str(results)]) == 2
    assert "different software" in capsys.readouterr().err

    spec.write_text(spec.read_text().replace("epochs = 2", "epochs = 3"))
    assert main([*options, "--results", str(results)]) == 2
    assert "move it away, or leave --resume out" in capsys.readouterr().err


def test_calibrate_writes_nothing_when_a_run_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(tmp_path / "house")
    monkeypatch.setattr(trials, "JOB", "tests.support.jobs:first_killed")
    assert main(["calibrate", "tiny", "--spec", str(spec), "--seeds", "1,2", "--device", "cpu"]) == 1
    text = capsys.readouterr().out
    assert "SIGKILL" in text
    assert "No expectation was written" in text
    assert not (spec.parent / "expectations").exists()


def test_the_open_division_is_not_calibrated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = samples.write_spec(tmp_path, text=samples.SPEC + samples.OPEN)

    assert main(["calibrate", "ner+fast", "--spec", str(path)]) == 2
    err = capsys.readouterr().err
    assert "ner+fast: is of the open division, which has to reach what ner reaches" in err
    assert "calibrate ner --profile embedded, or train it: pytest suite/ --task ner+fast" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", "10"], "so 10 runs are --seeds 1-10"),
        (["--seeds", "1,1"], "seed 1 is given twice"),
        (["--engine", "warp"], "possible: trainer, loop"),
        (["--launch", "no-such-launcher", "--device", "cpu"], "no command 'no-such-launcher' beside this Python"),
        (["--dataset", f"token-classification={ROOT}"], "put them into a spec of your own"),
        (["--precision", "fp16", "--device", "cpu"], "half precision needs a GPU"),
    ],
)
def test_what_cannot_be_calibrated_is_one_sentence(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(tmp_path / "house")
    assert main(["calibrate", "tiny", "--spec", str(spec), *arguments]) == 2
    assert told in capsys.readouterr().err


# ---- hardware, compare, times


def test_hardware_shows_what_records_hold(calibrated: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    record = read_records(calibrated[0].parent / "results")[0]
    assert main(["hardware", "--device", "cpu", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert record.hardware.model_dump(mode="json") | {"folder": record.hardware.folder} == shown["hardware"]
    assert shown["rates"] == {}
    assert main(["hardware", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    for value in (record.hardware.id, f"results/{record.hardware.folder}", record.software.packages["torch"]):
        assert value in text


def test_hardware_measures_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hardware", "--device", "cpu", "--measure", "--json"]) == 0
    rates = json.loads(capsys.readouterr().out)["rates"]
    assert set(rates) == {"fp32", "bf16", "fp16"}
    for precision in ("fp32", "bf16"):
        for what in ("gemm", "attention", "memory"):
            assert rates[precision][what]["per_second"] > 0
    assert "not trained on cpu" in rates["fp16"]["reason"]
    assert main(["hardware", "--device", "cpu", "--measure"]) == 0
    text = capsys.readouterr().out
    for row in ("products in fp32", "attention in bf16", "memory rate", "not known: fp16"):
        assert row in text


def test_hardware_of_a_device_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hardware", "--device", "cuda:99"]) == 2
    assert "--device cuda:99" in capsys.readouterr().err


def test_compare_of_a_machine_with_itself_finds_it_the_same(
    calibrated: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    results = str(calibrated[0].parent / "results")
    assert main(["compare", results, results]) == 0
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["/no/such/record"], "compare needs two sides"),
        (["/no/such/record", "/none"], "/no/such/record"),
        (["/none", "--by", "engine"], "/none"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err


def test_times_are_shown_of_the_profile_that_is_asked_for(
    calibrated: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # a narrow table breaks its cells into lines
    results = str(calibrated[0].parent / "results")
    assert main(["times", results, "--profile", "embedded"]) == 0
    out = capsys.readouterr().out
    assert "tiny · embedded" in out
    assert "nothing was expected" in out
    assert main(["times", results, "--profile", "course"]) == 2
    assert "no record is of profile 'course': there are embedded" in capsys.readouterr().err


def test_times_of_no_record_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["times", "/no/such/record"]) == 2
    assert "/no/such/record" in capsys.readouterr().err
