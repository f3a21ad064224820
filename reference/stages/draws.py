"""Random numbers that depend on the place they are drawn for and not on the time: SplitMix64 keyed by a place.

`draw(key, position)` is the position-th output of the SplitMix64 generator whose state starts at `key`. `key_of` mixes
any integers (seed, epoch, example, ...) into such a state, one after the other, with the same mixing function. So a
draw is a function of its place. Workers, batches and their order cannot change it, and it is the same on every platform
and with every version of NumPy.

`numpy.random.Generator` does not fit. Constructing one per example takes about 10 microseconds, more than twice the
time of all draws for 128 tokens here. One per batch would make the draws depend on the batch. And its streams may
change between versions (NEP 19).

Source: Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators", OOPSLA. The constants of the
mixing function are David Stafford's variant 13, as in java.util.SplittableRandom.
"""

from __future__ import annotations

import operator

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

GAMMA = 0x9E3779B97F4A7C15  # the odd integer nearest to 2**64 divided by the golden ratio
MASK = 2**64 - 1


def mix(z: int) -> int:
    """Apply a bijection of the 64-bit integers: each input bit changes each output bit with probability near 1/2."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def key_of(*place: int) -> int:
    """Return the 64-bit key of a place, given as integers of any sign and size."""
    key = 0
    for part in place:
        key = mix((key + GAMMA + _word(part)) & MASK)
    return key


def draw(key: int, position: int) -> float:
    """Return a number that is uniform in [0, 1), a multiple of 2**-53."""
    return (mix((key + (position + 1) * GAMMA) & MASK) >> 11) * 2.0**-53


def _word(value: int) -> int:
    """Return a 64-bit word for an integer: two's complement if it fits, otherwise all its digits mixed."""
    value = operator.index(value)  # NumPy's integers become Python's, which do not overflow
    if -(2**63) <= value < 2**63:
        return value & MASK
    word = 0
    while value not in (0, -1):
        word = mix((word + GAMMA + (value & MASK)) & MASK)
        value >>= 64
    return mix((word + GAMMA + value) & MASK)


# The same for arrays. NumPy wraps unsigned arithmetic on arrays modulo 2**64, as needed here. -------------------------


def mix_array(z: Words) -> Words:
    """Apply `mix` to an array."""
    z = z ^ (z >> np.uint64(30))  # a new array, so the in-place operations below are safe
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def extend_keys(keys: Words, part: int | npt.ArrayLike) -> Words:
    """Return `key_of(*place, part)` from the (N,) keys of N places. `part` broadcasts against the keys."""
    values = np.asarray(part)
    if values.dtype.kind == "i":
        words = values.astype(np.int64).view(np.uint64)
    else:  # too large for int64, or unsigned; as objects, because NumPy would turn a mixture into floats
        values = np.asarray(part, dtype=object)
        words = np.array([_word(value) for value in values.ravel()], dtype=np.uint64).reshape(values.shape)
    return mix_array(keys + np.uint64(GAMMA) + words)


def draw_array(keys: Words, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Apply `draw` to arrays of keys and positions of the same shape."""
    z = positions.astype(np.uint64)
    z += np.uint64(1)
    z *= np.uint64(GAMMA)
    z += keys
    drawn: npt.NDArray[np.float64] = (mix_array(z) >> np.uint64(11)).astype(np.float64)
    drawn *= 2.0**-53
    return drawn
