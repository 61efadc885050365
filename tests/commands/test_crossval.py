"""`python -m trainer crossval`: every fold is a run, and the folds are put together."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands.command import Capture, run_command
from tests.distributed.launch import run_forked, start_forked
from tests.runs import Run, contents, train_here, words
from trainer.config.schema import DataConfig
from trainer.data.loading import load_training

FOLDS = 3
SHORT = ["--train.epochs", "2", "--data.train_size", "600"]


def crossval(capsys: Capture, folder: Path, *more: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    return run_command(capsys, *command_words(folder, *more))


def command_words(folder: Path, *more: str) -> list[str]:
    """The command for a short cross-validation."""
    return ["crossval", "--folds", str(FOLDS), *words(folder, *SHORT, *more)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cross-validation, by a process of its own."""
    folder = tmp_path_factory.mktemp("crossval") / "folds"
    words = command_words(folder, "--json")
    done = run_forked(1, folder.parent, "-m", "trainer", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == result(folder)
    return folder


def result(folder: Path) -> dict[str, Any]:
    """What crossval.json contains."""
    found: dict[str, Any] = json.loads((folder / "crossval.json").read_text())
    return found


def without_times(folder: Path) -> dict[str, Any]:
    """The result without the times, which differ from run to run."""
    found = result(folder)
    for run in found["runs"]:
        del run["seconds"]
    return found


def test_every_used_training_image_is_classified_once(whole: Path) -> None:
    with np.load(whole / "out_of_fold.npz") as columns:
        assert columns["index"].tolist() == list(range(600))
        assert sorted(set(columns["fold"].tolist())) == [1, 2, 3]
        images, _ = load_training(DataConfig(name="digits", train_size=600))
        labels = images.targets.numpy()
        assert np.array_equal(columns["target"], labels)
        right = columns["target"] == columns["predicted"]
        for run in result(whole)["runs"]:
            assert run["accuracy"] == pytest.approx(right[columns["fold"] == run["fold"]].mean())
        assert result(whole)["out_of_fold"]["accuracy"] == pytest.approx(right.mean())


def test_figures_and_probabilities_out_of_fold(
    whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    """And two cross-validations with the same folds are compared."""
    with np.load(whole / "out_of_fold.npz") as columns:
        assert columns["probabilities"].shape == (600, 10)
        assert (columns["probabilities"].argmax(1) == columns["predicted"]).all()
        right = columns["predicted"] == columns["target"]
    pooled = result(whole)["out_of_fold"]
    low, high = pooled["intervals"]["accuracy"]
    assert low < right.mean() < high
    assert 0.5 < pooled["roc_auc"] <= 1
    other = shutil.copytree(whole, tmp_path / "other")
    code, output, errors = run_command(capsys, "compare", whole, other, "--json")
    assert code == 0, errors
    found = json.loads(output)
    assert [pair["fold"] for pair in found["pairs"]] == [1, 2, 3]
    assert found["mean"]["p_value"] == found["out_of_fold"]["mcnemar"]["p_value"] == 1.0
    with np.load(other / "out_of_fold.npz") as columns:
        changed = dict(columns)
    changed["fold"] = changed["fold"][::-1]
    np.savez(other / "out_of_fold.npz", **changed)
    code, _, errors = run_command(capsys, "compare", whole, other)
    assert code == 2
    assert "have other folds or other images" in errors


def test_mean_deviation_and_interval(whole: Path) -> None:
    found = result(whole)
    accuracies = [run["accuracy"] for run in found["runs"]]
    mean, deviation = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert found["accuracy"]["mean"] == pytest.approx(mean)
    assert found["accuracy"]["standard_deviation"] == pytest.approx(deviation)
    half = 4.302653 * deviation / 3**0.5  # Student's t of two degrees of freedom, from a table
    expected = [max(0, mean - half), min(1, mean + half)]
    assert found["accuracy"]["interval"] == pytest.approx(expected, rel=1e-5)
    assert "Bengio and Grandvalet, 2004" in found["accuracy"]["caveat"]


def test_classes_are_counted_over_all_folds(whole: Path) -> None:
    found = result(whole)["out_of_fold"]
    confusions = [Run(whole / f"fold-{k}", 0).json("results.json")["test"] for k in (1, 2, 3)]
    confusion = sum(np.array(test["confusion"]) for test in confusions)
    assert found["confusion"] == confusion.tolist()
    accuracies = confusion.diagonal() / confusion.sum(1)
    assert [row["accuracy"] for row in found["per_class"]] == pytest.approx(accuracies.tolist())
    assert found["worst_class"] == str(accuracies.argmin())


def test_a_fold_is_the_run_that_train_py_makes_of_it(whole: Path, tmp_path: Path) -> None:
    more = ["--data.folds", str(FOLDS), "--data.fold", "2"]
    assert train_here(tmp_path / "run", *SHORT, *more) == 0
    assert Run(tmp_path / "run", 0).digest == result(whole)["runs"][1]["final_weights_sha256"]


def test_two_processes_go_on_with_the_folds_that_are_left(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folds"
    shutil.copytree(whole / "fold-1", folder / "fold-1")
    done = run_forked(2, tmp_path, "-m", "trainer", *command_words(folder, "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"][2]["fold"] == 3
    assert without_times(folder) == without_times(whole)
    with np.load(folder / "out_of_fold.npz") as ours, np.load(whole / "out_of_fold.npz") as theirs:
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_a_fold_that_lacked_memory_may_be_evaluated_in_smaller_blocks(
    whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Those that were finished before stay as they are."""
    folder = tmp_path / "folds"
    for name in ("fold-1", "fold-2"):
        shutil.copytree(whole / name, folder / name)
    before = contents(folder)
    code, _, errors = crossval(capsys, folder, "--train.evaluation_batch_size", "50")
    assert code == 0, errors
    assert contents(folder).items() >= before.items()
    ours, theirs = (result(path)["runs"] for path in (folder, whole))
    key = "final_weights_sha256"
    assert [run[key] for run in ours] == [run[key] for run in theirs]


def test_stopped_and_killed_it_goes_on_in_the_middle_of_a_fold(
    whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "folds"
    for fold, end, code in ((2, BaseProcess.terminate, 75), (3, BaseProcess.kill, -9)):
        log = folder / f"fold-{fold}" / "metrics.jsonl"
        process = start_forked(tmp_path, "-m", "trainer", *command_words(folder))
        while process.is_alive() and not log.exists():
            time.sleep(0.02)
        end(process)
        process.join()
        assert process.exitcode == code, (tmp_path / "err").read_text()
        assert not (folder / "crossval.json").exists()
    assert crossval(capsys, folder)[0] == 0
    assert without_times(folder) == without_times(whole)


def test_max_seconds_stops_in_the_middle_of_a_fold(
    whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "folds"
    shutil.copytree(whole / "fold-1", folder / "fold-1")
    code, _, errors = crossval(capsys, folder, "--train.max_seconds", "0.001")
    assert code == 75
    assert "stopped at step 1 " in errors
    assert crossval(capsys, folder)[0] == 0
    assert without_times(folder) == without_times(whole)


def test_folds_one_at_a_time_and_a_last_call_for_the_report(
    whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "folds"
    for fold in ("3", "1", "2"):
        assert crossval(capsys, folder, "--fold", fold)[0] == 0
        assert not (folder / "crossval.json").exists()
    code, output, _ = crossval(capsys, folder)
    assert code == 0
    assert output.count("nothing is left to do") == FOLDS
    assert sum("<- worst" in line for line in output.splitlines()) == 1
    assert without_times(folder) == without_times(whole)


def test_the_page_says_it_and_loads_nothing(whole: Path) -> None:
    page = (whole / "crossval.html").read_text()
    found = result(whole)
    assert f"{100 * found['accuracy']['mean']:.2f}\N{NO-BREAK SPACE}%" in page
    assert f"Worst class: {found['out_of_fold']['worst_class']}" in page
    assert "the test images were not used" in page
    assert "://" not in page
    assert page.count("<img") == page.count("data:image/png;base64,")
    assert "--folds 3" in page


def test_recipe_yaml_repeats_it(whole: Path, tmp_path: Path, capsys: Capture) -> None:
    words_again = ["--config", str(whole / "recipe.yaml"), "--output_dir", str(tmp_path / "again")]
    again = run_command(capsys, "crossval", "--folds", str(FOLDS), *words_again, "--fold", "1")
    assert again[0] == 0
    digest = result(whole)["runs"][0]["final_weights_sha256"]
    assert Run(tmp_path / "again" / "fold-1", 0).digest == digest


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--folds", "1"], "data.folds: must be null or at least 2, found 1"),
        (["--folds", "0"], "data.folds: must be null or at least 2, found 0"),
        (["--folds", "400"], "data.folds: 400 folds need as many training images of every class"),
        (["--fold", "4"], "data.fold: must be 1 to 3, as data.folds says, found 4"),
        (["--data.folds", "5", "--data.fold", "1"], "data.folds: must be null, found 5"),
        (["--data.fold", "1"], "data.fold: must be null where data.folds is null"),
        (["--resume", "some/where"], "resume: must be auto or none"),
        (["--train.epoch", "3"], "did you mean train.epochs?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments_train_nothing(
    wrong: list[str], expected: str, tmp_path: Path, capsys: Capture
) -> None:
    code, _, errors = crossval(capsys, tmp_path / "folds", *wrong)
    assert code == 2
    assert expected in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--optimizer.lr", "0.02"], "optimizer.lr: 0.02 against 0.01"),
        (["--folds", "4"], "data.folds: 4 against 3"),
        (["--folds", "2"], "data.folds: 2 against 3"),
        (["--resume", "none"], "resume: none, but"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_folder_that_holds_another_cross_validation(
    whole: Path, wrong: list[str], expected: str, capsys: Capture
) -> None:
    before = contents(whole)
    code, _, errors = crossval(capsys, whole, *wrong)
    assert code == 2
    assert expected in errors
    assert contents(whole) == before


def test_a_folder_that_holds_a_run(whole: Path, capsys: Capture) -> None:
    code, _, errors = crossval(capsys, whole / "fold-1")
    assert code == 2
    assert "fold-1 contains a run, not a cross-validation; choose another output_dir" in errors


def test_folds_of_images_that_have_changed_are_refused(
    whole: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "folds"
    shutil.copytree(whole, folder)
    path = folder / "fold-2" / "results.json"
    found = json.loads(path.read_text())
    found["data"]["test_fingerprint"] = "0" * 64
    path.write_text(json.dumps(found))
    code, _, errors = crossval(capsys, folder)
    assert code == 2
    assert "fold-2: was tested on other images than those of its fold" in errors


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("results.json", b'"weights_sha256"', b'"weights"', "results.json of a fold is damaged"),
        ("results.json", b'"fold": 2', b'"fold": "b"', "data.fold: must be int"),
        ("predictions.npz", b"target.npy", b"tarjet.npy", "predictions.npz: damaged or missing"),
        ("config.yaml", b"lr: 0.01", b"lr: 0.03", "optimizer.lr: 0.01 against 0.03"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_folds_are_named(
    whole: Path, tmp_path: Path, capsys: Capture, name: str, old: bytes, new: bytes, expected: str
) -> None:
    folder = tmp_path / "folds"
    shutil.copytree(whole, folder)
    (folder / "crossval.json").unlink()
    damaged = folder / "fold-2" / name
    assert old in damaged.read_bytes()
    damaged.write_bytes(damaged.read_bytes().replace(old, new))
    code, _, errors = crossval(capsys, folder)
    assert code == 2
    assert expected in errors
    assert not (folder / "crossval.json").exists()
