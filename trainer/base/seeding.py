"""Draw every random number of a run from a named stream.

A stream is a pure function of the run's seed, its own name and the position at which it is read.
None depends on the rank, the process count, the time, or on how often another stream was read.

    split            which training samples are held out for validation
    folds            which fold of a cross-validation a training sample is in
    scaling          the training pictures that the scaling is fitted on
    initialisation   the model's first weights
    order            the permutation of the training samples, or their
                     draw by weights                                      (epoch)
    balance          the order of a class's samples, where all classes
                     are drawn equally often                              (pass, sample)
    augmentation     the transform of a sample    (epoch, sample; of a list also the place in it)
    own augmentation the numbers of users' transforms                     (likewise)
    mixup            who is mixed with whom, how, and how much             (step)
    forward          what a model draws in a step: dropout and the like    (step, micro-batch)
    evaluation       what it draws while images are judged                 (first image of a block)
    segments         which parts of a finished run are computed again
    bootstrap        which images are drawn again for the interval of a figure
    sweep            what a trial of a sweep tries                         (trial, attempt)
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.random import mtrand

if TYPE_CHECKING:
    import torch

Stream = Literal[
    "split",
    "folds",
    "scaling",
    "initialisation",
    "order",
    "balance",
    "augmentation",
    "own augmentation",
    "mixup",
    "forward",
    "evaluation",
    "segments",
    "bootstrap",
    "sweep",
]

# SplitMix64's constants as signed numbers: torch has no unsigned arithmetic.
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_FIRST_FACTOR = 0xBF58476D1CE4E5B9 - 2**64
_SECOND_FACTOR = 0x94D049BB133111EB - 2**64


def integer(seed: int, stream: Stream, *position: int) -> int:
    """Return a 63-bit integer of the stream at this position."""
    text = "/".join([str(seed), stream, *map(str, position)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, stream: Stream, *position: int) -> np.random.Generator:
    """Return a numpy generator that starts at this position of the stream."""
    return np.random.Generator(np.random.Philox(key=integer(seed, stream, *position)))


def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """Return the order of the training samples in an epoch: int64, shape (size,)."""
    return generator(seed, "order", epoch).permutation(size)


def uniform(
    seed: int, stream: Stream, epoch: int, samples: torch.Tensor, count: int, *place: int
) -> torch.Tensor:
    """Draw `count` numbers in [0, 1) for each sample: float32, shape (len(samples), count).

    Number i of sample s is a hash of only (seed, stream, epoch, place, s, i), so a sample gets the
    same numbers in whatever batch, process or order it is drawn. The hash is the output function of
    SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014), in
    wrapping 64-bit integers, which are exact on every device; without its last step, which leaves
    the upper bits, the ones that are taken, as they are.

    Args:
        samples: int64 indices of the samples, shape (n,), on any device.
        place: of the transform that draws in a list of several; numbers of different places are
            independent.
    """
    import torch

    key = integer(seed, stream, epoch, *place)
    counters = samples[:, None] * count + torch.arange(1, count + 1, device=samples.device)
    state = counters * _GOLDEN_GAMMA + key
    state = (state ^ _shift_right(state, 30)) * _FIRST_FACTOR
    state = (state ^ _shift_right(state, 27)) * _SECOND_FACTOR
    return _shift_right(state, 40).float() * 2.0**-24


def sort_keys(seed: int, stream: Stream, counters: np.ndarray) -> np.ndarray:
    """Return a hash of each counter, by which things can be put into a random order: uint64 (n,).

    It is SplitMix64's output, as of `uniform`.

    Args:
        counters: uint64 (n,).
    """
    state = counters * np.uint64(_GOLDEN_GAMMA % 2**64) + np.uint64(integer(seed, stream))
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_FIRST_FACTOR % 2**64)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_SECOND_FACTOR % 2**64)
    found: np.ndarray = state ^ (state >> np.uint64(31))
    return found


def seed_torch(seed: int, stream: Stream, *position: int) -> None:
    """Set torch's own generators, on every device, to this position of the stream."""
    import torch

    value = integer(seed, stream, *position)
    if torch.accelerator.is_available():
        torch.manual_seed(value)
    else:
        # torch.manual_seed would queue a call for the GPU each time, with its stack.
        torch.default_generator.manual_seed(value)


def seed_all(seed: int, stream: Stream, *position: int) -> None:
    """Seed the global generators that code may draw from: torch's, numpy's and Python's.

    Only inside `preserve_other_generators`.
    """
    seed_torch(seed, stream, *position)
    value = integer(seed, stream, *position)
    np.random.seed(value % 2**32)  # noqa: NPY002 - it is what a model may draw from
    random.seed(value)


@contextlib.contextmanager
def preserve_other_generators() -> Iterator[None]:
    """Keep the global generators of numpy and Python as they were, whatever is drawn inside."""
    python, others = random.getstate(), mtrand.get_bit_generator()
    # Exchanging it costs a twentieth of reading and writing its state.
    mtrand.set_bit_generator(_stand_in())
    try:
        yield
    finally:
        mtrand.set_bit_generator(others)
        random.setstate(python)


class OtherGenerators:
    """Where the global generators of numpy and Python stand now, to be put back there."""

    def __init__(self) -> None:
        self._python, self._numpy = random.getstate(), mtrand.get_bit_generator().state

    def restore(self) -> None:
        """Put them back."""
        random.setstate(self._python)
        mtrand.get_bit_generator().state = self._numpy


@contextlib.contextmanager
def preserve_generators() -> Iterator[None]:
    """Keep torch's generators too, on every device, as `preserve_other_generators` does."""
    import torch

    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with preserve_other_generators(), torch.random.fork_rng(devices):
        yield


@functools.cache
def _stand_in() -> np.random.BitGenerator:
    """Return one generator for all times, as making it takes long; it is seeded before each use."""
    return np.random.MT19937(0)


def _shift_right(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift right logically; torch's own shift copies the sign bit into the left."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)
