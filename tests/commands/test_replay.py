"""`python -m trainer replay`: a step of a run is computed again, and its samples are listed."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser import CHROMIUM, Browser
from tests.commands.command import Capture, run_command
from tests.distributed.launch import run_forked
from tests.runs import Run, contents, train_here
from trainer.config.schema import DataConfig
from trainer.data.loading import load

# Two epochs of five steps, the last of which leaves two of its four micro-batches empty.
SHORT = ["--train.epochs", "2", "--data.train_size", "300", "--train.batch_size", "67"]
MORE = ["--checkpoint.every_steps", "3", "--checkpoint.keep", "9", "--train.clip_norm", "0.5"]
MORE += ["--train.label_smoothing", "0.1", "--model.args", "{widths: [8, 16], dropout: 0.2}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_here(folder, *SHORT, *MORE) == 0
    return folder


def replay(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    return run_command(capsys, "replay", *words)


def replay_json(capsys: Capture, *words: str | Path) -> dict[str, Any]:
    """The JSON that it prints."""
    code, output, errors = replay(capsys, *words, "--json")
    assert code == 0, errors
    found: dict[str, Any] = json.loads(output)
    return found


@pytest.mark.parametrize(
    ("step", "start", "computed", "samples"),
    [(1, None, 1, 67), (4, "step-00000003", 1, 67), (5, "step-00000003", 2, 2),
     (6, "step-00000005", 1, 67), (9, "step-00000006", 3, 67)],
)  # fmt: skip
def test_a_step_is_that_of_the_run(
    step: int, start: str | None, computed: int, samples: int,
    run: Path, capsys: Capture,
) -> None:  # fmt: skip
    before = contents(run)
    found = replay_json(capsys, run, "--step", str(step))
    record = Run(run, 0).metrics("step")[step - 1]
    assert found["loss"] == found["recorded_loss"] == record["loss"]
    assert found["in_bits"] is found["agrees"] is True
    assert (found["from_checkpoint"], found["steps_computed"]) == (start, computed)
    losses = [row["loss"] for row in found["samples"]]
    assert len(losses) == samples
    assert losses == sorted(losses, reverse=True), "the worst first"
    assert np.mean(losses) == pytest.approx(record["loss"], rel=1e-5)
    norms = [row["gradient_norm"] for row in found["samples"]]
    assert 0 < found["gradient_norm"] <= np.mean(norms) * 1.001, "of a mean of gradients"
    assert contents(run) == before


def test_its_samples_are_those_of_the_epochs_order(run: Path, capsys: Capture) -> None:
    """All of an epoch's, each once, with its own class."""
    dataset = load(DataConfig(name="digits", train_size=300), seed=0)
    rows = [
        row
        for step in range(6, 11)
        for row in replay_json(capsys, run, "--step", str(step))["samples"]
    ]
    assert sorted(row["sample"] for row in rows) == list(range(270))
    for row in rows:
        assert row["class"] == str(int(dataset.train.targets[row["sample"]]))


def picture(row: dict[str, Any]) -> np.ndarray:
    content = base64.b64decode(row["picture"].removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(content)))


def test_pictures_are_what_the_network_saw(tmp_path: Path, capsys: Capture) -> None:
    """Without an augmentation the images themselves, with mixup mixtures of two."""
    plain = ["--data.augment", "none", "--train.epochs", "1"]
    assert train_here(tmp_path / "plain", *SHORT, *plain) == 0
    dataset = load(DataConfig(name="digits", train_size=300), seed=0)
    rows = replay_json(capsys, tmp_path / "plain", "--step", "2")["samples"]
    for row in rows:
        assert np.array_equal(picture(row), dataset.train.images[row["sample"]][0].numpy())
    assert train_here(tmp_path / "mixed", *SHORT, *plain, "--data.mixup", "1") == 0
    rows = replay_json(capsys, tmp_path / "mixed", "--step", "2")["samples"]
    mixed = [row for row in rows if " + " in row["class"]]
    assert len(mixed) > len(rows) / 2
    assert any(
        not np.array_equal(picture(row), dataset.train.images[row["sample"]][0].numpy())
        for row in mixed
    )


def test_as_text(run: Path, capsys: Capture) -> None:
    code, output, _ = replay(capsys, run, "--step", "7")
    assert code == 0
    assert output.startswith(f"step      7 (epoch 2) of {run}\n")
    assert "check     equal to the one in metrics.jsonl, bit for bit" in output
    assert ", clipped to 0.5\n" in output
    assert output.endswith("and 47 samples with smaller losses\n")


