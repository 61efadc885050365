"""Make pictures with up to three coloured shapes, whose labels are the colours and the shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 230)}
SHAPES = ("bar", "disc", "square")
NAMES = tuple(sorted((*COLOURS, *SHAPES)))


def draw(seed: int, size: int = 16) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a picture, uint8 (size, size, 3), and its sorted labels; no shape has none."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 40, (size, size, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:size, :size]
    labels = set()
    for _ in range(random.integers(0, 4)):
        colour, shape = random.choice(list(COLOURS)), random.choice(SHAPES)
        row, column = random.integers(3, size - 3, 2)
        down, across = np.abs(rows - row), np.abs(columns - column)
        inside = {
            "bar": (down <= 0) & (across <= 4),
            "disc": down**2 + across**2 <= 5,
            "square": (down <= 2) & (across <= 2),
        }[str(shape)]
        pixels[inside] = COLOURS[str(colour)]
        labels |= {str(colour), str(shape)}
    return pixels, tuple(sorted(labels))


def write_table(folder: Path, train: int, test: int, header: str = "file,label,part") -> Path:
    """Write pictures and a table with cells such as `disc|red`; test pictures come last."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [header]
    for number in range(train + test):
        pixels, labels = draw(number)
        Image.fromarray(pixels).save(folder / f"{number:04}.png")
        rows.append(f"{number:04}.png,{'|'.join(labels)},{'train' if number < train else 'test'}")
    table = folder / "shapes.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table


def matrix(numbers: Sequence[int]) -> np.ndarray:
    """Return the labels of pictures by their seeds, uint8 (n, 6), in the order of NAMES."""
    return np.array([[name in draw(one)[1] for name in NAMES] for one in numbers], np.uint8)
