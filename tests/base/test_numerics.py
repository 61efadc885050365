"""Whatever breaks the equality in bits is found and reported."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest
import torch

from tests.runs import Run, train_apart, train_forked, train_here
from trainer.base import numerics

SHORT = ["--train.epochs", "2", "--data.train_size", "300"]

PLUGIN = """
import torch
from models.lab import LabCNN

class Putting(LabCNN):
    def forward(self, images):
        place = torch.tensor([0], device=images.device)
        return super().forward(images.put(place, images.new_zeros(1)))
"""


def reasons_of(run: Run) -> list[str]:
    """The reasons in results.json, after a look at what was said."""
    equality = run.json("results.json")["equality"]
    for reason in equality["because"]:
        assert f"equal to rounding, not in bits: {reason}" in run.errors
    assert equality["in_bits"] == (not equality["because"])
    reasons: list[str] = equality["because"]
    return reasons


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after the first of two epochs."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    assert train_here(folder, *SHORT) == 0
    assert reasons_of(Run(folder, 0)) == []
    return min(folder.glob("checkpoints/step-*"))


def test_other_kernels_on_a_resume(stopped: Path, tmp_path: Path) -> None:
    resumed = train_apart(
        tmp_path / "run", *SHORT, "--resume", str(stopped), report=True,
        ATEN_CPU_CAPABILITY="default",
    )  # fmt: skip
    assert resumed.exit_code == 0, resumed.errors
    reasons = reasons_of(resumed)
    page = html.unescape((resumed.folder / "report.html").read_text())
    for reason in reasons:
        assert f"Equal to rounding, not in bits: {reason}" in page
    assert any("kernel variables none against ATEN_CPU_CAPABILITY=default" in r for r in reasons)
    assert any("cpu capability" in reason and "DEFAULT" in reason for reason in reasons)


def test_variables_that_choose_kernels_are_part_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = numerics.describe(torch.device("cpu"), None)
    changing = {
        "CUBLAS_WORKSPACE_CONFIG": ":16:8",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OMP_DYNAMIC": "true",
        "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
        "TORCH_COMPILE_DISABLE": "1",
    }
    for name, value in changing.items():
        monkeypatch.setenv(name, value)
    expected = " ".join(f"{name}={value}" for name, value in sorted(changing.items()))
    there = numerics.describe(torch.device("cpu"), None)
    assert numerics.differences(there, here) == [f"kernel variables {expected} against none"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        ("TORCHINDUCTOR_CACHE_DIR", "/tmp"),
        ("TORCHDYNAMO_VERBOSE", "1"),
        ("MKL_VERBOSE", "1"),
    ],
)
def test_variables_that_change_no_bits_are_left_out(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = numerics.describe(torch.device("cpu"), None)
    monkeypatch.setenv(name, value)
    assert numerics.describe(torch.device("cpu"), None) == here


FAST = """
import json, os
from pathlib import Path
import torch
from models.lab import LabCNN

# As nets for GPUs do it.
torch.set_float32_matmul_precision("high")
torch.backends.cudnn.allow_tf32 = True
torch.backends.mkldnn.conv.fp32_precision = "bf16"

def switches():
    backends = torch.backends
    found = [backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul, backends.mkldnn.conv,
             backends.mkldnn.rnn, backends.mkldnn.matmul]
    return [*(one.fp32_precision for one in found), backends.cudnn.allow_tf32,
            backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()]

class Fast(LabCNN):
    def forward(self, images):
        if self.training:
            Path(os.environ["SWITCHES"]).write_text(json.dumps(switches()))
        return super().forward(images)
"""


def test_fp32_is_fp32_whatever_a_plug_in_has_set(tmp_path: Path) -> None:
    plugin, seen = tmp_path / "fast.py", tmp_path / "seen.json"
    plugin.write_text(FAST)
    more = ["--model.name", f"{plugin}:Fast", "--model.args", "{}", "--train.epochs", "1"]
    run = train_forked(tmp_path / "run", 1, *SHORT, *more, SWITCHES=str(seen))
    assert run.exit_code == 0, run.errors
    assert json.loads(seen.read_text()) == [*["ieee"] * 6, False, False, "highest"]
    found = run.json("results.json")["environment"]["float32"]
    assert found == "convolutions ieee, products ieee"


def test_tf32_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch computes in, as far as a CPU can tell; the environment says it."""
    switches = numerics.float32_switches()
    try:
        numerics.choose_precision("tf32")
        gpu = torch.device("cuda")
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "some GPU")
        assert numerics.describe(gpu, None)["float32"] == "convolutions tf32, products tf32"
        assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        numerics.choose_precision("fp32")
    assert {switch.fp32_precision for switch in switches} == {"ieee"}


def test_an_operation_without_a_deterministic_kernel(tmp_path: Path) -> None:
    plugin = tmp_path / "putting.py"
    plugin.write_text(PLUGIN)
    more = ["--model.name", f"{plugin}:Putting", "--model.args", "{}"]
    run = train_forked(tmp_path / "run", 1, *SHORT, *more)
    assert run.exit_code == 0, run.errors
    (reason,) = reasons_of(run)
    assert reason.startswith("put")
    assert reason.endswith("has no deterministic form here")


def test_first_weights_that_depend_on_the_rank_are_refused(tmp_path: Path) -> None:
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
    run = train_forked(tmp_path / "run", 2, *SHORT, *more)
    assert run.exit_code == run.json("status.json")["exit_code"] == 2
    assert run.errors.count("model.name: rank 1 begins with other weights than rank 0") == 1
