"""Compare what was written with the original: on patterned images, and on the test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from trainer.base import seeding
from trainer.base.errors import UserError
from trainer.base.terminal import progress_bar
from trainer.config.schema import DataConfig
from trainer.finished.evaluation_images import EvaluationImages
from trainer.finished.export.failures import explain_failure
from trainer.finished.export.formats import FORMATS, Format, Run
from trainer.finished.export.modules import PixelModel
from trainer.finished.export.own_size import Picture, own_answer, own_pictures
from trainer.finished.trained_model import TrainedModel
from trainer.training.label_metrics import apply_thresholds

TOLERANCE = 1e-4
"""of a logit, as a share of the largest of its batch where that is above 1; of a probability"""
ROUGH_TOLERANCE = 1e-2
"""of a probability, where OpenVINO resizes: it has no float64, so a pixel may be a level off"""
MOST_LOST = 0.01
"""of the accuracy, without a warning"""
CHECKED_BATCHES = (1, 2, 3)
"""images; the graph was recorded with two, and more could take more memory than the training"""
_BLOCK = 100
"""test images at once"""
MOST_PICTURES = 1000
"""that are given one by one at their own size, evenly spread over the test images"""

_OF_NETWORK = "does the network do other things with other batches, or draw numbers?"
_OF_EITHER = (
    "if it is written without --with-preprocessing, the preprocessing is what differs; otherwise: "
    + _OF_NETWORK
)


def tolerance_of(form: Format, *, with_preprocessing: bool) -> float | None:
    """Return how far a value may be from the original's; None: as far as it is."""
    if not FORMATS[form].is_exact:
        return None
    return ROUGH_TOLERANCE if with_preprocessing and form == "openvino" else TOLERANCE


def check_pixels(
    run: Run,
    module: PixelModel,
    target: Path,
    tolerance: float | None,
    *,
    same_draws: bool = False,
) -> dict[str, Any]:
    """Compare what was written with the original, on patterned images in batches of several sizes.

    Args:
        run: gives the logits of what was written.
        target: its name, for messages.
        same_draws: whether both draw the same random numbers, as the same code with the same
            weights does; in another format nobody could repeat what the file gives.

    Returns:
        `images` compared, `largest_difference` of a logit, and the `tolerance`.

    Raises:
        UserError: a difference is above the tolerance.
    """
    largest, example = 0.0, module.example()
    for size in CHECKED_BATCHES:
        pixels = _draw_patterns((size, *example.shape[1:]), example.dtype)
        with seeding.preserve_generators(), torch.inference_mode():
            seeding.seed_all(0, "evaluation", 0)
            expected = module(pixels)
            seeding.seed_all(0, "evaluation", 0 if same_draws else 1)
            with explain_failure("what was written does not run"):
                found = run(pixels)
        scale = max(1.0, float(expected.abs().max()))
        difference = _compare(found, expected, target, scale, tolerance, _OF_NETWORK)
        largest = max(largest, difference)
    count = sum(CHECKED_BATCHES)
    return {"images": count, "largest_difference": largest, "tolerance": tolerance}


