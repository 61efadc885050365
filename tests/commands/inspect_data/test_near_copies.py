"""Images that are nearly equal in different parts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.commands.command import Capture, run_command
from tests.commands.inspect_data.looking import inspect, of_folder
from trainer.config import command_line
from trainer.data import near_copies
from trainer.data.loading import load
from trainer.network import image_settings
from trainer.network.pretrained import Preprocessing


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
