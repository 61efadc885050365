"""What breaks the equality in bits is found and said."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from tests.runs import Run, train_apart

SHORT = ["--train.epochs", "2", "--data.train_size", "300"]

PLUGIN = """
import torch
from models.lab import LabCNN

class Putting(LabCNN):
    def forward(self, images):
        place = torch.tensor([0], device=images.device)
        return super().forward(images.put(place, images.new_zeros(1)))
"""


def said(run: Run) -> list[str]:
    """The reasons in results.json, after a look at the page, which has them too."""
    equality = run.json("results.json")["equality"]
    page = html.unescape((run.folder / "report.html").read_text())
    for reason in equality["because"]:
        assert f"Equal to rounding, not in bits: {reason}" in page
        assert f"equal to rounding, not in bits: {reason}" in run.errors
    assert equality["in_bits"] == (not equality["because"])
    reasons: list[str] = equality["because"]
    return reasons


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after the first of two epochs."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    run = train_apart(folder, *SHORT, report=True)
    assert said(run) == []
    return min(folder.glob("checkpoints/step-*"))


def test_other_kernels_on_a_resume(stopped: Path, tmp_path: Path) -> None:
    resumed = train_apart(
        tmp_path / "run", *SHORT, "--resume", str(stopped), report=True,
        ATEN_CPU_CAPABILITY="default",
    )  # fmt: skip
    assert resumed.exit_code == 0, resumed.errors
    reasons = said(resumed)
    assert any("kernel variables none against ATEN_CPU_CAPABILITY=default" in r for r in reasons)
    assert any("cpu capability" in reason and "DEFAULT" in reason for reason in reasons)


def test_an_operation_without_a_deterministic_kernel(tmp_path: Path) -> None:
    plugin = tmp_path / "putting.py"
    plugin.write_text(PLUGIN)
    more = ["--model.name", f"{plugin}:Putting", "--model.args", "{}"]
    run = train_apart(tmp_path / "run", *SHORT, *more, report=True)
    assert run.exit_code == 0, run.errors
    (reason,) = said(run)
    assert reason.startswith("put")
    assert reason.endswith("has no deterministic form here")


def test_first_weights_that_depend_on_the_rank_are_refused(tmp_path: Path) -> None:
    from tests.distributed.launch import launcher, own_words

    plugin = tmp_path / "ranked.py"
    plugin.write_text("""
import os
from models.lab import LabCNN

class Ranked(LabCNN):
    def __init__(self, num_classes, in_channels, image_size):
        super().__init__(num_classes, in_channels, image_size)
        next(self.parameters()).data.fill_(float(os.environ.get("RANK", "0")))
""")
    more = ["--model.name", f"{plugin}:Ranked", "--model.args", "{}"]
    run = train_apart(tmp_path / "run", *SHORT, *more, launcher=launcher(2))
    assert run.json("status.json")["exit_code"] == 2
    assert (
        own_words(run.errors).count("model.name: rank 1 begins with other weights than rank 0") == 1
    )
