"""What the processes of a run do together: each function is called by all of them or by none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from trainer.base.errors import UserError
from trainer.ranks.long_work import awaited

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.base.numerics import Environment
    from trainer.config.schema import RunConfig

T = TypeVar("T")


def on_main(accelerator: Accelerator, function: Callable[[], T]) -> T:
    """Call `function` on rank 0 and give its result, or its `UserError`, to every rank."""
    from accelerate.utils import broadcast_object_list

    def attempt() -> list[Any]:
        if not accelerator.is_main_process:
            return [None, None]
        try:
            return [function(), None]
        except UserError as error:
            return [None, str(error)]

    outcome = awaited(accelerator, attempt)
    broadcast_object_list(outcome)
    result, message = outcome
    if message is not None:
        raise UserError(message)
    return result  # type: ignore[no-any-return]


def together(accelerator: Accelerator, function: Callable[[], T], *, once: bool = False) -> T:
    """Call `function` on every rank; where any raises a `UserError`, all raise the first.

    Args:
        function: has no collectives in it.
        once: one rank of each machine goes first, alone, and the others call it afterwards.
    """
    if not once:
        return _all_call(accelerator, function)  # type: ignore[return-value]
    goes_first = accelerator.is_local_main_process
    first = _all_call(accelerator, function if goes_first else None)
    second = _all_call(accelerator, None if goes_first else function)
    return first if goes_first else second  # type: ignore[return-value]


def _all_call(accelerator: Accelerator, function: Callable[[], T] | None) -> T | None:
    """A collective; None: this rank only waits."""

    def attempt() -> tuple[T | None, str]:
        try:
            return function() if function else None, ""
        except UserError as error:
            return None, str(error)

    result, message = awaited(accelerator, attempt)
    _share_errors(message)
    return result


def _share_errors(message: str) -> None:
    from accelerate.utils import gather_object

    failures = [text for text in gather_object([message]) if text]
    if failures:
        raise UserError(failures[0])


def agree(accelerator: Accelerator, values: list[float]) -> list[float]:
    """The largest of each value over all ranks: a collective that waits for the device."""
    if accelerator.num_processes == 1:
        return values
    import torch
    import torch.distributed as dist

    tensor = torch.tensor(values, dtype=torch.float32, device=accelerator.device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    agreed: list[float] = tensor.tolist()
    return agreed


def check_same_configuration(accelerator: Accelerator, config: RunConfig) -> None:
    """Make sure that all ranks were started with one configuration; a collective.

    Each reads the recipe from its own file system, and by it decides which collectives to call.

    Raises:
        UserError: names the rank and the keys.
    """
    if accelerator.num_processes == 1:
        return
    from accelerate.utils import gather_object

    from trainer.config.schema import differences

    configs = gather_object([config])
    for rank, other in enumerate(configs):
        if lines := differences(other, configs[0]):
            raise UserError(
                f"--config: rank {rank} was started with another configuration than rank 0 "
                f"({'; '.join(lines)}); give all the same command and the same file"
            )


def check_same_parts(accelerator: Accelerator, parts: Mapping[str, str | None]) -> None:
    """Make sure that all ranks see the same images, code and weights; a collective.

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
                raise _other_part(key, rank, other, ranks[0][key])


def _other_part(key: str, rank: int, other: str | None, first: str | None) -> UserError:
    kind = {"data.root": "images", "model.safetensors": "weights"}.get(key, "lines of code")
    return UserError(
        f"{key}: the {kind} of rank {rank} differ from those of rank 0 "
        f"(fingerprint {(other or 'none')[:12]} against {(first or 'none')[:12]}); use the same "
        f"files"
    )


def check_same_start(
    accelerator: Accelerator, *, weights: str, images: str, environment: Environment
) -> list[str]:
    """Compare what the ranks start from; a collective.

    Args:
        weights: digest of the model's weights.
        images: fingerprint of the data set.
        environment: what decides how this rank rounds.

    Returns:
        How the environments differ from rank 0's, which bits cannot survive.

    Raises:
        UserError: the weights or the images differ, so it would be no training of one model.
    """
    if accelerator.num_processes == 1:
        return []
    from accelerate.utils import gather_object

    return compare_starts(gather_object([(weights, images, environment)]))


def compare_starts(starts: Sequence[tuple[str, str, Environment]]) -> list[str]:
    """As `check_same_start`, from weights, images and environment of each rank in their order."""
    from trainer.base.numerics import differences

    found = []
    for rank, (other_weights, other_images, other_environment) in enumerate(starts):
        if other_images != starts[0][1]:
            raise _other_part("data.root", rank, other_images, starts[0][1])
        if other_weights != starts[0][0]:
            raise UserError(
                f"model.name: rank {rank} begins with other weights than rank 0; a model must draw "
                f"them from torch's generators, which are seeded, or get them by model.weights"
            )
        lines = differences(starts[0][2], other_environment)
        found += [f"rank 0 against rank {rank}: {line}" for line in lines]
    return found
