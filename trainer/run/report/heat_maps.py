"""Draw which parts of an image an answer comes from: the image in grey, with colours over it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SMALLEST_SIDE = 192
"""in pixels, of a drawn image; smaller ones are enlarged by a whole number"""
LARGEST_SIDE = 2048
"""in pixels, that none is enlarged beyond"""
STRONGEST = 0.75
"""how much of the image the strongest colour covers"""


def draw(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Draw an image with its map over it: red speaks for the class, blue against it.

    Colours are stronger the further a value is from 0, relative to the furthest.

    Args:
        image: uint8 (height, width) or (height, width, 3).
        heat: float32 (height, width), from `attribution.explain`.

    Returns:
        uint8 (height, width, 3), enlarged as `enlarge`.
    """
    from PIL import Image

    large = enlarge(image)
    size = large.shape[1], large.shape[0]
    smooth = np.asarray(
        Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    )
    furthest = float(np.abs(smooth).max()) or 1.0
    strength = STRONGEST * np.abs(smooth / furthest)[..., None]
    grey = np.asarray(Image.fromarray(large).convert("L"), np.float32)[..., None]
    colour = np.where((smooth >= 0)[..., None], _RED, _BLUE)
    return np.rint(grey * (1 - strength) + colour * strength).astype(np.uint8)


def enlarge(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return an image as uint8 (height, width, 3), its pixels enlarged to SMALLEST_SIDE."""
    sides = image.shape[:2]
    factor = max(1, min(-(-SMALLEST_SIDE // min(sides)), LARGEST_SIDE // max(sides)))
    colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return colour.repeat(factor, axis=0).repeat(factor, axis=1)


_RED = np.array([214, 39, 40], np.float32)
_BLUE = np.array([31, 111, 180], np.float32)
