"""Plan a session: turn its options into trials, which are specs on engines with seeds. Importing it imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from touchstone.engines import EngineError, check_engine, engine_names, engine_slug
from touchstone.interface.options import OptionError, Overrides, one_of, split_task
from touchstone.pipelines import PIPELINES
from touchstone.runs.trials import Conditions, Trial
from touchstone.specs.spec import Spec, available_specs, load_spec, profiles, variants

COURSE_ENGINES = ("trainer", "loop")
SECOND_ENGINE_TASKS = ("token-classification", "translation")
"""The tasks that both course engines train by default.

The engines compute the same updates (suite/reproducibility proves it on small runs), so a default session does not
train everything twice. These two cover both kinds of model and evaluation: an encoder that is scored by its logits, and
an encoder-decoder that is scored by the text it generates. They are the cheapest tasks of each kind.
"""


def choose_specs(tasks: Sequence[str], *, profile: str, files: Sequence[Path] = ()) -> list[Spec]:
    """Return the chosen specs in a fixed order.

    Args:
        tasks: names of specs. A task without a variant means its main spec. If empty, all specs and variants of the
            profile are chosen except those of the open division, which are trained only if they are named.
        profile: name of the profile.
        files: spec files to use instead of the suite's own.

    Raises:
        OptionError: a task, variant or profile does not exist.
        SpecError: a spec is not valid.
    """
    names: list[str | Path] = list(files) or list(available_specs())
    one_of(profile, dict.fromkeys(p for name in names for p in profiles(name)), option="--profile", what="profile")
    specs = [spec for name in names for spec in _all_variants(name, profile=profile)]
    possible = [spec.name for spec in specs]
    for task in tasks:
        split_task(task)
        one_of(task, possible, option="--task", what="task")
    return [spec for spec in specs if (spec.name in tasks if tasks else spec.division == "closed")]


def _all_variants(name: str | Path, *, profile: str) -> list[Spec]:
    if profile not in profiles(name):
        return []
    return [load_spec(name, profile=profile, variant=variant) for variant in (None, *variants(name, profile=profile))]


def choose_engines(engines: Sequence[str]) -> list[str]:
    """Return the named engines, or the course's two if none is named; no engine is imported.

    Known engines come first, in their fixed order; others, `package.module:attribute`, follow in the order given.

    Raises:
        OptionError: there is no such engine, or two of them would have the same name in records.
    """
    for engine in engines:
        try:
            check_engine(engine)
        except EngineError as error:
            raise OptionError(f"--engine {engine}: {error}") from error
    wanted = list(engines or COURSE_ENGINES)
    known = [name for name in engine_names() if name in wanted]
    chosen = list(dict.fromkeys([*known, *wanted]))
    slugs = {engine_slug(engine): engine for engine in chosen}
    for engine in chosen:
        if slugs[engine_slug(engine)] != engine:
            raise OptionError(
                f"--engine {engine}: records would call it {engine_slug(engine)!r}, as they would "
                f"{slugs[engine_slug(engine)]}; train them in two sessions with different --results"
            )
    return chosen


def task_names() -> list[str]:
    return list(PIPELINES)


def make_trials(
    specs: Sequence[Spec],
    *,
    engines: Sequence[str],
    seeds: Sequence[int],
    overrides: Overrides,
    conditions: Conditions,
) -> list[Trial]:
    """Return the trials of a session, ordered by spec, engine and seed.

    Args:
        engines: names of engines, each of which trains every spec. If empty, `trainer` trains every spec and `loop`
            trains the main specs of `SECOND_ENGINE_TASKS`.

    Raises:
        OptionError: an engine does not exist.
    """
    chosen = choose_engines(engines)
    return [
        Trial(spec.overridden(**overrides.given(spec.task)), engine, seed, conditions)
        for spec in specs
        for engine in (chosen if engines or spec.name in SECOND_ENGINE_TASKS else chosen[:1])
        for seed in seeds
    ]
