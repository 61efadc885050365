"""Answer for pictures that many ask about at once: what `predict` says, and where it comes from.

Pictures are decoded and drawn by as many threads as there are cores. One thread has the model: a
picture goes through it without the others, and its probabilities are those of `predict` to the last
bit.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from trainer.base.errors import UserError
from trainer.data.dataset import drawable
from trainer.data.pictures.places import ReadPlace
from trainer.finished import answers, separate_answers
from trainer.finished.answers import Probabilities
from trainer.finished.trained_model import TrainedModel
from trainer.ranks import processes
from trainer.run.report import heat_maps, pages
from trainer.training import attribution

PICTURE = "the picture"
"""its name in messages: what a browser calls it is nobody's path here"""


Arguments = ParamSpec("Arguments")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Question:
    """A picture, and what is asked about it.

    Args:
        content: the bytes of its file.
        class_name: the class that the map explains; None: the most probable one.
        invert: swap black and white first.
    """

    content: bytes
    class_name: str | None = None
    invert: bool = False


class Answerer:
    """A model and the threads that ask it; `answer` may be called by any number of threads.

    Args:
        stored: on its device.
        min_confidence: as of `predict`.
        max_megapixels: a picture of more million pixels is refused.
    """

    def __init__(self, stored: TrainedModel, min_confidence: float, max_megapixels: int) -> None:
        self.stored = stored
        self._classifier = separate_answers.make_classifier(stored)
        self._min_confidence, self._max_megapixels = min_confidence, max_megapixels
        self._pictures = ThreadPoolExecutor(processes.usable_cores(), "pictures")
        self._model = ThreadPoolExecutor(
            1, "model", lambda: torch.set_num_threads(processes.DEFAULT_THREADS)
        )

    def answer(self, question: Question) -> dict[str, Any]:
        """Return what JSON says about a picture.

        Returns:
            `class` and `probability` as of `predict --json`, `probabilities` by class name,
            `explained`, the class that `map` is about, and the addresses of two PNG files: `image`,
            as the model sees it, and `map`, None where the network has none.

        Raises:
            UnknownFormatError: the bytes are no picture.
            TooManyPixelsError: the picture is too large.
            UserError: it is broken, the model knows no such class, or gives no finite numbers.
            CancelledError: `close` was called.
        """
        names = self.stored.class_names
        if question.class_name is not None and question.class_name not in names:
            raise UserError(f"class: the model has no class {question.class_name!r}")
        pixels = _have_done(self._pictures, self._read, question)
        probabilities, explained, heat = _have_done(
            self._model, self._ask, pixels, question.class_name
        )
        image, drawn = _have_done(self._pictures, _draw, pixels, heat)
        return {
            **answers.name(self.stored, probabilities, self._min_confidence),
            "probabilities": answers.by_class(names, probabilities),
            "explained": explained,
            "image": image,
            "map": drawn,
        }

    def close(self) -> None:
        """Let the threads end; those who wait for an answer get `CancelledError`."""
        for pool in (self._pictures, self._model):
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, question: Question) -> torch.Tensor:
        place = ReadPlace(Path(PICTURE), content=question.content)
        pixels = self.stored.read(place, self._max_megapixels)
        return 255 - pixels if question.invert else pixels

    def _ask(
        self, pixels: torch.Tensor, class_name: str | None
    ) -> tuple[Probabilities, str, npt.NDArray[np.float32] | None]:
        """Return the probabilities, the class that is explained, and its map."""
        stored = self.stored
        (probabilities,) = answers.ask(self._classifier, pixels[None], [PICTURE])
        label = int(probabilities.argmax())
        if class_name is not None:
            label = stored.class_names.index(class_name)
        inputs = stored.scaling.apply(pixels[None].to(stored.scaling.mean.device))
        try:
            (heat,) = attribution.explain(
                "gradcam", stored.module, inputs, torch.tensor([label])
            ).numpy()
        except UserError:  # the network has no maps
            heat = None
        has_map = heat is not None and bool(np.isfinite(heat).all())
        return probabilities, stored.class_names[label], heat if has_map else None


def _have_done(
    pool: ThreadPoolExecutor,
    do: Callable[Arguments, Found],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Found:
    """Call a function in a thread of a pool.

    Raises:
        CancelledError: the pool is closed.
    """
    try:
        future = pool.submit(do, *args, **kwargs)
    except RuntimeError as error:
        raise CancelledError from error
    return future.result()


def _draw(pixels: torch.Tensor, heat: npt.NDArray[np.float32] | None) -> tuple[str, str | None]:
    """Return the addresses of the image and of its map."""
    (shown,) = drawable(pixels[None])
    drawn = None if heat is None else pages.image_uri(heat_maps.draw(shown, heat))
    return pages.image_uri(heat_maps.enlarge(shown)), drawn
