"""The page on augmentation has the table of all arguments, and a picture of all transforms.

Print the table, and draw the picture again:
python -m tests.data.augment.test_page docs/images/augmentation.jpg
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_image

from tests.conftest import REPOSITORY
from trainer.config.augmentations import TRANSFORMS_OF_LISTS, canonical
from trainer.data.augment.policy import Augmentation

PAGE = REPOSITORY / "docs" / "augmentation.md"
SIDE, VARIANTS, COLUMNS, HEAD = 104, 5, 2, 20


def table() -> str:
    """Return the arguments of all transforms as they are in the code."""
    rows = [
        "| transform | argument | default | may be | what it is |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, arguments in TRANSFORMS_OF_LISTS.items():
        for word, argument in arguments.items():
            default = (
                f"{argument.default:.4g}"
                if isinstance(argument.default, float)
                else argument.default
            )
            rule = argument.rule.partition(", such as")[0]
            rows.append(f"| `{name}` | `{word}` | {default} | {rule} | {argument.meaning} |")
    return "\n".join(rows)


def draw() -> Image.Image:
    """Draw a photograph as each transform makes it, with its defaults, in the first epochs."""
    photograph = Image.fromarray(load_sample_image("china.jpg")[:, 100:527])
    shrunk = np.array(photograph.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    image = torch.from_numpy(shrunk).permute(2, 0, 1)[None]
    rows = -(-len(TRANSFORMS_OF_LISTS) // COLUMNS)
    width, height = VARIANTS * (SIDE + 2) + 14, SIDE + HEAD
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, name in enumerate(TRANSFORMS_OF_LISTS):
        left, top = number // rows * width, number % rows * height
        pen.text((left, top + 2), name, "black", font)
        always = {"probability": 1} if name in ("grey", "blur", "erase") else {}
        augmentation = Augmentation(canonical([{name: always}]), seed=0)
        for variant in range(VARIANTS):
            (changed,) = augmentation(image, torch.tensor([0]), variant + 1)
            picture = Image.fromarray(changed.permute(1, 2, 0).numpy())
            sheet.paste(picture, (left + variant * (SIDE + 2), top + HEAD))
    return sheet


def test_the_table_is_that_of_the_code() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")


def test_every_transform_is_explained_and_drawn() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"- `{name}`" in text for name in TRANSFORMS_OF_LISTS)
    with Image.open(REPOSITORY / "docs" / "images" / "augmentation.jpg") as picture:
        assert draw().size == picture.size


if __name__ == "__main__":
    print(table())
    draw().save(Path(sys.argv[1]), quality=88)
