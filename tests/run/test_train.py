"""Whole runs by the command: the files it writes, the runs it repeats, what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from sklearn import metrics

import models
from tests.conftest import REPOSITORY
from tests.runs import Run, contents, sha256_of, train_apart, train_here
from trainer.training.figures import FIGURES


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The digits recipe, run once as a user would."""
    return train_apart(tmp_path_factory.mktemp("runs") / "digits", report=True)


def test_a_run_ends_well_and_leaves_every_file(digits: Run) -> None:
    assert digits.exit_code == 0, digits.errors
    assert digits.json("status.json") == {"state": "finished", "exit_code": 0, "step": 110}
    expected = {"config.yaml", "metrics.jsonl", "status.json", "model.safetensors", "results.json"}
    expected |= {"report.html", "curves.png", "confusion.png", "mistakes.png", "predictions.npz"}
    expected |= {"calibration.png", "features.png", "receipt.json", "README.md"}
    names = {path.name for path in digits.folder.iterdir() if path.is_file()}
    assert names - {".lock"} == expected
    assert [path.name for path in sorted((digits.folder / "checkpoints").iterdir())] == [
        "step-00000088",
        "step-00000110",
    ]


def test_the_screen_says_what_runs_and_what_came_out(digits: Run) -> None:
    for text in ("1,293 training", "60 samples, 4 micro-batches", "14,458 parameters", "fp32"):
        assert text in digits.output
    accuracy = digits.json("results.json")["test"]["accuracy"]
    assert f"{100 * accuracy:.2f} %" in digits.output
    assert str(digits.folder / "report.html") in digits.output


def test_results_are_those_of_the_contract(digits: Run) -> None:
    results = digits.json("results.json")
    test, train = results["test"], results["train"]
    assert test["accuracy"] > 0.9
    assert test["samples"] == 360 == sum(row["support"] for row in test["per_class"])
    assert sum(row["correct"] for row in test["per_class"]) / 360 == test["accuracy"]
    assert set(test["per_class"][0]) == {
        "name", "support", "correct", "accuracy", "precision", "recall", "f1",
    }  # fmt: skip
    worst = min(test["per_class"], key=lambda row: row["accuracy"])
    assert test["worst_class"] == worst["name"]
    assert np.array(test["confusion"]).sum() == 360
    assert "lab_accuracy" not in test
    assert (train["epochs"], train["steps"], train["processes"]) == (5, 110, 1)
    assert (train["microbatches"], train["device"], train["precision"]) == (4, "cpu", "fp32")
    assert train["seconds"] > 0
    assert 50e6 < train["peak_memory_bytes"] < 50e9
    assert train["samples_per_second"] == pytest.approx(5 * 1293 / train["seconds"])
    assert results["model"] == {"name": "quicknet", "parameters": 14458, "weights": None}
    data = results["data"]
    assert (data["name"], data["train"], data["validation"], data["test"]) == (
        "digits", 1293, 144, 360,
    )  # fmt: skip
    assert results["seed"] == 0
    assert {"python", "torch", "accelerate"} <= set(results["versions"])
    epochs = digits.metrics("epoch")
    best = max(epochs, key=lambda record: record["validation_accuracy"])
    assert results["validation"] == {
        "chosen_by": "accuracy",
        "best_figure": best["validation_accuracy"],
        "best_accuracy": best["validation_accuracy"],
        "best_epoch": best["epoch"],
        "chosen_accuracy": best["validation_accuracy"],
        "chosen_epoch": best["epoch"],
    }


