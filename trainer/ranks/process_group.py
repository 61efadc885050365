"""The processes of a command that computes together with others, but writes no run's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainer.base.errors import (
    DifferentRunError,
    FirstFailureError,
    LostRankError,
    NonFiniteLossError,
    StoppedOnRequest,
    UserError,
)
from trainer.config.schema import RunConfig, replace
from trainer.ranks import collectives, lost_ranks, processes

if TYPE_CHECKING:
    from accelerate import Accelerator

OF_ALL_RANKS = (
    UserError,
    StoppedOnRequest,
    NonFiniteLossError,
    DifferentRunError,
    FirstFailureError,
    LostRankError,
    KeyboardInterrupt,
)
"""no rank has to be told of these, or all know already"""


@contextlib.contextmanager
def joined(config: RunConfig) -> Iterator[Accelerator]:
    """Join the group that a launcher has started, or be alone; leave it at the end.

    Args:
        config: its precision and timeout count; however many processes there are will do.

    Raises:
        UserError: there is a part of a launcher's variables alone, fp16 without a GPU, or another
            configuration on another rank.
        LostRankError: another rank has failed.
    """
    processes.check_launch(replace(config, {"processes": None}))
    accelerator = processes.create_accelerator(config)
    lost_ranks.announce(accelerator)
    try:
        collectives.check_same_configuration(accelerator, config)
        yield accelerator
    except OF_ALL_RANKS:
        raise
    except BaseException as error:
        lost = lost_ranks.explain(accelerator, error)
        if lost:
            raise lost from error
        raise
    processes.leave(accelerator)
