"""The operations of the policies against Pillow, and how strong and how frequent they are."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.base import seeding
from trainer.config.augmentations import canonical
from trainer.data.augment import list_transforms, operations
from trainer.data.augment.canvas import Canvas
from trainer.data.augment.policy import Augmentation

HEIGHT, WIDTH = 40, 60


def smooth_images(count: int, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    """Make pictures without sharp edges, whose interpolated levels hardly depend on rounding."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 60 * np.sin(x / 9 + i) + 50 * np.cos(y / (5 + i)) for i in range(3)]
    picture = torch.from_numpy(np.stack(waves).clip(1, 255).astype(np.uint8))
    return picture.repeat(count, 1, 1, 1)


def applied(images: torch.Tensor, operation: str, value: float, sign: float = 1) -> torch.Tensor:
    canvas = Canvas(images)
    values = torch.full((len(images),), value)
    everything = torch.arange(len(images))
    operations.apply(canvas, everything, operation, values, torch.full_like(values, sign))
    return canvas.finish()


@pytest.mark.parametrize(
    ("operation", "value", "inverse"),
    [
        # From the result's pixel to the picture's, about the middle; in Pillow's order.
        ("shear_x", 0.3, (1, 0.3, -0.3 * HEIGHT / 2, 0, 1, 0)),
        ("shear_y", 0.3, (1, 0, 0, 0.3, 1, -0.3 * WIDTH / 2)),
        ("translate_x", 0.15, (1, 0, 0.15 * WIDTH, 0, 1, 0)),
        ("translate_y", 0.15, (1, 0, 0, 0, 1, 0.15 * HEIGHT)),
        ("rotate", 25, None),
        ("rotate", 135, None),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_geometry_is_pillows(operation: str, value: float, inverse: Any, sign: float) -> None:
    images = smooth_images(2)
    found = applied(images, operation, value, sign)[1].permute(1, 2, 0).numpy()
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    bilinear = Image.Resampling.BILINEAR
    if inverse is None:
        expected = picture.rotate(-sign * value, bilinear)
    else:
        moves = [entry * sign if entry not in (0, 1) else entry for entry in inverse]
        expected = picture.transform(picture.size, Image.Transform.AFFINE, moves, bilinear)
    theirs = np.asarray(expected).astype(int)
    # Pillow leaves pixels black whose surroundings are partly outside.
    inside = (theirs > 0).all(2) & (found > 0).all(2)
    assert inside.mean() > 0.3
    assert (inside == (found > 0).all(2)).mean() > 0.9
    close = np.abs(found.astype(int) - theirs).max(2)[inside] <= 2
    assert close.mean() > 0.95  # ours blend with the black along the border


@pytest.mark.parametrize("operation", operations.TRIVIAL_AUGMENT_WIDE)
def test_at_no_strength_an_operation_changes_nothing(operation: str) -> None:
    images = smooth_images(2)
    changed = applied(images, operation, operations.TRIVIAL_AUGMENT_WIDE[operation][0])
    if operation in ("auto_contrast", "equalize"):
        assert not torch.equal(changed, images)
    else:
        assert torch.equal(changed, images)


@pytest.mark.parametrize(
    "entry",
    [
        {"random_resized_crop": {"area": [1, 1], "aspect": 1}},
        {"crop": {"area": [1, 1], "aspect": 1}},
        {"flip": {"probability": 0}},
        {"vertical_flip": {"probability": 0}},
        {"shift": {"fraction": 0}},
        {"rotate": {"degrees": 0}},
        {"colour_jitter": {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}},
        {"grey": {"probability": 0}},
        {"blur": {"sigma": [0, 0]}},
        {"rand_augment": {"operations": 3, "magnitude": 0}},
        {"trivial_augment_wide": {"magnitude": 0}},
        {"cutout": {"side": 0}},
        {"erase": {"probability": 0}},
    ],
    ids=lambda entry: next(iter(entry)),
)
def test_at_no_strength_a_transform_changes_nothing(entry: dict[str, Any]) -> None:
    # From black to white in every channel, and evenly: there is nothing to stretch or to equalize.
    line = torch.arange(256, dtype=torch.uint8)
    images = torch.stack([line, line.flip(0), line.roll(9)]).view(1, 3, 16, 16).repeat(30, 1, 1, 1)
    augment = Augmentation(canonical([entry]), 0)
    assert torch.equal(augment(images, torch.arange(30), 1), images)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, float, torch.Tensor]]:
    """Record the operations that are applied, with their values, signs and images."""
    found: list[tuple[str, float, float, torch.Tensor]] = []

    def note(
        _: Canvas, chosen: torch.Tensor, name: str, values: torch.Tensor, signs: torch.Tensor
    ) -> None:
        rows = zip(values.tolist(), signs.tolist(), chosen, strict=True)
        found.extend((name, value, sign, image) for value, sign, image in rows)

    monkeypatch.setattr(operations, "apply", note)
    return found


