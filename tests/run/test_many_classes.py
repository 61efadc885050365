"""A run of three hundred classes: it ends, and everything that reads its results can."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from tests.commands.command import run_command
from tests.offline_run import OfflineRun
from tests.run.tracking.test_tensorboard import points
from tests.runs import DIGITS, Run, train_forked
from trainer import api
from trainer.config.schema import RunConfig

CLASSES = 300


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of each class to train on and two to test on, from noise."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for part in ("train", "test"):
        pixels = random.integers(0, 256, (2 * CLASSES, 8, 8), dtype=np.uint8)
        np.save(folder / f"n_{part}_features.npy", pixels)
        np.save(folder / f"n_{part}_targets.npy", np.arange(2 * CLASSES) % CLASSES)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Run:
    keys = ["--data.name", "npy", "--data.root", str(data), "--data.validation_size", "0"]
    trackers = ["--tracking.tensorboard", "true", "--tracking.wandb", "offline"]
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = train_forked(folder, 1, *keys, "--train.epochs", "1", *trackers, report=True)
    assert (run.exit_code, run.errors) == (0, "")
    return run


def test_the_matrix_has_its_own_file(run: Run) -> None:
    test = run.json("results.json")["test"]
    assert test["confusion"] is None
    assert len(test["per_class"]) == CLASSES
    answers = np.load(run.folder / "predictions.npz")
    with np.load(run.folder / "confusion.npz") as stored:
        confusion = stored["confusion"]
    labels = range(CLASSES)
    expected = confusion_matrix(answers["target"], answers["predicted"], labels=labels)
    assert np.array_equal(confusion, expected)
    assert [row["correct"] for row in test["per_class"]] == confusion.diagonal().tolist()
    assert [row["support"] for row in test["per_class"]] == [2] * CLASSES


def test_the_report_shows_the_worst_and_the_most_confused(run: Run) -> None:
    with Image.open(run.folder / "confusion.png") as picture:
        assert max(picture.size) < 2000
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "The 50 worst of 300 classes; all are in results.json." in page
    assert "the whole matrix is in confusion.npz" in page
    rows = [table.count('<th scope="row">') for table in page.split("<table")]
    assert 50 in rows, rows


def test_the_trackers_get_tables_that_they_show(run: Run) -> None:
    assert len(points(run.folder, "test/accuracy")) == 1
    with pytest.raises(KeyError):
        points(run.folder, "test/class_accuracy/0")
    offline, test = OfflineRun(run.folder), run.json("results.json")["test"]
    last = offline.rows[max(offline.rows)]
    assert last["test/accuracy"] == test["accuracy"]
    assert not any("class_accuracy" in key for key in last)
    assert len(offline.table("test/per_class")["data"]) == CLASSES
    table = offline.table("test/confused")
    assert table["columns"] == ["true", "predicted", "images", "share of the class"]
    with np.load(run.folder / "confusion.npz") as stored:
        confusion = stored["confusion"]
    counts = [row[2] for row in table["data"]]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == confusion.sum() - np.trace(confusion)
    for true, predicted, count, share in table["data"]:
        assert confusion[int(true), int(predicted)] == count
        assert share == count / 2


def test_the_report_can_be_written_again(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Run(shutil.copytree(run.folder, tmp_path / "run"), 0)
    names = ("confusion.npz", "confusion.png", "report.html")
    for name in names:
        (copy.folder / name).unlink()
    assert run_command(capsys, "report", copy.folder)[0] == 0
    for name in names[:2]:
        assert (copy.folder / name).read_bytes() == (run.folder / name).read_bytes()
    assert (copy.folder / "report.html").exists()


def test_commands_that_read_the_results(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run_command(capsys, "evaluate", run.folder, "--json")[1])
    assert found["equals_results_json"] is True
    assert found["test"]["confusion"] is None
    for command in (["evaluate", run.folder], ["summary", run.folder]):
        code, output, errors = run_command(capsys, *command)
        assert code == 0, errors
        assert "and 280 more classes; these are the worst" in output
        assert output.count("<- worst") == 1
        assert len(output.splitlines()) < 40
    assert run_command(capsys, "compare", run.folder, run.folder)[1].startswith("bit-identical")
    assert run_command(capsys, "verify", run.folder)[0] == 0
    shown = api.Run(run.folder, RunConfig())._repr_html_()
    assert shown.count("<tr>") == 21
    assert "and 280 more classes" in shown


def test_results_of_an_older_version_have_every_matrix(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    results = run.json("results.json")
    with np.load(run.folder / "confusion.npz") as stored:
        results["test"]["confusion"] = stored["confusion"].tolist()
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    found = json.loads(run_command(capsys, "evaluate", tmp_path / "run", "--json")[1])
    assert found["equals_results_json"] is True
    assert run_command(capsys, "verify", tmp_path / "run")[0] == 0


def test_results_of_ten_thousand_classes_can_be_read(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With names of three hundred letters: more than other files of a run may have."""
    shutil.copytree(run.folder, tmp_path / "run")
    path, results = tmp_path / "run" / "results.json", run.json("results.json")
    row = results["test"]["per_class"][0]
    rows = [row | {"name": f"{place:0300}", "f1": 1 / 3} for place in range(10_000)]
    results["test"] |= {"per_class": rows, "worst_class": rows[0]["name"]}
    path.write_text(json.dumps(results, indent=2))
    assert path.stat().st_size > 4 * 2**20
    for command in ("summary", "compare"):
        words = [tmp_path / "run"] * (2 if command == "compare" else 1)
        code, output, errors = run_command(capsys, command, *words)
        assert code == 0, errors
        assert len(output.splitlines()) < 40


def test_counts_of_the_smallest_classes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ["--config", str(DIGITS), "--data.name", "npy", "--data.root", data]
    page = tmp_path / "page.html"
    code, output, errors = run_command(
        capsys, "inspect-data", *keys, "--data.validation_size", "0", "--page", page
    )
    assert code == 0, errors
    assert "the 20 of 300 classes with the fewest training images" in output
    assert len(output.splitlines()) < 50
    text = page.read_text(encoding="utf-8")
    assert text.count('<div class="grid samples">') == 20
    assert "The 20 of 300 classes with the fewest training images." in text
