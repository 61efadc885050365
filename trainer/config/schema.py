"""The configuration of a run: every key, its meaning and its default.

Imports nothing heavy, so that `--help` and a mistyped key answer at once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from trainer.config import augmentations
from trainer.config.data_names import DataName, PictureSetName

OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop", "muon"]
ScheduleName = Literal["constant", "linear", "cosine", "one_cycle", "piecewise"]
ResizeRule = Literal["crop", "pad", "stretch"]
ScalingKind = Literal["global", "per_channel", "per_pixel", "imagenet"]
TrackerName = Literal["aim", "clearml", "comet_ml", "mlflow", "trackio"]


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
    """of pictures that are cut anew in each epoch: where they are kept once they are decoded; auto:
    in memory if all fit, or else on the disk if they fit there"""
    cache_dir: str | None = None
    """folder of what is kept on the disk; null: below XDG_CACHE_HOME or ~/.cache/lockstep"""
    cache_limit_gb: float = 50.0
    """GB of decoded pictures on the disk: beyond, those that were not used for longest go"""
    prefetch: int = 2
    """batches that a thread makes ahead, where images are not in the device's memory; 0: none"""
    image_size: list[int] | int | None = None
    """pictures: height and width that each is resized to, or one number for a square; null: the
    training pictures' medians, shrunk together where the longer one is beyond 128"""
    resize: ResizeRule = "crop"
    """how pictures of another shape are made to fit: crop: the shorter side, and the middle is
    taken; pad: the longer side, with black beside it; stretch: each side by itself"""
    image_size_schedule: list[list[int]] | None = None
    """size to train at from an epoch on, as [[1, 96], [30, 128]] or [[1, 64, 96]] for a height and
    width; evaluated at data.image_size; null: that one always"""
    store_size: int | None = None
    """shorter side to which pictures are shrunk once, before anything is cut out of them; null:
    they keep their size"""
    store_format: Literal["pixels", "jpeg"] = "pixels"
    """what they are then: pixels, or encoded again as JPEG, which takes a tenth and loses a bit"""
    store_quality: int = 90
    """of that JPEG, from 1 to 95"""
    channels: int | None = None
    """pictures: 1, grey, or 3, colour; null: 1 where all training pictures are stored as grey"""
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
    label_column: str = "label"
    """table: the column of the classes, by name or number"""
    part_column: str | None = "part"
    """table: the column that says train, validation or test, if it is there; null: none"""
    group_column: str | None = "group"
    """table: the column of what must not be divided, if it is there; null: none"""
    weight_column: str = "weight"
    """table: the column of the weights of data.sampling"""
    sampling: Literal["uniform", "weights"] = "uniform"
    """which training images an epoch takes: each once; or as many as there are, each time drawn
    from all of them in proportion to their weights"""
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
    """of a cross-validation: into how many the training images are divided; null: none"""
    fold: int | None = None
    """the one, from 1, that is tested on in place of the test images, which are not used"""
    scaling: ScalingKind | None = None
    """one mean and deviation for all pixels, for each channel or for each pixel, of the training
    split; or imagenet, ImageNet's for red, green and blue; null: global for grey, per_channel for
    colour and other images of several channels"""
    augment: str | list[Any] = "none"
    """random transforms of training images, drawn again for every sample in every epoch: none; or
    some of flip, rotate, crop, shift, cutout, erase joined by _, such as flip_shift, then, each
    after a +, your functions, path/to/file.py:name; or a list of names, each with arguments where
    they differ from its defaults, such as '[flip, {rotate: {degrees: 10}}, trivial_augment_wide]',
    see docs/augmentation.md"""
    test_augment: Literal["none", "flip"] = "none"
    """flip: a second accuracy, of test images classified with their mirror images; apart"""
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


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: str = "lab_cnn"
    """a registered name, path/to/file.py:ClassName, or timm:NAME"""
    args: dict[str, Any] = field(default_factory=dict)
    """keyword arguments of the model; on the command line a JSON object that replaces"""
    weights: str | None = None
    """a .safetensors file to start from; null: random weights by the seed"""


@dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    epochs: int = 15
    """passes over the training images"""
    batch_size: int = 100
    """samples of one optimiser step, all processes together"""
    accumulation: int = 1
    """micro-batches a process computes one after the other, where train.microbatches is null"""
    microbatches: int | None = None
    """equal pieces of a batch; null: processes x accumulation, then pinned"""
    reduction: Literal["exact", "fast"] = "exact"
    """exact: the same bits at any process count; fast: DDP's overlapped all-reduce"""
    evaluation_batch_size: int | None = None
    """images that are classified at once in an evaluation; null: 500, or where these would take
    more than 300 MB as many as are in the largest micro-batch"""
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    """arithmetic of the forward pass; fp32 is never TF32, which is faster on GPUs and has ten bits
    of mantissa; fp16 and tf32 need a GPU"""
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    """layout of images and filters; auto: channels_last, the faster one, where the model can"""
    label_smoothing: float = 0.0
    """share of the target spread evenly over all classes"""
    clip_norm: float | None = None
    """largest norm of the whole gradient; null: no limit"""
    ema_decay: float | None = None
    """decay of a moving average of the weights, which is validated and chosen; null: none"""
    average_epochs: int | float | None = None
    """choose the mean of the weights at the ends of this many last epochs, below 1 that share of
    train.epochs, with batch-norm statistics computed again, whatever validation says, unless
    train.patience ends the run before; null: none"""
    patience: int | None = None
    """stop after this many epochs without a better validation accuracy; null: never"""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """after an infinite loss: stop; or go back to the last checkpoint and leave that step out"""
    max_seconds: float | None = None
    """stop after this time with everything saved, as if asked to; null: no limit"""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser."""

    name: OptimizerName | str = "adam"
    """muon: for the filters and matrices, AdamW for the rest; or your own, path/to/file.py:name"""
    lr: float = 1e-3
    """learning rate at the top of the schedule"""
    weight_decay: float = 0.0
    """decay of weights; biases and norms are left out"""
    momentum: float = 0.9
    """of sgd, rmsprop and muon"""
    nesterov: bool = True
    """Nesterov's momentum, of sgd and muon"""
    args: dict[str, Any] = field(default_factory=dict)
    """keyword arguments of your own optimiser; a JSON object that replaces"""


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run."""

    name: ScheduleName = "constant"
    """shape after the warm-up"""
    warmup_epochs: float = 0.0
    """rise to optimizer.lr: linear from near zero; of one_cycle a cosine from a 25th of it"""
    final_fraction: float = 0.0
    """share of optimizer.lr at the end, of linear, cosine and one_cycle"""
    milestones: list[float] | None = None
    """only of piecewise: the epochs after which the rate is multiplied by schedule.factor"""
    factor: float = 0.1
    """of piecewise"""


@dataclass(frozen=True)
class CheckpointConfig:
    """Saving."""

    every_epochs: int | None = 1
    """null: only by steps"""
    every_steps: int | None = None
    """null: only by epochs"""
    keep: int = 2
    """how many of the newest to keep; the best epoch's own stays too"""
    on_error: Literal["continue", "stop"] = "continue"
    """where saving fails, as on a full disk: warn and train on, or end the run"""


@dataclass(frozen=True)
class TrackingConfig:
    """Trackers; metrics.jsonl is always written."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Weights & Biases; auto: online if logged in, or else offline"""
    project: str | None = None
    """project or experiment at the trackers; null: lockstep, or at Weights & Biases what
    WANDB_PROJECT or wandb's settings say"""
    tensorboard: bool = False
    """write TensorBoard's files into the folder tensorboard of the run's"""
    trackers: list[TrackerName] = field(default_factory=list)
    """others, by the names that Accelerate has for them; each needs its package"""
    plugin: str | None = None
    """your own tracker, path/to/file.py:name"""


@dataclass(frozen=True)
class RunConfig:
    """A run."""

    seed: int = 0
    """the one source of all randomness of the run"""
    output_dir: str | None = None
    """folder of the run; null: runs/NAME, NAME that of the configuration file"""
    resume: str = "auto"
    """auto: go on where output_dir stands; none: only an empty folder; or a checkpoint's path"""
    processes: int | None = None
    """how many processes this run must have; null: as launched"""
    threads: int | None = None
    """threads of each process; null: cores / processes of this machine, then pinned"""
    timeout_seconds: float = 600.0
    """how long processes wait for each other before the run fails and names the missing one"""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


# The lab's protocol: train on the first 10,000 images, test on the first 1,000.
LAB_TRAIN_SAMPLES = 10_000
LAB_TEST_SAMPLES = 1_000


def folder_of(config: RunConfig) -> Path:
    """Return the folder of a run, whose `output_dir` the command line has filled in."""
    assert config.output_dir is not None
    return Path(config.output_dir)


def flatten(config: RunConfig) -> dict[str, Any]:
    """Return all keys in dotted form, in the order of declaration; `model.args` is one value."""
    flat: dict[str, Any] = {}
    for key in dataclasses.fields(config):
        value = getattr(config, key.name)
        if dataclasses.is_dataclass(value):
            for inner in dataclasses.fields(value):
                flat[f"{key.name}.{inner.name}"] = getattr(value, inner.name)
        else:
            flat[key.name] = value
    return flat


def replace(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """Return a copy of `config` with the dotted keys of `changes` set."""
    for name, value in changes.items():
        section, _, key = name.rpartition(".")
        if section:
            value = dataclasses.replace(getattr(config, section), **{key: value})
        config = dataclasses.replace(config, **{section or key: value})
    return config


def averaged_epochs(config: TrainConfig) -> int | None:
    """Return how many last epochs `train.average_epochs` averages; None: there is no average."""
    asked = config.average_epochs
    if asked is not None and asked < 1:
        return max(1, round(asked * config.epochs))
    return None if asked is None else int(asked)
