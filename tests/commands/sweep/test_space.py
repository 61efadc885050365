"""Space files: what they mean, and the one message about each that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.commands.command import Capture, run_command
from tests.runs import words
from trainer.base.errors import UserError
from trainer.commands.sweep import space, space_file
from trainer.commands.sweep.space import Choices, Range
from trainer.config import command_line
from trainer.config.schema import flatten


def read(tmp_path: Path, text: str) -> space.Space:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return space_file.read(path)


def test_choices_and_ranges(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        optimizer.lr: {low: 1e-3, high: 1, log: true}
        train.epochs: {low: 4, high: 12, step: 4}
        train.clip_norm: [null, 1]
        data.augment: [none, [flip]]
        model.args: [{widths: {1: 8}}]
        """,
    )
    assert list(found) == sorted(found)
    assert found["optimizer.lr"] == Range(0.001, 1.0, log=True)
    assert found["train.epochs"] == Range(4, 12, step=4)
    assert found["train.clip_norm"] == Choices((None, 1.0))
    assert found["data.augment"] == Choices(("none", ["flip"]))
    assert found["model.args"] == Choices(({"widths": {"1": 8}},)), "as the journal has it"


@pytest.mark.parametrize(
    ("of", "suggested", "expected"),
    [
        (Range(1e-5, 1.0, log=True), 0.0123456, 0.01235),
        (Range(1e-5, 1.0, log=True), 1.23456e-05, 1.235e-05),
        (Range(1e-5, 1.0, log=True), 0.99999, 1.0),
        (Range(0.999, 0.9999), 0.99987654, 0.9998765),
        (Range(0.0, 100.0), 12.3456, 12.3),
        (Range(0.1, 0.5, step=0.1), 0.30000000000000004, 0.3),
        (Range(3, 9), 5, 5),
    ],
)
def test_numbers_are_rounded_by_the_width_of_their_range(
    of: Range, suggested: float, expected: float
) -> None:
    assert of.label(suggested) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no keys"),
        ("[1, 2]", "has no keys"),
        ("optimizer.lr: [", "not YAML"),
        ("optimizer.lrr: [1]", "is no key of a configuration; did you mean optimizer.lr?"),
        ("optimizer: {lr: [1]}", "optimizer: is a section; write its keys in dotted form"),
        ("optimizer.lr: [0.1]\noptimizer.lr: [0.2]", "line 2: optimizer.lr is there twice"),
        ("model.args: [{a: 1, a: 2}]", "line 1: a is there twice"),
        ("? [a, b]\n: [1]", "not YAML"),
        ("optimizer.lr: &a {low: *a}", "not YAML"),
        ("optimizer.lr: []", "optimizer.lr: the list is empty"),
        ("optimizer.lr: 0.1", "optimizer.lr: must be a list of choices"),
        ("optimizer.lr: [0.1, 0.1]", "0.1 is there twice"),
        ("optimizer.lr: [fast]", "optimizer.lr: must be a number, found 'fast'"),
        ("optimizer.lr: [.nan]", "optimizer.lr: must be a number"),
        ("optimizer.lr: [null]", "optimizer.lr: must be a number, found null"),
        ("optimizer.lr: {low: 1}", "optimizer.lr: the range has no high"),
        ("optimizer.lr: {low: 2, high: 1}", "the range is empty, as low, 2.0, is above high, 1.0"),
        ("optimizer.lr: {low: 0, high: 1, log: true}", "low must be above 0 where log is true"),
        ("optimizer.lr: {low: 0, high: .inf}", "high: must be a number"),
        ("optimizer.lr: {low: a, high: 1}", "low: must be a number, found 'a'"),
        ("optimizer.lr: {low: 0.1, high: 1, log: 1}", "log: must be true or false"),
        ("optimizer.lr: {min: 0.1, max: 1}", "a range has low, high, log and step, found 'min'"),
        ("optimizer.lr: {low: 0.1, high: 1, step: 0}", "step: it must be above 0"),
        ("optimizer.lr: {low: 0.1, high: 1, step: 0.2, log: true}", "where log is true"),
        ("train.epochs: {low: 1, high: 10, step: 4}", "write 9"),
        ("train.epochs: {low: 1, high: 1e30}", "must be a whole number"),
        (f"train.epochs: {{low: 1, high: {10**23}}}", "the range goes too far"),
        ("optimizer.lr: {low: -1e308, high: 1e308}", "the range goes too far"),
        ("optimizer.lr: {low: 0, high: 1, step: 1e-300}", "step: 1e-300 is too small"),
        ("train.epochs: {low: 1, high: 2.5}", "train.epochs: must be a whole number"),
        ("train.epochs: [true]", "train.epochs: must be a whole number"),
        ("optimizer.name: {low: 1, high: 2}", "is no number, so it has no range"),
        ("data.validation_size: [100, 200]", "is the same for all trials"),
        ("model.args: [{a: .nan}]", "model.args: a choice must be of text and finite numbers"),
        ("model.args: [{a: !!binary aGV5}]", "(Object of type bytes is not JSON serializable)"),
        ("seed: [0, 1]", "is the same for all trials"),
        ("output_dir: [a, b]", "is the same for all trials"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_one_message(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as found:
        read(tmp_path, text)
    assert message in str(found.value)
    assert str(found.value).startswith(f"--space: {tmp_path / 'space.yaml'}: ")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer.lr: {low: -1.0, high: 1.0}", "-1.0 is refused: optimizer.lr: must"),
        ("optimizer.name: [adam, nosuch]", "'nosuch' is refused: optimizer.name: there is no"),
        ("model.name: [quicknet, nosuch]", "'nosuch' is refused: model.name, model.args:"),
    ],
)  # fmt: skip
def test_a_value_that_no_run_may_have_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: Capture, text: str, message: str
) -> None:
    path, folder = tmp_path / "space.yaml", tmp_path / "S"
    path.write_text(text)
    code, output, errors = run_command(capsys, "sweep", "--space", path, *words(folder))
    assert (code, output) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not folder.exists()


def test_a_value_may_need_another_key(tmp_path: Path) -> None:
    base = command_line.parse(words(tmp_path / "S"))
    text = "schedule.name: [cosine, piecewise]\nschedule.milestones: [null, [2.0]]\n"
    text += "schedule.warmup_epochs: [0.0]"
    found = read(tmp_path, text)
    space.check(found, base, lambda config: None, tmp_path)
    alone = {"schedule.name": found["schedule.name"]}
    with pytest.raises(UserError, match=r"schedule\.milestones"):
        space.check(alone, base, lambda config: None, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.lr", 1.235e-05),
        ("train.clip_norm", None),
        ("optimizer.nesterov", False),
        ("model.args", {"widths": [8, 8, 8]}),
        ("data.augment", ["flip"]),
        ("data.augment", "flip_shift"),
        ("train.epochs", 3),
    ],
)
def test_words_of_a_command_line_mean_the_value(tmp_path: Path, key: str, value: Any) -> None:
    config = command_line.parse([*words(tmp_path), *space.words({key: value})])
    expected = command_line.complete(
        command_line.replace(command_line.parse(words(tmp_path)), {key: value})
    )
    assert flatten(config)[key] == flatten(expected)[key]
