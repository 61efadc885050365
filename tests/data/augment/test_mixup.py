"""Mixup and cutmix draw pairs over the whole step, and a run learns with them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.runs import Run, train_here
from trainer.config.schema import RunConfig, replace
from trainer.data.augment import mixup
from trainer.data.batches import Batches
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.scaling import Scaling


def draw(seed: int = 1, step: int = 5, mix: float = 0.0, cut: float = 0.0) -> mixup.Pairs:
    return mixup.draw_pairs(seed, step, samples=300, mixup=mix, cutmix=cut)


@pytest.mark.parametrize("alphas", [{"mix": 1.0}, {"cut": 1.0}], ids=str)
def test_pairs_are_a_permutation_drawn_by_the_step(alphas: dict[str, float]) -> None:
    pairs, again = draw(**alphas), draw(**alphas)
    assert sorted(pairs.partners.tolist()) == list(range(300))
    assert 0 <= pairs.weights.min() < 0.1 < 0.9 < pairs.weights.max() <= 1
    assert torch.equal(again.partners, pairs.partners)
    assert torch.equal(again.weights, pairs.weights)
    for seed, step in ((2, 5), (1, 6)):
        other = draw(seed, step, **alphas)
        assert not torch.equal(other.partners, pairs.partners)
        assert not torch.equal(other.weights, pairs.weights)


def test_a_step_has_one_of_the_two_and_its_own_alpha() -> None:
    steps = [draw(step=step, mix=1.0, cut=0.1) for step in range(1, 401)]
    cut = [pairs for pairs in steps if pairs.centres is not None]
    assert 160 < len(cut) < 240
    mixed = [pairs for pairs in steps if pairs.centres is None]
    for chosen, share in ((cut, 0.17), (mixed, 0.8)):
        weights = torch.cat([pairs.weights for pairs in chosen])
        between = ((weights > 0.1) & (weights < 0.9)).float().mean()
        assert between == pytest.approx(share, abs=0.03)
    assert draw(mix=1.0).centres is None
    assert draw(cut=1.0).centres is not None


def test_a_box_of_cutmix_has_the_images_shape_and_is_cut_off_at_its_border() -> None:
    weights = torch.tensor([0.75, 0.75, 1.0, 0.0, 0.0])
    centres = torch.tensor([[0.5, 0.5], [0.0, 0.99], [0.5, 0.5], [0.5, 0.5], [0.0, 0.0]])
    replaced = mixup.cutmix_masks(weights, centres, torch.Size((5, 3, 4, 8)))
    assert replaced[0, 0].int().tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert replaced[1, 0].int().tolist() == [[0] * 5 + [1] * 3, *[[0] * 8] * 3]
    assert mixup.remaining_fraction(replaced).tolist() == [0.75, 1 - 3 / 32, 1.0, 0.0, 0.75]


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 1), (28, 28), (9, 16)], ids=str)
def test_the_weight_of_cutmix_is_the_exact_share_of_the_pixels(size: tuple[int, int]) -> None:
    pairs = draw(cut=1.0)
    assert pairs.centres is not None
    replaced = mixup.cutmix_masks(pairs.weights, pairs.centres, torch.Size((300, 1, *size)))
    height, width = size
    for index in range(300):
        stay = math.sqrt(1 - pairs.weights[index])
        rows, columns = round(height * stay), round(width * stay)
        top = int(pairs.centres[index, 0] * height) - rows // 2
        left = int(pairs.centres[index, 1] * width) - columns // 2
        expected = torch.zeros(size, dtype=torch.bool)
        expected[max(top, 0) : max(top + rows, 0), max(left, 0) : max(left + columns, 0)] = True
        assert torch.equal(replaced[index, 0], expected)
        share = mixup.remaining_fraction(replaced)[index].item()
        assert share == pytest.approx(1 - expected.sum().item() / expected.numel(), abs=1e-7)
    for part in (slice(7, 8), slice(0, 150), slice(0, 0)):
        boxes = mixup.cutmix_masks(
            pairs.weights[part], pairs.centres[part], torch.Size((0, 1, *size))
        )
        assert torch.equal(boxes, replaced[part])
        assert torch.equal(
            mixup.remaining_fraction(boxes), mixup.remaining_fraction(replaced)[part]
        )


def test_images_and_targets_are_mixed_by_the_same_weights() -> None:
    weights = torch.tensor([1.0, 0.25])
    images = torch.tensor([[8.0], [8.0]]).view(2, 1, 1, 1)
    assert mixup.mix(images, images * 0, weights).flatten().tolist() == [8.0, 2.0]
    targets = mixup.mix_targets(torch.tensor([0, 1]), torch.tensor([2, 2]), weights, classes=3)
    assert targets.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.25, 0.75]]
    same = mixup.mix_targets(torch.tensor([1, 1]), torch.tensor([1, 1]), weights, classes=3)
    assert same.tolist() == [[0.0, 1.0, 0.0]] * 2


def test_bits_do_not_depend_on_where_a_tensor_ends() -> None:
    """Mix shorter tensors, as a process with fewer samples has them: the bits are the same."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(37, 1, 7, 5, generator=generator)
    weights = torch.rand(37, generator=generator)
    whole = mixup.mix(images, images.flip(0), weights)
    for size in (1, 3, 20):
        assert torch.equal(
            mixup.mix(images[:size], images.flip(0)[:size], weights[:size]), whole[:size]
        )


def test_a_step_of_cutmix_has_pixels_of_both_and_the_targets_in_their_share() -> None:
    """Mix images of one grey level each, one for each class: their pixels tell the fractions."""
    config = replace(
        RunConfig(),
        {"data.cutmix": 1.0, "train.batch_size": 12, "train.microbatches": 4},
    )
    levels = torch.arange(12, dtype=torch.uint8) * 20
    images = levels.view(12, 1, 1, 1).expand(12, 1, 6, 10).contiguous()
    empty = ImageSet(images[:0], torch.zeros(0, dtype=torch.int64))
    scaling = Scaling(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 20.0))
    train = ImageSet(images, torch.arange(12))
    dataset = Dataset("", tuple("abcdefghijkl"), train, empty, empty, scaling, "", "")
    device = torch.device("cpu")
    (whole,) = Batches(dataset, config, device, num_replicas=1, rank=0).iter_epoch(1, 0)
    for image, target in zip(whole.images, whole.targets, strict=True):
        shares = torch.bincount(image.flatten().long(), minlength=12) / 60
        torch.testing.assert_close(target, shares)
    assert ((whole.targets > 0).sum(1) == 2).sum() > 4
    ranks = [Batches(dataset, config, device, num_replicas=2, rank=rank) for rank in (0, 1)]
    halves = [next(batches.iter_epoch(1, 0)) for batches in ranks]
    assert torch.equal(torch.cat([half.images for half in halves]), whole.images)
    assert torch.equal(torch.cat([half.targets for half in halves]), whole.targets)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_run_learns_with_it(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path / "run", f"--data.{kind}", "0.2") == 0
    run = Run(tmp_path / "run", 0)
    assert run.json("results.json")["test"]["accuracy"] > 0.85
    epochs = run.metrics("epoch")
    assert epochs[-1]["train_accuracy"] < epochs[-1]["validation_accuracy"]