def test_trivial_augment_draws_one_operation_of_any_strength(seen: list[Any]) -> None:
    images = torch.zeros(7000, 3, 1, 1, dtype=torch.uint8)
    Augmentation(canonical(["trivial_augment_wide"]), 0)(images, torch.arange(7000), 1)
    assert sorted(int(image) for *_, image in seen) == list(range(7000))
    counts = Counter(name for name, *_ in seen)
    assert counts.keys() == operations.TRIVIAL_AUGMENT_WIDE.keys()
    assert min(counts.values()) > 400
    assert max(counts.values()) < 600
    angles = {round(value, 4) for name, value, *_ in seen if name == "rotate"}
    assert angles == {round(135 * level / 30, 4) for level in range(31)}
    assert {round(value) for name, value, *_ in seen if name == "posterize"} == set(range(2, 9))
    signs = [sign for name, _, sign, _ in seen if name == "shear_x"]
    assert abs(sum(signs)) < 0.2 * len(signs)


def test_rand_augment_draws_several_of_one_strength(seen: list[Any]) -> None:
    images = torch.zeros(500, 3, 1, 1, dtype=torch.uint8)
    entry = {"rand_augment": {"operations": 3, "magnitude": 15}}
    Augmentation(canonical([entry]), 0)(images, torch.arange(500), 1)
    assert set(Counter(int(image) for *_, image in seen).values()) == {3}
    for name, value, *_ in seen:
        begin, end = operations.RAND_AUGMENT[name]
        assert value == pytest.approx((begin + end) / 2)


def test_aug_mix_is_a_mixture_of_chains() -> None:
    """Compare with one image at a time, from the same numbers."""
    width, depth, severity = 2, 3, 6.0
    images, samples = smooth_images(12), torch.arange(12)
    entry = {"aug_mix": {"width": width, "depth": depth, "severity": severity}}
    mixed = Augmentation(canonical([entry]), 5)(images, samples, 1)
    numbers = seeding.uniform(5, "augmentation", 1, samples, width * (3 * depth + 2), 0)
    names = list(operations.AUG_MIX)
    lengths = []
    for image, row, result in zip(images.split(1), numbers.tolist(), mixed, strict=True):
        weights, share, chains = [row[0], 1 - row[0]], row[1], row[2:]
        mixture = np.zeros(image.shape[1:])
        for chain, weight in enumerate(weights):
            drawn = chains[chain * (3 * depth + 1) :][: 3 * depth + 1]
            canvas = Canvas(image)
            lengths.append(1 + int(drawn[-1] * depth))
            for link in range(lengths[-1]):
                which, level, direction = drawn[3 * link : 3 * link + 3]
                name = names[int(which * len(names))]
                begin, end = operations.AUG_MIX[name]
                value = begin + (end - begin) * (0.1 + (severity - 0.1) * level) / 10
                sign = -1.0 if direction < 0.5 else 1.0
                tensors = (torch.tensor([value]), torch.tensor([sign]))
                operations.apply(canvas, torch.tensor([0]), name, *tensors)
            mixture += weight * canvas.finish()[0].numpy()
        expected = (1 - share) * image[0].numpy() + share * mixture
        assert np.abs(result.numpy() - expected).max() < 0.51
    assert set(lengths) == {1, 2, 3}


