"""Every command of benchmarks/scaling.py runs, with tiny sizes; nothing is asserted of times."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scaling
import scaling_profile
from scaling_images import make_set

TINY = {
    "processes": "--launches 1 --batch_size 8 --models|lab net",
    "batch": "--launches 1 --sizes 8 --block_images 8 --processes 1",
    "images": "--sizes --synthetic 300 --seconds 0.5",
    "profile": "--steps 3 --processes 2 --models|lab net",
}


def run(monkeypatch: pytest.MonkeyPatch, output: Path, what: str) -> dict[str, Any]:
    """Do a command; its figures."""
    first, *last = TINY[what].split("|")
    words = ["scaling.py", what, *first.split(), *last, "--output", str(output)]
    monkeypatch.setattr(sys, "argv", words)
    scaling.main()
    figures: dict[str, Any] = json.loads(output.read_text())[what]["figures"]
    return figures


@pytest.mark.usefixtures("forked")
def test_one_process_and_two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures = run(monkeypatch, tmp_path / "scaling.json", "processes")
    assert figures["models"]["lab net"]["parameters"] == 28_938
    page = (tmp_path / "scaling.md").read_text()
    assert "python benchmarks/scaling.py processes --launches 1 --models 'lab net'" in page
    assert "| lab net | 28,938 |" in page


@pytest.mark.usefixtures("forked")
def test_each_command_keeps_the_sections_of_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for what in ("batch", "images"):
        run(monkeypatch, tmp_path / "scaling.json", what)
    page = (tmp_path / "scaling.md").read_text()
    assert "## Batch sizes" in page
    assert "| 300 | npy | 0.2 |" in page


@pytest.mark.usefixtures("forked")
def test_the_parts_of_a_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures = run(monkeypatch, tmp_path / "scaling.json", "profile")
    parts_s = figures["lab net, processes: 2"]["parts_s"]
    assert set(parts_s) == set(scaling_profile.PARTS)
    assert all(seconds > 0 for seconds in parts_s.values()), parts_s


def test_synthetic_images_all_differ_and_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_set(tmp_path / name, 3000)
    paths = sorted((tmp_path / "one").iterdir())
    assert len(paths) == 4
    for path in paths:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    images = np.load(tmp_path / "one" / "synthetic_train_features.npy")
    assert len(np.unique(images.reshape(3000, -1), axis=0)) == 3000
