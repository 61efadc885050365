"""The keys of a run's configuration that are about its data: their meaning and their defaults.

Imports nothing heavy, as `schema`, which has the other keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from trainer.config import augmentations
from trainer.config.data_names import DataName, PictureSetName

ResizeRule = Literal["crop", "pad", "stretch"]
Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
ScalingKind = Literal["global", "per_channel", "per_pixel", "imagenet", "pretrained"]


@dataclass(frozen=True)
class DataConfig:
    """The images, and how they are divided and scaled."""

    name: DataName | str = "fashion_mnist"
    """data set: a published one, such as cifar10 (docs/data_sets.md has them all); idx, npy,
    folder and table, your files in data.root; digits, which needs no files; or your function,
    path/to/file.py:name"""
    root: str | None = None
    """folder of the files, the table, or an archive of pictures or its address; null: the places
    that docs/data_sets.md lists"""
    memory_limit_mb: int | None = None
    """MB of images that a process keeps in memory, the others are read batch by batch; null: half
    of what is free for it, in its container or its Slurm job"""
    cache: Literal["auto", "memory", "disk", "none"] = "auto"
    """of pictures that are cut again in each epoch: where they are kept once they are decoded;
    auto: in memory if all fit, or else on the disk if they fit there"""
    cache_dir: str | None = None
    """folder of what is kept on the disk; null: below XDG_CACHE_HOME or ~/.cache/lockstep"""
    cache_limit_gb: float = 50.0
    """GB of decoded pictures on the disk: beyond, those that were not used for longest go"""
    prefetch: int = 2
    """batches that a thread makes ahead, where images are not in the device's memory; 0: none"""
    device_memory_gb: float | None = None
    """GB of images that a process keeps in its GPU's memory, those to train on first; null: what is
    left after a trial step and a trial evaluation, less a tenth of the whole; 0: none"""
    image_size: list[int] | int | None = None
    """pictures: height and width that each is resized to, or one number for a square; null: those
    that model.weights were trained at; or else the training pictures' medians, shrunk together
    where the longer one is beyond 128"""
    resize: ResizeRule = "crop"
    """how pictures of another shape are made to fit: crop: the shorter side, and the middle is
    taken; pad: the longer side, with black beside it; stretch: each side by itself"""
    crop_share: float | None = None
    """of crop: the share of the shorter side that is taken, 0.875 usual for ImageNet; null: as
    model.weights were evaluated, or else 1"""
    interpolation: Interpolation | None = None
    """filter by which pictures are resized; null: that of model.weights, or else bilinear"""
    image_size_schedule: list[list[int]] | None = None
    """size to train at from an epoch on, as [[1, 96], [30, 128]] or [[1, 64, 96]] for a height and
    width; evaluated at data.image_size; null: that one always"""
    store_size: int | None = None
    """shorter side to which pictures are shrunk once, before anything is cut out of them; null:
    they keep their size"""
    store_format: Literal["pixels", "jpeg"] = "pixels"
    """what they are kept as: pixels, or encoded again as JPEG, which takes a tenth of the room and
    loses a little"""
    store_quality: int = 90
    """of that JPEG, from 1 to 95"""
    channels: int | None = None
    """pictures: 1, grey, or 3, colour; null: as many as model.weights were trained with; or else 1
    where all training pictures are stored as grey"""
    grey_range: list[float] | None = None
    """of pictures of more than 8 bits a channel or with signs, the values that become black
    and white, such as [0, 4095]; null: the lowest and the highest of the training pictures"""
    groups: int | str | None = None
    """what shares a group, such as a patient, stays on one side of every split: 1, the first folder
    below the class; a pattern on a picture's name such as ^(s[0-9]+)_; or a table's column"""
    max_megapixels: int = 89
    """folder: pictures of more million pixels are refused"""
    on_bad: Literal["stop", "skip"] = "stop"
    """pictures: one that cannot be read ends the run, or is left out with a warning"""
    file_column: str = "file"
    """table: the column of the pictures' files, or of the pictures; where there is no column file,
    image"""
    label_column: str | list[str] = "label"
    """table: the column of the classes, by name or number; or with data.multi_label a list of
    columns of 0 and 1, whose names are the classes"""
    multi_label: bool = False
    """whether a picture may have several labels, or none: cells such as cat|dog in a table, or a
    column for each class; equal pictures in the folders of several classes; arrays of 0 and 1"""
    part_column: str | None = "part"
    """table: the column that says train, validation or test, if it is there; null: none"""
    group_column: str | None = "group"
    """table: the column of what must not be divided, if it is there; null: none"""
    weight_column: str = "weight"
    """table: the column of the weights of data.sampling"""
    slice_columns: list[str] = field(default_factory=list)
    """the test images are judged in slices too, the worst first, by each of these: columns of the
    table, such as '[camera, hospital]'; size, of pictures in their files; brightness"""
    sampling: Literal["uniform", "balanced", "weights"] = "uniform"
    """which training images an epoch takes: uniform: each once; balanced: as many in all, but
    equally many of each class; weights: as many, drawn in proportion to their weights"""
    train_size: int | None = None
    """how many training images, the first in file order; null: all"""
    test_size: int | None = None
    """how many test images, the first in file order; null: all"""
    validation_size: int | None = None
    """how many of the training images are held out; null: 10 %, and at least one of each class;
    0: none; of a folder with validation/: how many of its pictures are used; null: all"""
    validation: Literal["stratified", "first"] = "stratified"
    """which are held out: a stratified draw, or the first in file order"""
    folds: int | None = None
    """of a cross-validation: how many parts the training images are divided into; null: none"""
    fold: int | None = None
    """the part, from 1, that is tested on in place of the test images, which are not used"""
    scaling: ScalingKind | None = None
    """one mean and deviation for all pixels, for each channel or for each pixel, of the training
    split; imagenet, ImageNet's for red, green and blue; or pretrained, data.mean and
    data.deviation; null: pretrained where model.weights bring them; or else global for grey,
    per_channel for colour and other images of several channels"""
    mean: list[float] | None = None
    """of pretrained: of each channel, of pixels from 0 to 1; null: that of model.weights"""
    deviation: list[float] | None = None
    """of pretrained: as data.mean"""
    augment: str | list[Any] = "none"
    """random transforms of training images, drawn again for every sample in every epoch: none; or
    some of flip, rotate, crop, shift, cutout, erase joined by _, such as flip_shift, then, each
    after a +, your functions, path/to/file.py:name; or a list of names, each with arguments where
    they differ from its defaults, such as '[flip, {rotate: {degrees: 10}}, trivial_augment_wide]',
    see docs/augmentation.md"""
    test_augment: Literal["none", "flip"] = "none"
    """flip: a second accuracy, reported beside the first, of test images classified together with
    their mirror images"""
    mixup: float = 0.0
    """alpha of mixup: train on pairs, with weights from Beta(alpha, alpha); 0: none"""
    cutmix: float = 0.0
    """alpha of cutmix: train on images with a box of another one, the share that stays from
    Beta(alpha, alpha); 0: none; together with mixup each step draws one of the two"""

    def __post_init__(self) -> None:
        """Write a square as two numbers, so that it is one run however it is written.

        Likewise the transforms of a list with all their arguments.
        """
        if isinstance(self.image_size, int):
            object.__setattr__(self, "image_size", [self.image_size, self.image_size])
        if isinstance(self.augment, list):
            object.__setattr__(self, "augment", augmentations.canonical(self.augment))

    @property
    def has_pictures(self) -> bool:
        """Whether the images are made from picture files of any size."""
        return self.name in ("folder", "table", *get_args(PictureSetName))

    @property
    def height_and_width(self) -> list[int] | None:
        """`image_size`, in which one number has become two."""
        assert not isinstance(self.image_size, int)
        return self.image_size
