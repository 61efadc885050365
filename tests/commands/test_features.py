"""`python -m trainer features`: vectors for images, nearest neighbours, a linear probe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.commands.command import Capture, arguments_id, run_command
from tests.data.picture_folders import write_digits, write_pictures
from tests.distributed.launch import run_forked
from tests.runs import Run, contents, train_here
from trainer import load_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on digits as pictures, so that its images have names."""
    top = tmp_path_factory.mktemp("features")
    root = write_digits(top / "pictures", 300, 150)
    words = ["--data.name", "folder", "--data.root", str(root), "--train.epochs", "10"]
    assert train_here(top / "run", *words) == 0
    return Run(top / "run", 0)


def test_the_features_are_what_the_head_makes_logits_of(
    run: Run, tmp_path: Path, capsys: Capture
) -> None:
    before = contents(run.folder)
    path = tmp_path / "features.npz"
    code, output, errors = run_command(
        capsys, "features", run.folder, "--output", path, "--knn", "3", "--probe", "--json"
    )
    assert code == 0, errors
    found = json.loads(output)
    assert found["samples"] == {"train": 270, "validation": 30, "test": 150}
    for way in ("knn", "probe"):
        assert 0.75 < found[way]["test"] <= 1
        assert 0.7 < found[way]["validation"] <= 1
    assert contents(run.folder) == before

    with np.load(path) as arrays:
        written = dict(arrays)
    assert set(written) == {"class_names"} | {
        f"{part}_{what}"
        for part in ("train", "validation", "test")
        for what in ("features", "targets", "index", "names")
    }
    assert written["test_features"].shape == (150, found["features"])
    assert written["test_features"].dtype == np.float32
    assert written["class_names"].tolist() == [f"digit {number}" for number in range(10)]
    # The head of the net on a test image's features gives the answer of predictions.npz.
    model = load_model(run.folder)
    head = [module for module in model.module.modules() if hasattr(module, "out_features")][-1]
    weight, bias = (tensor.detach().numpy() for tensor in (head.weight, head.bias))
    logits = written["test_features"] @ weight.T + bias
    with np.load(run.folder / "predictions.npz") as stored:
        assert np.array_equal(logits.argmax(1), stored["predicted"])
        assert np.array_equal(written["test_targets"], stored["target"])
    # Each has the name of its picture: the digit's place in the set.
    digits = load_digits().target
    for name, target in zip(written["test_names"], written["test_targets"], strict=True):
        assert digits[300 + int(Path(name).stem)] == target


def test_two_processes_give_the_same_bits(run: Run, tmp_path: Path, capsys: Capture) -> None:
    words = ["features", str(run.folder), "--train.evaluation_batch_size", "64", "--output"]
    done = run_forked(2, tmp_path, "-m", "trainer", *words, str(tmp_path / "two.npz"))
    assert done.returncode == 0, done.stderr
    assert run_command(capsys, *words, tmp_path / "one.npz")[0] == 0
    with np.load(tmp_path / "one.npz") as one, np.load(tmp_path / "two.npz") as two:
        assert set(one) == set(two)
        for name in one:
            assert np.array_equal(one[name], two[name]), name


def test_other_pictures_and_the_table_for_people(run: Run, tmp_path: Path, capsys: Capture) -> None:
    classes = ["digit 3", "digit 7"]
    root = write_pictures(tmp_path / "others", parts=("test",), classes=classes, count=4)
    code, output, errors = run_command(
        capsys, "features", run.folder, "--data.root", root, "--output", tmp_path / "f.npz"
    )
    assert code == 0, errors
    assert output.splitlines()[0].endswith(" features of each image")
    assert "test       8" in " ".join(output.splitlines()[2:])
    assert "train" not in output
    with np.load(tmp_path / "f.npz") as arrays:
        digits = [int(Path(name).parent.name[-1]) for name in arrays["test_names"]]
        assert arrays["test_targets"].tolist() == digits
        assert sorted(digits) == [3] * 4 + [7] * 4
        assert np.isfinite(arrays["test_features"]).all()
    code, _, errors = run_command(capsys, "features", run.folder, "--data.root", root, "--knn", "1")
    assert code == 2
    assert "these data have none" in errors


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--output, --knn, --probe: none is given"),
        (["--knn", "0"], "--knn"),
        (["--knn", "271"], "--knn: 271 neighbours, but there are 270 training images"),
        (["--output", "features.csv"], "--output"),
        (["--probe", "--optimizer.lr", "1"], "optimizer.lr"),
    ],
    ids=arguments_id,
)
def test_bad_input_is_one_message(run: Run, words: list[str], named: str, capsys: Capture) -> None:
    code, output, errors = run_command(capsys, "features", run.folder, *words)
    assert code == 2
    assert output == ""
    assert named in errors


def test_a_network_without_a_known_head_is_refused(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "net.py").write_text(NO_HEAD)
    name = f"{tmp_path / 'net.py'}:NoHead"
    folder = tmp_path / "run"
    assert (
        train_here(folder, "--model.name", name, "--model.args", "{}", "--train.epochs", "1") == 0
    )
    code, _, errors = run_command(capsys, "features", folder, "--model", name, "--probe")
    assert code == 2
    assert "has no features: its last parameter, norm.bias," in errors


NO_HEAD = """
import torch


class NoHead(torch.nn.Module):
    def __init__(self, num_classes, in_channels, image_size):
        super().__init__()
        self.layer = torch.nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)
        self.norm = torch.nn.BatchNorm1d(num_classes)

    def forward(self, images):
        return self.norm(self.layer(images.flatten(1)))
"""
