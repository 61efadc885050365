"""Runs on tables, and the commands on them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.caches import one_cache
from tests.commands.command import Capture, run_command
from tests.data.picture_tables import write_shard
from tests.runs import Run, train_here
from trainer.config.schema import DataConfig
from trainer.data.sources import delimited
from trainer.data.sources.table_rows import Rows


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with one_cache(tmp_path_factory):
        yield


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a table of scikit-learn's digits; the weights leave out the 7s."""
    from sklearn.datasets import load_digits

    digits, folder = load_digits(), tmp_path_factory.mktemp("own")
    rows = []
    for number, label in enumerate(digits.target[:300].tolist()):
        pixels = (digits.images[number] * 15).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        part, weight = "train" if number < 200 else "test", int(label != 7)
        rows.append((f"{number}.png", f"digit {label}", part, weight))
    return write_table(folder / "labels.csv", rows)


def write_table(path: Path, rows: list[tuple[Any, ...]], *header: str) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header or ("file", "label", "part", "weight"), *rows])
    return path


def read_table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory, labels: Path) -> Run:
    """A run that is judged by a column of the table, and by brightness."""
    folder = tmp_path_factory.mktemp("runs") / "sliced"
    table = labels.with_name("cameras.csv")
    rows = [
        (*row, f"camera {number % 3}", number % 97 / 10 if number % 10 else " ")
        for number, row in enumerate(read_table(labels))
    ]
    write_table(table, rows, "file", "label", "part", "weight", "camera", "age")
    keys = ["--data.name", "table", "--data.root", str(table), "--train.epochs", "2"]
    assert train_here(folder, *keys, "--data.slice_columns", "[camera, brightness, size, age]") == 0
    return Run(folder, 0)


def test_slices_are_in_the_results_worst_first(sliced: Run) -> None:
    slices = sliced.json("results.json")["test"]["slices"]
    assert {row["value"] for row in slices["camera"]} == {f"camera {number}" for number in range(3)}
    assert [row["value"] for row in slices["size"]] == ["8 x 8"]
    arrays = np.load(sliced.folder / "predictions.npz")
    right = arrays["predicted"] == arrays["target"]
    for rows in slices.values():
        assert sum(row["samples"] for row in rows) == 100
        assert sum(row["correct"] for row in rows) == right.sum()
        accuracies = [row["accuracy"] for row in rows]
        assert accuracies == sorted(accuracies)
        assert all(
            low <= row["accuracy"] <= high for row in rows for low, high in [row["interval"]]
        )
    assert 2 <= len(slices["brightness"]) <= 4
    ages = {row["value"]: row["samples"] for row in slices["age"]}
    assert ages.pop("(nothing)") == 10
    assert len(ages) == 4, "many numbers are divided into quarters"
    assert all(name.startswith("age ") and 15 < count < 30 for name, count in ages.items())


def test_slices_of_a_finished_run(sliced: Run, run: Run, capsys: Capture) -> None:
    code, output, errors = run_command(capsys, "evaluate", sliced.folder, "--json")
    assert code == 0, errors
    found = json.loads(output)
    assert found["equals_results_json"] is True
    assert found["test"]["slices"] == sliced.json("results.json")["test"]["slices"]
    assert run.json("results.json")["test"]["slices"] is None
    code, output, errors = run_command(capsys, "evaluate", run.folder, "--slices", "part")
    assert code == 0, errors
    lines = [line.split() for line in output.splitlines()]
    assert ["part", "images", "accuracy", "95", "%", "interval"] in lines
    assert ["test", "100"] in [line[:2] for line in lines]
    assert "the same as in results.json, to the last digit" in output


def test_a_slice_that_is_not_there_is_named_before_the_first_step(
    labels: Path, tmp_path: Path, capsys: Capture
) -> None:
    keys = ["--data.name", "table", "--data.root", str(labels)]
    assert train_here(tmp_path / "run", *keys, "--data.slice_columns", "[hospital]") == 2
    message = capsys.readouterr().err
    assert "data.slice_columns: there is no column hospital; the table has file, label" in message
    assert train_here(tmp_path / "two", "--data.slice_columns", "[size]") == 2
    assert "data.slice_columns: size is that of pictures" in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, labels: Path) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    keys = ["--data.name", "table", "--data.root", str(labels), "--data.sampling", "weights"]
    assert train_here(folder, *keys, "--train.epochs", "5") == 0
    return Run(folder, 0)


def found_by(capsys: Capture, command: str, *words: str | Path) -> Any:
    code, output, errors = run_command(capsys, command, *words, "--json")
    assert code == 0, errors
    return json.loads(output)


def test_a_run_is_evaluated_inspected_and_computed_again(run: Run, capsys: Capture) -> None:
    evaluated = found_by(capsys, "evaluate", run.folder)
    assert evaluated["test"] == run.json("results.json")["test"]
    assert evaluated["own_images"] is True
    inspected = found_by(capsys, "inspect-data", run.folder)
    assert sum(row["test"] for row in inspected["classes"]) == 100
    assert inspected["suspects"]["images"][0]["name"].endswith(".png")
    assert run_command(capsys, "verify", run.folder)[0] == 0


def test_a_run_is_evaluated_on_other_tables(
    run: Run, labels: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_rows, tables = delimited.read_rows, []

    def count(path: Path, config: DataConfig) -> Rows:
        rows = read_rows(path, config)  # which may lack a column
        tables.append(path)
        return rows

    monkeypatch.setattr(delimited, "read_rows", count)
    whole = {
        row["name"]: row for row in found_by(capsys, "evaluate", run.folder)["test"]["per_class"]
    }
    rows = read_table(labels)[200:]
    few = [(labels.parent / file, label) for file, label, *_ in rows if label == "digit 3"]
    path = write_table(tmp_path / "few.csv", few, "path", "what")
    columns = ["--data.file_column", "path", "--data.label_column", "what"]
    tables.clear()
    found = found_by(capsys, "evaluate", run.folder, "--data.root", path, *columns)
    assert tables == [path]
    assert found["data"]["classes_by"] == "name"
    assert found["test"]["samples"] == len(few)
    of_class = {row["name"]: row for row in found["test"]["per_class"]}
    assert of_class["digit 3"]["correct"] == whole["digit 3"]["correct"]
    pictures = [(labels.parent / file).read_bytes() for file, *_ in rows]
    names = sorted({label for _, label, *_ in rows})
    numbers = [names.index(label) for _, label, *_ in rows]
    shard = write_shard(tmp_path / "hub" / "test-0.parquet", numbers, names, image=pictures)
    found = found_by(capsys, "evaluate", run.folder, "--data.root", shard.parent)
    assert found["test"] == run.json("results.json")["test"]


def test_what_weighs_nothing_is_not_learnt(run: Run) -> None:
    correct = {row["name"]: row["correct"] for row in run.json("results.json")["test"]["per_class"]}
    assert correct.pop("digit 7") == 0
    assert sum(correct.values()) > 40
