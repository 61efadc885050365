"""Do one task in several processes, for tests, and write its outcome as JSON.

The task is a JSON object {"name": ..., ...}; rank 0 writes the outcome.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from itertools import accumulate, islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from trainer.base.tensor_files import weights_sha256
from trainer.checkpoint.writing import Checkpoints, NoCheckpoints
from trainer.config import plugins
from trainer.config.schema import CheckpointConfig, RunConfig, TrainConfig, replace
from trainer.data import measurements, shared_images
from trainer.data.dataset import Dataset, ImageSet
from trainer.data.loading import load
from trainer.data.sources import reading
from trainer.data.stored.form import StoredForm
from trainer.network import model_state
from trainer.network.new_model import build_model
from trainer.ranks import collectives, mailboxes, memory_files, process_group
from trainer.ranks.preemption import StopRequest
from trainer.training import arriving_gradients, evaluation, exchange, figures
from trainer.training.engine import Engine
from trainer.training.optimizer_state import optimizer_state
from trainer.training.step import TrainStep
from trainer.training.step_log import StepLog


def train_each(
    accelerator: Accelerator,
    runs: list[dict[str, Any]],
    folder: str,
    bucket_bytes: list[int] | None = None,
) -> list[Any]:
    """Train each run on the digits; return digests of weights, optimiser state and predictions.

    Every other run exchanges in the memory of the machine, the others by sockets.
    """
    outcomes = []
    for number, changes in enumerate(runs):
        _exchange_early(bucket_bytes and bucket_bytes[number])
        # Gradients are summed as they come on one process, and all at once on two.
        arriving_gradients.CACHED_BYTES = 0 if accelerator.num_processes % 2 else 2**22
        mailboxes.close()
        if number % 2:
            mailboxes.open_for_all(accelerator, RunConfig().timeout_seconds)
        place = Path(folder) / f"{number}-{accelerator.num_processes}"
        engine = make_engine(accelerator, changes, Checkpoints(place, CheckpointConfig(keep=1)))
        engine.fit()
        weights = model_state.digest(engine.module)
        predictions = engine.test().test
        momenta, _ = optimizer_state(engine.optimizer.optimizer)
        outcomes.append(
            {
                "weights": weights,
                "chosen": model_state.digest(engine.module),
                "optimizer": weights_sha256(momenta),
                "losses": predictions.loss.tolist(),
                "accuracy": predictions.accuracy,
                "batches": [
                    int(value)
                    for name, value in engine.module.state_dict().items()
                    if name.endswith("num_batches_tracked")
                ],
            }
        )
    return outcomes


def make_engine(
    accelerator: Accelerator, changes: dict[str, Any], checkpoints: Checkpoints
) -> Engine:
    config = replace(RunConfig(), {"data.name": "digits", "train.microbatches": 4} | changes)
    dataset = load(config.data, config.seed)
    model = build_model(config, dataset)
    code = plugins.fingerprints(config)
    return Engine(accelerator, config, dataset, model, checkpoints, StopRequest(), code)


def _exchange_early(bucket_bytes: int | None) -> None:
    """Exchange in buckets of this size, as between machines of one process each."""
    if bucket_bytes is not None:
        exchange.BUCKET_BYTES, exchange.SMALL_BYTES = bucket_bytes, bucket_bytes // 4
        os.environ["LOCAL_WORLD_SIZE"] = "1"


def measure_each(accelerator: Accelerator, runs: list[dict[str, Any]], steps: int) -> list[int]:
    """Return the bytes that the results of this many steps keep alive until the next log point."""
    outcomes = []
    for changes in runs:
        engine = make_engine(accelerator, changes, NoCheckpoints())
        log = StepLog()
        for step, batch in enumerate(islice(engine.batches.iter_epoch(1, 0), steps), start=1):
            result = engine.train_step(step, batch.images, batch.targets, batch.microbatch_sizes)
            log.add(1, step, 0.1, sum(batch.microbatch_sizes), result)
        results = [result for *_, result in log._waiting]
        storages = [
            tensor.untyped_storage()
            for result in results
            for tensor in (result.loss, result.accuracy)
        ]
        unique = {storage.data_ptr(): storage.nbytes() for storage in storages}
        outcomes.append(sum(unique.values()))
    return outcomes


def measure_steps(
    accelerator: Accelerator, each: list[int], bucket_bytes: int | None, cached_bytes: int = 2**22
) -> list[dict[str, float]]:
    """Do steps of a net of eight equal layers, for each number of micro-batches to a rank.

    Returns:
        The most memory that a step takes, in gradients of the whole net, and the share of the
        vector whose exchange has begun before the first layer gets its gradient.
    """
    _exchange_early(bucket_bytes)
    arriving_gradients.CACHED_BYTES = cached_bytes
    return [_measure_steps(accelerator, own) for own in each]


def _measure_steps(accelerator: Accelerator, own: int) -> dict[str, float]:
    module = nn.Sequential(*[nn.Linear(256, 256, bias=False) for _ in range(8)])
    gradient_bytes = sum(parameter.nbytes for parameter in module.parameters())
    optimizer = accelerator.prepare_optimizer(torch.optim.SGD(module.parameters(), 0.1))
    config = TrainConfig(microbatches=own * accelerator.num_processes)
    train_step = TrainStep(accelerator, module, optimizer, config, seed=0)
    begun_bytes = 0
    shares: list[float] = []

    def sum_bytes(*arguments: Any) -> None:
        nonlocal begun_bytes
        begun_bytes += arguments[4] - arguments[3]
        actual_sum(*arguments)

    def note_share(*_: object) -> None:
        end_s = time.monotonic() + 10
        is_last = len(shares) % own == own - 1
        while step == 2 and is_last and begun_bytes < gradient_bytes / 2:
            arriving = train_step.arriving
            is_summed = not arriving or arriving.may_take(is_last=False)
            if is_summed or time.monotonic() > end_s:
                break
            time.sleep(0.001)
        shares.append(begun_bytes / gradient_bytes)

    actual_sum, images = exchange.sum_bytes, torch.randn(own, 256)
    module[0].register_full_backward_pre_hook(note_share)
    for step in (1, 2):  # the first one finds out how the gradients come
        begun_bytes = 0
        module.zero_grad()  # those of the step before count too
        with (
            patch.object(exchange, "sum_bytes", sum_bytes),
            torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
            ) as profiler,
        ):
            sizes = [1] * own * accelerator.num_processes
            train_step(step, images, torch.zeros(own, dtype=torch.int64), sizes)
    changes = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    most = max(accumulate(event.nbytes() for event in changes))
    return {"gradients": most / gradient_bytes, "begun": shares[-1]}


def predict_each(accelerator: Accelerator, sizes: list[int]) -> list[Any]:
    """Classify test sets of several sizes with a model that is not trained."""
    changes = {"data.name": "digits", "model.name": "lab_cnn", "train.microbatches": 1}
    config = replace(RunConfig(), changes)
    dataset = load(config.data, config.seed)
    model = build_model(config, dataset)
    outcomes = []
    for size in sizes:
        images = ImageSet(dataset.train.images[:size], dataset.train.targets[:size])
        kept = evaluation.kept_probabilities(len(dataset.class_names))
        predictions = evaluation.predict(accelerator, model, images, dataset.scaling, kept=kept)
        outcomes.append(
            {
                "target": predictions.target.tolist(),
                "predicted": predictions.predicted.tolist(),
                "probability": predictions.probability.tolist(),
                "loss": predictions.loss.tolist(),
                "probabilities": predictions.probabilities.tolist(),
            }
        )
    outcomes[-1]["figures"] = figures.compute(predictions, config.seed)
    return outcomes


def wait_for_each(accelerator: Accelerator, seconds: float, calls: str) -> Any:
    """Let single ranks work for this long; return what all ranks then have."""
    rank = accelerator.process_index

    def work() -> int:
        time.sleep(seconds)
        with Path(calls).open("a") as file:
            file.write(f"{rank}\n")
        return rank

    from_main = collectives.run_on_main_rank(accelerator, work)
    collectives.run_on_all_ranks(accelerator, work, one_first=True)
    of_rank_1 = collectives.run_on_all_ranks(accelerator, lambda: work() if rank == 1 else -1)
    return accelerator.gather(torch.tensor([[from_main, of_rank_1]])).tolist()


def load_once(accelerator: Accelerator, kind: str) -> list[Any]:
    """Load the digits once for both ranks; return what each has of them, and in which memory.

    Args:
        kind: "at once": both load; "other machine": the second rank believes to be on another one.
    """
    config, loads = replace(RunConfig(), {"data.name": "digits"}), list[int]()

    def load_and_count() -> Dataset:
        loads.append(1)
        return load(config.data, config.seed)

    if kind == "other machine" and not accelerator.is_main_process:
        memory_files._BOOT_ID = Path(os.devnull)
    dataset = shared_images.load_once(accelerator, load_and_count, at_once=kind == "at once")
    dataset = dataset.to(accelerator.device)
    sets = (dataset.train, dataset.validation, dataset.test)
    found = {
        "sha256": [measurements.fingerprint_of(images) for images in sets],
        "classes": len(dataset.class_names),
        "loads": len(loads),
    }
    return gather_object([found | _shared_memory(accelerator)])


def keep_photographs(accelerator: Accelerator, root: str, elsewhere: bool) -> list[Any]:
    """Fetch photographs twice, each rank first its half, then all; return what each then has.

    Args:
        elsewhere: whether the second rank believes to be on another machine.
    """
    keys = {"name": "folder", "root": root, "cache": "memory", "scaling": "imagenet"}
    keys |= {"augment": ["random_resized_crop"], "image_size": 32, "validation_size": 0}
    config = replace(RunConfig(), {f"data.{key}": value for key, value in keys.items()})
    if elsewhere and not accelerator.is_main_process:
        memory_files._BOOT_ID = Path(os.devnull)
    collectives.run_on_all_ranks(accelerator, lambda: reading.prepare(config.data), one_first=True)
    dataset = shared_images.load_once(
        accelerator, lambda: load(config.data, config.seed), at_once=True
    )
    train, decoded = dataset.train, list[int]()
    make = StoredForm.make

    def make_and_count(*arguments: Any) -> Any:
        decoded.append(1)
        return make(*arguments)

    own = torch.arange(len(train)).tensor_split(2)[accelerator.process_index]
    before_bytes = _private_bytes()
    with patch.object(StoredForm, "make", make_and_count):
        train.fetch(own)
        accelerator.wait_for_everyone()
        for _ in range(2):  # as the others have decoded them, and as they are kept
            pixels, _ = train.fetch(torch.arange(len(train)))
    sha256 = hashlib.sha256(pixels.numpy()).hexdigest()
    found = {"decoded": len(decoded), "sha256": sha256, **_shared_memory(accelerator)}
    found["private_bytes"] -= before_bytes
    return gather_object([found])


def cache_features(accelerator: Accelerator) -> list[Any]:
    """Compute features once for both ranks; return what each has of them, and in which memory."""
    changes = {
        "model.name": "quicknet", "model.args": {"widths": [8, 16, 64]}, "data.augment": "none",
        "train.freeze": "backbone", "train.cache_features": True,
    }  # fmt: skip
    cached = make_engine(accelerator, changes, NoCheckpoints()).cached
    assert cached is not None
    dataset = cached.dataset(lambda: None)
    found = {
        "sha256": [
            weights_sha256({"features": images.images})
            for images in (dataset.train, dataset.validation)
        ],
        "bytes": dataset.train.images.nbytes + dataset.validation.images.nbytes,
    }
    return gather_object([found | _shared_memory(accelerator)])


def _shared_memory(accelerator: Accelerator) -> dict[str, Any]:
    """Return how much memory this process shares and has alone, once all have read the images."""
    accelerator.wait_for_everyone()  # a page is private until another process has read it
    found = {
        "shared_bytes": _mapped_bytes("Rss"),
        "own_bytes": _mapped_bytes("Pss"),
        "private_bytes": _private_bytes(),
    }
    accelerator.wait_for_everyone()  # so that the other one still maps them
    return found


def _private_bytes() -> int:
    """Return Linux's figure of the memory that only this process has."""
    lines = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(size) * 1024 for size in re.findall(r"\nPrivate_\w+: +(\d+)", lines))


def _mapped_bytes(key: str) -> int:
    """Return Linux's figure of the mappings of shared images in this process."""
    mappings = re.split(r"\n(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text())
    shared = [text for text in mappings if "memfd:lockstep" in text.partition("\n")[0]]
    return sum(int(re.findall(rf"\n{key}: +(\d+)", text)[0]) * 1024 for text in shared)


TASKS = {
    "train": train_each,
    "measure": measure_each,
    "load once": load_once,
    "keep photographs": keep_photographs,
    "cache features": cache_features,
    "measure steps": measure_steps,
    "predict": predict_each,
    "wait": wait_for_each,
}


def main(words: str, output: str) -> None:
    """Do the task on all ranks."""
    task = json.loads(words)
    timeout = {"timeout_seconds": task.pop("timeout_seconds", RunConfig().timeout_seconds)}
    accelerator = process_group.create_accelerator(replace(RunConfig(), timeout))
    torch.set_num_threads(1)
    outcome = TASKS[task.pop("name")](accelerator, **task)
    if accelerator.is_main_process:
        Path(output).write_text(json.dumps(outcome))
    process_group.leave(accelerator)
