"""What the processes of a run do together: each function is called on all ranks or on none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from trainer.base.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.base.numerics import Environment
    from trainer.config.schema import RunConfig

T = TypeVar("T")

HEARTBEAT_S = 1.0


def run_on_main_rank(accelerator: Accelerator, function: Callable[[], T]) -> T:
    """Call `function` on rank 0 and return its result, or raise its `UserError`, on every rank."""
    from accelerate.utils import broadcast_object_list

    chosen = function if accelerator.is_main_process else None
    outcome = _wait_for_all(accelerator, lambda: [_attempt(chosen)])
    ((result, message),) = broadcast_object_list(outcome)
    if message:
        raise UserError(message)
    return result  # type: ignore[no-any-return]


def run_on_all_ranks(
    accelerator: Accelerator, function: Callable[[], T], *, one_first: bool = False
) -> T:
    """Call `function` on every rank; if any raises a `UserError`, all raise the first.

    Args:
        function: must not call a collective.
        one_first: on each machine one rank calls it first, and the others afterwards.
    """
    if not one_first:
        return _run_on_some_ranks(accelerator, function)  # type: ignore[return-value]
    goes_first = accelerator.is_local_main_process
    first = _run_on_some_ranks(accelerator, function if goes_first else None)
    second = _run_on_some_ranks(accelerator, None if goes_first else function)
    return first if goes_first else second  # type: ignore[return-value]


def _run_on_some_ranks(accelerator: Accelerator, function: Callable[[], T] | None) -> T | None:
    """Call `function` on this rank, or wait if it is None, and share the first error."""
    from accelerate.utils import gather_object

    result, message = _wait_for_all(accelerator, lambda: _attempt(function))
    failures = [text for text in gather_object([message]) if text]
    if failures:
        raise UserError(failures[0])
    return result


def _attempt(function: Callable[[], T] | None) -> tuple[T | None, str]:
    """Return the result of `function`, if there is one, and the text of its `UserError`."""
    try:
        return function() if function else None, ""
    except UserError as error:
        return None, str(error)


def _wait_for_all(accelerator: Accelerator, function: Callable[[], T]) -> T:
    """Return the result of `function` when all ranks have theirs, however long that takes.

    A rank that waits in a collective gives up after the group's timeout. So the ranks that still
    work say so every second, in a collective of all ranks; a rank that dies or hangs is noticed as
    usual.
    """
    if accelerator.num_processes == 1:
        return function()
    done = threading.Event()

    def send_heartbeats() -> None:
        while not done.wait(HEARTBEAT_S):
            try:
                _is_any_at_work(accelerator, True)
            except RuntimeError:  # this rank's next collective fails too, and is reported
                return

    heart = threading.Thread(target=send_heartbeats, daemon=True)
    heart.start()
    try:
        result = function()
    finally:
        done.set()
        heart.join()
    while _is_any_at_work(accelerator, False):
        pass
    return result


def _is_any_at_work(accelerator: Accelerator, this_rank: bool) -> bool:
    import torch
    import torch.distributed as dist

    at_work = torch.tensor([this_rank], dtype=torch.float32, device=accelerator.device)
    dist.all_reduce(at_work, op=dist.ReduceOp.MAX)
    return bool(at_work)


def barrier(accelerator: Accelerator) -> None:
    """Return when all ranks have come here."""
    if accelerator.num_processes > 1:
        import torch.distributed as dist

        # Accelerate's own takes the number of the process for that of its GPU, which may be shared.
        gpu = accelerator.device.index
        dist.barrier(device_ids=None if gpu is None else [gpu])


def max_over_ranks(accelerator: Accelerator, values: list[float]) -> list[float]:
    """Return the largest of each value over all ranks; waits for the device."""
    if accelerator.num_processes == 1:
        return values
    import torch
    import torch.distributed as dist

    tensor = torch.tensor(values, dtype=torch.float32, device=accelerator.device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    largest: list[float] = tensor.tolist()
    return largest


def check_same_configuration(accelerator: Accelerator, config: RunConfig) -> None:
    """Make sure that all ranks were started with the same configuration.

    Each rank reads the recipe from its own file system, and decides by it which collectives to
    call.

    Raises:
        UserError: names the rank and the keys.
    """
    if accelerator.num_processes == 1:
        return
    from accelerate.utils import gather_object

    from trainer.config.same_run import differences

    configs = gather_object([config])
    for rank, other in enumerate(configs):
        if lines := differences(other, configs[0]):
            raise UserError(
                f"--config: rank {rank} was started with another configuration than rank 0 "
                f"({'; '.join(lines)}); give all the same command and the same file"
            )


def check_same_parts(accelerator: Accelerator, parts: Mapping[str, str | None]) -> None:
    """Make sure that all ranks see the same images, code and weights.

    Args:
        parts: SHA-256 of what this rank sees, None for nothing, by the key that names it.

    Raises:
        UserError: names the key and the rank.
    """
    if accelerator.num_processes == 1:
        return
    from accelerate.utils import gather_object

    ranks = gather_object([dict(parts)])
    for rank, others in enumerate(ranks):
        for key, other in others.items():
            if other != ranks[0][key]:
                raise _different_part(key, rank, other, ranks[0][key])


def _different_part(key: str, rank: int, other: str | None, first: str | None) -> UserError:
    kind = {
        "data.root": "images",
        "model.safetensors": "weights",
        "model.weights": "weights",
        "train.teacher": "weights",
    }.get(key, "lines of code")
    return UserError(
        f"{key}: the {kind} of rank {rank} differ from those of rank 0 "
        f"(fingerprint {(other or 'none')[:12]} against {(first or 'none')[:12]}); use the same "
        f"files"
    )


def check_same_start(
    accelerator: Accelerator, *, weights: str, images: str, environment: Environment
) -> list[str]:
    """Compare what the ranks start from.

    Args:
        weights: digest of the model's weights.
        images: fingerprint of the data set.
        environment: what decides how this rank rounds.

    Returns:
        How the environments differ from rank 0's; with any difference bits cannot be equal.

    Raises:
        UserError: the weights or the images differ, so the ranks would not train the same model;
            or portable kernels cannot have the same bits.
    """
    if accelerator.num_processes == 1:
        return []
    from accelerate.utils import gather_object

    return compare_starts(gather_object([(weights, images, environment)]))


def compare_starts(starts: Sequence[tuple[str, str, Environment]]) -> list[str]:
    """Compare weights, images and environment of each rank, as `check_same_start` describes."""
    from trainer.base.numerics import differences, is_portable

    found = []
    for rank, (other_weights, other_images, other_environment) in enumerate(starts):
        if other_images != starts[0][1]:
            raise _different_part("data.root", rank, other_images, starts[0][1])
        if other_weights != starts[0][0]:
            raise UserError(
                f"model.name: rank {rank} begins with other weights than rank 0; a model must draw "
                f"them from torch's generators, which are seeded, or get them by model.weights"
            )
        lines = differences(starts[0][2], other_environment)
        if lines and is_portable(other_environment):
            raise UserError(
                f"train.kernels: portable cannot have the same bits on rank {rank} as on rank 0, "
                f"which has {'; '.join(lines)}; make these the same on all machines"
            )
        found += [f"rank 0 against rank {rank}: {line}" for line in lines]
    return found
