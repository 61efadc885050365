"""`python -m trainer compare`: equal runs, and where different ones diverge."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY
from tests.distributed.launch import environment
from tests.runs import train_here
from trainer.finished import comparison

STEP = ["--step", "3", "--operators"]

SHORT = ["--train.epochs", "2", "--data.train_size", "300"]


def compare(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    return run_command(capsys, "compare", *words)


def find(first: Path, second: Path) -> dict[str, Any]:
    """Compare two folders from Python."""
    return comparison.compare(comparison.read(first), comparison.read(second))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train_here(folder, *SHORT) == 0
    return folder


def test_the_same_run_twice_is_bit_identical(run: Path, tmp_path: Path, capsys: Capture) -> None:
    assert train_here(tmp_path / "again", *SHORT) == 0
    capsys.readouterr()
    code, output, _ = compare(capsys, run, tmp_path / "again")
    assert code == 0
    assert output.startswith("bit-identical: 10 steps, weights ")
    assert json.loads((run / "results.json").read_text())["final_weights_sha256"] in output


def test_a_better_run_is_told_from_another(run: Path, tmp_path: Path, capsys: Capture) -> None:
    """On the same test images, with McNemar's test; and several seeds in pairs."""
    other, seeds = tmp_path / "longer", [tmp_path / "seed", tmp_path / "longer seed"]
    longer = ["--train.epochs", "3", "--data.train_size", "900"]
    assert train_here(other, *longer) == 0
    for folder, keys in zip(seeds, (SHORT, longer), strict=True):
        assert train_here(folder, *keys, "--seed", "1") == 0
    found = json.loads(compare(capsys, run, other, "--json")[1])["comparisons"][0]["test"]
    hits = [
        arrays["predicted"] == arrays["target"]
        for arrays in (np.load(folder / "predictions.npz") for folder in (run, other))
    ]
    assert found["only_first_correct"] == (hits[0] & ~hits[1]).sum()
    assert found["only_second_correct"] == (hits[1] & ~hits[0]).sum()
    assert found["differs"]
    row = found["figures"]["roc_auc"]
    assert row["interval"][0] <= row["difference"] <= row["interval"][1]
    code, output, _ = compare(capsys, run, other)
    assert code == 0
    lines = output.splitlines()
    place = next(place for place, line in enumerate(lines) if line.startswith("McNemar's test: p"))
    assert max(map(len, lines[place + 1 : place + 12])) <= 80
    assert json.loads(compare(capsys, run, run, "--json")[1])["comparisons"][0]["test"] is None

    pairs = [run, seeds[0], "--against", seeds[1], other]
    found = json.loads(compare(capsys, *pairs, "--json")[1])
    assert [pair["seed"] for pair in found["pairs"]] == [0, 1]
    assert [pair["second"] for pair in found["pairs"]] == [str(other), str(seeds[1])]
    differences = [pair["figures"]["accuracy"]["difference"] for pair in found["pairs"]]
    assert found["mean"]["mean"] == pytest.approx(np.mean(differences))
    assert "mean difference" in compare(capsys, *pairs)[1]
    code, _, errors = compare(capsys, run, "--against", seeds[1])
    assert code == 2
    assert "--against: runs are compared in pairs of one seed" in errors
    assert compare(capsys, run)[0] == 2


