"""Our own Hypothesis profiles, so that neither the machine's speed nor a CI variable changes what is run.

`quick` (default) for every run, `ci` for a change, `deep` for a night. All draw the same examples every time;
`--hypothesis-seed N` draws others. No deadline and no database: nothing depends on the clock or on an earlier run.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, Verbosity, settings

EXAMPLES = {"quick": 60, "ci": 300, "deep": 3000}
DEFAULT = "quick"


def register() -> None:
    """Registers the profiles and loads the default one, in place of Hypothesis' own choice by environment variables."""
    for name, examples in EXAMPLES.items():
        settings.register_profile(
            name,
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            print_blob=False,  # the report has a line to paste that needs no Hypothesis
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
            suppress_health_check=[HealthCheck.too_slow],  # measures the machine, not the test
        )
    settings.load_profile(DEFAULT)


def draw_from_seed() -> None:
    """Lets `--hypothesis-seed` decide: Hypothesis prefers `derandomize` where both are given."""
    name = f"{settings.get_current_profile_name()}-seeded"
    settings.register_profile(name, settings.default, derandomize=False)
    settings.load_profile(name)