def test_affine_transforms_that_follow_each_other_are_one_resampling() -> None:
    """Three small turns blur no more than one."""
    images = smooth_images(1)
    whole, parts = Canvas(images), Canvas(images)
    chosen = torch.tensor([0])
    size = (HEIGHT, WIDTH)
    whole.move(chosen, operations.rotation(torch.tensor([30.0]), *size))
    for _ in range(3):
        parts.move(chosen, operations.rotation(torch.tensor([10.0]), *size))
    difference = whole.finish().int() - parts.finish().int()
    assert difference.abs().max() <= 1


def test_what_is_mirrored_after_a_turn_is_turned_the_other_way() -> None:
    images = smooth_images(1)
    chosen = torch.tensor([0])
    size = (HEIGHT, WIDTH)
    for axis in (2, 3):
        turned, mirrored = Canvas(images), Canvas(images)
        turned.move(chosen, operations.rotation(torch.tensor([20.0]), *size))
        expected = turned.finish().flip(axis)
        mirrored.move(chosen, operations.rotation(torch.tensor([20.0]), *size))
        mirrored.mirror(chosen, axis)
        assert (mirrored.finish().int() - expected.int()).abs().max() <= 1


def test_angles_are_exact_in_quarters_and_close_elsewhere() -> None:
    turns = torch.tensor([0.0, 0.25, 0.5, -0.25, 1.0, 0.1234])
    cosines, sines = operations.cosines_and_sines(turns)
    angles = [2 * math.pi * turn for turn in turns.tolist()]
    assert cosines.tolist() == pytest.approx([math.cos(angle) for angle in angles], abs=2e-4)
    assert sines.tolist() == pytest.approx([math.sin(angle) for angle in angles], abs=2e-4)


@pytest.mark.parametrize("fill", ["reflect", "black"])
def test_a_shift_is_a_share_of_the_side(fill: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (900, 1, 8, 16), dtype=torch.uint8, generator=generator)
    entry = {"shift": {"fraction": 0.25, "fill": fill}}
    moved = Augmentation(canonical([entry]), 0)(images, torch.arange(900), 1).numpy()
    found = set()
    for image, result in zip(images.numpy(), moved, strict=True):
        mode: Any = {"mode": "reflect"} if fill == "reflect" else {"mode": "constant"}
        padded = np.pad(image[0], ((2, 2), (4, 4)), **mode)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (8, 16))
        places = np.argwhere((windows == result[0]).all((2, 3)))
        assert len(places) == 1
        found.add(tuple(places[0].tolist()))
    assert len(found) == 5 * 9


def test_reflection_goes_on_beyond_the_other_side() -> None:
    images = torch.tensor([[[[1, 2, 3]]]], dtype=torch.uint8)
    moved = list_transforms.transforms.shift(
        images, torch.tensor([0]), torch.tensor([5]), most=5, reflect=True
    )
    assert moved.tolist() == [[[[2, 1, 2]]]]


def test_erased_rectangles_have_noise_of_their_own() -> None:
    images = torch.zeros(400, 3, 20, 30, dtype=torch.uint8)
    area = {"probability": 0.5, "area": [0.1, 0.1], "aspect": 2}
    for noise in ("channel", "pixel"):
        entry = {"erase": area | {"noise": noise}}
        erased = Augmentation(canonical([entry]), 0)(images, torch.arange(400), 1)
        filled = (erased > 0).any(1)
        chosen = filled.flatten(1).any(1)
        assert 150 < chosen.sum() < 250
        assert filled[chosen].float().mean() == pytest.approx(0.1, abs=0.01)
        one = erased[chosen][0, 0][filled[chosen][0]]
        assert len(set(one.tolist())) > 20 if noise == "pixel" else len(set(one.tolist())) == 1


def test_a_cutout_is_a_share_of_the_sides() -> None:
    images = torch.ones(500, 1, 20, 40, dtype=torch.uint8)
    entry = {"cutout": {"side": 0.25}}
    black = Augmentation(canonical([entry]), 0)(images, torch.arange(500), 1) == 0
    assert black.sum((1, 2, 3)).max() == 5 * 10
    assert black.flatten(1).any(1).all()