def test_different_images_are_named(run: Path, tmp_path: Path, capsys: Capture) -> None:
    """One pixel of a test image: the training is the same."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, runs = (digits.images * 15).astype(np.uint8), [tmp_path / "a", tmp_path / "b"]
    for folder in runs:
        for part, half in (("train", slice(0, 300)), ("test", slice(300, 400))):
            np.save(tmp_path / f"d_{part}_features.npy", images[half])
            np.save(tmp_path / f"d_{part}_targets.npy", digits.target[half])
        keys = ["--data.name", "npy", "--data.root", str(tmp_path), "--train.epochs", "1"]
        assert train_here(folder, *keys) == 0
        images[399, 0, 0] += 1
    _, output, _ = compare(capsys, *runs)
    assert output.startswith("bit-identical")
    assert "made from different images" in output
    assert "tested on different images" in output
    assert compare(capsys, runs[0], runs[0])[1].count("different images") == 0
    # Before they are finished their checkpoints say it.
    for folder in runs:
        (folder / "results.json").unlink()
    found = json.loads(compare(capsys, *runs, "--json")[1])
    assert ["made from different images" in line for line in found["images"]] == [True]


@pytest.fixture(scope="module")
def decayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with another weight decay, which the loss of step 2 is the first to show."""
    folder = tmp_path_factory.mktemp("runs") / "decayed"
    assert train_here(folder, *SHORT, "--optimizer.weight_decay", "0.5") == 0
    return folder


def test_the_first_step_that_differs_is_named_and_the_tensors(
    run: Path, decayed: Path, capsys: Capture
) -> None:
    _, output, _ = compare(capsys, run, decayed)
    assert output.startswith("different: step 2 (epoch 1): loss ")
    assert "configured differently: optimizer.weight_decay: 0.01 against 0.5" in output
    assert ".weight: largest difference " in output
    found = json.loads(compare(capsys, run, decayed, "--json")[1])
    assert found["identical"] is False
    assert {tensor["checkpoint"] for tensor in found["tensors"]} == {"step-00000005"}
    differences = [tensor["largest_difference"] for tensor in found["tensors"]]
    assert differences == sorted(differences, reverse=True)
    assert min(differences) > 0


def test_the_exported_weights_where_the_checkpoints_are_gone(
    run: Path, decayed: Path, tmp_path: Path
) -> None:
    shutil.copytree(decayed, tmp_path / "pruned")
    shutil.rmtree(tmp_path / "pruned" / "checkpoints")
    found = find(run, tmp_path / "pruned")
    assert {tensor["checkpoint"] for tensor in found["tensors"]} == {"model.safetensors"}


def test_another_model(run: Path, tmp_path: Path) -> None:
    more = ["--model.args", "{widths: [16, 32]}"]
    assert train_here(tmp_path / "other", *SHORT, *more) == 0
    tensors = find(run, tmp_path / "other")["tensors"]
    assert [tensor["largest_difference"] for tensor in tensors] == [None] * 5


def test_different_rounding_is_named(run: Path, tmp_path: Path, capsys: Capture) -> None:
    assert train_here(tmp_path / "other", *SHORT, "--threads", "2") == 0
    capsys.readouterr()
    _, output, _ = compare(capsys, run, tmp_path / "other")
    assert "equal at best to rounding, not in bits: threads 1 against 2" in output