def check_pictures(
    run: Run, trained: TrainedModel, target: Path, tolerance: float | None
) -> dict[str, Any]:
    """Compare what was written with all that is done to pictures here, on patterns of any sizes.

    Args:
        run: gives the probabilities of what was written.

    Returns:
        As `check_pixels`; the differences are those of probabilities.

    Raises:
        UserError: a difference is above the tolerance.
    """
    height, width = trained.image_size
    sizes = [(height, width), (3 * height + 1, width + 5), (height // 2 + 1, 2 * width + 3)]
    kinds = (1, 3) if trained.channels in (1, 3) else (trained.channels,)
    largest = 0.0
    for number, (count, size) in enumerate(zip(CHECKED_BATCHES, sizes, strict=True)):
        shape = (count, *size, kinds[number % len(kinds)])
        pictures = _draw_patterns(shape, torch.uint8)
        with seeding.preserve_generators(), torch.inference_mode():
            expected = torch.stack([own_answer(trained, one.numpy()) for one in pictures])
            seeding.seed_all(0, "evaluation", 1)
            with explain_failure("what was written does not run"):
                found = run(pictures)
        difference = _compare(found, expected, target, 1.0, tolerance, _OF_EITHER)
        largest = max(largest, difference)
    count = sum(CHECKED_BATCHES)
    return {"images": count, "largest_difference": largest, "tolerance": tolerance}


def _compare(
    found: torch.Tensor,
    expected: torch.Tensor,
    target: Path,
    scale: float,
    tolerance: float | None,
    reason: str,
) -> float:
    """Return the largest difference, as a share of `scale`.

    Args:
        reason: why it may be too large, for the message.
    """
    size = len(expected)
    are_finite = all(bool(values.isfinite().all()) for values in (found, expected))
    if found.shape != expected.shape or not are_finite:
        raise UserError(
            f"{target}: not written, as for {size} images the file gives values of shape "
            f"{tuple(found.shape)}, the original {tuple(expected.shape)}, or infinite ones"
        )
    difference = float((found - expected).abs().max()) / scale
    if tolerance is None:
        return difference
    if not difference <= tolerance:
        raise UserError(
            f"{target}: not written, as for {size} images its values differ from the "
            f"original's by {difference:.2g} of the largest, where {tolerance:g} is allowed; "
            f"{reason}"
        )
    return difference


def _draw_patterns(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Draw waves of several lengths, black and white, from 0 to 255."""
    count, size = shape[0], int(np.prod(shape[1:]))
    places = torch.arange(count * size, dtype=torch.float64)
    lengths = 3.0 + (places / size).floor()
    waves = 127.5 + 127.5 * torch.sin(places / lengths)
    waves = waves.round().view(shape)
    if count > 2:
        waves[0], waves[1] = 0, 255
    return waves.to(dtype)


# ---------------------------------------------------------------------- the test images


def compare_on_images(
    run: Run,
    trained: TrainedModel,
    found: EvaluationImages,
    data: DataConfig,
    *,
    with_preprocessing: bool,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Compare answers to images with the original's, in float32 on this machine.

    Args:
        run: of what was written.
        found: the images.
        data: where they were read from.
        with_preprocessing: whether it takes pictures, which are then given one by one at their own
            size, and gives probabilities.
        dtype: of what it takes.

    Returns:
        `images`, how many were compared, of how many `test_images`; `accuracy` and
        `own_accuracy`, of the original; `accuracy_lost`; `other_answers`, how many images got
        another class, or other labels; `largest_probability_difference`.

    Raises:
        UserError: the pictures cannot be read.
    """
    chosen = _choose(len(found.images), MOST_PICTURES if with_preprocessing else None)
    targets = found.images.targets.cpu().numpy()[chosen]
    answers = []
    read = own_pictures(trained, data, found) if with_preprocessing else None
    with progress_bar("images", len(targets)) as progress:
        batches = _pictures(trained, found, chosen, read) if read else _blocks(trained, found)
        for batch, own in batches:
            with explain_failure("what was written does not run on a test image"):
                values = run(batch.to(dtype))
            if read is None:
                labels = trained.thresholds is not None
                values = values.sigmoid() if labels else values.softmax(1)
            answers.append((values.numpy(), own.numpy()))
            progress.update(len(batch))
    theirs, ours = (np.concatenate(some) for some in zip(*answers, strict=True))
    their_answers, our_answers = (_answers(trained, some) for some in (theirs, ours))
    accuracies = [
        float(_all(answers == targets).mean()) for answers in (their_answers, our_answers)
    ]
    return {
        "images": len(targets),
        "test_images": len(found.images),
        "accuracy": accuracies[0],
        "own_accuracy": accuracies[1],
        "accuracy_lost": accuracies[1] - accuracies[0],
        "other_answers": int((~_all(their_answers == our_answers)).sum()),
        "largest_probability_difference": float(np.abs(theirs - ours).max()),
    }


def _choose(count: int, most: int | None) -> npt.NDArray[np.int64]:
    """Return the numbers of at most so many images, evenly spread over all, (n,)."""
    if most is None or count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def _all(equal: Any) -> Any:
    return equal.all(1) if equal.ndim == 2 else equal


def _answers(trained: TrainedModel, probabilities: Any) -> Any:
    """Return the class of each image, (n,), or which labels it has, (n, classes)."""
    if trained.thresholds is None:
        return probabilities.argmax(1)
    return apply_thresholds(probabilities, np.array(trained.thresholds))


def _blocks(
    trained: TrainedModel, found: EvaluationImages
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield images as the network takes them, and the original's probabilities."""
    for begin in range(0, len(found.images), _BLOCK):
        pixels = found.images.images[begin : begin + _BLOCK].cpu()
        yield pixels, trained.probabilities(pixels)


def _pictures(
    trained: TrainedModel,
    found: EvaluationImages,
    chosen: npt.NDArray[np.int64],
    read: Callable[[int], Picture],
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield one picture after the other at its own size, and the original's probabilities."""
    for number in chosen.tolist():
        pixels = found.images.images[number : number + 1].cpu()
        yield torch.from_numpy(read(number))[None], trained.probabilities(pixels)
