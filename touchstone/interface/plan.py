"""From options to trials: which specs, on which engines, with which seeds. It imports torch, the options do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from touchstone.engines import EngineError, check_engine, engine_names, engine_slug
from touchstone.interface.options import OptionError, Overrides, one_of, split_task
from touchstone.pipelines import PIPELINES
from touchstone.runs.trials import Conditions, Trial
from touchstone.specs.spec import Spec, available_specs, load_spec, profiles, variants

COURSE_ENGINES = ("trainer", "loop")


def choose_specs(tasks: Sequence[str], *, profile: str, files: Sequence[Path] = ()) -> list[Spec]:
    """The specs that are asked for, in a fixed order; all tasks and variants of the profile where none is named, but
    not those of the open division, which are trained only where they are named.

    A task that is named without a variant means its main spec. With `files` only these are run, narrowed to `tasks`
    where some are named.

    Raises:
        OptionError: there is no such task, variant or profile.
        SpecError: a spec cannot be used.
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
    named: Sequence[str],
    overrides: Overrides,
    conditions: Conditions,
) -> list[Trial]:
    """Every spec on every engine with every seed, in this order.

    Args:
        named: the specs that were asked for by name. Of the others a variant is trained by the first engine alone:
            it differs from its task in what engines know nothing of.
    """
    return [
        Trial(spec.overridden(**overrides.given(spec.task)), engine, seed, conditions)
        for spec in specs
        for engine in (engines[:1] if spec.variant and spec.name not in named else engines)
        for seed in seeds
    ]