def test_a_run_that_was_killed(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its last line is half written, its checkpoint says how it rounds though it is damaged."""
    part = tmp_path / "part"
    shutil.copytree(run, part)
    (part / "results.json").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (part / "metrics.jsonl").write_text("".join(lines[:4]) + lines[4][:9])
    for state in part.glob("checkpoints/*/state.json"):
        state.write_text(state.read_text().replace('"threads": "1"', '"threads": "3"'))
    found = find(run, part)
    assert found["first_difference"] == "one run ends before step 5 (epoch 1)"
    assert found["expected_because"] == ["threads 1 against 3"]
    assert "state.json: damaged" in caplog.text


def test_the_chosen_weights_are_compared_too(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    results = json.loads((other / "results.json").read_text())
    results["weights_sha256"] = "0" * 64
    (other / "results.json").write_text(json.dumps(results))
    assert str(find(run, other)["first_difference"]).startswith("the chosen weights")


def test_a_folder_without_a_run(run: Path, tmp_path: Path, capsys: Capture) -> None:
    code, _, errors = compare(capsys, run, tmp_path)
    assert code == 2
    assert "not a run, there is no metrics.jsonl in it" in errors


def test_a_table_says_how_far_each_run_came(
    run: Path, decayed: Path, tmp_path: Path, capsys: Capture
) -> None:
    part = tmp_path / "part"
    shutil.copytree(run, part)
    (part / "results.json").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (part / "metrics.jsonl").write_text("".join(lines[:8]))
    code, output, _ = compare(capsys, run, part, decayed)
    assert code == 0
    assert f"{run} against {part}:\ndifferent: one run ends before step 8" in output
    assert f"{run} against {decayed}:\ndifferent: step 2 (epoch 1): loss " in output
    head, *rows = output.splitlines()[-4:]
    assert head.split() == "run epochs steps train loss best validation test seconds".split()
    accuracy = json.loads((run / "results.json").read_text())["test"]["accuracy"]
    assert rows[0].split()[:3] == [str(run), "2", "10"]
    assert f"  {100 * accuracy:.2f} %  " in rows[0]
    assert rows[1].split()[:3] == [str(part), "1", "7"]
    found = json.loads(compare(capsys, run, part, decayed, "--json")[1])
    assert [one["run"] for one in found["comparisons"]] == [str(part), str(decayed)]
    assert found["runs"][1]["test_accuracy"] is None
    assert found["first_difference"] == found["comparisons"][0]["first_difference"]


def test_curves_over_each_other_as_a_picture(
    run: Path, decayed: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert compare(capsys, run, decayed, "--output", tmp_path / "curves.png")[0] == 0
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 3 * picture.height
        colours = picture.getcolors(2**24)
    assert colours is not None
    assert {(31, 111, 180), (217, 115, 13)} <= {colour for _, colour in colours}


def test_curves_over_each_other_as_a_page(
    run: Path, decayed: Path, tmp_path: Path, capsys: Capture
) -> None:
    hostile = tmp_path / "<b>run</b> & $x^{$"
    shutil.copytree(decayed, hostile)
    assert compare(capsys, run, hostile, "--output", tmp_path / "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>run" not in page
    assert "&lt;b&gt;run&lt;/b&gt; &amp; $x^{$" in page
    assert "Configured differently: optimizer.weight_decay: 0.01 against 0.5" in page
    assert page.count("data:image/png;base64,") == 3


@pytest.mark.parametrize("name", ["curves.jpg", "curves", "nowhere/curves.png"])
def test_a_bad_output(run: Path, tmp_path: Path, capsys: Capture, name: str) -> None:
    code, output, errors = compare(capsys, run, run, "--output", tmp_path / name)
    assert (code, output) == (2, "")
    assert errors.startswith("--output: ")
    assert not list(tmp_path.iterdir())


def test_the_first_operator_that_differs(run: Path, tmp_path: Path, capsys: Capture) -> None:
    """On the same machine none does; with other kernels one of the forward or backward pass."""
    files = [tmp_path / f"{name}.json" for name in ("here", "again", "there")]
    for file in files[:2]:
        code, _, errors = run_command(capsys, "replay", run, *STEP, file)
        assert code == 0, errors
    words = [sys.executable, "-m", "trainer", "replay", run, *STEP, files[2], "--tolerance", "0.9"]
    there = subprocess.run(
        [str(word) for word in words], cwd=REPOSITORY, capture_output=True, text=True, check=False,
        env=environment(ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="SSE41"),
    )  # fmt: skip
    assert there.returncode == 0, there.stderr
    code, output, errors = compare(capsys, "--operators", *files[:2])
    assert (code, errors) == (0, "")
    assert output.startswith("bit-identical: ")
    code, output, _ = compare(capsys, "--operators", files[0], files[2], "--json")
    assert code == 0
    found = json.loads(output)
    assert not found["identical"] and found["name"].startswith("aten.")
    ours, theirs = (json.loads(files[i].read_text())["operators"] for i in (0, 2))
    place = found["position"] - 1
    assert ours[:place] == theirs[:place] and ours[place] != theirs[place]
    assert any("ATEN_CPU_CAPABILITY=default" in line for line in found["expected_because"])
    code, _, errors = compare(capsys, "--operators", run / "results.json", files[0])
    assert code == 2 and "step" in errors
