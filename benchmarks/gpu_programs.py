"""The programs of gpu.py, the most important first, and what the page says of each part."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import page
from gpu_cases import WARM_UP_EPOCHS
from gpu_cases.same import WAYS

Found = Mapping[str, Mapping[str, Any]]
"""of the programs of a part, by their names"""


@dataclass(frozen=True)
class Program:
    """A process that gpu.py starts."""

    part: str
    name: str
    title: str
    module: str
    """of gpu_cases"""
    limit_s: float
    options: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """packages that not every machine has"""


def programs(device: str, small: bool) -> list[Program]:
    """Return all programs, in their order."""
    precisions = ["fp32", "bf16", "tf32", "fp16"] if device == "cuda" else ["fp32", "bf16"]
    ways = ["once", "2 processes"] if small else list(WAYS)
    if small:
        precisions = precisions[:1]
    same = {"precisions": precisions, "ways": ways}
    return [
        Program("machine", "machine", "the machine", "machine", 60),
        Program("tests", "tests", "the tests that need a GPU", "suite", 150, needs=TESTING),
        Program("same", "same", "the same bits", "same", 110, same),
        Program("images", "images", "the images", "prepare", 60),
        *speed(small),
        *photos(small),
        *modes(device, small),
        *large(small),
    ]


def speed(small: bool) -> list[Program]:
    """Return the trainers of small colour images."""
    net = {"model": "airbench", "data": "images"} | ({"model_args": TINY} if small else {})
    keys = {**AIRBENCH, "train.precision": "bf16", "train.microbatches": 1, "data.augment": LIST}
    recipe = {**AIRBENCH, **RECIPE} | ({} if small else {"train.epochs": 12})
    if small:
        keys, recipe = ({**one, "model.args": TINY} for one in (keys, recipe))
    return [
        Program("speed", "ours", OURS, "ours", 50, {"data": "images", "keys": keys}),
        *(
            Program("speed", name, title, "peers", 50, {**net, "loop": name}, needs)
            for name, (title, needs) in PEERS.items()
        ),
        Program(
            "speed", "recipe", "**Lockstep, `configs/cifar10.yaml`**", "ours", 80,
            {"data": "images", "keys": recipe, "test": True},
        ),
    ]  # fmt: skip


def large(small: bool) -> list[Program]:
    """Return the training of a larger net, which may reach 94 %."""
    args = {"widths": [128, 384, 384], "convolutions": 3, "residual": True}
    keys = {**AIRBENCH, **RECIPE, "train.epochs": 25, "model.args": args}
    options = {"data": "images", "keys": keys, "test": True}
    title = "**Lockstep**, that with a larger net, 25 epochs"
    return [] if small else [Program("speed", "large", title, "ours", 100, options)]


def photos(small: bool) -> list[Program]:
    """Return the trainers of a residual net on photographs."""
    model, args = (
        ("resnet_d", {"widths": [8, 8], "blocks": [1, 1]}) if small else ("timm:resnet50", {})
    )
    needs = ("timm",) if model.startswith("timm:") else ()
    size, side = (20, 32) if small else (128, 224)
    keys = {
        "model.name": model,
        "model.args": args,
        "train.precision": "bf16",
        "train.microbatches": 1,
        "train.batch_size": size,
        "data.augment": ["flip"],
    }
    files = {
        **keys,
        "data.image_size": [side, side],
        "data.augment": ["random_resized_crop", "flip"],
        "threads": 1 if small else 8,
    }
    decoded, cached = ({**files, "data.cache": kind} for kind in ("none", "memory"))
    peer = {"model": model, "model_args": args, "batch_size": size, "data": "pixels"}
    rows: list[tuple[str, str, str, dict[str, Any], tuple[str, ...]]] = [
        ("resident", "**Lockstep**, decoded beforehand", "ours",
         {"data": "pixels", "keys": keys}, needs),
        ("decoded", "**Lockstep**, JPEG files", "ours",
         {"data": "photos", "keys": decoded}, needs),
        ("cached", "**Lockstep**, JPEG files, kept", "ours",
         {"data": "photos", "keys": cached}, needs),
        ("plain_photos", "a plain loop, decoded beforehand", "peers",
         {**peer, "loop": "plain"}, needs),
        ("timm_photos", "timm's loader and loop, JPEG files", "peers",
         {**peer, "loop": "timm", "files": True}, ("timm", "torchvision")),
    ]  # fmt: skip
    return [
        Program("photos", name, title, module, 60, options, needed)
        for name, title, module, options, needed in rows
    ]


def modes(device: str, small: bool) -> list[Program]:
    """Return the same training with other keys.

    Those that compile have processes of their own, as nobody knows whether they end.
    """
    four = {"train.microbatches": 4}
    rows: dict[str, dict[str, Any]] = {
        "exact, 1 micro-batch": {},
        "exact, 4 micro-batches": four,
        "fast (free kernels), 1": {"train.reduction": "fast"},
        "fast (free kernels), 4": {"train.reduction": "fast", **four},
        "exact, fp32, 1": {"train.precision": "fp32"},
        "exact, tf32, 1": {"train.precision": "tf32"},
        "exact, fp16, 1": {"train.precision": "fp16"},
        "exact, 4, blocks computed again": {"train.activation_checkpointing": True, **four},
    }
    alone: dict[str, dict[str, Any]] = {
        "exact, compiled, 1": {"train.compile": "default"},
        "exact, compiled, 4": {"train.compile": "default", **four},
        "fast, compiled by max-autotune, 4": {**AUTOTUNED, **four},
    }
    recorded = {
        "fast, compiled by max-autotune, CUDA graphs, 1": AUTOTUNED,
        "fast, compiled by max-autotune, CUDA graphs, 4": {**AUTOTUNED, **four},
    }

    def complete(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {
            title: {
                **AIRBENCH, "train.precision": "bf16", "train.microbatches": 1, **changes,
                **({"model.args": TINY} if small else {}),
            }
            for title, changes in rows.items()
            if device == "cuda" or changes.get("train.precision") not in ("tf32", "fp16")
        }  # fmt: skip

    found = [
        Program("modes", "modes", "ways to compute", "ours", 100,
                {"data": "images", "variants": complete(rows)})
    ]  # fmt: skip
    if device == "cuda":
        found += [
            Program("modes", title, title, "ours", 60,
                    {"data": "images", "keys": keys, "graphs": title in recorded})
            for title, keys in complete({**alone, **recorded}).items()
        ]  # fmt: skip
    return found


OURS = "**Lockstep**, exact, one micro-batch"
TESTING = ("pytest", "pytest-timeout", "hypothesis")
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain": ("a plain loop, images on the device", ()),
    "airbench": ("a loop in airbench's manner", ()),
    "lightning": ("Lightning, workers", ("pytorch-lightning", "torchvision")),
    "timm": ("timm, workers", ("timm", "torchvision")),
}
TINY = {"widths": [4, 8, 8]}
LIST = ["alternating_flip", {"shift": {"fraction": 0.0625}}]
AUTOTUNED: dict[str, Any] = {"train.reduction": "fast", "train.compile": "max-autotune"}
AIRBENCH: dict[str, Any] = {"model.name": "airbench", "optimizer.lr": 1e-3}
RECIPE: dict[str, Any] = {
    "data.augment": LIST,
    "data.test_augment": "flip",
    "train.precision": "bf16",
    "train.microbatches": 4,
    "train.label_smoothing": 0.2,
    "optimizer.name": "muon",
    "optimizer.lr": 0.03,
    "optimizer.weight_decay": 0.05,
    "schedule.name": "linear",
    "schedule.warmup_epochs": 1.0,
}


# ------------------------------------------------------------------ the page


def tests_lines(found: Found) -> list[str]:
    """Return how many tests passed, what became of those that failed, and why some were skipped."""
    one = found["tests"]
    if "passed" not in one:
        return []
    lines = [f"{one['passed']} passed, {one['failed']} failed, {one['skipped']} skipped."]
    if one["failures"]:
        rows = [[f"`{name}`", cell(reason)] for name, reason in one["failures"].items()]
        lines += ["", *page.table(["failed", "with"], rows)]
    if one["skips"]:
        rows = [[cell(reason), str(count)] for reason, count in one["skips"].items()]
        lines += ["", *page.table(["skipped, as", "tests"], rows)]
    return lines


def same_lines(found: Found) -> list[str]:
    """Return a row for each precision: the digests, and which are another than the first."""
    digests = found["same"].get("digests", {})
    if not digests:
        return []
    done = {way for of_ways in digests.values() for way in of_ways}
    ways = [way for way in WAYS if way in done]
    rows = []
    for precision, of_ways in digests.items():
        first = next((one for one in of_ways.values() if is_digest(one)), "")
        cells = [same_cell(of_ways.get(way), first) for way in ways]
        rows.append([f"`{precision}`", *cells])
    return [
        "`train.reduction: exact` on the digits, with augmentation, mixup, batch norm, clipping",
        "and a moving average; processes without a GPU of their own share one, through gloo. The",
        "first twelve digits of the weights' SHA-256:",
        "",
        *page.table(["precision", *ways], rows),
    ]


def same_cell(digest: str | None, first: str) -> str:
    """Return a cell of `same_lines`."""
    if digest is None:
        return "missing"
    if not is_digest(digest):
        return cell(digest)
    return f"`{digest[:12]}`" + ("" if digest == first else " **differs**")


def is_digest(text: str) -> bool:
    """Tell whether a run ended with weights, and not with an error."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def images_lines(found: Found) -> list[str]:
    """Return where the images come from."""
    one = found["images"]
    if "images" not in one:
        return []
    counts = one["image_counts"]
    text = f"Small images: {one['images']}; {counts['train']:,}, and {counts['test']:,} of testing."
    if "photos" in one:
        text += f" Photographs: {one['photos']:,} JPEG files that are made."
    return [text]


