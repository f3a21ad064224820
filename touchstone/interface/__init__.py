"""The user interface of a `pytest suite/` session: its options, its plan, and its output."""
