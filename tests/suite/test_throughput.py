"""`pytest suite/throughput`: the course's code agrees with the stages, which are timed, judged and recorded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.environment import environment
from touchstone.interface.display import as_text
from touchstone.records.machine import describe_hardware, describe_software, suite_version
from touchstone.records.record import RecordError
from touchstone.records.timing import (
    Goal,
    Growth,
    Rounds,
    Stage,
    Throughput,
)
from touchstone.stages import (
    align_labels_batch,
    chunk_batch,
    chunk_documents_batch,
    key_token_weights,
    pick_answer,
)
from touchstone.stages.ragged import Ragged
from touchstone.suite.throughput import course, measuring
from touchstone.suite.throughput.data import Data, repeated
from touchstone.suite.throughput.measuring import STAGES, Method, problems, time_in_turns
from touchstone.suite.throughput.table import table
from touchstone.suite.throughput.test_questions import labelled_windows

ROOT = Path(__file__).parents[2]


# The course's code does the same work --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Data:
    return Data("embedded", mirror=None)


def test_course_alignment_agrees_with_align_labels(data: Data) -> None:
    sentences = data.sentences
    rows = sentences.data[:300]
    expected = course.tokenize_and_align(rows, sentences.tokenizer)
    gold, words = (part.take(np.arange(300)) for part in (sentences.gold, sentences.columns["word_ids"]))
    assert sentences.columns["input_ids"].take(np.arange(300)).to_lists() == expected["input_ids"]
    assert align_labels_batch(gold, word_ids=words, names=sentences.names).to_lists() == expected["labels"]


def test_course_group_texts_agrees_with_chunk(data: Data) -> None:
    reviews = data.reviews
    some = {name: column.take(np.arange(100)) for name, column in reviews.columns.items() if name != "word_ids"}
    expected = course.group_texts({name: column.to_lists() for name, column in some.items()}, length=64)
    came = {name: column.to_lists() for name, column in chunk_batch(some, length=64).items()}
    assert {name: expected[name] for name in came} == came
    tokenized = course.tokenize_text(reviews.data[:100], reviews.tokenizer)
    assert some["input_ids"].to_lists() == tokenized["input_ids"]


def test_course_tokenize_code_agrees_with_chunk_documents(data: Data) -> None:
    programs = data.programs
    expected = course.tokenize_code(programs.data[:50], programs.tokenizer, length=32)["input_ids"]
    documents = Ragged.from_lists(programs.tokenizer(programs.texts[:50], add_special_tokens=False)["input_ids"])
    assert len(expected) > 50
    assert chunk_documents_batch(documents, length=32).to_lists() == expected


def test_course_key_weights_agree_with_key_token_weights() -> None:
    ids = np.random.default_rng(0).integers(0, 9, size=(6, 20))
    keys = [1, 4, 7]
    expected = course.key_weights(torch.from_numpy(ids), keys).tolist()
    assert key_token_weights(ids, key_ids=keys).tolist() == expected


def test_course_windows_agree_with_make_windows(data: Data) -> None:
    questions = data.questions
    rows = np.arange(200)
    prepare = partial(course.prepare_training, tokenizer=questions.tokenizer, max_length=384, stride=128)
    expected = prepare(questions.data[:200])
    came = labelled_windows(questions, questions.question_tokens.take(rows), rows)
    assert came["input_ids"].to_lists() == expected["input_ids"]
    assert came["start"].tolist() == expected["start_positions"]
    assert came["end"].tolist() == expected["end_positions"]


def test_course_answers_agree_with_pick_answer() -> None:
    context = "abcdefghij"
    offsets = [None, *((place, place + 1) for place in range(10))]
    start, end = (np.random.default_rng(seed).normal(size=(1, 11)) for seed in (0, 1))  # 11 tokens: all among the 20
    expected = course.best_answers(start, end, offsets=[offsets], windows_of={0: [0]}, contexts=[context])
    answer = pick_answer(start.tolist(), end_logits=end.tolist(), offsets=[offsets], context=context)
    assert [answer["text"]] == expected


def test_course_masking_masks_whole_words(data: Data) -> None:
    ids = list(range(100, 120))
    words = [None, *[place // 3 for place in range(18)], None]
    feature = {"input_ids": list(ids), "labels": list(ids), "word_ids": words}
    batch = course.mask_whole_words([feature], mask_id=3, rate=0.5)
    hidden = (batch["labels"][0] != -100).tolist()
    for word in range(6):
        assert len({flag for flag, own in zip(hidden, words, strict=True) if own == word}) == 1
    assert batch["input_ids"][0].tolist() == [3 if flag else token for flag, token in zip(hidden, ids, strict=True)]


def test_repeated_repeats_or_drops_rows() -> None:
    columns = {"input_ids": Ragged.from_lists([[1, 2], [3, 4]])}
    assert repeated(columns, 6)["input_ids"].to_lists() == [[1, 2], [3, 4], [1, 2]]
    assert repeated(columns, 1)["input_ids"].to_lists() == [[1, 2]]


# Timing in turns -----------------------------------------------------------------------------------------------------


def stage(
    *, ours: tuple[float, ...] = (2.0, 4.0, 3.0), theirs: tuple[float, ...] = (20.0, 20.0, 60.0), most: float = 0.1
) -> Stage:
    return Stage(
        name="chunk",
        ours=Rounds(what="chunk_batch", tokens=1000, seconds=ours),
        peers={"course": Rounds(what="group_texts", tokens=500, seconds=theirs)},
        goal=Goal(peer="course", most=most),
        growth=(),
    )


def test_time_in_turns_alternates_stage_and_peers(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(measuring, "ROUNDS", 3)
    found = time_in_turns(
        benchmark,
        "shift",
        ours=Method("ours", lambda: calls.append("ours"), 10),
        peers={
            "library": Method("theirs", lambda: calls.append("library"), 10),
            "copy": Method("a copy", lambda: calls.append("copy"), 10),
        },
    )
    rounds = len(found.ours.seconds)
    assert {len(peer.seconds) for peer in found.peers.values()} == {rounds}
    assert ["library", "copy", "ours"] * (len(calls) // 3) == calls[: len(calls) // 3 * 3]


def test_time_in_turns_refuses_an_unknown_stage() -> None:
    with pytest.raises(ValueError, match="'chunks' is not in STAGES"):
        time_in_turns(None, "chunks", ours=Method("", int, 1), peers={})


def test_ratios_compare_times_per_token_and_spreads_compare_rounds() -> None:
    # 3 s for 1000 tokens against 20 s for 500: 3 ms against 40 ms; by rounds 2 : 40, 4 : 40, 3 : 120
    assert stage().ratio("course") == pytest.approx(0.075)
    assert stage().spread("course") == pytest.approx((0.025, 0.1))
    assert stage().ours.ns_per_token == pytest.approx(3e6)


def test_a_goal_is_missed_only_if_no_round_reached_it() -> None:
    assert stage(most=0.03).reached
    assert not stage(most=0.02).reached
    assert problems(stage(most=0.03)) == []
    (line,) = problems(stage(most=0.02))
    assert line == "chunk takes 0.025 to 0.1 times as long as group_texts, but the goal is 0.02"


def grown(*, times: tuple[float, ...], sizes: tuple[int, ...]) -> Stage:
    tokens = (100, 1000, 10_000)
    parts = zip(tokens, times, sizes, strict=True)
    growth = tuple(
        Growth(tokens=n, seconds=(1.0, n * t), copy_seconds=(n * 1e-8, 1.0), peak_bytes=n * size)
        for n, t, size in parts
    )
    return stage().model_copy(update={"growth": growth, "goal": None})


def test_problems_reports_cost_that_grows_faster_than_the_data() -> None:
    flat = (8, 8, 8)
    assert problems(grown(times=(1e-6, 1e-6, 3e-6), sizes=flat)) == []  # the data no longer fits in a cache
    (line,) = problems(grown(times=(1e-7, 1e-6, 1e-5), sizes=flat))
    assert line == "chunk takes as long as 10.0 (of 100), 100.0 (of 1,000), 1000.0 (of 10,000) copies: not linear"
    (line,) = problems(grown(times=(1e-6, 1e-6, 1e-6), sizes=(8, 8, 80)))
    assert line == "chunk: a token needs 8.0 (of 100), 8.0 (of 1,000), 80.0 (of 10,000) bytes: not linear"


def test_memory_growth_is_the_peak_of_allocations() -> None:
    def at(tokens: int) -> tuple[Any, int]:
        return lambda: [np.zeros(tokens, np.int64) for _ in range(2)] and None, tokens

    growth = measuring._grow(at, tokens=100_000)
    assert 16 <= growth.bytes_per_token < 17
    assert len(growth.seconds) == measuring.GROWTH_ROUNDS


def test_the_table_shows_ratio_spread_and_goal() -> None:
    text = as_text(table([stage(), stage(most=0.02)]), width=200, colour=False, encoding="utf-8")
    assert "13 (10-40)" in text
    assert "> 10x ok" in text
    assert "> 50x missed" in text


# The record -----------------------------------------------------------------------------------------------------------


def record(**changes: Any) -> Throughput:
    now = datetime(2025, 1, 2, tzinfo=timezone.utc)
    fields: dict[str, Any] = {
        "profile": "embedded",
        "data": {"masked-lm": "2000 rows of microworld"},
        "stages": (stage(), grown(times=(1e-6, 1e-6, 1e-6), sizes=(8, 8, 8))),
        "hardware": describe_hardware("cpu"),
        "software": describe_software(environment={}),
        "suite": suite_version(),
        "started": now,
        "finished": now,
    }
    return Throughput(**fields | changes)


def test_a_throughput_record_survives_writing_and_reading(tmp_path: Path) -> None:
    path = record().write(tmp_path)
    assert path == tmp_path / record().hardware.folder / "throughput.embedded.json"
    assert Throughput.read(path) == record()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda plain: plain.update(stage=1), "stage"),
        (lambda plain: plain["stages"][0]["ours"].update(tokens=0), "tokens"),
        (lambda plain: plain["stages"][0]["peers"].update(magic=plain["stages"][0]["ours"]), "magic"),
        (lambda plain: plain.update(schema_version=2), "schema_version"),
    ],
)
def test_throughput_read_refuses_a_wrong_record_with_file_and_key(tmp_path: Path, change: Any, says: str) -> None:
    path = record().write(tmp_path)
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))
    with pytest.raises(RecordError, match=says) as caught:
        Throughput.read(path)
    assert str(path) in str(caught.value)


# End to end --------------------------------------------------------------------------------------------------------


def run_pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )


def test_pytest_suite_times_nothing_unless_throughput_is_named() -> None:
    assert "suite/throughput" not in run_pytest("suite/", "--collect-only", "-q").stdout
    named = run_pytest("suite/throughput", "--collect-only", "-q").stdout
    specs = [line for line in named.splitlines() if re.match(r"suite/throughput/test_(?!engines|watch|audit)", line)]
    assert len(STAGES) == len(specs)


def test_a_partial_session_is_shown_but_not_recorded(tmp_path: Path) -> None:
    done = run_pytest("suite/throughput/test_pairs.py", "-k", "shift", "--results", str(tmp_path), "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shift " in done.stdout
    assert "not recorded: a record needs all stages; not timed: tokenize-and-align, align" in done.stdout
    assert list(tmp_path.rglob("*.json")) == []
