"""Labels of other images are matched with the classes of a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from trainer.base.errors import UserError
from trainer.data.sources.source_data import LabelledImages, SourceSplit
from trainer.finished.evaluation_images import match_labels

ELEVEN = tuple(sorted(map(str, range(11))))
"""0, 1, 10, 2 and so on, as folders are sorted"""


def labelled(labels: Sequence[int], names: Sequence[str] | None) -> SourceSplit:
    images = np.zeros((len(labels), 1, 2, 2), np.uint8)
    part = LabelledImages(images, np.array(labels), "images", "labels")
    return SourceSplit(part, None if names is None else tuple(names), "somewhere")


@pytest.mark.parametrize(
    ("labels", "names", "known", "ours", "by"),
    [
        ([1, 0, 1], ["Käfer", "ant"], ["ant", "bee", "Käfer"], [0, 2, 0], "name"),
        ([0, 1], ["1", "2"], ["0", "1", "2"], [1, 2], "name"),
        ([0], ["cafe\u0301"], ["bar", "caf\u00e9"], [1], "name"),
        ([0], ["ant "], ["ant"], [0], "name"),
        ([0], ["ant"], ["ant ", "ant"], [1], "name"),
        # A class that no image is of need not be known.
        ([0, 0], ["ant", "wasp"], ["ant", "bee"], [0, 0], "name"),
        ([2, 10, 0, 1], None, ELEVEN, [3, 2, 0, 1], "number"),
        ([0, 7], None, ["00", "01", "07"], [0, 2], "number"),
        ([-1, 1], None, ["-1", "1"], [0, 1], "number"),
        ([1, 2], None, ["01", "1", "2"], [1, 2], "number"),
        ([0, 1], None, ["0", "1", "other"], [0, 1], "number"),
        ([0, 2], None, ["ant", "bee", "cat"], [0, 2], "position"),
    ],
)
def test_labels_mean_classes_by_name_by_number_or_by_position(
    labels: list[int], names: list[str] | None, known: Sequence[str], ours: list[int], by: str
) -> None:
    found, how = match_labels(labelled(labels, names), known)
    assert (found.tolist(), how) == (ours, by)
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "names", "known", "named"),
    [
        ([0, 1], ["cat", "dog"], ["0", "1"], "classes 'cat', 'dog', which the model does not know"),
        ([1], ["ant", "wasp"], ["ant", "bee"], "the class 'wasp', which"),
        ([0], ["01"], ["1"], "the class '01'"),
        ([0], ["ant"], ["ant ", " ant"], "the class 'ant'"),
        ([11], None, ELEVEN, "the label 11, and no class of the model is that number"),
        ([2], None, ["0", "1", "other"], "the label 2, and no class"),
        ([1], None, ["01", "001"], "the label 1, and no class"),
        ([3], None, ["ant", "bee", "cat"], "the label 3, and the model's 3 classes count from 0"),
        ([-1], None, ["ant", "bee"], "the label -1, and the model's 2 classes count"),
        ([2], ["ant", "bee"], ["ant", "bee"], "must be between 0 and 1"),
        (list(range(20)), None, ["100", "101"], "8, 9, and 10 more, and no class"),
    ],
)
def test_unknown_classes_are_refused(
    labels: list[int], names: list[str] | None, known: Sequence[str], named: str
) -> None:
    with pytest.raises(UserError) as refused:
        match_labels(labelled(labels, names), known)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