def rate_lines(found: Found) -> list[str]:
    """Return a row for each trainer: images a second, seconds, memory, accuracy."""
    rows = []
    for one in rows_of(found):
        rates = one.get("images_per_second", [])
        counted = rates[WARM_UP_EPOCHS:]
        if not counted:
            rows.append([one["title"], cell(one["status"])[:200], "", "", "", ""])
            continue
        accuracy = one.get("accuracy")
        rows.append(
            [
                one["title"],
                f"{statistics.median(counted):,.0f}",
                f"{min(counted):,.0f} to {max(counted):,.0f}",
                f"{one['peak_mb']:,.0f}",
                f"{one['train_s']:.1f} s" if "train_s" in one else "",
                f"{accuracy:.4f}" if accuracy is not None else "",
            ]
        )
    heads = ["trainer", "images/s", "least to most", "peak MB", "training", "test accuracy"]
    return [
        "The median of all epochs but the first. The peak is of tensors on the device, or of the",
        "process on a CPU.",
        "",
        *page.table(heads, rows),
    ]


def rows_of(found: Found) -> Iterator[Mapping[str, Any]]:
    """Yield the figures of each training of the programs."""
    for one in found.values():
        if "variants" not in one:
            yield one
            continue
        for title, figures in one["variants"].items():
            yield {"status": one["status"], "title": title, **figures}


