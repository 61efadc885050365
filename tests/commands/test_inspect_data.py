"""`python -m trainer inspect-data`: statistics of the images, and labels that are likely wrong."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY
from tests.data.picture_folders import write_digits, write_pictures
from tests.distributed.launch import run_forked
from tests.runs import DIGITS, train_here, words
from trainer.commands.inspect_data.label_errors import find_suspects
from trainer.config import command_line
from trainer.data import near_copies
from trainer.data.loading import load
from trainer.data.sources import reading
from trainer.network import image_settings
from trainer.network.pretrained import Preprocessing
from trainer.training.metrics import Predictions

FOLDER = REPOSITORY / "configs" / "folder.yaml"
WRONG = (5, 60, 150)
"""numbers of test pictures in the folder of another class"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Use one cache for all tests, apart from this machine's real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of pictures with some wrong labels."""
    return write_digits(tmp_path_factory.mktemp("data") / "own", wrong=WRONG)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """Train a run on it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    more = ["--data.name", "folder", "--data.root", str(digits), "--data.augment", "none"]
    assert train_here(folder, *more, "--train.epochs", "8") == 0
    return folder


def inspect(capsys: Capture, *more: str | Path) -> Any:
    """Return what the command finds."""
    code, output, errors = run_command(capsys, "inspect-data", *more, "--json")
    assert (code, errors) == (0, "")
    return json.loads(output)


def of_folder(root: Path) -> list[str]:
    return ["--config", str(FOLDER), "--data.root", str(root), "--threads", "1"]


def test_counts_are_those_of_the_folders(capsys: Capture, digits: Path) -> None:
    found = inspect(capsys, *of_folder(digits))
    for row in found["classes"]:
        assert row["test"] == len(list((digits / "test" / row["name"]).iterdir()))
        both = row["train"] + row["validation"]
        assert both == len(list((digits / "train" / row["name"]).iterdir()))
    assert found["data"]["image_size"] == [8, 8]
    assert found["pictures"]["count"] == 600
    assert found["suspects"] is None
    code, output, _ = run_command(capsys, "inspect-data", *of_folder(digits))
    assert code == 0
    assert re.search(r"^all +360 +40 +200$", output, re.MULTILINE)
    assert "600 of 8 x 8 pixels (height x width); 600 grey, 0 in colour" in output


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    """Make pictures of two sizes, with copies in other places."""
    root = write_pictures(tmp_path / "own", ("train", "validation", "test"), count=4)
    random = np.random.default_rng(5)
    for path in sorted(root.rglob("*.png")):
        Image.fromarray(random.integers(0, 256, (12, 10), dtype=np.uint8)).save(path)
    Image.new("RGB", (30, 40), "red").save(root / "train" / "cat" / "000.png")
    shutil.copy(root / "train" / "dog" / "000.png", root / "test" / "dog" / "copy.png")
    shutil.copy(root / "train" / "dog" / "000.png", root / "train" / "dog" / "copy.png")
    shutil.copy(root / "train" / "dog" / "001.png", root / "validation" / "cat" / "copy.png")
    shutil.copy(root / "test" / "cat" / "001.png", root / "test" / "cat" / "copy.png")
    return root


def test_sizes_and_duplicates(capsys: Capture, doubled: Path) -> None:
    found = inspect(capsys, *of_folder(doubled))
    assert found["pictures"] == {
        "count": 28, "sizes": 2, "smallest": [12, 10], "median": [12, 10], "largest": [40, 30],
        "grey": 27, "colour": 1, "other_channels": 0,
    }  # fmt: skip
    duplicates = found["duplicates"]
    groups = [[image["name"] for image in group] for group in duplicates.pop("groups")]
    assert duplicates == {
        "train": 1, "validation": 0, "test": 1, "validation_in_train": 1, "test_in_train": 1,
        "test_in_validation": 0, "of_other_class": 1, "count": 3,
    }  # fmt: skip
    assert groups == [
        ["train/dog/001.png", "validation/cat/copy.png"],
        ["train/dog/000.png", "train/dog/copy.png", "test/dog/copy.png"],
        ["test/cat/001.png", "test/cat/copy.png"],
    ]
    code, output, _ = run_command(capsys, "inspect-data", *of_folder(doubled), "--most", "1")
    assert code == 0
    assert "train/dog/001.png (dog) = validation/cat/copy.png (cat)" in output
    assert "and 2 more groups" in output


def test_any_kind_of_data_set(capsys: Capture, tmp_path: Path) -> None:
    found = inspect(capsys, *words(tmp_path / "run"))
    assert sum(row["train"] for row in found["classes"]) == 1293
    assert found["pictures"] is None
    assert list(tmp_path.iterdir()) == []
    images = np.zeros((40, 6, 6), dtype=np.uint8)
    images[:, 0, 0] = np.arange(40)
    images[30] = images[20]
    for part in ("train", "test"):
        np.save(tmp_path / f"a_{part}_features.npy", images)
        np.save(tmp_path / f"a_{part}_targets.npy", np.arange(40) % 2)
    more = ["--data.name", "npy", "--data.root", str(tmp_path), "--data.validation_size", "0"]
    for limit in ("1000", "0"):
        more += ["--data.memory_limit_mb", limit]
        duplicates = inspect(capsys, "--config", DIGITS, *more, "--most", "1")["duplicates"]
        assert duplicates["test_in_train"] == 40
        names = [image["name"] for image in duplicates["groups"][0]]
        assert names == ["train image 20", "train image 30", "test image 20", "test image 30"]


def test_the_test_images_of_a_fold_are_training_images(capsys: Capture, tmp_path: Path) -> None:
    images = np.zeros((40, 6, 6), dtype=np.uint8)
    for part in ("train", "test"):
        np.save(tmp_path / f"a_{part}_features.npy", images)
        np.save(tmp_path / f"a_{part}_targets.npy", np.arange(40) % 2)
    more = ["--config", DIGITS, "--data.name", "npy", "--data.root", str(tmp_path)]
    more += ["--data.folds", "2", "--data.fold", "1", "--data.validation_size", "0"]
    (group,) = inspect(capsys, *more)["duplicates"]["groups"]
    assert {image["part"] for image in group} == {"train", "test"}
    assert {image["name"] for image in group} == {f"train image {i}" for i in range(40)}


def enlarged(root: Path, copy: Path) -> Path:
    """Copy the pictures, larger and in colour."""
    shutil.copytree(root, copy)
    for path in copy.rglob("*.png"):
        with Image.open(path) as picture:
            large = picture.resize((16, 16), Image.Resampling.NEAREST).convert("RGB")
        large.save(path)
    return copy


def test_wrong_labels_are_found(
    capsys: Capture, run: Path, digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = inspect(capsys, run, "--most", "6")["suspects"]
    assert found["own_images"] is True
    assert [part["part"] for part in found["parts"]] == ["validation", "test"]
    images = found["images"]
    named = {image["name"].rpartition("/")[2] for image in images if image["part"] == "test"}
    assert {f"{number:04}.png" for number in WRONG} <= named
    confidences = [image["self_confidence"] for image in images]
    assert confidences == sorted(confidences)
    found = inspect(capsys, run, "--data.root", enlarged(digits, tmp_path / "large"))
    assert [part["samples"] for part in found["suspects"]["parts"]] == [40, 200]
    assert found["suspects"]["own_images"] is False
    assert "the images are not those of the run" in caplog.text
    code, output, _ = run_command(capsys, "inspect-data", run)
    assert code == 0
    assert re.search(r"0060\.png +digit 6 \d\.\d\d % -> digit 5 \d\d\.\d\d %", output)


def test_wrong_labels_of_training_images_are_found_by_their_folds(
    capsys: Capture, tmp_path: Path
) -> None:
    """Each by the fold that was not trained on it; the test images are left out, and said so."""
    root = write_digits(tmp_path / "own", test=50, wrong_in_train=WRONG)
    folder, table, page = tmp_path / "folds", tmp_path / "labels.csv", tmp_path / "page.html"
    more = ["--data.name", "folder", "--data.root", str(root), "--data.augment", "none"]
    recipe = words(folder, *more, "--train.epochs", "8")
    assert run_command(capsys, "crossval", "--folds", "2", *recipe, "--fold", "1")[0] == 0
    code, _, errors = run_command(capsys, "inspect-data", folder)
    assert code == 2
    assert "its cross-validation is not finished" in errors
    assert run_command(capsys, "crossval", "--folds", "2", *recipe)[0] == 0
    found = inspect(capsys, folder, "--csv", table, "--page", page)["suspects"]
    samples = {part["part"]: part["samples"] for part in found["parts"]}
    assert samples == {"train": 360, "validation": 40}
    assert found["not_judged"] == [{"part": "test", "samples": 50}]
    assert "The 50 in test were not judged" in page.read_text(encoding="utf-8")
    with table.open(newline="", encoding="utf-8") as file:
        rows = {row["file"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    assert len(rows) == sum(part["count"] for part in found["parts"]) < 60
    files = list(reading.read(command_line.parse(recipe).data).train.names or ())
    with np.load(folder / "out_of_fold.npz") as answers:
        wrong = [rows[name] for number in WRONG if (name := f"{number:04}.png") in rows]
        assert len(wrong) >= 2
        for row in wrong:
            position = files.index(row["file"].replace("validation/", "train/"))
            assert float(row["likely_probability"]) == answers["probability"][position]
            assert row["likely_label"] == f"digit {answers['predicted'][position]}"
        columns = dict(answers)
    np.savez(folder / "out_of_fold.npz", **columns | {"predicted": columns["predicted"] + 9})
    code, _, errors = run_command(capsys, "inspect-data", folder)
    assert (code, "damaged, it has answers that are no class" in errors) == (2, True)
    np.savez(folder / "out_of_fold.npz", **columns)
    (root / rows["0005.png"]["file"].replace("validation/", "train/")).unlink()
    for more, message in (
        ([], "are not those of the cross-validation in"),
        (["--model", "mine.py:Net"], "--model: is about the model of a run"),
        (["--seed", "3"], "seed: belongs to the run"),
    ):
        code, output, errors = run_command(capsys, "inspect-data", folder, *more)
        assert (code, output) == (2, "")
        assert message in errors


def test_several_processes_print_the_same_once(capsys: Capture, run: Path, tmp_path: Path) -> None:
    apart = run_forked(2, tmp_path, "-m", "trainer", "inspect-data", str(run), "--json")
    assert apart.returncode == 0, apart.stderr
    assert json.loads(apart.stdout) == inspect(capsys, run)


def test_suspects_are_more_confident_than_is_usual() -> None:
    found = Predictions(
        target=np.array([0, 0, 0, 1, 1, 1]),
        predicted=np.array([0, 1, 1, 1, 1, 0]),
        probability=np.array([0.9, 0.75, 0.99, 0.9, 0.9, 0.85]),
        loss=-np.log(np.array([0.9, 0.25, 0.01, 0.9, 0.9, 0.15])),
    )
    # Of class 0 it is 0.387 on average, of class 1 0.65.
    assert find_suspects(found, 3).tolist() == [2, 5, 1]
    found.probability[1] = 0.6
    assert find_suspects(found, 3).tolist() == [2, 5]


def test_the_page_loads_nothing_and_escapes_names(
    capsys: Capture, doubled: Path, tmp_path: Path
) -> None:
    for part in ("train", "validation", "test"):
        (doubled / part / "dog").rename(doubled / part / "<b>&dog")
    page = tmp_path / "page.html"
    code, output, _ = run_command(capsys, "inspect-data", *of_folder(doubled), "--page", page)
    assert code == 0
    assert str(page) in output
    text = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;dog" in text
    assert "<b>&dog" not in text
    addresses = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert len(addresses) == 4 + 5 + 2 + 3 + 2 + 2 * 8
    assert all(address.startswith("data:image/png;base64,") for address in addresses)


def test_the_page_of_a_run_shows_the_labels_and_the_table_has_all(
    capsys: Capture, run: Path, digits: Path, tmp_path: Path
) -> None:
    page, table = tmp_path / "page.html", tmp_path / "labels.csv"
    shown = inspect(capsys, run, "--page", page, "--csv", table, "--most", "4")["suspects"]
    text = page.read_text(encoding="utf-8")
    assert "test/digit 6/0060.png" in text
    assert text.count("labelled <b>") == len(shown["images"]) == 4
    assert "Shown are the 4 to which it gives the lowest probability" in text
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(part["count"] for part in shown["parts"]) > 4
    assert [row["file"] for row in rows[:4]] == [image["name"] for image in shown["images"]]
    (wrong,) = (row for row in rows if row["file"] == "test/digit 6/0060.png")
    assert (wrong["part"], wrong["label"], wrong["likely_label"]) == ("test", "digit 6", "digit 5")
    for image, row in zip(shown["images"], rows, strict=False):
        assert float(row["label_probability"]) == image["self_confidence"]
        assert float(row["likely_probability"]) == image["probability"]
        assert (digits / row["file"].replace("validation/", "train/")).is_file()


def test_bad_input_is_named(capsys: Capture, run: Path, tmp_path: Path) -> None:
    other = write_pictures(tmp_path / "own")
    empty = tmp_path / "empty"
    empty.mkdir()
    for more, message in (
        ([str(empty)], "empty: not a run, there is no config.yaml in it"),
        ([str(run), "--data.root", str(other)], "the model of"),
        ([str(run), "--seed", "3"], "seed: belongs to the run"),
        (["--model", "mine.py:Net"], "--model: is about the model of a run"),
        (["--page", str(tmp_path / "page.png")], "--page: "),
        (["--page", str(tmp_path / "none" / "page.html")], "--page: "),
        ([str(run), "--csv", str(tmp_path / "labels.txt")], "--csv: "),
        ([*of_folder(other), "--csv", str(tmp_path / "a.csv")], "--csv: needs a model that says"),
        (["--most", "0"], "--most: '0' is not a whole number from 1"),
        (["--config", str(FOLDER)], "data.root: must be the folder of the files"),
        (of_folder(tmp_path / "none"), "data.root: there is no folder"),
    ):
        code, output, errors = run_command(capsys, "inspect-data", *more)
        assert (code, output) == (2, ""), more
        assert message in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "own"]


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Debian's chromium")
def test_a_browser_shows_the_page(capsys: Capture, doubled: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    inspect(capsys, *of_folder(doubled), "--page", page)
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,3000"]
    shown = subprocess.run(
        [*browser, "--enable-logging=stderr", f"--screenshot={tmp_path}/a.png", page.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in shown.stderr
    with Image.open(tmp_path / "a.png") as picture:
        colours = picture.convert("RGB").getcolors(2**24)
    assert colours is not None
    # The first sample is all red.
    assert any(red > 200 and max(green, blue) < 50 for _, (red, green, blue) in colours)


def test_the_page_shows_samples_as_epochs_train_on_them(
    capsys: Capture, digits: Path, tmp_path: Path
) -> None:
    """Every epoch another picture, and the one that a run of this seed has."""
    page = tmp_path / "page.html"
    policy = "[{rotate: {degrees: 40}}, {erase: {probability: 1}}]"
    words = [*of_folder(digits), "--data.augment", policy, "--page", page]
    inspect(capsys, *words)
    text = page.read_text()
    section = text[text.index("As they are trained on") : text.index("<h2>Samples")]
    pictures = re.findall(r'src="(data:[^"]+)" [^>]*alt="epoch (\d)"', section)
    assert [int(epoch) for _, epoch in pictures] == [*range(1, 9)] * 8
    assert len({picture for picture, _ in pictures}) == 64
    assert "degrees" in section
    inspect(capsys, *words, "--seed", "1")
    assert pictures[0][0] not in page.read_text()
    inspect(capsys, *of_folder(digits), "--data.augment", "none", "--page", page)
    assert "As they are trained on" not in page.read_text()


def test_looking_at_a_run_does_not_run_its_augmentation(
    capsys: Capture, run: Path, digits: Path, tmp_path: Path
) -> None:
    folder, file = tmp_path / "run", tmp_path / "mine.py"
    shutil.copytree(run, folder)
    file.write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\ndef mine(images, numbers): return images\n"
    )
    config = folder / "config.yaml"
    stored = config.read_text().replace(" augment: none", f" augment: ['{file}:mine']")
    config.write_text(stored)
    inspect(capsys, folder, "--data.root", digits, "--page", tmp_path / "page.html")
    assert not (tmp_path / "ran").exists()


def test_nearly_equal_images_in_different_parts_are_found(tmp_path: Path, capsys: Capture) -> None:
    root = tmp_path / "own"
    random = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 8)):
        for kind in ("cat", "dog"):
            (root / part / kind).mkdir(parents=True)
            for number in range(count):
                coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC)
                image.save(root / part / kind / f"{number:02}.png")
    with Image.open(root / "train/cat/03.png") as picture:
        picture.save(root / "test/cat/copy.jpg", quality=70)
        picture.resize((64, 64)).save(root / "test/dog/larger.png")
    shutil.copy(root / "train/dog/05.png", root / "test/dog/exact.png")
    found = inspect(capsys, *of_folder(root), "--data.validation_size", "0")["near_duplicates"]
    pairs = {tuple(image["name"] for image in pair["images"]) for pair in found["pairs"]}
    first = "train/cat/03.png"
    assert pairs == {(first, "test/cat/copy.jpg"), (first, "test/dog/larger.png")}
    assert (found["count"], found["test_in_train"], found["of_other_class"]) == (2, 2, 1)
    page = tmp_path / "page.html"
    code, output, _ = run_command(capsys, "inspect-data", *of_folder(root), "--page", page)
    assert code == 0
    assert "2 of test that are nearly in train too" in output
    section = re.sub('src="[^"]*"', "", page.read_text().partition("<h2>Nearly equal")[2])
    assert re.search("train/cat/03.png.{,200}test/cat/copy.jpg", section, re.DOTALL)
    # What it has seen is known to a run of the same configuration.
    config = image_settings.fill_in(command_line.parse(of_folder(root)).data, Preprocessing())
    exact, near = load(config, 0).warnings
    assert "1 of 19 test pictures is an exact copy of a training picture" in exact
    assert "2 of 19 test pictures look nearly the same as training pictures" in near
    assert "test/cat/copy.jpg (in training train/cat/03.png)" in near
    assert "exact.png" not in near


def test_hashes_that_differ_in_three_bits_are_all_found() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, 300, dtype=np.uint64)
    for number in range(100):
        bits = random.choice(64, number % 5, replace=False).astype(np.uint64)
        hashes[200 + number] = hashes[number] ^ np.bitwise_or.reduce(
            np.uint64(1) << bits, initial=np.uint64(0)
        )
    looks = np.zeros(300, dtype=near_copies.LOOK)
    looks["hash"] = hashes
    found = near_copies.find_pairs(looks[:200], looks[200:])
    pairs = set(zip(found.ones.tolist(), found.others.tolist(), found.bits.tolist(), strict=True))
    assert pairs == {(n, n, n % 5) for n in range(100) if n % 5 <= 3}
