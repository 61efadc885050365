"""`python -m trainer lr-find`: a learning-rate range test that changes no run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from PIL import Image

from tests.commands.command import Capture, arguments_id, run_command
from tests.distributed.launch import run_forked
from tests.runs import Run, contents, train_here, words
from trainer.commands.lr_find import learning_rates, smooth, suggest

SHORT = ["--data.train_size", "400"]


def lr_find(capsys: Capture, folder: Path, *more: str) -> tuple[int, str, str]:
    """Run the command; return exit code, standard output and standard error."""
    return run_command(capsys, "lr-find", *words(folder, *SHORT, *more))


def test_the_steps_are_those_of_the_run_which_stays_as_it_was(
    tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "run"
    assert train_here(folder, *SHORT, "--train.epochs", "1", "--schedule.warmup_epochs", "0") == 0
    before = contents(folder)
    # The rate of the run, over more steps than it has in an epoch.
    rate = ["--lowest", "0.0099999", "--highest", "0.01", "--steps", "20"]
    code, output, errors = lr_find(capsys, folder, *rate, "--json")
    assert (code, errors) == (0, "")
    found = json.loads(output)
    assert len(found["loss"]) == 20
    run = Run(folder, 0).metrics("step")
    assert found["loss"][0] == run[0]["loss"]
    assert found["loss"][1] == pytest.approx(run[1]["loss"], rel=1e-3)
    assert contents(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-lr_find.png"]
    assert found["plot"] == str(tmp_path / "run-lr_find.png")
    with Image.open(found["plot"]) as picture:
        assert min(picture.size) > 300


def test_two_processes_find_the_same_numbers(tmp_path: Path, capsys: Capture) -> None:
    command = words(tmp_path / "run", *SHORT, "--steps", "20", "--json")
    code, output, _ = run_command(capsys, "lr-find", *command)
    assert code == 0
    done = run_forked(2, tmp_path, "-m", "trainer", "lr-find", *command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(output)


def test_it_stops_where_the_loss_diverges(tmp_path: Path, capsys: Capture) -> None:
    plot = tmp_path / "new" / "plot.png"
    more = ["--optimizer.name", "sgd", "--highest", "1e12", "--steps", "40", "--plot", str(plot)]
    code, output, _ = lr_find(capsys, tmp_path / "run", *more)
    assert code == 0
    assert "where the loss diverged" in output
    assert "suggestion  --optimizer.lr " in output
    assert "a tenth of the rate at which the smoothed loss" in output
    assert plot.is_file()


def test_the_rates_grow_by_equal_factors() -> None:
    assert learning_rates(1e-4, 1e2, 4) == pytest.approx([1e-4, 1e-2, 1, 1e2])


def test_the_average_has_no_bias_at_its_start() -> None:
    assert smooth([3.0] * 50) == pytest.approx([3.0] * 50)
    # (0.9 * 1 + 1 * 2) / 1.9
    assert smooth([1.0, 2.0]) == pytest.approx([1.0, 2.9 / 1.9])


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_loss() -> None:
    rates = learning_rates(1e-5, 10, 61)
    losses = [2.0 + 0.2 * (math.log10(lr) + 1.5) ** 2 for lr in rates]
    found = suggest(rates, losses)
    smoothed = smooth(losses)
    lowest = rates[smoothed.index(min(smoothed))]
    assert found["lowest_loss_lr"] == lowest
    assert found["suggestion"] == pytest.approx(lowest / 10, rel=0.05)
    assert not found["diverged"]


def test_no_suggestion_where_the_loss_never_fell() -> None:
    found = suggest(learning_rates(1e-5, 10, 30), [2.0 + 0.1 * step for step in range(30)])
    assert found["suggestion"] is None
    assert suggest(learning_rates(1e-5, 10, 30), [math.nan])["suggestion"] is None


def test_a_loss_that_is_not_finite_is_left_out() -> None:
    found = suggest(
        learning_rates(1e-5, 10, 30), [*[2.0 - 0.01 * step for step in range(29)], math.inf]
    )
    assert found["diverged"]
    assert len(found["lr"]) == len(found["loss"]) == len(found["smoothed_loss"]) == 29


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--lowest", "-1"], "argument --lowest: '-1' is not a positive number"),
        (["--highest", "much"], "argument --highest: 'much' is not a positive number"),
        (["--lowest", "1", "--highest", "0.1"], "--lowest: must be below --highest, found 1 and"),
        (["--steps", "5"], "--steps: must be at least 20, found 5"),
        (["--plot", "curve.jpg"], "--plot: must be a name that ends in .png"),
        (["--plot", "/dev/null/curve.png"], "--plot: /dev/null/curve.png cannot be written"),
        (["--train.epoch", "3"], "did you mean train.epochs?"),
        (["--model.name", "nothing"], "model.name"),
    ],
    ids=arguments_id,
)
def test_a_mistake_is_named_and_nothing_written(
    wrong: list[str], expected: str, tmp_path: Path, capsys: Capture
) -> None:
    code, _, errors = lr_find(capsys, tmp_path / "run", *wrong)
    assert code == 2
    assert expected in errors
    assert not list(tmp_path.iterdir())
