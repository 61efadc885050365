"""Functions whose last digit depends on processor and C library unless kernels are portable.

The C library's functions are right to about half a unit in the last place, and on which side they
err depends on the instructions that they find; of MKL's square root one result in five is not the
nearest number. With portable kernels the results here are rounded correctly, so that there is only
one. With native ones they are the libraries' own, as they always were. What is rounded to float32
right away, such as the tables of the augmentations, needs none of this.
"""

from __future__ import annotations

import decimal
import math
from decimal import Decimal
from typing import TYPE_CHECKING

from trainer.base import kernels

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

# Decimal numbers are computed from integers. Of 60 digits so few are lost here that the nearest
# double is certain: no argument brings these functions so near the middle between two.
_DECIMAL = decimal.Context(prec=60, rounding=decimal.ROUND_HALF_EVEN)
_LOG_2 = (0.693147180369123816490, 1.90821492927058770002e-10)
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


def cos(angle: float) -> float:
    """Return the cosine of an angle in radians."""
    return _cosine(Decimal(angle)) if kernels.are_portable() else math.cos(angle)


def power(base: float, exponent: float) -> float:
    """Return a number of at least 0 to the power of another."""
    if not kernels.are_portable() or exponent == 0:
        return float(base**exponent)
    return float(_DECIMAL.power(Decimal(base), Decimal(exponent)))


def square_root(values: torch.Tensor) -> torch.Tensor:
    """Return the square roots of a tensor."""
    if not kernels.are_portable():
        return values.sqrt()
    import numpy as np
    import torch

    return torch.from_numpy(np.sqrt(values.numpy()))


def natural_logarithm(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the logarithms of positive numbers, to a unit in the last place.

    By operations that all processors round alike, whatever the kernels: numpy's own differs between
    processors in the last digit. With m between the square roots of a half and of two, log m is
    2 artanh((m - 1) / (m + 1)).
    """
    import numpy as np

    fraction, exponent = np.frexp(values)
    is_small = fraction < math.sqrt(0.5)
    fraction = np.where(is_small, 2 * fraction, fraction)
    power = (exponent - is_small).astype(np.float64)
    ratio = (fraction - 1) / (fraction + 1)
    square = ratio * ratio
    series = np.zeros_like(ratio)
    for odd in range(25, 0, -2):
        series = series * square + 1 / odd
    # The first part of log 2 has so few digits that its multiples are exact.
    found: npt.NDArray[np.float64] = power * _LOG_2[0] + (power * _LOG_2[1] + 2 * ratio * series)
    return found


def _cosine(angle: Decimal) -> float:
    """Return the cosine by its Taylor series, without the angle's whole turns."""
    angle = _DECIMAL.remainder_near(angle, _DECIMAL.multiply(Decimal(2), _PI))
    square = _DECIMAL.multiply(angle, angle)
    total, term, count = Decimal(0), Decimal(1), 0
    while (following := _DECIMAL.add(total, term)) != total:
        total = following
        count += 2
        term = _DECIMAL.multiply(term.copy_negate(), square)
        term = _DECIMAL.divide(term, Decimal(count * (count - 1)))
    return float(total)
