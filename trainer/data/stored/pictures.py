"""Decode, cut and resize the pictures of a batch in threads, straight into its tensor.

Torch is imported only for a batch: see `raw_images`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trainer.base.errors import RankError, UserError
from trainer.data.pictures import resizing
from trainer.data.pictures.picture_set import KnownPictures
from trainer.data.stored.form import Bytes, StoredForm
from trainer.data.stored.keeping import Choice, InMemory, Keeper
from trainer.data.unread_images import Indices, UnreadImages
from trainer.ranks import processes

if TYPE_CHECKING:
    import torch


class PictureStore:
    """The pictures of one part in their stored form, wherever that is kept.

    Args:
        known: the pictures.
        form: what they are stored as.
        keeper: keeps them.
        first: the number of the first of them for the keeper.
        choice: where they are kept, and why.
    """

    def __init__(
        self, known: KnownPictures, form: StoredForm, keeper: Keeper, first: int, choice: Choice
    ) -> None:
        self.known = known
        self.form = form
        self.choice = choice
        self.sizes = form.sizes(known.sizes)
        self.has_decoded = True
        """whether pictures had to be decoded lately, those that will be asked for too"""
        self._keeper = keeper
        self._first = first

    @property
    def in_memory(self) -> InMemory | None:
        """What keeps the pictures in memory; None: they are kept elsewhere, or nowhere."""
        return self._keeper if isinstance(self._keeper, InMemory) else None

    def pixels(self, position: int) -> Bytes:
        """Return the stored image of a picture: uint8 (height, width, channels).

        Raises:
            RankError: names the picture that cannot be read, or was changed.
        """
        height, width = self.sizes[position].tolist()
        stored = self._keeper.read(self._first + position)
        if stored is None:
            stored = self._make(position, (height, width))
        self.has_decoded |= self.form.quality is not None
        return self.form.pixels(stored, (height, width))

    def rows(self, position: int, top: int, bottom: int) -> Bytes:
        """Return some rows of the stored image of a picture; errors as those of `pixels`."""
        if self.form.quality is None:
            width = int(self.sizes[position, 1])
            row_bytes = width * self.form.channels
            number = self._first + position
            stored = self._keeper.read(number, top * row_bytes, bottom * row_bytes)
            if stored is not None:
                return stored.reshape(bottom - top, width, self.form.channels)
        return self.pixels(position)[top:bottom]

    def _make(self, position: int, size: tuple[int, int]) -> Bytes:
        place, sha256 = self.known.listed.places[position], self.known.sha256[position]
        try:
            stored = self.form.make(place, sha256.tobytes(), size)
        except (UserError, OSError) as error:
            raise RankError(str(error)) from error
        self.has_decoded = True
        self._keeper.write(self._first + position, stored)
        return stored


@dataclass(frozen=True, eq=False)
class StoredPictures(UnreadImages):
    """Pictures that become images when a batch asks for them.

    Args:
        store: has them.
        image_size: height and width of the images.
        resize: how a whole picture is made to fit.
    """

    store: PictureStore
    image_size: tuple[int, int]
    resize: resizing.Fit

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, channels, height, width)."""
        return len(self.positions), self.store.form.channels, *self.image_size

    @property
    def sha256(self) -> npt.NDArray[np.uint8]:
        """SHA-256 of the bytes of each picture, uint8 (n, 32)."""
        return self.store.known.sha256[self.positions]

    @property
    def identity(self) -> str:
        """What else decides on the pixels, in words: the stored form, and how it is made fit."""
        height, width = self.image_size
        return f"{self.store.form!r}, {height} x {width} by {self.resize}"

    def _read(self, positions: Indices) -> torch.Tensor:
        return self._fetch(positions, None, self.image_size)

    def sizes(self, index: torch.Tensor) -> torch.Tensor:
        """Return the stored height and width of pictures: int64 (k, 2)."""
        import torch

        return torch.from_numpy(self.store.sizes[self.positions[index.numpy()]])

    def fetch_crops(
        self, index: torch.Tensor, boxes: torch.Tensor | None, image_size: tuple[int, int]
    ) -> torch.Tensor:
        """Return boxes of pictures as images of a size.

        Args:
            index: of the pictures, int64 (k,).
            boxes: left, top, right and bottom in pixels of the stored form, float64 (k, 4), which
                are rounded to whole pixels; None: whole pictures, made to fit as `resize` says.
            image_size: height and width.

        Returns:
            uint8, (k, channels, *image_size), contiguous.

        Raises:
            RankError: names the picture that cannot be read, or was changed.
        """
        positions = self.positions[index.numpy()]
        whole = None
        if boxes is not None:
            whole = resizing.whole_pixels(boxes.numpy(), self.store.sizes[positions])
        return self._fetch(positions, whole, image_size)

    def _fetch(
        self, positions: Indices, boxes: Indices | None, image_size: tuple[int, int]
    ) -> torch.Tensor:
        import torch

        count, channels = len(positions), self.store.form.channels
        images = torch.empty((count, channels, *image_size), dtype=torch.uint8)
        places = positions.tolist()
        whole = None if boxes is None else boxes.tolist()

        def fill(number: int) -> None:
            if whole is None:
                pixels = self.store.pixels(places[number])
                fitted = resizing.resize(pixels, image_size, self.resize)
                images[number].numpy()[:] = fitted.transpose(2, 0, 1)
            else:
                left, top, right, bottom = whole[number]
                rows = self.store.rows(places[number], top, bottom)
                resizing.resize_into(images[number], rows[:, left:right], self.resize.interpolation)

        threads = processes.decoding_threads()
        if not self.store.has_decoded:
            # To cut pixels takes no longer than what the thread that computes does with them.
            threads = max(1, threads - 1)
        self.store.has_decoded = False
        _for_each(count, fill, threads)
        return images


def _for_each(count: int, do: Callable[[int], None], threads: int) -> None:
    """Call a function for all numbers below `count`, in threads; the first error is raised."""
    numbers = itertools.count()  # whose `next` is one step of the interpreter

    def work() -> None:
        while (number := next(numbers)) < count:
            try:
                do(number)
            except BaseException:
                for _ in zip(range(count), numbers, strict=False):
                    pass  # the other threads have nothing left to do
                raise

    threads = min(threads, count)
    if threads <= 1:
        work()
        return
    # To start threads takes far less than a batch, and so none is left when it is done.
    with ThreadPoolExecutor(threads, "decoding") as pool:
        futures = [pool.submit(work) for _ in range(threads)]
    for future in futures:
        future.result()
