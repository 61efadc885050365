"""The report as a person or a browser reads it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from trainer.config.schema import RunConfig, flatten
from trainer.run.report.pages import duration
from trainer.run.report.run_report import write_report

NAMES = ["T-shirt/top", "Trouser", "Shirt"]
PICTURES = ("curves.png", "confusion.png", "calibration.png", "mistakes.png")


def write_run(
    folder: Path,
    *,
    names: list[str] = NAMES,
    samples: int = 60,
    mistakes: bool = True,
    validation: bool = True,
    lab: bool = True,
    receipt: bool = True,
    rounding: Sequence[str] = (),
    shape: tuple[int, ...] = (8, 8),
) -> np.ndarray:
    """The files of a finished run, consistent with each other; gives the test images."""
    classes = len(names)
    target = np.arange(samples) % classes
    predicted = target.copy()
    if mistakes:
        predicted[target == classes - 1] = 0
        predicted[classes - 1] = classes - 1
    confusion = np.zeros((classes, classes), dtype=int)
    np.add.at(confusion, (target, predicted), 1)
    support = confusion.sum(axis=1)
    rows = [
        {
            "name": name,
            "support": int(support[place]),
            "correct": int(confusion[place, place]),
            "accuracy": float(confusion[place, place] / support[place]),
            "precision": 0.25,
            "recall": float(confusion[place, place] / support[place]),
            "f1": 0.125,
        }
        for place, name in enumerate(names)
    ]
    test: dict[str, Any] = {
        "accuracy": float((target == predicted).mean()),
        "loss": 0.5,
        "samples": samples,
        "per_class": rows,
        "worst_class": min(rows, key=lambda row: row["accuracy"])["name"],
        "confusion": confusion.tolist(),
    }
    if lab:
        test["lab_accuracy"] = 0.9125
    results = {
        "test": test,
        "validation": {
            "best_accuracy": 0.8765 if validation else None,
            "best_epoch": 2 if validation else None,
            "chosen_accuracy": 0.8765 if validation else None,
            "chosen_epoch": 2,
        },
        "train": {
            "epochs": 2,
            "steps": 6,
            "seconds": 125.0,
            "samples_per_second": 4321.0,
            "processes": 2,
            "microbatches": 4,
            "device": "cpu",
            "precision": "fp32",
        },
        "model": {"name": "lab_cnn", "parameters": 29034},
        "weights_sha256": "ab" * 32,
        "final_weights_sha256": "cd" * 32,
        "data": {
            "name": "fashion_mnist",
            "fingerprint": "ef" * 32,
            "train": 90,
            "validation": 10 if validation else 0,
            "test": samples,
        },
        "seed": 17,
        "versions": {"torch": "2.13.0", "python": "3.11.7"},
        "equality": {"in_bits": not rounding, "because": list(rounding)},
    }
    if receipt:
        results["receipt_sha256"] = "12" * 32
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    config: dict[str, Any] = {}
    for key, value in flatten(RunConfig()).items():
        section, _, name = key.rpartition(".")
        (config.setdefault(section, {}) if section else config)[name] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as lines:
        for step in range(1, 7):
            record: dict[str, Any] = {"event": "step", "epoch": 1, "step": step}
            record |= {"loss": 2 / step, "lr": 0.1 / step}
            lines.write(json.dumps(record) + "\n")
        for epoch in (1, 2):
            record = {"event": "epoch", "epoch": epoch, "train_loss": 1.0}
            record["validation_accuracy"] = 0.8 + epoch / 100 if validation else None
            lines.write(json.dumps(record) + "\n")
    np.savez(
        folder / "predictions.npz",
        index=np.arange(samples),
        target=target,
        predicted=predicted,
        probability=np.linspace(0.5, 0.99, samples, dtype=np.float32),
    )
    images = np.zeros((samples, *shape), dtype=np.uint8)
    images[:] = np.arange(samples).reshape(-1, *[1] * len(shape))  # image i is all i
    return images


class Page(HTMLParser):
    """A page's tags with attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._hidden else f"{data} "

    def pictures(self) -> list[Image.Image]:
        sources = [str(attrs["src"]) for tag, attrs in self.tags if tag == "img"]
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        return [
            Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources
        ]


