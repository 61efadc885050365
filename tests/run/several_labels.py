"""A table of pictures with several labels each, and the keys of a run on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import shapes
from tests.conftest import REPOSITORY

RECIPE = REPOSITORY / "configs" / "folder.yaml"
KEYS = (
    *("--data.name", "table", "--data.multi_label", "true", "--data.augment", "none"),
    *("--train.loss", "bce", "--train.epochs", "4", "--train.batch_size", "40"),
    *("--model.args", '{"widths": [16, 32, 32]}', "--data.test_augment", "flip"),
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the pictures and the table."""
    return shapes.write_table(tmp_path_factory.mktemp("shapes") / "set", 400, 150)
