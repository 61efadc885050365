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
    import torch

# Decimal numbers are computed from integers. Of 60 digits so few are lost here that the nearest
# double is certain: no argument brings these functions so near the middle between two.
_DECIMAL = decimal.Context(prec=60, rounding=decimal.ROUND_HALF_EVEN)
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
