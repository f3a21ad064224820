"""What the checks are fed: small strategies, each with one job, tested in `tests/test_strategies.py`.

A case is a frozen dataclass that holds the arguments of one stage; `case.arguments` are its keyword arguments.
"""
