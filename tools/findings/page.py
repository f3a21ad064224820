"""Write docs/findings.md from record.json."""


def page() -> str:
    """Return the page."""
    return ""
