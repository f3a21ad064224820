"""The reference stages as an implementation under test: what `--implementation` names by default."""

from reference import stages
from reference.stages import *  # noqa: F403 - whatever it offers, under the same names

__all__ = []
__all__ += stages.__all__