def report(folder: Path, **choices: Any) -> Page:
    write_report(folder, write_run(folder, **choices).__getitem__)
    return Page(folder / "report.html")


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with its report."""
    folder = tmp_path_factory.mktemp("usual")
    report(folder)
    return folder


@pytest.fixture
def page(usual: Path) -> Page:
    return Page(usual / "report.html")


def test_pictures_and_page_are_written(usual: Path, page: Page) -> None:
    before = {"config.yaml", "metrics.jsonl", "results.json", "predictions.npz"}
    assert {path.name for path in usual.iterdir()} == before | {*PICTURES, "report.html"}
    for name in PICTURES:
        with Image.open(usual / name) as picture:
            assert picture.format == "PNG"
            assert picture.width > 300
    *panels, confusion, calibration = (page.pictures()[place] for place in (0, 1, 2, 3, -2))
    with Image.open(usual / "curves.png") as picture:
        row = np.hstack([np.asarray(panel) for panel in panels])
        np.testing.assert_array_equal(np.asarray(picture), row)
    for embedded, name in ((confusion, "confusion.png"), (calibration, "calibration.png")):
        with Image.open(usual / name) as picture:
            assert embedded.tobytes() == picture.tobytes()
    mistakes = page.pictures()[4:-2]
    assert len(mistakes) == 19


def test_the_result_stands_first(page: Page) -> None:
    text = page.text
    assert "Test accuracy 68.33 % 41 of 60 images correct" in text
    assert "Lab accuracy 91.25 % first 1,000 test images" in text
    assert "Worst class: Shirt 5.00 % 1 of 20 correct; 19 taken for T-shirt/top" in text
    assert text.index("68.33 %") < text.index("Training") < text.index("Per class")


def test_classes_run_and_repetition(usual: Path, page: Page) -> None:
    assert "Trouser 100.00 % 20 20 25.00 % 100.00 % 12.50 %" in page.text
    assert page.text.count("worst") == 1
    marked = [attrs for tag, attrs in page.tags if tag == "tr" and attrs.get("class") == "worst"]
    assert len(marked) == 1
    assert "lab_cnn, 29,034 parameters" in page.text
    assert "2 epochs, 6 steps, 2 min 5 s, 4,321 images/s" in page.text
    assert "those after epoch 2, with 87.65 % on validation" in page.text
    again = f"--config {usual}/config.yaml --output_dir {usual}-again"
    assert f"python train.py {again}" in page.text
    assert "ab" * 32 in page.text
    assert "cd" * 32 in page.text
    assert "12" * 32 in page.text
    assert "torch 2.13.0" in page.text
    config = (usual / "config.yaml").read_text(encoding="utf-8")
    assert " ".join(config.split()) in page.text


def test_calibration_in_words(page: Page, tmp_path: Path) -> None:
    probability = np.linspace(0.5, 0.99, 60, dtype=np.float32)
    assert f"a probability of {100 * probability.mean():.2f} %" in page.text
    assert "68.33 % of the answers are correct: it is overconfident." in page.text
    assert "in 15 bins of equal width" in page.text
    page = report(tmp_path, mistakes=False)
    assert "100.00 % of the answers are correct: it is underconfident." in page.text


def test_feature_maps_are_shown_where_they_were_drawn(page: Page, tmp_path: Path) -> None:
    assert "first layer" not in page.text
    Image.new("RGBA", (30, 20), (1, 2, 3, 4)).save(tmp_path / "features.png")
    page = report(tmp_path)
    assert "What the first layer sees" in page.text
    assert page.pictures()[-1].size == (30, 20)


def test_the_page_says_which_equality_holds(page: Page, tmp_path: Path) -> None:
    assert "the same bits, on any number of processes" in page.text
    page = report(tmp_path, rounding=["from step 7: threads 1 against 2"])
    assert "Equal to rounding, not in bits: from step 7: threads 1 against 2" in page.text


def test_mistakes_are_the_most_confident_ones_and_right_images(tmp_path: Path) -> None:
    page = report(tmp_path, samples=90)
    shown = [picture.getpixel((0, 0)) for picture in page.pictures()[4:-2]]
    # The samples 5, 8, 11, ... 89 are wrong; their probability rises with the index.
    assert shown == list(range(89, 89 - 3 * 24, -3))
    assert "Shirt → T-shirt/top 99.00 %" in page.text


def test_nothing_comes_from_outside(page: Page) -> None:
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}]
    script = page.source.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert not re.search(r"https?://|url\(|@import", page.source)
    policy = next(attrs for _, attrs in page.tags if "http-equiv" in attrs)
    assert str(policy["content"]).startswith("default-src 'none'")
    assert str(policy["content"]).endswith(f"script-src 'sha256-{digest}'")
    assert "prefers-color-scheme: dark" in page.source
    assert any(attrs.get("name") == "viewport" for _, attrs in page.tags)


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    names = ['<script>alert("1")</script>', "a & b", "$x^{$"]
    page = report(tmp_path, names=names)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert all(" ".join(name.split()) in page.text for name in names)


@pytest.mark.parametrize("shape", [(28, 28), (16, 24, 3)])
def test_no_mistakes_no_validation_no_lab(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Nor a receipt, as of a version before them."""
    without = dict.fromkeys(("mistakes", "validation", "lab", "receipt"), False)
    page = report(tmp_path, **without, shape=shape)
    assert "receipt.json" not in page.text
    assert "None: every test image was classified correctly." in page.text
    assert "Lab accuracy" not in page.text
    assert "on validation" not in page.text
    assert len(page.pictures()) == 6


def test_one_step_and_one_hundred_classes(tmp_path: Path) -> None:
    names = [f"class {place}" for place in range(100)]
    images = write_run(tmp_path, names=names, samples=400, shape=(16, 16, 3))
    record = {"event": "step", "epoch": 1, "step": 1, "loss": 4.6, "lr": 0.1}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    write_report(tmp_path, images.__getitem__)
    page = Page(tmp_path / "report.html")
    assert all(f" {name} " in page.text for name in names)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    images = write_run(tmp_path)
    (tmp_path / "predictions.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"predictions\.npz"):
        write_report(tmp_path, images.__getitem__)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(41.31, "41.3 s"), (725, "12 min 5 s"), (12000, "3 h 20 min"), (119.7, "2 min 0 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
