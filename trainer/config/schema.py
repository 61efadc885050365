"""The configuration of a run: every key, its meaning and its default.

Those of the section `data` are in `data_keys`, and are had from here like all others. Imports
nothing heavy, so that `--help` and a mistyped key answer at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trainer.config.data_keys import DataConfig, Interpolation, ResizeRule, ScalingKind

__all__ = [
    "LAB_TEST_SAMPLES",
    "LAB_TRAIN_SAMPLES",
    "CheckpointConfig",
    "ChoiceName",
    "DataConfig",
    "Interpolation",
    "LossName",
    "ModelConfig",
    "OptimizerConfig",
    "OptimizerName",
    "ResizeRule",
    "RunConfig",
    "ScalingKind",
    "ScheduleConfig",
    "ScheduleName",
    "TrackerName",
    "TrackingConfig",
    "TrainConfig",
    "averaged_epochs",
    "default_choice",
    "flatten",
    "folder_of",
    "replace",
]

OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop", "muon"]
ScheduleName = Literal[
    "constant", "linear", "cosine", "polynomial", "one_cycle", "restarts", "piecewise", "plateau"
]
LossName = Literal["cross_entropy", "focal", "bce", "asymmetric"]
ChoiceName = Literal["accuracy", "loss", "balanced_accuracy", "macro_f1", "auc", "first_accuracy"]
TrackerName = Literal["aim", "clearml", "comet_ml", "mlflow", "trackio"]


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: str = "lab_cnn"
    """a registered name, path/to/file.py:ClassName, or timm:NAME"""
    args: dict[str, Any] = field(default_factory=dict)
    """keyword arguments of the model; on the command line a JSON object that replaces"""
    weights: str | None = None
    """to start from: a .safetensors file, the folder of a finished run or of the hub's files,
    hf:OWNER/NAME or hf:OWNER/NAME@REVISION of the Hugging Face hub, or pretrained, those that the
    network's library has for it; null: random weights by the seed"""
    weights_sha256: str | None = None
    """SHA-256 of that file, which must be that one; null: filled in at the first start"""


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
    """equal pieces of a batch; null: processes x accumulation, doubled until a step fits into the
    memory, and kept for the rest of the run; without a launcher that is for one process, or as many
    as processes says"""
    kernels: Literal["native", "portable"] = "native"
    """native: the fastest of this processor; portable: the same bits on every x86-64 processor with
    AVX2, in fp32 on CPUs, by processes of one thread"""
    compile: Literal["none", "default", "max-autotune"] = "none"
    """compile a step's forward and backward pass by torch.compile, which needs a C++ compiler or on
    a GPU Triton; max-autotune also times kernels, only of train.reduction: fast"""
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
    activation_checkpointing: bool = False
    """keep only the inputs of the network's blocks for the backward pass, which computes the rest
    again: less memory and the same bits in more time; not with compile"""
    loss: LossName | str = "cross_entropy"
    """what training minimises: cross_entropy; focal, which counts hard images more; bce, one binary
    cross entropy for each class against the others; asymmetric, the same without the easy
    negatives; or your own, path/to/file.py:name"""
    loss_args: dict[str, Any] = field(default_factory=dict)
    """arguments of the loss, such as '{"gamma": 1.5}' of focal; a JSON object that replaces"""
    label_smoothing: float = 0.0
    """share of the target that is spread evenly over all classes, with several labels over yes and
    no; only of Lockstep's own losses"""
    class_weights: Literal["auto"] | list[float] | None = None
    """of the classes in the mean loss: auto: by the effective number of their training images; a
    list: a number for each, in their order; null: all alike"""
    logit_adjustment: float = 0.0
    """strength of logit adjustment, 1 usual: the logarithm of a class's share of the training
    images is added to its logit in training, so that rare classes are not overlooked; 0: none"""
    freeze: Literal["backbone"] | list[str] | None = None
    """parameters that are not trained: backbone, all but the head; or a list of patterns of their
    names, such as '[conv1.*, layer1.*]'; null: none"""
    unfreeze_epoch: int | None = None
    """the epoch from which the frozen parameters are trained too; null, or beyond train.epochs:
    never"""
    freeze_statistics: bool = False
    """batch norms normalise by the statistics that model.weights brought, in training too, and keep
    them; their scales and shifts are trained"""
    cache_features: bool = False
    """only of train.freeze: backbone, without augmentation: compute once what the frozen backbone
    makes of the images, and train the head on that"""
    teacher: str | None = None
    """distillation: a finished run's folder, or its model.safetensors, whose answers are learnt
    beside the labels; null: none"""
    teacher_model: str | None = None
    """name of its network where that is not Lockstep's own: the code runs only where it is named"""
    teacher_sha256: str | None = None
    """of its file, which must be that one; null: filled in at the first start"""
    teacher_weight: float = 0.5
    """share of the loss that is about the teacher's answers; the rest is about the labels"""
    temperature: float = 1.0
    """by which its logits and the network's are divided before they are compared"""
    calibrate: bool = False
    """temperature scaling: divide the chosen network's logits by the number that fits the
    validation images best, so that its probabilities can be believed; no answer changes"""
    clip_norm: float | None = None
    """limit of the gradient, as train.clip_mode measures it; null: none"""
    clip_mode: Literal["norm", "value", "agc"] = "norm"
    """what train.clip_norm limits: the norm of the whole gradient; each of its values; or, adaptive
    gradient clipping, the norm of each filter's gradient as a share of that of its weights"""
    sam_rho: float | None = None
    """radius of sharpness-aware minimisation (SAM), such as 0.05: two passes for each step; null:
    none"""
    ema_decay: float | None = None
    """decay of a moving average of the weights, which is validated and chosen; null: none"""
    average_epochs: int | float | None = None
    """choose the mean of the weights at the ends of the last epochs, whatever validation says: of
    this many, or below 1 of this share of train.epochs; batch-norm statistics are computed again;
    a run that train.patience ends early has no such mean; null: none"""
    choose_by: ChoiceName | None = None
    """the figure of the validation images by which the best epoch's weights are chosen, and
    train.patience and schedule.plateau_epochs judge; of equal ones that of the lower loss; auc: the
    mean ROC-AUC of each class against the rest; first_accuracy: the first of the best accuracy, as
    older versions did; null: accuracy, or balanced_accuracy where train.class_weights,
    train.logit_adjustment or data.sampling: balanced attends to rare classes"""
    patience: int | None = None
    """stop after this many epochs without better weights, as validation judges them; null: never"""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """after an infinite loss: stop; or go back to the last checkpoint and leave that step out"""
    max_seconds: float | None = None
    """stop after this time with everything saved, as if asked to; null: no limit"""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser."""

    name: OptimizerName | str = "adam"
    """muon: for the filters and matrices, AdamW for the rest; one of torch's or timm's, such as
    torch:NAdam or timm:lion; or your own, path/to/file.py:name"""
    lr: float = 1e-3
    """learning rate at the top of the schedule"""
    weight_decay: float = 0.0
    """decay of weights; biases and norms are left out"""
    momentum: float = 0.9
    """of sgd, rmsprop and muon"""
    nesterov: bool = True
    """Nesterov's momentum, of sgd and muon"""
    args: dict[str, Any] = field(default_factory=dict)
    """keyword arguments of the optimiser, such as '{"betas": [0.9, 0.99]}'; a JSON object that
    replaces"""
    layer_decay: float | None = None
    """factor of the rate from each layer to the one before; the head has optimizer.lr; null: 1"""
    groups: dict[str, Any] = field(default_factory=dict)
    """patterns of parameters' names, or backbone, with lr_factor, weight_decay or both, such as
    '{"backbone": {"lr_factor": 0.2}}'; a JSON object that replaces"""


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the run."""

    name: ScheduleName | str = "constant"
    """shape after the warm-up; or your own, path/to/file.py:name"""
    warmup_epochs: float = 0.0
    """rise to optimizer.lr: linear from near zero; of one_cycle a cosine from a 25th of it"""
    warmup_steps: int | None = None
    """the same in steps, instead of schedule.warmup_epochs"""
    final_fraction: float = 0.0
    """share of optimizer.lr at the end, of linear, cosine, polynomial, one_cycle and each cycle of
    restarts"""
    power: float = 0.9
    """of polynomial: of the share of the run that is left"""
    cycle_epochs: float | None = None
    """only of restarts: the length of the first cosine"""
    cycle_factor: float = 1.0
    """of restarts: how much longer each cosine is than the one before"""
    milestones: list[float] | None = None
    """only of piecewise: the epochs after which the rate is multiplied by schedule.factor"""
    plateau_epochs: int | None = None
    """only of plateau: after this many epochs without better weights, as validation judges them,
    the rate is multiplied by schedule.factor"""
    factor: float = 0.1
    """of piecewise and plateau"""


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
    """how many processes this run has; null: as many as a launcher has started; without one as many
    as this machine has cores or GPUs for and divide train.microbatches"""
    threads: int | None = None
    """threads of each process; null: 1, or as many as the run was begun with"""
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


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted keys as a YAML file has them: a dictionary for each section."""
    values: dict[str, Any] = {}
    for name, value in flat.items():
        section, _, key = name.rpartition(".")
        (values.setdefault(section, {}) if section else values)[key] = value
    return values


def replace(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """Return a copy of `config` with the dotted keys of `changes` set."""
    for name, value in changes.items():
        section, _, key = name.rpartition(".")
        if section:
            value = dataclasses.replace(getattr(config, section), **{key: value})
        config = dataclasses.replace(config, **{section or key: value})
    return config


def default_choice(config: RunConfig) -> ChoiceName | None:
    """Return what `train.choose_by` is where it is null; None: there is nothing to choose by."""
    if config.data.validation_size == 0:
        return None
    train = config.train
    attends = train.class_weights or train.logit_adjustment or config.data.sampling == "balanced"
    return "balanced_accuracy" if attends and not config.data.multi_label else "accuracy"


def averaged_epochs(config: TrainConfig) -> int | None:
    """Return how many last epochs `train.average_epochs` averages; None: there is no average."""
    asked = config.average_epochs
    if asked is not None and asked < 1:
        return max(1, round(asked * config.epochs))
    return None if asked is None else int(asked)
