"""The properties by which test images are divided into slices: data.slice_columns.

They are columns of the table, or are measured: `size`, how large a picture is in its file, and
`brightness`, the mean of an image's pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data import loading
from trainer.data.dataset import ImageSet
from trainer.data.sources import reading
from trainer.data.sources.source_data import LabelledImages

MEASURED = ("size", "brightness")

MOST_SIZES = 8
"""of a picture, each a slice of its own; of more, images are divided by their shorter side"""

MOST_NUMBERS = 20
"""in a column of the table, each a slice of its own; more are divided into quarters"""

NOTHING = "(nothing)"
"""the value of an empty cell"""


def slices_of(
    config: DataConfig, part: LabelledImages, images: ImageSet
) -> dict[str, Sequence[str]]:
    """Return the values of data.slice_columns of each image: by the column's name, (n,).

    Args:
        part: the images as they were read.
        images: the same images, as a network gets them.

    Raises:
        UserError: there is no such column, or an image has no row in the table.
    """
    known = reading.columns_of_table(config)
    found: dict[str, Sequence[str]] = {}
    for name in config.slice_columns:
        if known is not None and name in known:
            found[name] = _from_table(config, part, name)
        elif name == "brightness":
            found[name] = _brightness(images)
        else:
            found[name] = _sizes(part)
    return found


def slices_of_test(config: DataConfig, seed: int, images: ImageSet) -> dict[str, Sequence[str]]:
    """Return the values of data.slice_columns of a run's test images, as `slices_of`."""
    if not config.slice_columns:
        return {}
    source = reading.read(config)
    test = loading.divide(config, source, seed, source.class_names)[2]
    return slices_of(config, test.select(), images)


def check(config: DataConfig) -> None:
    """Make sure that data.slice_columns are there; before a run's first step.

    Raises:
        UserError: names the one that is not.
    """
    if not config.slice_columns:
        return
    known = reading.columns_of_table(config)
    for name in config.slice_columns:
        if name == "size" and not config.has_pictures:
            raise UserError("data.slice_columns: size is that of pictures, which these are not")
        if name not in (*MEASURED, *(known or ())):
            others = f"the table has {', '.join(known)}" if known else "there is no table"
            raise UserError(
                f"data.slice_columns: there is no column {name}; {others}, and "
                f"{' and '.join(MEASURED)} are measured"
            )


def _from_table(config: DataConfig, part: LabelledImages, name: str) -> list[str]:
    values = reading.column_of_table(config, name)
    assert part.names is not None
    try:
        texts = [values[picture] for picture in part.names]
    except KeyError as error:
        raise UserError(f"data.slice_columns: the table has no row of {error}") from error
    texts = [text.strip() for text in texts]
    if (numbers := _numbers(texts)) is None:
        return [text or NOTHING for text in texts]
    quarters = iter(divide(numbers, name))
    return [next(quarters) if text else NOTHING for text in texts]


def _numbers(texts: Sequence[str]) -> npt.NDArray[np.float64] | None:
    """Return the numbers that texts say, where all that say something do and many differ."""
    try:
        numbers = np.array([float(text) for text in texts if text])
    except ValueError:
        return None
    is_many = len(np.unique(numbers)) > MOST_NUMBERS and bool(np.isfinite(numbers).all())
    return numbers if is_many else None


def _brightness(images: ImageSet) -> list[str]:
    means = [chunk.flatten(1).double().mean(1).cpu().numpy() for chunk in images.chunks()]
    return divide(np.round(np.concatenate(means), 1), "mean")


def _sizes(part: LabelledImages) -> list[str]:
    assert part.sizes is not None
    texts = [f"{height} x {width}" for height, width in part.sizes.tolist()]
    if len(set(texts)) <= MOST_SIZES:
        return texts
    return divide(part.sizes.min(1).astype(np.float64), "shorter side")


def divide(values: npt.NDArray[np.float64], what: str) -> list[str]:
    """Return of which quarter each value is, (n,), in words: `what 12 to 40`; equal ones together.

    Quarters have about equally many; fewer remain where many values are equal.
    """
    ends = np.unique(np.quantile(values, [0.25, 0.5, 0.75, 1], method="inverted_cdf"))
    places = np.searchsorted(ends, values)
    names = []
    for place in range(len(ends)):
        inside = values[places == place]
        low, high = (f"{number:.15g}" for number in (inside.min(), inside.max()))
        names.append(f"{what} {low} to {high}")
    return [names[place] for place in places]
