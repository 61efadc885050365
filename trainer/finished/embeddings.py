"""Images as the features that a trained network makes of them, and how well these tell classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate import Accelerator

from trainer.base.array_files import write_arrays
from trainer.base.errors import UserError
from trainer.base.terminal import progress_bar
from trainer.config.schema import RunConfig
from trainer.finished.evaluation_images import EvaluationImages
from trainer.finished.trained_model import TrainedModel
from trainer.training import evaluation, features

PROBE_STRENGTH = 1.0
"""C of the probe's regression, the inverse of its L2 penalty: of features that are standardised"""
PROBE_ITERATIONS = 1000


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The features of some images.

    Args:
        features: float32, (n, features).
        targets: the classes of the images, int64, (n,), or their labels, uint8, (n, classes).
        names: of each image's picture, where each has its own.
    """

    features: npt.NDArray[np.float32]
    targets: npt.NDArray[np.integer[Any]]
    names: Sequence[str] | None

    def __len__(self) -> int:
        return len(self.targets)


def embed(
    accelerator: Accelerator,
    stored: TrainedModel,
    parts: Mapping[str, EvaluationImages],
    config: RunConfig,
) -> dict[str, Embeddings]:
    """Compute the features of images by a prepared model; a collective.

    Args:
        parts: by their names.

    Raises:
        UserError: it is not known which part of the network is its head.
    """
    block_samples = config.train.evaluation_batch_size or stored.evaluation_batch_size
    found = {}
    try:
        head = features.find_head(stored.module, len(stored.class_names))
        for name, part in parts.items():
            turns = evaluation.turns_per_rank(accelerator, -(-len(part.images) // block_samples))
            with progress_bar(name, turns, enabled=accelerator.is_main_process) as progress:
                computed = features.compute(
                    accelerator, stored.module, head,
                    part.images.move_if_it_fits(accelerator.device), stored.scaling,
                    progress.update,
                    block_samples=block_samples, seed=stored.seed, prefetch=config.data.prefetch,
                )  # fmt: skip
            targets = part.images.targets.cpu().numpy()
            found[name] = Embeddings(computed.numpy(), targets, part.labelled.names)
    except UserError as error:
        raise UserError(f"{stored.file}: {stored.name} has no features: {error}") from error
    return found


def write(path: Path, parts: Mapping[str, Embeddings], class_names: Sequence[str]) -> None:
    """Write embeddings as .npz.

    It has class_names and, for each part, PART_features, PART_targets, PART_index, from 0 in the
    part's order, and PART_names where the images have names.
    """
    arrays: dict[str, npt.NDArray[Any]] = {"class_names": np.array(class_names)}
    for name, part in parts.items():
        arrays[f"{name}_features"] = part.features
        arrays[f"{name}_targets"] = part.targets
        arrays[f"{name}_index"] = np.arange(len(part))
        if part.names is not None:
            arrays[f"{name}_names"] = np.array(list(part.names))
    write_arrays(path, arrays)


def classify_by_neighbours(
    known: Embeddings, asked: Embeddings, neighbours: int
) -> npt.NDArray[np.int64]:
    """Return the class that most of the nearest known images have, int64 (n,).

    Near is what points the same way: the cosine of the angle between features counts. Of classes
    that are equally frequent among the neighbours the one with the lower number is taken.

    Args:
        neighbours: how many, at most the known images.
    """
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute")
    found: npt.NDArray[np.int64] = classifier.fit(known.features, known.targets).predict(
        asked.features
    )
    return found


def classify_by_probe(
    known: Embeddings, asked: Sequence[Embeddings]
) -> list[npt.NDArray[np.int64]]:
    """Return the classes that a logistic regression on the known features gives, int64 (n,) each.

    The features are standardised by the known ones' means and deviations.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=PROBE_STRENGTH, max_iter=PROBE_ITERATIONS)
    probe = make_pipeline(StandardScaler(), regression).fit(known.features, known.targets)
    return [probe.predict(part.features) for part in asked]
