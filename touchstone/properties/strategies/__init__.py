"""Hypothesis strategies for the arguments of the stages, tested in `tests/properties/test_strategies.py`.

A case is a frozen dataclass that holds the arguments of one call; `case.arguments` are its keyword arguments. Cases
with `brief=True` leave out the arguments that have their default value, as most callers do.
"""
