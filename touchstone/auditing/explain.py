"""What a probe's findings mean, what usually causes them, and what to do: the paragraphs of its docstring.

The docstring of a probe's function begins with how it looks. Then come paragraphs that begin with one of the words of
`HEADINGS`, such as "Remedy: Call `model.train()` ...". Code stands between backticks.
"""

from __future__ import annotations

import inspect

from touchstone.auditing.probe import Probe, load_probes

HEADINGS = {
    "Fault": "A fault means",
    "Causes": "Usual causes",
    "Remedy": "What to do",
    "Warning": "A warning means",
}


def looks(probe: Probe) -> str:
    """Return how a probe looks, in one paragraph."""
    return _paragraphs(probe)[0]


def explained(probe: Probe | str) -> dict[str, str]:
    """Return what a probe's findings mean by heading, or nothing if the probe does not say.

    Args:
        probe: the probe, or its id. An id that is not known gives nothing.

    >>> list(explained("gradients-zeroed"))
    ['A fault means', 'Usual causes', 'What to do', 'A warning means']
    """
    found = load_probes().get(probe) if isinstance(probe, str) else probe
    parts = [paragraph.partition(": ") for paragraph in _paragraphs(found)] if found else []
    return {HEADINGS[word]: text for word, _, text in parts if word in HEADINGS}


def _paragraphs(probe: Probe) -> list[str]:
    return [" ".join(each.split()) for each in (inspect.getdoc(probe.look) or "").split("\n\n")]
