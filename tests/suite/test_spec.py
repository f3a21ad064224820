"""Specs: valid files, the hash, and the error messages for wrong files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.samples import OPEN, SPEC, open_spec, sample_spec, write_spec
from touchstone.specs import measured_hash
from touchstone.specs.spec import Spec, SpecError, available_specs, load_spec, profiles, variants

EVERY = [(name, profile) for name in available_specs() for profile in profiles(name)]


@pytest.mark.parametrize(("name", "profile"), EVERY)
def test_specs_that_come_with_the_suite_load_in_every_profile_and_variant(name: str, profile: str) -> None:
    for variant in (None, *variants(name, profile=profile)):
        spec = load_spec(name, profile=profile, variant=variant)

        assert spec.task == name
        assert Spec.model_validate_json(spec.model_dump_json()) == spec


def test_specs_have_the_three_profiles() -> None:
    assert set(available_specs()) >= {"masked-lm", "token-classification"}
    for name in ("masked-lm", "token-classification"):
        assert profiles(name) == ["embedded", "small", "course"]


def test_course_recipes_match_the_course() -> None:
    ner = load_spec("token-classification", profile="course")
    mlm = load_spec("masked-lm", profile="course")

    clm = load_spec("causal-lm", profile="course")
    gate = load_spec("causal-lm", profile="course", variant="first-5000")

    printed = {"epochs": 1, "batch_size": 32, "accumulation": 8, "learning_rate": 5e-4, "schedule": "cosine"}
    printed |= {"warmup_steps": 1000, "weight_decay": 0.1}
    assert printed.items() <= clm.recipe.model_dump().items()
    assert tuple(clm.options.model_dump()[key] for key in ("context_length", "remainder", "key_tokens")) == (
        128,
        "drop",
        (),
    )
    assert clm.recipe.model_dump() | {"stop_after": 5000} == gate.recipe.model_dump()
    assert (
        ner.recipe.epochs,
        ner.recipe.batch_size,
        ner.recipe.learning_rate,
        ner.recipe.weight_decay,
    ) == (3, 8, 2e-5, 0.01)
    assert (
        mlm.recipe.epochs,
        mlm.recipe.batch_size,
        mlm.recipe.learning_rate,
        mlm.recipe.weight_decay,
    ) == (3, 64, 2e-5, 0.01)
    options = mlm.options.model_dump()
    assert tuple(
        options[key] for key in ("chunk_length", "train_chunks", "validation_chunks", "split_seed", "rate")
    ) == (128, 10_000, 1_000, 42, 0.15)


def test_a_variant_overrides_options_and_changes_name_and_hash(tmp_path: Path) -> None:
    main, first = sample_spec(tmp_path), sample_spec(tmp_path, variant="first")

    assert (main.name, first.name) == ("ner", "ner+first")
    assert (main.options.model_dump()["strategy"], first.options.model_dump()["strategy"]) == ("all", "first")
    assert main.hash != first.hash


def test_a_variant_is_available_only_in_the_profiles_it_lists(tmp_path: Path) -> None:
    other = SPEC[SPEC.index("[profiles.embedded") :].replace("profiles.embedded", "profiles.large")
    other = other.partition("[variants")[0]
    text = SPEC + "\n" + other + '\n[variants.slow]\nprofiles = ["large"]\n[variants.slow.recipe]\nepochs = 9\n'
    path = write_spec(tmp_path, text=text)

    assert (variants(path, profile="embedded"), variants(path, profile="large")) == (["first"], ["first", "slow"])
    assert load_spec(path, profile="large", variant="slow").recipe.epochs == 9
    with pytest.raises(SpecError, match="has no variant 'slow' in profile embedded: available are first"):
        load_spec(path, profile="embedded", variant="slow")


@pytest.mark.parametrize("named", ['["embeded"]', "[]", '"embedded"', "[3]"])
def test_a_variant_that_lists_unknown_profiles_is_refused(tmp_path: Path, named: str) -> None:
    path = write_spec(tmp_path, text=SPEC + f"\n[variants.slow]\nprofiles = {named}\n")

    with pytest.raises(SpecError, match=r"variants.slow.profiles = .*: it must be a list of profiles from embedded"):
        load_spec(path, profile="embedded")


def test_the_hash_ignores_optional_keys_that_are_not_set(tmp_path: Path) -> None:
    """Expectations measured before these keys existed must stay valid."""
    resolved = sample_spec(tmp_path).resolved
    assert "stop_after" not in resolved["recipe"]
    assert "validation_id" not in load_spec("masked-lm", profile="course").resolved["data"]
    stopped = write_spec(tmp_path, text=SPEC.replace("epochs = 1", "epochs = 1\nstop_after = 2"), name="stopped")
    spec = load_spec(stopped, profile="embedded")
    assert 2 == spec.recipe.stop_after == spec.resolved["recipe"]["stop_after"]
    assert sample_spec(tmp_path).hash != spec.hash
    assert Spec.model_validate_json(spec.model_dump_json()) == spec


def test_a_variant_that_changes_nothing_has_the_same_hash(tmp_path: Path) -> None:
    path = write_spec(tmp_path, text=SPEC + '\n[variants.again.options]\nstrategy = "all"\n')

    assert load_spec(path, profile="embedded").hash == load_spec(path, profile="embedded", variant="again").hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("timeout_seconds = 60", "timeout_seconds = 61"),
        ("minutes = 0.5", "eval_batch_size = 7"),
        ('assert = ["f1"]', 'assert = ["recall"]'),
        ("profiles.embedded", "profiles.other"),
        ("epochs = 1", "epochs = 1.0"),
        ("epochs = 1", "epochs = 1\naccumulation = 1"),  # the default, written out
    ],
)
def test_the_hash_ignores_what_is_not_measured(tmp_path: Path, old: str, new: str) -> None:
    changed = write_spec(tmp_path, text=SPEC.replace(old, new), name="changed")

    assert sample_spec(tmp_path).hash == load_spec(changed, profile=profiles(changed)[0]).hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs = 1", "epochs = 2"),
        ("learning_rate = 1e-3", "learning_rate = 1.0000001e-3"),
        ("train = 20", "train = 21"),
        ("hidden = 8", "hidden = 10"),
        ('strategy = "all"', 'strategy = "first"'),
    ],
)
def test_the_hash_covers_what_is_measured(tmp_path: Path, old: str, new: str) -> None:
    changed = write_spec(tmp_path, text=SPEC.replace(old, new, 1), name="changed")

    assert sample_spec(tmp_path).hash != load_spec(changed, profile="embedded").hash


def test_overriding_the_data_set_or_checkpoint_changes_the_hash(tmp_path: Path) -> None:
    spec = sample_spec(tmp_path)

    assert spec.overridden().hash == spec.hash
    assert len({spec.hash, spec.overridden(dataset="d").hash, spec.overridden(checkpoint="d").hash}) == 3


def test_the_hash_is_the_same_for_other_json_writers() -> None:
    plain = {"task": "t", "data": {"a": 3.0, "b": [1, 2.5]}, "checkpoint": {}, "options": {}, "recipe": {}}
    other = {"recipe": {}, "options": {}, "checkpoint": {}, "data": {"b": [1.0, 2.5], "a": 3}, "task": "t"}

    assert measured_hash(plain) == measured_hash(json.loads(json.dumps(other)))
    assert len(measured_hash(plain)) == 64


def test_measured_hash_refuses_an_incomplete_spec() -> None:
    with pytest.raises(ValueError, match="lacks data, checkpoint"):
        measured_hash({"task": "t", "options": {}, "recipe": {}})


WRONG = {
    "an unknown key at the top": (
        "schema = 1",
        "schema = 1\nauthor = 3",
        "author is not a known key: known keys are schema",
    ),
    "no schema": ("schema = 1", "", "schema is missing: add schema = 1"),
    "another schema": ("schema = 1", "schema = 2", "schema = 2: this version of the suite reads 1"),
    "an unknown task": (
        'task = "token-classification"',
        'task = "ner"',
        "task = 'ner': use one of token-classification",
    ),
    "no task": ('task = "token-classification"', "", "task is missing"),
    "a misspelt part": ("[profiles.embedded.recipe]", "[profiles.embedded.recipes]", "did you mean recipe?"),
    "a misspelt profile key": (
        "minutes = 0.5",
        "minute = 0.5",
        "profiles.embedded.minute is not a known key: did you mean minutes?",
    ),
    "a misspelt recipe key": (
        "epochs = 1",
        "epoch = 1",
        "profiles.embedded.recipe.epoch is not a known key: did you mean epochs?",
    ),
    "a missing recipe key": ("epochs = 1", "", "profiles.embedded.recipe.epochs is missing: add it"),
    "text for a number": (
        "batch_size = 4",
        'batch_size = "4"',
        "profiles.embedded.recipe.batch_size = '4': should be a valid integer",
    ),
    "a number out of range": (
        "epochs = 1",
        "epochs = -1",
        "profiles.embedded.recipe.epochs = -1: should be greater than 0",
    ),
    "infinity": (
        "learning_rate = 1e-3",
        "learning_rate = inf",
        "recipe.learning_rate = inf: it must be a finite number",
    ),
    "nothing asserted": ('assert = ["f1"]', "assert = []", "profiles.embedded.assert = []"),
    "no timeout": ("timeout_seconds = 60", "", "profiles.embedded.timeout_seconds is missing: add it"),
    "an unknown source": ('source = "microworld"', 'source = "disk"', "data.source = 'disk': use microworld or hub"),
    "no source": ('source = "microworld"\ntrain', "train", "data.source is missing: use microworld or hub"),
    "an unknown data key": (
        "train = 20",
        "trains = 20",
        "profiles.embedded.data.trains is not a known key: did you mean train?",
    ),
    "an unknown option value": ('strategy = "all"', 'strategy = "some"', "options.strategy = 'some'"),
    "an unknown option": (
        'strategy = "all"',
        "stategy = 1",
        "options.stategy is not a known key: did you mean strategy?",
    ),
    "a part that is not a table": ("[profiles.embedded.data]\n", "[profiles.embedded]\ndata = 3\n[x]\n", "TOML"),
    "a variant with a timeout": (
        "[variants.first.options]",
        "[variants.first]\nminutes = 3\n[variants.first.options]",
        "variants.first.minutes is not a known key",
    ),
    "a profile with a bad name": (
        "profiles.embedded",
        'profiles."../up"',
        "profiles.../up: use lower-case letters",
    ),
    "not TOML": ("schema = 1", "schema =", "is not TOML"),
}


@pytest.mark.parametrize(("old", "new", "message"), WRONG.values(), ids=WRONG)
def test_load_spec_refuses_a_wrong_file_with_file_key_value_and_remedy(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in SPEC
    path = write_spec(tmp_path, text=SPEC.replace(old, new))

    with pytest.raises(SpecError) as caught:
        load_spec(path, profile="embedded")

    assert message in str(caught.value)
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())


def test_load_spec_reports_a_wrong_variant_with_its_key_path(tmp_path: Path) -> None:
    path = write_spec(tmp_path, text=SPEC.replace('strategy = "first"', 'strategy = "last"'))

    with pytest.raises(SpecError, match=re.escape("variants.first.options.strategy = 'last'")):
        load_spec(path, profile="embedded", variant="first")


def test_load_spec_reports_all_problems_at_once(tmp_path: Path) -> None:
    path = write_spec(tmp_path, text=SPEC.replace("epochs = 1", "epochs = 0").replace("train = 20", "train = 0"))

    with pytest.raises(SpecError) as caught:
        load_spec(path, profile="embedded")

    assert len(str(caught.value).splitlines()) == 2


def test_load_spec_reports_unknown_names_with_the_known_ones(tmp_path: Path) -> None:
    path = write_spec(tmp_path)

    with pytest.raises(SpecError, match=r"no spec 'ner': use one of .*masked-lm"):
        load_spec("ner", profile="embedded")
    with pytest.raises(SpecError, match="no profile 'small': use one of embedded"):
        load_spec(path, profile="small")
    with pytest.raises(SpecError, match="no variant 'last' in profile embedded: available are first"):
        load_spec(path, profile="embedded", variant="last")
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        load_spec(tmp_path / "none.toml", profile="embedded")


def test_a_variant_with_another_source_replaces_the_whole_table(tmp_path: Path) -> None:
    path = write_spec(
        tmp_path, text=SPEC + '\n[variants.hub.checkpoint]\nsource = "hub"\nid = "a/b"\nrevision = "main"\n'
    )

    checkpoint = load_spec(path, profile="embedded", variant="hub").checkpoint

    assert (checkpoint.source, checkpoint.id) == ("hub", "a/b")


def test_the_open_division_trains_another_recipe_and_nothing_else(tmp_path: Path) -> None:
    closed, fast = sample_spec(tmp_path), open_spec(tmp_path)

    assert tuple((spec.resolved["division"], spec.resolved["variant"]) for spec in (closed, fast)) == (
        ("closed", None),
        ("open", "fast"),
    )
    assert fast.name == "ner+fast"
    assert (fast.recipe.batch_size, fast.recipe.learning_rate, fast.recipe.epochs) == (8, 2e-3, 1)
    assert (closed.data, closed.checkpoint, closed.options) == (fast.data, fast.checkpoint, fast.options)
    assert fast.hash != closed.hash == fast.closed_spec.hash
    assert closed.closed_spec == closed
    assert Spec.model_validate_json(fast.model_dump_json()) == fast


def test_the_hash_ignores_the_division(tmp_path: Path) -> None:
    """Records and expectations from before divisions existed must stay valid."""
    resolved = sample_spec(tmp_path).resolved
    before = {key: value for key, value in resolved.items() if key != "division"}

    assert sample_spec(tmp_path).hash == measured_hash(before)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"open"', '"opened"', "variants.fast.division = 'opened': use closed or open"),
        ('"open"', "true", "variants.fast.division = True: use closed or open"),
        (
            "[variants.fast.recipe]",
            '[variants.fast.options]\nstrategy = "first"\n[variants.fast.recipe]',
            "variants.fast.options: the open division changes only the recipe, so that the same metric on "
            'the same data judges it: remove options, or remove division = "open"',
        ),
        ("[variants.fast.recipe]", "[variants.fast.data]\ntrain = 40\n[variants.fast.recipe]", "remove data, or"),
        ("[variants.fast.recipe]", "[variants.fast.checkpoint]\nlayers = 9\n[variants.fast.recipe]", "remove check"),
        (
            "batch_size = 8\nlearning_rate = 2e-3",
            "batch_size = 4",
            "variants.fast.recipe is the same as profiles.embedded.recipe: change it, or remove division",
        ),
        ("[variants.fast.recipe]\nbatch_size = 8\nlearning_rate = 2e-3", "", "variants.fast.recipe is the same as"),
        ("batch_size = 8", "batch_sise = 8", "variants.fast.recipe.batch_sise is not a known key: did you mean"),
    ],
)
def test_load_spec_refuses_an_open_division_that_measures_something_else(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in OPEN
    path = write_spec(tmp_path, text=SPEC + OPEN.replace(old, new))

    with pytest.raises(SpecError, match=re.escape(message)) as caught:
        load_spec(path, profile="embedded", variant="fast")
    assert str(caught.value).startswith(f"{path}: ")
