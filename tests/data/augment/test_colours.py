"""Colours change as Pillow changes them, or as a slow program does."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from trainer.data.augment import colours

PICTURES = ["noise", "ramp", "dark", "single level", "two levels"]


def images_of(kind: str, channels: int = 3, height: int = 37, width: int = 53) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (6, channels, height, width), generator=generator)
    ramp = torch.arange(height * width).view(height, width) * 255 // (height * width - 1)
    found = {
        "noise": noise,
        "ramp": ramp.expand(6, channels, -1, -1) + noise % 3,
        "dark": noise * 40 // 255 + 3,
        "single level": torch.full_like(noise, 77),
        "two levels": (noise > 200) * 90 + 60,
    }[kind]
    return found.clamp(0, 255).to(torch.uint8)


def pillow(images: torch.Tensor, change: Callable[[Image.Image], Image.Image]) -> torch.Tensor:
    arrays = [image.permute(1, 2, 0).squeeze(2).numpy() for image in images]
    changed = [torch.from_numpy(np.array(change(Image.fromarray(array)))) for array in arrays]
    return torch.stack([one.view(*one.shape[:2], -1).permute(2, 0, 1) for one in changed])


def largest_difference(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@pytest.mark.parametrize("factor", [0.0, 0.01, 0.5, 1.0, 1.3, 1.99])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (colours.brightness, ImageEnhance.Brightness),
        (colours.contrast, ImageEnhance.Contrast),
        (colours.saturation, ImageEnhance.Color),
        (colours.sharpness, ImageEnhance.Sharpness),
    ],
    ids=["brightness", "contrast", "saturation", "sharpness"],
)
def test_enhancements_are_pillows_within_a_level(
    ours: Callable[..., torch.Tensor], theirs: Callable[..., ImageEnhance._Enhance], factor: float
) -> None:
    for kind in PICTURES:
        images = images_of(kind)
        changed = ours(images, torch.full((6,), factor))
        assert changed.dtype == torch.uint8
        expected = pillow(images, lambda image: theirs(image).enhance(factor))
        assert largest_difference(changed, expected) <= 1, kind
        if factor == 1.0:
            assert torch.equal(changed, images)


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("channels", [1, 3])
def test_equalize_is_pillows_and_auto_contrast_within_a_level(kind: str, channels: int) -> None:
    images = images_of(kind, channels)
    assert torch.equal(colours.equalize(images), pillow(images, ImageOps.equalize))
    stretched = colours.auto_contrast(images)
    assert largest_difference(stretched, pillow(images, ImageOps.autocontrast)) <= 1


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize_and_solarize_are_pillows(bits: int) -> None:
    images = images_of("noise")
    expected = pillow(images, lambda image: ImageOps.posterize(image, bits))
    assert torch.equal(colours.posterize(images, torch.full((6,), bits)), expected)
    threshold = 32 * bits
    expected = pillow(images, lambda image: ImageOps.solarize(image, threshold))
    assert torch.equal(colours.solarize(images, torch.full((6,), threshold)), expected)


def test_the_extremes_of_posterize_and_solarize() -> None:
    images = images_of("noise")
    nothing, everything = torch.tensor([0] * 6), torch.tensor([256] * 6)
    assert not colours.posterize(images, nothing).any()
    assert torch.equal(colours.solarize(images, everything), images)
    assert torch.equal(colours.solarize(images, nothing), 255 - images)


def test_grey_is_pillows_luma_and_leaves_other_channels_alone() -> None:
    images = images_of("noise")
    expected = pillow(images, lambda image: image.convert("L").convert("RGB"))
    assert torch.equal(colours.grey(images), expected)
    for channels in (1, 2, 4):
        others = images_of("noise", channels)
        assert colours.grey(others) is others


@pytest.mark.parametrize("sigma", [0.7, 1.6, 3.0])
def test_blur_is_a_gaussian(sigma: float) -> None:
    images = images_of("noise")
    kernels = colours.gaussian_kernels(sigma, sigma)[:1].repeat(6, 1)
    blurred = colours.blur(images, kernels)
    radius = kernels.shape[1] - 1
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    line /= line.sum()
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (radius,) * 2, (radius,) * 2), mode="edge")
    rows = np.apply_along_axis(np.convolve, 2, padded.astype(float), line, "valid")
    expected = np.apply_along_axis(np.convolve, 3, rows, line, "valid")
    assert np.abs(blurred.numpy() - expected).max() < 0.51


def test_a_blur_of_almost_nothing_changes_nothing() -> None:
    images = images_of("noise")
    kernels = colours.gaussian_kernels(0.0, 0.1)
    assert torch.equal(colours.blur(images, kernels[:6]), images)


def test_saturation_and_hue_are_the_matrices_of_the_standard() -> None:
    """Compare with W3C's Filter Effects Module Level 1, 9.6: saturate, then hueRotate."""
    saturation, angle = 0.4, math.radians(50)
    saturate = np.array(
        [
            [0.213 + 0.787 * saturation, 0.715 - 0.715 * saturation, 0.072 - 0.072 * saturation],
            [0.213 - 0.213 * saturation, 0.715 + 0.285 * saturation, 0.072 - 0.072 * saturation],
            [0.213 - 0.213 * saturation, 0.715 - 0.715 * saturation, 0.072 + 0.928 * saturation],
        ]
    )
    rotate = (
        np.array([[0.213, 0.715, 0.072]] * 3)
        + math.cos(angle)
        * np.array([[0.787, -0.715, -0.072], [-0.213, 0.285, -0.072], [-0.213, -0.715, 0.928]])
        + math.sin(angle)
        * np.array([[-0.213, -0.715, 0.928], [0.143, 0.140, -0.283], [-0.787, 0.715, 0.072]])
    )
    turn = (torch.tensor([math.cos(angle)]), torch.tensor([math.sin(angle)]))
    (found,) = colours.saturation_and_hue(torch.tensor([saturation]), *turn)
    # The standard's numbers have three digits.
    np.testing.assert_allclose(found.numpy(), rotate @ saturate, atol=1e-3)
    images = images_of("noise")
    maps, ones = found.repeat(6, 1, 1), torch.ones(6)
    mapped = colours.map_colours(images, maps, ones, torch.zeros(6))
    expected = np.einsum("ij,njhw->nihw", rotate @ saturate, images.numpy()).clip(0, 255)
    assert np.abs(mapped.numpy() - expected).max() < 1


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_jitter_of_brightness_and_contrast_is_the_one_after_the_other(channels: int) -> None:
    images = images_of("dark", channels)
    brightness, contrast = torch.full((6,), 1.5), torch.full((6,), 0.6)
    nothing = (torch.ones(6), torch.ones(6), torch.zeros(6))
    factors = brightness * contrast
    maps = factors[:, None, None] * colours.saturation_and_hue(*nothing)
    jittered = colours.map_colours(images, maps, factors, (1 - contrast) * brightness)
    expected = colours.contrast(colours.brightness(images, brightness), contrast)
    assert largest_difference(jittered, expected) <= 1


def test_the_mean_of_a_large_white_image_is_white() -> None:
    """Add up more than 2^31 levels."""
    white = torch.full((1, 1, 1, 1), 255, dtype=torch.uint8).expand(1, 1, 3000, 3000)
    assert colours.mean_luma(white).item() == 255