def speed_lines(found: Found) -> list[str]:
    """Return the rows of the small images, and whether 94 % were reached."""
    lines = rate_lines(found)
    reached = [
        f"{one['title']}: {one['train_s']:.1f} s"
        for one in found.values()
        if one.get("accuracy", 0.0) >= 0.94 and "train_s" in one
    ]
    return [*lines, "", f"94 % of the test images: {'; '.join(reached) or 'reached by none'}."]


def modes_lines(found: Found) -> list[str]:
    """Return the rows of the ways to compute, and how far torch's compiler had CUDA graphs."""
    rows = [
        [one["title"], str(one["graph_replays"]), str(one["graph_skips"])]
        for one in rows_of(found)
        if "graph_replays" in one
    ]
    heads = ["compiled", "replays of CUDA graphs", "graphs that torch left out"]
    return [*rate_lines(found), *(["", *page.table(heads, rows)] if rows else [])]


def cell(text: str) -> str:
    """Return text as a cell of a table."""
    return " ".join(text.replace("|", "/").split())


PARTS: dict[str, tuple[str, Callable[[Found], list[str]]]] = {
    "machine": ("The machine", lambda _: []),
    "tests": ("The tests", tests_lines),
    "same": ("The same bits", same_lines),
    "images": ("The images", images_lines),
    "speed": ("Small colour images", speed_lines),
    "photos": ("A residual net on photographs, bf16", rate_lines),
    "modes": ("Ways to compute", modes_lines),
}
"""title, and what makes the lines, of each part"""