def test_metrics_have_a_line_for_every_step_and_epoch(digits: Run) -> None:
    steps, epochs = digits.metrics("step"), digits.metrics("epoch")
    assert [record["step"] for record in steps] == list(range(1, 111))
    assert [record["epoch"] for record in steps] == [1 + step // 22 for step in range(110)]
    assert [record["epoch"] for record in epochs] == [1, 2, 3, 4, 5]
    # Losses are exact: each is a float32, and the epoch's is their mean over the samples.
    losses = np.array([record["loss"] for record in steps])
    assert (losses.astype(np.float32) == losses).all()
    counts = np.array([60] * 21 + [33])
    first = (losses[:22] * counts).sum() / 1293
    assert epochs[0]["train_loss"] == pytest.approx(first, rel=1e-12)
    warmup = [record["lr"] for record in steps[:11]]
    assert warmup == pytest.approx([0.01 * step / 12 for step in range(1, 12)])


def test_predictions_are_the_results(digits: Run) -> None:
    with np.load(digits.folder / "predictions.npz", allow_pickle=False) as arrays:
        assert arrays["index"].tolist() == list(range(360))
        accuracy = (arrays["predicted"] == arrays["target"]).mean()
        assert ((arrays["probability"] > 0.1) & (arrays["probability"] <= 1)).all()
        everything = {name: arrays[name] for name in arrays}
    assert accuracy == digits.json("results.json")["test"]["accuracy"]
    for prefix, count in (("", 360), ("validation_", 144)):
        whole = everything[f"{prefix}probabilities"]
        assert (whole.shape, whole.dtype) == ((count, 10), np.float32)
        assert np.allclose(whole.sum(1), 1, atol=1e-6)
        assert (whole.argmax(1) == everything[f"{prefix}predicted"]).all()
        assert (whole.max(1) == everything[f"{prefix}probability"]).all()
        own = whole[range(count), everything[f"{prefix}target"]]
        assert np.allclose(-np.log(own), everything[f"{prefix}loss"], atol=1e-5)
    right = everything["validation_predicted"] == everything["validation_target"]
    assert right.mean() == digits.json("results.json")["validation"]["chosen_accuracy"]


def test_figures_of_the_file_are_those_of_the_results(digits: Run) -> None:
    """Anybody can compute them again, from predictions.npz by scikit-learn."""
    arrays, test = np.load(digits.folder / "predictions.npz"), digits.json("results.json")["test"]
    target, whole = arrays["target"], arrays["probabilities"].astype(np.float64)
    expected = {
        "top5_accuracy": metrics.top_k_accuracy_score(target, whole, k=5),
        "macro_f1": metrics.f1_score(target, arrays["predicted"], average="macro"),
        "roc_auc": metrics.roc_auc_score(np.eye(10)[target], whole),
        "average_precision": metrics.average_precision_score(np.eye(10)[target], whole),
        "log_loss": metrics.log_loss(target, whole),
        "mcc": metrics.matthews_corrcoef(target, arrays["predicted"]),
        "ece": test["calibration_error"],
    }
    assert {name: test[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert list(test["intervals"]) == list(FIGURES)
    assert all(low <= test[name] <= high for name, (low, high) in test["intervals"].items())


def test_anyone_can_compute_the_digest_and_rebuild_the_model(digits: Run) -> None:
    path = digits.folder / "model.safetensors"
    assert sha256_of(path) == digits.json("results.json")["weights_sha256"]
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["model"])
        model = models.create(
            about["name"],
            about["args"],
            num_classes=about["num_classes"],
            in_channels=about["in_channels"],
            image_size=tuple(about["image_size"]),
        )
        model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def test_the_configuration_repeats_the_run(digits: Run, tmp_path: Path) -> None:
    """From the resolved config.yaml, in another folder: the same bits and the same losses."""
    assert train_here(tmp_path / "again", config=digits.folder / "config.yaml") == 0
    again = Run(tmp_path / "again", 0)
    assert again.digest == digits.digest
    assert again.metrics("step") == digits.metrics("step")


def test_a_finished_run_says_so_and_changes_nothing(
    digits: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(digits.folder)
    assert train_here(digits.folder) == 0
    assert "finished: nothing is left to do" in capsys.readouterr().out
    assert contents(digits.folder) == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--seed", "1"], "seed: 1 against 0"),
        (["--resume", "none"], "resume: none"),
        (["--processes", "3"], "train.microbatches: 4 do not divide by 3 processes"),
        (["--resume", "nowhere/step-1"], "resume: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_folder_of_another_run_is_left_alone(
    digits: Run, change: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(digits.folder)
    assert train_here(digits.folder, *change) == 2
    assert expected in capsys.readouterr().err
    assert contents(digits.folder) == before


def test_an_output_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert train_here(tmp_path / "file" / "run") == 2
    message = capsys.readouterr().err
    assert message.startswith("output_dir: ")
    assert message.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--model.name", "lenet7"], ["model.name", "lenet5"]),
        (["--model.args", '{"width": 3}'], ["model.args", "width"]),
        (["--model.name", "nowhere.py:Net"], ["model.name", "nowhere.py"]),
        (["--model.weights", "nowhere.safetensors"], ["model.weights", "nowhere.safetensors"]),
        (["--data.train_size", "5000"], ["data.train_size", "1437"]),
        (["--data.validation_size", "1437"], ["data.validation_size"]),
        (["--train.precision", "fp16"], ["train.precision", "GPU"]),
        (["--data.name", "npy", "--data.root", "nowhere"], ["nowhere"]),
    ],
    ids=" ".join,
)
def test_a_mistake_ends_with_2_and_a_message_and_can_be_fixed(
    tmp_path: Path, change: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tmp_path / "run", *change) == 2
    message = capsys.readouterr().err
    for part in expected:
        assert part in message
    assert "Traceback" not in message
    # Nothing was begun, so the corrected command may use the same folder.
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    """At a rate that soon destroys the net the best epoch is not the last."""
    more = ["--train.epochs", "30", "--train.patience", "2", "--optimizer.lr", "0.3"]
    assert train_here(tmp_path / "run", *more, "--schedule.name", "constant") == 0
    run = Run(tmp_path / "run", 0)
    epochs = [record["validation_accuracy"] for record in run.metrics("epoch")]
    best = epochs.index(max(epochs)) + 1
    assert len(epochs) == best + 2 < 30
    results = run.json("results.json")
    assert results["train"]["epochs"] == len(epochs)
    assert results["validation"]["best_epoch"] == best
    assert results["weights_sha256"] != results["final_weights_sha256"]


def test_without_validation_the_last_weights_are_kept(tmp_path: Path) -> None:
    assert train_here(tmp_path / "run", "--data.validation_size", "0", "--train.epochs", "2") == 0
    run = Run(tmp_path / "run", 0)
    results = run.json("results.json")
    assert results["validation"]["best_accuracy"] is None
    assert results["validation"]["best_epoch"] is None
    assert results["weights_sha256"] == results["final_weights_sha256"]
    assert results["data"]["train"] == 1437
    assert [record["validation_loss"] for record in run.metrics("epoch")] == [None, None]


def test_weights_to_start_from(digits: Run, tmp_path: Path) -> None:
    weights = str(digits.folder / "model.safetensors")
    assert train_here(tmp_path / "run", "--model.weights", weights, "--train.epochs", "1") == 0
    first_loss = Run(tmp_path / "run", 0).metrics("step")[0]["loss"]
    assert first_loss < 0.5 < digits.metrics("step")[0]["loss"]


def test_a_plug_in_model_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A student's file: a view() that fails in another memory layout, and a mistake in the head."""
    plugin = tmp_path / "mine.py"
    text = """
import torch.nn as nn

class Net(nn.Module):
    def __init__(self, num_classes, hidden=16):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.head = nn.Sequential(nn.Linear(288, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))

    def forward(self, x):
        return self.head(self.conv(x).relu().view(x.size(0), -1))
"""
    plugin.write_text(text)
    arguments = ["--model.name", f"{plugin}:Net", "--model.args", '{"hidden": 32}']
    arguments += ["--data.augment", "none", "--train.epochs", "2"]
    assert train_here(tmp_path / "run", *arguments) == 0
    results = Run(tmp_path / "run", 0).json("results.json")
    assert results["model"]["parameters"] == 80 + 288 * 32 + 32 + 330
    assert results["test"]["accuracy"] > 0.6
    plugin.write_text(text.replace("nn.Linear(hidden, num_classes)", "nn.Linear(hidden, 7)"))
    assert train_here(tmp_path / "wrong", *arguments) == 2
    message = capsys.readouterr().err
    assert "Net" in message
    assert "(2, 7)" in message
    assert "(2, 10)" in message


def test_a_model_that_cannot_be_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "frozen.py"
    plugin.write_text("""
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :10]
""")
    assert train_here(tmp_path / "run", "--model.name", f"{plugin}:Net", "--model.args", "{}") == 2
    assert "no parameter that could be trained" in capsys.readouterr().err


def test_more_threads_than_cores_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    threads = len(os.sched_getaffinity(0)) + 1
    few = ["--threads", str(threads), "--train.epochs", "1", "--data.train_size", "200"]
    assert train_here(tmp_path / "run", *few) == 0
    assert f"threads: 1 process of {threads} threads share" in caplog.text


def test_the_labs_example_reaches_what_the_lab_reaches(shared_data: Path, tmp_path: Path) -> None:
    recipe = REPOSITORY / "configs" / "lab_mnist.yaml"
    root = str(shared_data / "mnist-lab")
    native = ["--train.kernels", "native"]  # as torch is imported here already
    assert train_here(tmp_path / "run", "--data.root", root, *native, config=recipe) == 0
    results = Run(tmp_path / "run", 0).json("results.json")
    assert results["data"]["train"] == 900
    assert results["model"]["parameters"] == 28938
    assert results["test"]["accuracy"] >= 0.9


def test_fashion_mnist_by_the_default_recipe_in_small(shared_data: Path, tmp_path: Path) -> None:
    recipe = REPOSITORY / "configs" / "fashion_mnist.yaml"
    root = str(shared_data / "fashion-mnist")
    small = ["--train.epochs", "2", "--schedule.warmup_epochs", "0", "--optimizer.lr", "0.03"]
    small += ["--model.args", '{"widths": [8, 16, 16]}']
    assert train_here(tmp_path / "run", "--data.root", root, *small, config=recipe) == 0
    results = Run(tmp_path / "run", 0).json("results.json")
    data = results["data"]
    assert (data["train"], data["validation"], data["test"]) == (9000, 1000, 10000)
    assert results["test"]["accuracy"] > 0.7
    with np.load(tmp_path / "run" / "predictions.npz") as arrays:
        first = (arrays["predicted"] == arrays["target"])[:1000].mean()
    assert results["test"]["lab_accuracy"] == first
    assert [row["name"] for row in results["test"]["per_class"]][:2] == ["T-shirt/top", "Trouser"]