def test_two_processes_say_the_same(run: Path, tmp_path: Path, capsys: Capture) -> None:
    """Every figure has the same bits; rank 1 of step 5 has no samples."""
    words = ["-m", "trainer", "replay", str(run), "--step", "5", "--json"]
    finished = run_forked(2, tmp_path, *words)
    assert finished.returncode == 0, finished.stderr
    two = json.loads(finished.stdout)
    assert two.pop("processes") == 2
    one = replay_json(capsys, run, "--step", "5")
    assert one.pop("processes") == 1
    assert two == one


def test_the_page_in_a_browser(run: Path, tmp_path: Path, capsys: Capture) -> None:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(run, folder)
    page = tmp_path / "step.html"
    assert replay(capsys, folder, "--step", "7", "--page", page)[0] == 0
    assert "<img src=x" not in page.read_text()
    with Browser(tmp_path / "profile") as browser:
        for width in (320, 1280):
            look = browser.open(page, width)
            assert (look.images, look.broken) == (67, [])
            assert (look.complaints, look.requests) == ([], [])
            assert look.width <= look.window
            assert "<img src=x onerror=alert(1)>" in look.text
            assert "bit for bit" in look.text


def test_a_record_that_is_not_the_runs(run: Path, tmp_path: Path, capsys: Capture) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {"loss": 9.0})
    (copy / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    code, output, errors = replay(capsys, copy, "--step", "3")
    assert code == 3
    assert "check     differs: step 2 (epoch 1): loss 9.0 in the run, " in output
    assert "not what was computed here" in errors


SPOILED = """
import torch
from models.quicknet import QuickNet

class Spoiled(QuickNet):
    def forward(self, images):
        logits = super().forward(images)
        bright = images.sum((1, 2, 3)) > {limit}
        return logits * torch.where(bright & self.training, torch.nan, 1.0)[:, None]
"""


def test_the_sample_that_spoils_a_step(tmp_path: Path, capsys: Capture) -> None:
    """Whether the run has ended by that step, or has gone on without it."""
    dataset = load(DataConfig(name="digits", train_size=300), seed=0)
    sums = dataset.scaling.apply(dataset.train.images).sum((1, 2, 3))
    plugin = tmp_path / "spoiled.py"
    plugin.write_text(SPOILED.format(limit=float(sums.sort().values[-2:].mean())))
    name = ["--model.name", f"{plugin}:Spoiled"]
    more = [*name, "--data.augment", "none"]
    assert train_here(tmp_path / "ended", *SHORT, *more) == 1
    more += ["--train.on_nonfinite", "rollback", "--checkpoint.keep", "9"]
    assert train_here(tmp_path / "went_on", *SHORT, *more) == 0
    (skipped, _) = Run(tmp_path / "went_on", 0).json("results.json")["train"]["skipped_steps"]
    found = replay_json(capsys, tmp_path / "went_on", "--step", str(skipped), *name)
    assert found["agrees"] is found["skipped_in_run"] is True
    assert found["loss"] is found["recorded_loss"] is found["gradient_norm"] is None
    assert found["samples"][0]["sample"] == int(sums.argmax())
    assert found["samples"][0]["loss"] is None
    assert found["samples"][1]["loss"] is not None
    later = replay_json(capsys, tmp_path / "went_on", "--step", str(skipped + 1), *name)
    assert later["in_bits"] is True
    assert run_command(capsys, "verify", tmp_path / "went_on", *name)[0] == 0
    # Nothing was saved before, so nothing says on what it was computed.
    words = [tmp_path / "ended", "--step", str(skipped), *name]
    code, _, errors = replay(capsys, *words)
    assert code == 2
    assert "says on what machine" in errors
    found = replay_json(capsys, *words, "--tolerance", "0")
    assert found["samples"][0]["sample"] == int(sums.argmax())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--step", "11"], "--step: 11, but "),
        (["--step", "0"], "has the steps 1 to 10 so far"),
        (["--step", "3", "--threads", "2"], "threads 1 against 2"),
        (["--step", "3", "--threads", "0"], "--threads: must be at least 1, found 0"),
        (["--step", "3", "--page", "no/such/folder.html"], "--page: no/such/folder.html must"),
        (["--step", "3", "--model.name", "lenet5"], "--model.name: lenet5, but the run had"),
    ],
)
def test_bad_input(words: list[str], expected: str, run: Path, capsys: Capture) -> None:
    code, output, errors = replay(capsys, run, *words)
    assert (code, output) == (2, "")
    assert expected in errors


def test_a_page_does_not_go_into_the_run(run: Path, capsys: Capture) -> None:
    code, _, errors = replay(capsys, run, "--step", "3", "--page", run / "page.html")
    assert code == 2
    assert "where nothing is changed" in errors
    assert not (run / "page.html").exists()
