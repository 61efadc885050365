"""The scaling of the pixels is compared with scikit-learn and with plain float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from trainer.base.errors import UserError
from trainer.config.schema import ScalingKind
from trainer.data.scaling import PixelSums, Scaling, choose_scaling, fixed_scaling


def fit(images: torch.Tensor, kind: ScalingKind, pieces: int = 1) -> Scaling:
    sums = PixelSums()
    for piece in images.chunk(pieces):
        sums.add(piece)
    return sums.scaling(kind)


@pytest.fixture
def images() -> torch.Tensor:
    values = np.random.default_rng(3).integers(0, 256, (50, 3, 6, 7), dtype=np.uint8)
    values[:, 0, 0, 0] = 0
    values[:, 1, 2, 3] = 255
    return torch.from_numpy(values)


def test_per_pixel_is_scikit_learns_standard_scaler(images: torch.Tensor) -> None:
    flat = images.flatten(1).numpy().astype(np.float64)
    expected = StandardScaler().fit_transform(flat).reshape(images.shape)
    fitted = fit(images, "per_pixel")
    assert fitted.mean.shape == fitted.deviation.shape == images.shape[1:]
    assert fitted.deviation[0, 0, 0] == 1
    assert fitted.deviation[1, 2, 3] == 1
    np.testing.assert_allclose(fitted.apply(images).numpy(), expected, atol=1e-5)


def test_global_is_one_mean_and_one_deviation(images: torch.Tensor) -> None:
    whole = fit(images, "global")
    assert whole.mean.shape == whole.deviation.shape == (1, 1, 1)
    values = images.numpy().astype(np.float64)
    assert whole.mean.item() == np.float32(values.mean())
    assert whole.deviation.item() == np.float32(values.std())
    assert whole.apply(images).dtype == torch.float32
    in_pieces = fit(images, "global", pieces=7)
    assert torch.equal(whole.mean, in_pieces.mean)
    assert torch.equal(whole.deviation, in_pieces.deviation)


@pytest.mark.parametrize("pieces", [1, 7])
def test_per_channel_is_a_mean_and_a_deviation_of_each_channel(
    images: torch.Tensor, pieces: int
) -> None:
    fitted = fit(images, "per_channel", pieces)
    assert fitted.mean.shape == fitted.deviation.shape == (3, 1, 1)
    channels = images.numpy().astype(np.float64).swapaxes(0, 1).reshape(3, -1)
    assert fitted.mean.flatten().tolist() == channels.mean(1).astype(np.float32).tolist()
    np.testing.assert_allclose(fitted.deviation.flatten().numpy(), channels.std(1), rtol=1e-7)


def test_imagenet_is_the_usual_constants_in_pixel_values(images: torch.Tensor) -> None:
    scaling = fixed_scaling("imagenet", None, None, 3)
    assert scaling
    found = scaling.apply(images)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (images.numpy().transpose(0, 2, 3, 1) / 255 - mean) / deviation
    np.testing.assert_allclose(found.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-5)
    with pytest.raises(UserError, match=r"data\.scaling: imagenet is for .* these have 4"):
        choose_scaling("imagenet", 4)


def test_given_numbers_are_of_pixels_from_0_to_1(images: torch.Tensor) -> None:
    mean, deviation = [127 / 255] * 3, [0.25, 0.5, 0.75]
    colour = fixed_scaling("pretrained", mean, deviation, 3)
    assert colour and colour.mean.flatten().tolist() == [127.0] * 3
    expected = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(
        3, 1, 1
    )
    assert torch.allclose(colour.apply(images), expected, atol=1e-5)
    grey = fixed_scaling("pretrained", [0.2, 0.4, 0.6], deviation, 1)
    assert grey and grey.mean.item() == pytest.approx(0.4 * 255)
    assert grey.deviation.item() == pytest.approx(0.5 * 255)
    assert fixed_scaling("per_channel", None, None, 3) is None
    with pytest.raises(UserError, match=r"have 3 numbers, and the images 5 channels; give 5"):
        fixed_scaling("pretrained", mean, deviation, 5)
    with pytest.raises(UserError, match=r"pretrained needs data\.mean and data\.deviation"):
        fixed_scaling("pretrained", None, None, 3)


@pytest.mark.parametrize("kind", ["global", "per_channel", "per_pixel"])
@pytest.mark.parametrize("value", [0, 7, 255])
def test_constant_images_become_zero_and_not_nan(kind: ScalingKind, value: int) -> None:
    images = torch.full((1003, 1, 3, 3), value, dtype=torch.uint8)
    assert torch.equal(fit(images, kind).apply(images), torch.zeros(images.shape))


def test_sums_of_the_brightest_images_are_exact() -> None:
    images = torch.full((2000, 1, 2, 2), 255, dtype=torch.uint8)
    images[::2, 0, 0, 0] = 254
    sums = PixelSums()
    sums.add(images)
    assert sums.total.flatten().tolist() == [509_000, 510_000, 510_000, 510_000]
    assert sums.squares.flatten().tolist()[:2] == [1000 * (254**2 + 255**2), 2000 * 255**2]


def test_sums_beyond_the_exact_floats_are_exact() -> None:
    sums = PixelSums()
    sums.add(torch.zeros(1, 1, 1, 2, dtype=torch.uint8))
    sums.squares += 2**53
    sums.add(torch.ones(1, 1, 1, 2, dtype=torch.uint8))
    assert sums.squares.flatten().tolist() == [2**53 + 1] * 2


def test_sums_that_would_overflow_are_noticed() -> None:
    sums = PixelSums()
    sums.count = 2**63 // 255**2
    with pytest.raises(AssertionError, match="overflow"):
        sums.add(torch.ones(1, 1, 1, 1, dtype=torch.uint8))
