"""A run on images with several labels: from a table to its files, and what is made of them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

from tests import shapes
from tests.commands.command import run_command
from tests.distributed.launch import run_forked
from tests.run.several_labels import KEYS, RECIPE, table
from tests.runs import Run, train_forked, train_here
from trainer.finished import trained_model
from trainer.run.report import pages
from trainer.run.tracking.accelerate_trackers import TensorBoardTracker

F1S = ("macro_f1", "micro_f1")

__all__ = ["table"]  # a fixture


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("several") / "run"
    keys = ("--data.root", str(table), *KEYS, "--processes", "1")
    slices = ("--data.slice_columns", "[part, brightness]")
    assert train_here(folder, *keys, *slices, config=RECIPE) == 0
    return Run(folder, 0)


@pytest.fixture(scope="module")
def mixed(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run by other losses and on mixed images, without validation."""
    folder = tmp_path_factory.mktemp("several") / "mixed"
    keys = ("--train.loss", "asymmetric", "--train.class_weights", "auto")
    more = ("--data.mixup", "0.2", "--data.cutmix", "0.5", "--data.validation_size", "0")
    return trained(table, folder, *keys, *more)


@pytest.fixture(scope="module")
def other(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A shorter run by the recipe of `run` with another seed."""
    return trained(table, tmp_path_factory.mktemp("several") / "other", "--seed", "1")


def command(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code, output, errors = run_command(capsys, *words)
    assert code == 0, errors
    return output


def test_a_short_training_learns_the_labels_and_writes_them_down(run: Run) -> None:
    results, test = run.json("results.json"), run.json("results.json")["test"]
    with np.load(run.folder / "predictions.npz", allow_pickle=False) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    target, shares = columns["target"], columns["probabilities"]
    assert target.shape == shares.shape == (150, 6)
    assert sorted(map(tuple, target.tolist())) == sorted(
        map(tuple, shapes.matrix(range(400, 550)).tolist())
    )
    assert test["average_precision"] > 0.85 > 0.3 + target.mean()
    wanted = average_precision_score(target, shares, average="macro")
    assert test["average_precision"] == pytest.approx(wanted, abs=1e-9)
    assert np.array_equal(columns["predicted"], shares >= columns["thresholds"])
    for average in ("micro", "macro"):
        wanted = f1_score(target, columns["predicted"], average=average)
        assert test[f"{average}_f1"] == pytest.approx(wanted)
    right = (columns["predicted"] == target).all(1).mean()
    assert test["accuracy"] == test["subset_accuracy"] == right
    of_one_class = ("top5_accuracy", "balanced_accuracy", "log_loss", "brier", "ece")
    assert [test[key] for key in of_one_class] == [None] * 5
    low, high = test["intervals"]["average_precision"]
    assert low < test["average_precision"] < high
    assert [row["threshold"] for row in test["per_class"]] == columns["thresholds"].tolist()

    held_out = columns["validation_target"], columns["validation_probabilities"]
    for label, threshold in enumerate(columns["thresholds"]):
        answers, asked = held_out[0][:, label], held_out[1][:, label]
        best = max(f1_score(answers, asked >= one) for one in asked)
        assert f1_score(answers, asked >= threshold) == pytest.approx(best)
    epochs = [record["validation_average_precision"] for record in run.metrics("epoch")]
    assert results["validation"]["best_average_precision"] == max(epochs)


def test_the_report_has_a_row_for_each_label(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    command(capsys, "report", str(run.folder))
    page = (run.folder / "report.html").read_text()
    assert "Per label" in page
    assert "Worst mistakes" in page
    assert all(f'scope="row">{name}' in page for name in shapes.NAMES)
    assert not (run.folder / "confusion.png").exists()
    card = (run.folder / "README.md").read_text()
    precision = run.json("results.json")["test"]["average_precision"]
    assert f"| mAP | {pages.percent(precision)} |" in card
    assert all(f"| {name} | " in card for name in shapes.NAMES)


def test_a_run_before_the_newer_figures_says_that_they_are_not_recorded(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(run.folder, old)
    results = run.json("results.json")
    del results["test"]["intervals"], results["receipt_sha256"], results["train"]["kernels"]
    for figures in (results["test"], *results["test"]["per_class"]):
        del figures["roc_auc"]
    (old / "results.json").write_text(json.dumps(results))
    (old / "README.md").unlink()
    command(capsys, "report", str(old))
    page = " ".join((old / "report.html").read_text().split())
    assert '<span class="label">ROC-AUC</span><b>not recorded</b>' in page
    assert "| ROC-AUC | not recorded |  |" in (old / "README.md").read_text()
    assert "test mAP" in command(capsys, "summary", str(old), str(run.folder))
    assert "bit-identical" in command(capsys, "compare", str(old), str(run.folder))
    found = json.loads(command(capsys, "evaluate", str(old), "--json"))
    assert found["equals_results_json"] is True
    results["test"]["per_class"][2]["f1"] += 1e-9
    (old / "results.json").write_text(json.dumps(results))
    found = json.loads(command(capsys, "evaluate", str(old), "--json"))
    assert found["equals_results_json"] is False


def test_the_bits_do_not_depend_on_processes(run: Run, table: Path, tmp_path: Path) -> None:
    keys = ("--config", str(RECIPE), "--data.root", str(table), *KEYS)
    slices = ("--data.slice_columns", "[part, brightness]")
    four = train_forked(tmp_path / "run", 4, *keys, *slices)
    assert four.exit_code == 0, four.errors
    assert four.digest == run.digest
    assert four.json("results.json")["test"] == run.json("results.json")["test"]
    arrays = [np.load(one.folder / "predictions.npz") for one in (run, four)]
    assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0].files)
    three = run_forked(3, tmp_path, "-m", "trainer", "evaluate", str(run.folder), "--json")
    assert three.returncode == 0, three.stderr
    assert json.loads(three.stdout)["test"] == run.json("results.json")["test"]


def test_evaluate_gives_the_same_figures(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(command(capsys, "evaluate", str(run.folder), "--json"))
    assert found["equals_results_json"] is True
    assert found["test"] == run.json("results.json")["test"]
    text = command(capsys, "evaluate", str(run.folder), "--split", "validation")
    assert "validation mAP" in text


def test_slices_are_of_images_with_all_labels_right(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    test = run.json("results.json")["test"]
    (whole,) = test["slices"]["part"]
    assert (whole["value"], whole["samples"]) == ("test", 150)
    assert whole["accuracy"] == test["subset_accuracy"]
    assert sum(row["samples"] for row in test["slices"]["brightness"]) == 150
    lines = [line.split() for line in command(capsys, "evaluate", str(run.folder)).splitlines()]
    assert ["brightness", "images", "all", "labels", "95", "%", "interval"] in lines
    page = (run.folder / "report.html").read_text()
    assert "<h3>By brightness</h3>" in page
    assert "<th>All labels right</th>" in page


def test_predict_names_all_labels_above_their_thresholds(
    run: Run, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(table.parent / f"{number:04}.png") for number in range(400, 420)]
    rows = list(csv.DictReader(io.StringIO(command(capsys, "predict", str(run.folder), *files))))
    lines = command(capsys, "predict", str(run.folder), "--json", *files).splitlines()
    stored = trained_model.load(run.folder)
    assert stored.thresholds is not None
    for row, line in zip(rows, map(json.loads, lines), strict=True):
        shares = line["probabilities"]
        wanted = [
            name
            for name, threshold in zip(stored.class_names, stored.thresholds, strict=True)
            if shares[name] >= threshold
        ]
        assert line["class"] == wanted
        assert line["probability"] == [shares[name] for name in wanted]
        assert row["class"] == "|".join(wanted)
    right = sum(row["class"] == "|".join(shapes.draw(400 + n)[1]) for n, row in enumerate(rows))
    assert right > 8
    black = tmp_path / "black.png"
    Image.new("RGB", (16, 16)).save(black)
    assert command(capsys, "predict", str(run.folder), str(black)).endswith(f"{black},,\n")
    code, _, errors = run_command(capsys, "predict", run.folder, black, "--min_confidence", "0.9")
    assert (code, errors[:17]) == (2, "--min_confidence:")


def test_an_exported_model_says_what_its_numbers_are(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "model.pt"
    words = (
        "export",
        str(run.folder),
        "--output",
        str(target),
        "--format",
        "torchscript",
        "--json",
    )
    facts = json.loads(command(capsys, *words))
    assert "sigmoid" in facts["output"]["values"]
    assert facts["thresholds"] == list(trained_model.load(run.folder).thresholds or ())


def trained(table: Path, folder: Path, *keys: str) -> Run:
    words = ("--data.root", str(table), *KEYS, *keys, "--train.epochs", "2")
    assert train_here(folder, *words, config=RECIPE) == 0
    return Run(folder, 0)


def test_two_runs_are_compared_and_summed_up_by_the_map(
    run: Run, other: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worse = other.json("results.json")["test"]["average_precision"]
    better = run.json("results.json")["test"]["average_precision"]
    both = str(other.folder), str(run.folder)
    found = json.loads(command(capsys, "compare", *both, "--json"))
    assert [row["test_average_precision"] for row in found["runs"]] == [worse, better]
    figures = found["test"]["figures"]
    assert list(figures) == ["average_precision", "roc_auc", "subset_accuracy", *F1S]
    row = figures["average_precision"]
    assert row["difference"] == pytest.approx(better - worse)
    low, high = row["interval"]
    assert low < row["difference"] < high
    page = tmp_path / "page.html"
    text = command(capsys, "compare", *both, "--output", str(page))
    assert "test mAP" in text and "All labels right" in text
    assert "All labels right" in page.read_text()

    found = json.loads(command(capsys, "summary", *both, "--json"))
    assert found["average_precision"]["mean"] == pytest.approx((better + worse) / 2)
    assert found["worst_class"] in shapes.NAMES
    assert "mean AP" in command(capsys, "summary", *both)


def test_two_recipes_are_compared_by_seeds_and_the_map(
    run: Run,
    other: Run,
    mixed: Run,
    table: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fourth = trained(table, tmp_path / "fourth", "--seed", "1", "--train.loss", "asymmetric")
    firsts, seconds = ((str(a.folder), str(b.folder)) for a, b in ((run, other), (fourth, mixed)))
    words = ("compare", *firsts, "--against", *seconds)
    found = json.loads(command(capsys, *words, "--json"))
    assert found["figure"] == "average_precision"
    assert [pair["seed"] for pair in found["pairs"]] == [0, 1]
    of_runs = [
        one.json("results.json")["test"]["average_precision"] for one in (run, other, mixed, fourth)
    ]
    differences = [of_runs[2] - of_runs[0], of_runs[3] - of_runs[1]]
    assert found["mean"]["mean"] == pytest.approx(np.mean(differences))
    text = command(capsys, *words)
    assert "mean difference" in text and "McNemar's p" in text


def test_trackers_get_the_map_and_no_accuracy_of_another_meaning(run: Run) -> None:
    test = run.json("results.json")["test"]
    shown = TensorBoardTracker(run.folder.with_name("shown"), "", 0).test_figures(test)
    assert shown["test/average_precision"] == test["average_precision"]
    assert shown["test/subset_accuracy"] == test["accuracy"]
    assert shown["test/augmented_average_precision"] == test["augmented"]["average_precision"]
    assert "test/accuracy" not in shown
    of_labels = {row["name"]: row["average_precision"] for row in test["per_class"]}
    for name, precision in of_labels.items():
        assert shown[f"test/class_average_precision/{name}"] == precision


def test_asymmetric_loss_weights_and_mixed_images_work_together(mixed: Run) -> None:
    results = mixed.json("results.json")
    assert results["test"]["average_precision"] > 0.5
    assert {row["threshold"] for row in results["test"]["per_class"]} == {0.5}


def test_a_cross_validation_answers_for_each_image_once(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--config", str(RECIPE), "--data.root", str(table), *KEYS, "--train.epochs", "2")
    more = ("--output_dir", str(tmp_path / "cv"), "--tracking.wandb", "disabled", "--threads", "1")
    text = command(capsys, "crossval", "--folds", "2", *words, *more, "--processes", "1")
    assert "mean mAP" in text
    found = json.loads((tmp_path / "cv" / "crossval.json").read_text())
    with np.load(tmp_path / "cv" / "out_of_fold.npz", allow_pickle=False) as arrays:
        target, shares = arrays["target"], arrays["probabilities"]
        assert sorted(arrays["index"].tolist()) == list(range(400))
    wanted = average_precision_score(target, shares, average="macro")
    assert found["out_of_fold"]["average_precision"] == pytest.approx(wanted)
    assert "Per label, out of fold" in (tmp_path / "cv" / "crossval.html").read_text()

    worse = tmp_path / "worse"  # as if of a recipe whose answers are less sure
    shutil.copytree(tmp_path / "cv", worse)
    with np.load(worse / "out_of_fold.npz", allow_pickle=False) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    random = np.random.default_rng(0)
    columns["probabilities"] = (shares + random.random(shares.shape)).astype(np.float32) / 2
    np.savez(worse / "out_of_fold.npz", **columns)
    words = ("compare", str(tmp_path / "cv"), str(worse))
    compared = json.loads(command(capsys, *words, "--json"))
    assert compared["figure"] == "average_precision"
    assert [pair["fold"] for pair in compared["pairs"]] == [1, 2]
    row = compared["out_of_fold"]["figures"]["average_precision"]
    assert row["first"] == pytest.approx(wanted)
    assert row["interval"][0] < row["difference"] < 0
    assert "out of fold, each image once" in command(capsys, *words)
