"""What is known of many pictures, a column for each property: a million of them fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trainer.data.label_matrix import Labels
from trainer.data.pictures import packed_names
from trainer.data.pictures.places import Places


@dataclass(frozen=True, eq=False)
class ListedPictures:
    """The pictures of one part, train, validation or test, as a source lists them.

    Args:
        places: where they are; nobody has looked into them.
        labels: the numbers of their classes, int64 (n,); of those that may have several, uint8
            (n, classes).
        groups: what must not be divided (a patient, an animal, a film), a name for each picture;
            None if there are no groups.
        weights: of each picture, float64 (n,); None: all weigh the same.
    """

    places: Places
    labels: Labels
    groups: Sequence[str] | None = None
    weights: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, positions: npt.NDArray[np.int64]) -> ListedPictures:
        """Return some of them, in this order."""
        return ListedPictures(
            self.places.select(positions),
            self.labels[positions],
            None if self.groups is None else packed_names.select(self.groups, positions),
            None if self.weights is None else self.weights[positions],
        )


@dataclass(frozen=True, eq=False)
class KnownPictures:
    """Listed pictures of which it is known what they contain, in the order of a run's images.

    Args:
        listed: the pictures.
        sizes: height and width of each, upright by its EXIF orientation, int32 (n, 2).
        sha256: of the bytes of each, uint8 (n, 32).
    """

    listed: ListedPictures
    sizes: npt.NDArray[np.int32]
    sha256: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.listed)

    def select(self, positions: npt.NDArray[np.int64]) -> KnownPictures:
        """Return some of them, in this order."""
        return KnownPictures(
            self.listed.select(positions), self.sizes[positions], self.sha256[positions]
        )
