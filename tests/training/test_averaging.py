"""Averages of the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.runs import Run, train_here
from trainer.config import command_line
from trainer.training.averaging import EpochAverage, MovingAverage

SHORT = ["--train.epochs", "2", "--data.train_size", "300", "--checkpoint.keep", "9"]


def test_the_moving_average_follows_its_definition() -> None:
    model = nn.BatchNorm1d(1)
    average = MovingAverage(model, decay=0.5)
    expected = 1.0
    for step, value in enumerate([3.0, -1.0, 5.0, 5.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0], start=1):
        nn.init.constant_(model.weight, value)
        model.num_batches_tracked.fill_(step)
        average.step_done(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert average.tensors["weight"].item() == pytest.approx(expected, rel=1e-6)
        assert average.tensors["num_batches_tracked"] == step


def test_the_model_gets_its_own_weights_back() -> None:
    model = nn.Linear(2, 2)
    average = MovingAverage(model, decay=0.5)
    first = model.weight.detach().clone()
    nn.init.ones_(model.weight)
    with pytest.raises(RuntimeError, match="evaluation"), average.swap_in(epoch=1):
        assert torch.equal(model.weight, first)
        raise RuntimeError("evaluation")
    assert torch.equal(model.weight, torch.ones(2, 2))


def test_the_epochs_mean_begins_with_the_first_of_the_last() -> None:
    model = nn.BatchNorm1d(1)
    statistics = iter([7.0, 8.0])
    average = EpochAverage(
        model,
        range(2, 5),
        lambda: model.running_mean.fill_(next(statistics)) and None,
        validates=True,
    )
    seen = []
    for epoch, value in enumerate([100.0, 3.0, 5.0, 10.0], start=1):
        nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value)
        with average.swap_in(epoch):
            seen.append((model.weight.item(), model.running_mean.item()))
        assert model.weight.item() == model.running_mean.item() == value
    assert seen == [(100.0, 100.0), (3.0, 3.0), (4.0, 7.0), (6.0, 8.0)]
    assert average.tensors["weight"].item() == 6.0


def test_an_interrupted_end_of_an_epoch_is_not_counted_twice() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = EpochAverage(model, range(1, 3), lambda: None, validates=True)
    for epoch, value in ((1, 2.0), (2, 4.0)):
        nn.init.constant_(model.weight, value)
        with pytest.raises(RuntimeError, match="asked to stop"), average.swap_in(epoch):
            raise RuntimeError("asked to stop")
        with average.swap_in(epoch):
            pass
    assert average.tensors["weight"].item() == 3.0


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("averaged") / "run"
    assert train_here(folder, *SHORT, "--train.ema_decay", "0.5") == 0
    return Run(folder, 0)


@pytest.mark.parametrize("validation", ["null", "0"])
def test_the_averaged_weights_are_chosen(validation: str, tmp_path: Path) -> None:
    more = ["--train.ema_decay", "0.5", "--data.validation_size", validation]
    folder = tmp_path / "run"
    assert train_here(folder, *SHORT, *more) == 0
    averages = [load_file(path) for path in folder.glob("checkpoints/*/average.safetensors")]
    chosen = load_file(folder / "model.safetensors")
    assert any(all(torch.equal(chosen[name], one[name]) for name in chosen) for one in averages)
    results = Run(folder, 0).json("results.json")
    assert results["weights_sha256"] != results["final_weights_sha256"]


def test_training_goes_on_from_its_own_weights(averaged: Run, tmp_path: Path) -> None:
    """The average looks on: losses and last weights are those of a run without it."""
    assert train_here(tmp_path / "plain", *SHORT) == 0
    plain = Run(tmp_path / "plain", 0)
    assert plain.digest == averaged.digest
    assert plain.metrics("step") == averaged.metrics("step")


def test_a_resume_goes_on_with_the_average(averaged: Run, tmp_path: Path) -> None:
    first = min(averaged.folder.glob("checkpoints/step-*"))
    more = ["--train.ema_decay", "0.5", "--resume", str(first)]
    assert train_here(tmp_path / "run", *SHORT, *more) == 0
    resumed = Run(tmp_path / "run", 0).json("results.json")
    assert resumed["weights_sha256"] == averaged.json("results.json")["weights_sha256"]


EPOCHS = ["--train.epochs", "4", "--data.train_size", "300", "--checkpoint.keep", "9"]


@pytest.mark.parametrize("validation", ["null", "0"])
def test_the_mean_of_the_last_epochs_is_chosen(validation: str, tmp_path: Path) -> None:
    """With the statistics that its own weights give on the training images."""
    run, more = tmp_path / "run", ["--train.average_epochs", "3"]
    more += ["--data.validation_size", validation]
    assert train_here(run, *EPOCHS, *more) == 0
    ends = [load_file(path) for path in sorted(run.glob("checkpoints/*/model.safetensors"))[1:]]
    chosen = load_file(run / "model.safetensors")
    for name, value in chosen.items():
        if "running" in name or "num_batches" in name:
            continue
        mean = torch.stack([end[name] for end in ends]).double().mean(0)
        assert torch.allclose(value.double(), mean, rtol=1e-5, atol=1e-7), name
    statistics = [name for name in chosen if "running_mean" in name]
    assert statistics
    assert not any(torch.equal(chosen[name], end[name]) for name in statistics for end in ends)


def test_a_resume_goes_on_with_the_mean(tmp_path: Path) -> None:
    more = ["--train.average_epochs", "3"]
    assert train_here(tmp_path / "whole", *EPOCHS, *more) == 0
    third = sorted(tmp_path.glob("whole/checkpoints/step-*"))[2]
    assert train_here(tmp_path / "rest", *EPOCHS, *more, "--resume", str(third)) == 0
    whole, rest = (Run(tmp_path / name, 0) for name in ("whole", "rest"))
    assert (
        rest.metrics("epoch")[-1]["validation_loss"]
        == whole.metrics("epoch")[-1]["validation_loss"]
    )
    digests = {run.json("results.json")["weights_sha256"] for run in (whole, rest)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("recipe", "epochs", "count"),
    [
        ("fashion_mnist", None, 8),
        ("fashion_mnist_best", None, 8),
        ("fashion_mnist_full", None, 4),
        ("fashion_mnist", 8, 3),
        ("fashion_mnist", 2, 1),
        ("fashion_mnist", 48, 16),
    ],
)
def test_the_last_third_is_one_of_any_number_of_epochs(
    recipe: str, epochs: int | None, count: int
) -> None:
    """And the configuration, which goes into config.yaml, says how many these are."""
    more = [] if epochs is None else ["--train.epochs", str(epochs)]
    assert command_line.parse(["--config", recipe, *more]).train.average_epochs == count


def test_a_short_run_leaves_its_first_epochs_out(tmp_path: Path) -> None:
    """A share is the number that it stands for, to the bits and in config.yaml."""
    words = ["--train.epochs", "3", "--data.train_size", "300", "--train.average_epochs"]
    for name, average in (("share", "0.34"), ("number", "1"), ("last", "null")):
        assert train_here(tmp_path / name, *words, average, "--data.validation_size", "0") == 0
    digests = {
        name: Run(tmp_path / name, 0).json("results.json")["weights_sha256"]
        for name in ("share", "number")
    }
    assert digests["share"] == digests["number"]
    assert "average_epochs: 1\n" in (tmp_path / "share" / "config.yaml").read_text()
    ends = [load_file(tmp_path / name / "model.safetensors") for name in ("share", "last")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0] if "weight" in name)


def test_numbers_of_epochs_that_fit_another_length_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["--train.epochs", "3", "--data.train_size", "300", "--train.average_epochs", "2"]
    assert train_here(tmp_path / "run", *words, "--schedule.warmup_epochs", "2") == 0
    assert "train.average_epochs: the mean takes in 2 of 3 epochs" in caplog.text
    assert "schedule.warmup_epochs: the learning rate rises for 2 of 3 epochs" in caplog.text


@pytest.mark.usefixtures("report")
def test_the_results_say_which_epoch_was_chosen(tmp_path: Path) -> None:
    """The accuracy next to it is that of the chosen weights, not of the best ones."""
    for average, epoch in (("3", 4), ("null", None)):
        folder = tmp_path / average
        more = ["--train.average_epochs", average, "--optimizer.lr", "0.1"]
        assert train_here(folder, *EPOCHS, *more) == 0
        run = Run(folder, 0)
        found = run.json("results.json")["validation"]
        epoch = epoch or found["best_epoch"]
        accuracy = run.metrics("epoch")[epoch - 1]["validation_accuracy"]
        assert (found["chosen_epoch"], found["chosen_accuracy"]) == (epoch, accuracy)
        assert f"those after epoch {epoch}" in (folder / "report.html").read_text()


def test_more_epochs_would_be_another_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--schedule.name", "constant", "--schedule.warmup_epochs", "0"]
    more += ["--train.average_epochs", "1", "--data.train_size", "300"]
    assert train_here(tmp_path / "run", *more, "--train.epochs", "1") == 0
    assert train_here(tmp_path / "run", *more, "--train.epochs", "2") == 2
    assert "train.average_epochs counts from the end of a run" in capsys.readouterr().err


def test_a_run_that_stops_early_ends_with_its_best_epoch(tmp_path: Path) -> None:
    more = ["--train.average_epochs", "1", "--train.patience", "1", "--optimizer.lr", "1e-9"]
    assert train_here(tmp_path / "run", *EPOCHS, *more) == 0
    run = Run(tmp_path / "run", 0)
    assert len(run.metrics("epoch")) < 4
    best = load_file(max(run.folder.glob("checkpoints/*/best.safetensors")))
    chosen = load_file(run.folder / "model.safetensors")
    assert all(torch.equal(chosen[name], best[name]) for name in chosen)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--train.ema_decay", "0.9"], "train.average_epochs: must be null where train.ema_decay"),
        (["--train.average_epochs", "0"], "train.average_epochs: must be null or at least 1"),
        (["--train.average_epochs", "1.5"], "train.average_epochs: must be null or at least 1"),
        (["--train.average_epochs", "9"], "train.average_epochs: 9 of 4 epochs are all"),
        (["--train.average_epochs", "4"], "train.average_epochs: 4 of 4 epochs are all"),
    ],
)
def test_what_cannot_be_averaged_is_said(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*EPOCHS, "--train.average_epochs", "2", *more]
    assert train_here(tmp_path / "run", *words) == 2
    assert message in capsys.readouterr().err
