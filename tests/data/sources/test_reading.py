"""Reading a source while torch is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.data.idx_files import write_idx_folder
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.sources.reading import read, read_ahead


def config_of(folder: Path) -> DataConfig:
    return DataConfig(name="idx", root=str(folder))


def test_what_was_read_ahead_is_what_is_read(tmp_path: Path) -> None:
    write_idx_folder(tmp_path, packed=True)
    ahead, plain = read_ahead(config_of(tmp_path))(), read(config_of(tmp_path))
    assert isinstance(ahead.train.images, np.ndarray)
    assert isinstance(plain.train.images, np.ndarray)
    assert np.array_equal(ahead.train.images, plain.train.images)
    assert np.array_equal(ahead.test.labels, plain.test.labels)


def test_files_that_come_later_are_read_when_asked_for(tmp_path: Path) -> None:
    finish = read_ahead(config_of(tmp_path))
    with pytest.raises(UserError, match=r"data\.root: .* lacks train-images-idx3-ubyte"):
        finish()
    write_idx_folder(tmp_path)
    assert finish().train.images.shape == (40, 1, 5, 6)


def test_no_source_needs_torch_to_be_read(tmp_path: Path) -> None:
    write_idx_folder(tmp_path)
    program = (
        "import sys; from trainer.config.schema import DataConfig; "
        "from trainer.data.sources import reading; "
        f"reading.read(DataConfig(name='idx', root={str(tmp_path)!r}, memory_limit_mb=0)); "
        "reading.read(DataConfig(name='digits')); print('torch' in sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert finished.stdout == "False\n"
