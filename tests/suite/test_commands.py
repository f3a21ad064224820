"""The command `touchstone`: what each subcommand prints and writes, and its exit codes."""

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
from touchstone.show.columns import MAX_CELLS, set_in_columns, visible
from touchstone.show.tables import padding_share
from touchstone.specs.expectation import load_expectations
from touchstone.specs.spec import load_spec

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The path of a spec that was calibrated with two seeds, and the output of the calibration."""
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


def test_help_imports_no_slow_package() -> None:
    program = (
        "import sys; from touchstone.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "your first hour" in process.stdout
    for slow in ("torch", "transformers", "datasets", "numpy", "scipy", "pydantic", "rich", "pytest"):
        assert f"'{slow}'" not in process.stdout


@pytest.mark.parametrize("command", ["show", "calibrate", "hardware", "compare", "times"])
def test_help_of_a_command_has_examples_and_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f"touchstone {command} " in text
    assert "examples:" in text
    assert "exit codes:" in text
    epilog = text[text.index("examples:") :]
    assert max(len(line) for line in epilog.splitlines()) <= 80


def test_touchstone_without_a_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2


# ---- show


def test_show_token_classification_sets_words_and_tokens_above_labels(capsys: pytest.CaptureFixture[str]) -> None:
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
    assert tokens.index("[CLS]") == labels.index("-100"), "a token and its label begin in the same column"
    assert max(cell_len(line) for line in lines) <= 120


def test_show_chooses_examples_by_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for seed in ("3", "3", "4"):
        main(["show", "token-classification", "--samples", "1", "--seed", seed])
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0] != shown[2]


def test_show_accepts_a_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "token-classification+first", "--samples", "1"]) == 0
    assert "(strategy first)" in capsys.readouterr().out


def test_show_causal_lm_shows_programs_predictions_and_key_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "causal-lm+key-tokens", "--samples", "1"]) == 0
    out = capsys.readouterr().out
    for expected in (
        "Train program ",
        "Chunks of 64 tokens (remainder of a document: drop)",
        "what the model reads, above the token to predict next",
        "63 of 64 tokens are predicted: all but the first",
        "Key tokens in train",
        "input_ids (16, 64), attention_mask (16, 64), labels (16, 64), weights (16,)",
    ):
        assert expected in out


@pytest.mark.parametrize("task", ["translation"])
def test_show_seq2seq_shows_pairs_and_decoder_inputs(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", task, "--samples", "1", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    for expected in (
        "source: Value('string')",
        "what the decoder reads, above the token to produce next",
        "decoder_input_ids (32, ",
        "Tokens of each source",
        "Tokens of each target",
        "may be cut off",
    ):
        assert expected in out
    lines = out[out.index("what the decoder reads") :].splitlines()
    assert lines[1].split()[0] == "<pad>"  # above the first token of the target
    assert lines[1].split()[1] == lines[2].split()[0]


def test_show_question_answering_marks_the_answer_in_its_window(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "question-answering", "--samples", "1"]) == 0
    text = capsys.readouterr().out
    answer = text[text.index("answers:  ") :].splitlines()[0].removeprefix("answers:  ")
    assert f"[{answer}]" in text.replace("\n    ", " ")
    assert "window 1 of 1: tokens " in text
    assert "Windows of at most 96 tokens, overlapping by 24" in text
    assert "windows contain a whole answer" in text


def test_show_prints_sample_outputs_of_the_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for _ in range(2):
        assert main(["show", "masked-lm", "--samples", "1", "--sample-outputs"]) == 0
        shown.append(capsys.readouterr().out.partition("Sample outputs of the checkpoint's model\n")[2])
    assert len(shown[0].splitlines()) == 5, "five words for the gap, the most probable first"
    assert "She lives in" in shown[0]
    assert shown[0] == shown[1], "the seed draws the untrained weights"


def test_show_masked_lm_shows_chunks_and_masked_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "masked-lm", "--samples", "1"]) == 0
    text = capsys.readouterr().out
    assert "Chunks of 64 tokens" in text
    assert "[MASK]" in text
    assert "tokens are to be predicted" in text
    assert " of 64\n" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["token-clasification"], "did you mean token-classification"),
        (["masked-lm", "--profile", "tiny"], "--profile tiny: there is no profile"),
        (["masked-lm", "--mirror", "/no/such/place"], "--mirror /no/such/place: "),
        (["masked-lm", "--spec", "/no/such/file.toml"], "there is no such file"),
    ],
)
def test_show_explains_a_wrong_option_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_set_in_columns_aligns_wide_combining_and_right_to_left_words() -> None:
    words = ["東京", "café", "cafe\u0301", "🙂", "👩\u200d👩\u200d👧", "مرحبا", "שלום", "x"]
    labels = ["B-LOC", "O", "O", "O", "O", "B-PER", "I-PER", "O"]
    first, second = set_in_columns([words, labels], width=200)
    for word, label in zip(words, labels, strict=True):
        before, found, _ = first.plain.partition(word)
        assert found
        assert second.plain[cell_len(before.replace("\u200e", "")) :].startswith(label)


def test_set_in_columns_separates_right_to_left_words() -> None:
    (line,) = set_in_columns([["مرحبا", "שלום"]], width=80)
    gap = line.plain[line.plain.index("م") : line.plain.index("ש")]
    assert "\u200e" in gap, "two adjacent right-to-left words would swap places"


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
def test_visible_escapes_characters_that_hide_or_move_the_cursor(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_set_in_columns_wraps_without_losing_words() -> None:
    words = [f"word{i}" for i in range(50)]
    lines = set_in_columns([words, [str(i) for i in range(50)]], width=40)
    assert max(cell_len(line.plain) for line in lines) <= 40
    blocks = [lines[i : i + 2] for i in range(0, len(lines), 3)]
    assert [word for block in blocks for word in block[0].plain.split()] == words
    assert [str(i) for i in range(50)] == [number for block in blocks for number in block[1].plain.split()]


def test_set_in_columns_accepts_very_long_and_empty_words() -> None:
    first, second = set_in_columns([["x" * 1000, "", "y"], ["A", "B", "C"]], width=100)
    assert cell_len(first.plain) < MAX_CELLS + 20
    assert second.plain.split() == ["A", "B", "C"]
    assert set_in_columns([[], []], width=80) == []
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        set_in_columns([["a"], ["b", "c"]], width=80)


def test_padding_share_counts_positions() -> None:
    import numpy as np

    assert padding_share(np.array([1, 4]), batch_size=2) == pytest.approx(3 / 8)
    assert padding_share(np.array([1, 4]), batch_size=1) == 0.0
    assert padding_share(np.array([], dtype=np.int64), batch_size=4) == 0.0


# ---- calibrate


def test_calibrate_writes_values_and_their_provenance(calibrated: tuple[Path, str]) -> None:
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


def test_calibrate_resumes_from_its_records(
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
    assert main([*options, "--seeds", "3,1", "--resume"]) == 0, "no run is left"
    assert main([*options, "--seeds", "3,1"]) == 1


def test_calibrate_records_the_number_of_processes(
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
    assert main([*options, "--resume"]) == 0, "no run is left"
    assert capsys.readouterr().out.count("(recorded before)") == 2
    path = next(results.glob("*/*.2-processes.seed1.json"))
    shutil.copy(path, path.with_name(path.name.replace("2-processes", "4-processes")))
    assert main([*options, "--resume"]) == 2
    assert "has records with several numbers of processes" in capsys.readouterr().err


def test_calibrate_with_one_process_does_not_record_the_number(calibrated: tuple[Path, str]) -> None:
    """Expectations measured by one process keep the format of before `--launch` existed."""
    path = calibrated[0].parent / "expectations" / "tiny.embedded.json"

    assert "processes" not in path.read_text()


def test_calibrate_refuses_to_resume_from_other_runs(
    calibrated: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    house = Path(shutil.copytree(calibrated[0].parent, tmp_path / "house"))
    spec, results = house / "tiny.toml", house / "results"
    options = ["calibrate", "tiny", "--spec", str(spec), "--seeds", "1,2", "--device", "cpu", "--resume"]
    assert main(options) == 2
    assert "also give --results" in capsys.readouterr().err

    path = next(results.glob("*/*.seed2.json"))
    record = read_record(path)
    software = record.software.model_copy(update={"packages": record.software.packages | {"torch": "2.0.0"}})
    path.write_text(record.model_copy(update={"software": software}).model_dump_json())
    assert main([*options, "--results", str(results)]) == 2
    assert "the runs used different software versions" in capsys.readouterr().err

    spec.write_text(spec.read_text().replace("epochs = 2", "epochs = 3"))
    assert main([*options, "--results", str(results)]) == 2
    assert "move the record away, or omit --resume" in capsys.readouterr().err


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


def test_calibrate_refuses_the_open_division(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = samples.write_spec(tmp_path, text=samples.SPEC + samples.OPEN)

    assert main(["calibrate", "ner+fast", "--spec", str(path)]) == 2
    err = capsys.readouterr().err
    assert "ner+fast: belongs to the open division, which is judged by the expectation of ner" in err
    assert "calibrate ner --profile embedded, or train the variant with: pytest suite/ --task ner+fast" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "10"], "write --seeds 1-10 for 10 runs"),
        (["--seeds", "1,1"], "seed 1 is listed twice"),
        (["--engine", "warp"], "possible: trainer, loop"),
        (
            ["--launch", "no-such-launcher", "--device", "cpu"],
            "no command 'no-such-launcher' in the directory",
        ),
        (["--dataset", f"token-classification={ROOT}"], "write your own spec (--spec FILE)"),
        (["--precision", "fp16", "--device", "cpu"], "needs a GPU"),
    ],
)
def test_calibrate_explains_a_wrong_option(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(tmp_path / "house")
    assert main(["calibrate", "tiny", "--spec", str(spec), *arguments]) == 2
    assert message in capsys.readouterr().err


# ---- hardware, compare, times


def test_hardware_shows_what_records_contain(calibrated: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    record = read_records(calibrated[0].parent / "results")[0]
    assert main(["hardware", "--device", "cpu", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert record.hardware.model_dump(mode="json") | {"folder": record.hardware.folder} == shown["hardware"]
    assert shown["rates"] == {}
    assert main(["hardware", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    for value in (record.hardware.id, f"results/{record.hardware.folder}", record.software.packages["torch"]):
        assert value in text


def test_hardware_measures_rates_with_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hardware", "--device", "cpu", "--measure", "--json"]) == 0
    rates = json.loads(capsys.readouterr().out)["rates"]
    assert set(rates) == {"fp32", "bf16", "fp16"}
    for precision in ("fp32", "bf16"):
        for what in ("gemm", "attention", "memory"):
            assert rates[precision][what]["per_second"] > 0
    assert "not trained on cpu" in rates["fp16"]["reason"]
    assert main(["hardware", "--device", "cpu", "--measure"]) == 0
    text = capsys.readouterr().out
    for row in ("matrix products in fp32", "attention in bf16", "memory rate", "unknown: fp16"):
        assert row in text


def test_hardware_refuses_an_unavailable_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hardware", "--device", "cuda:99"]) == 2
    assert "--device cuda:99" in capsys.readouterr().err


def test_compare_finds_a_machine_the_same_as_itself(
    calibrated: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    results = str(calibrated[0].parent / "results")
    assert main(["compare", results, results]) == 0
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/no/such/record"], "compare needs two sides"),
        (["/no/such/record", "/none", "--engines", "loop", "trainer"], "--engines: also give --by engine"),
        (["/no/such/record", "/none"], "/no/such/record"),
        (["/none", "--by", "engine"], "/none"),
    ],
)
def test_compare_explains_a_wrong_option(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_times_shows_the_chosen_profile(
    calibrated: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # a narrow table wraps its cells
    results = str(calibrated[0].parent / "results")
    assert main(["times", results, "--profile", "embedded"]) == 0
    out = capsys.readouterr().out
    assert "tiny · embedded" in out
    assert "no expectation" in out
    assert main(["times", results, "--profile", "course"]) == 2
    assert "there is no record of profile 'course'; profiles found: embedded" in capsys.readouterr().err


def test_times_refuses_a_missing_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["times", "/no/such/record"]) == 2
    assert "/no/such/record" in capsys.readouterr().err
