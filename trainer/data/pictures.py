"""Reading picture files, PNG and JPEG among others, of any size."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trainer.errors import UserError

if TYPE_CHECKING:
    from PIL import Image


def read(path: Path, channels: int, image_size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """A picture as a network takes it.

    It is turned upright by its EXIF orientation; laid on white where it is transparent; made grey
    (ITU-R 601-2 luma) or RGB; and, where it has another size, stretched to this one by Pillow's
    antialiased bilinear filter.

    Args:
        channels: 1, grey, or 3, red, green and blue.
        image_size: height and width in pixels.

    Returns:
        uint8, (channels, height, width).

    Raises:
        UserError: names the file that is missing, broken or no picture.
    """
    from PIL import Image, ImageOps

    height, width = image_size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                picture = _opaque(ImageOps.exif_transpose(file))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow's ways to say it
        raise UserError(f"{path}: is no picture that can be read ({error})") from error
    if picture.mode.startswith("I;16") or picture.mode == "I":
        grey = np.asarray(picture, np.uint32) // 256  # 16 bits a pixel
        picture = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _opaque(picture: Image.Image) -> Image.Image:
    from PIL import Image

    if not picture.has_transparency_data:
        picture.load()
        return picture
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
