"""Whether imaginary processes that compute the same get the same bits."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

import torch

from trainer.base import out_of_memory, seeding
from trainer.base.errors import UserError
from trainer.base.tensor_files import Tensors
from trainer.network import model_state
from trainer.network.new_model import fill_new_memory
from trainer.network.trial.attributes import describe_attributes, preserve_shared_numbers
from trainer.network.trial.counters import Counters
from trainer.network.trial.simulated_process import Bits, Pass, Process, Task

_MOST_NAMES = 3


def find_differences(task: Task) -> list[str]:
    """Return what differs, in words; nothing if all bits are equal.

    Raises:
        UserError: a pass puts other parameters in the place of those that are to be trained.
    """
    with seeding.preserve_generators():
        found = _Comparison(task, watched=False).run()
        if found:  # once more to see where; a watched network may take slower ways
            found = _Comparison(task, watched=True).run() or found
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()  # it has noted the trial's shapes
    return found


class _Comparison:
    """Three processes: the first computes all, and the others are compared with it."""

    def __init__(self, task: Task, *, watched: bool) -> None:
        self.task = task
        self.watched = watched
        self.last = len(task.pieces) - 1
        self.found: list[str] = []
        self.passes: dict[tuple[int, int], Pass] = {}
        """of the first process, by step, from 1, and micro-batch"""
        self.blocks: dict[int, Pass] = {}
        """of its evaluation after the first step"""
        self.sums: list[torch.Tensor] = []
        """its buffers' changes in the first step"""
        self.gradients: Tensors = {}
        """their sums in the first step"""
        self.state: Tensors = {}
        """after the first step"""
        self.changed_attributes: list[str] = []

    def run(self) -> list[str]:
        first = Process(self.task, watched=self.watched)
        with preserve_shared_numbers(first.module):
            self._compute_all(first)
            del first
            if self.last:
                self._compute_second_microbatch()
            # In memory filled with NaN, which shows whether something is read that nothing has
            # written. Where any kernels are used, these would be others than before.
            deterministic = torch.get_deterministic_debug_mode() > 0
            with fill_new_memory() if deterministic else contextlib.nullcontext():
                self._resume()
        return self.found

    def _compute_all(self, process: Process) -> None:
        """Compute all micro-batches in their order, with an evaluation between the steps."""
        counters = Counters(process.module)
        before = describe_attributes(process.module)
        total = sum(len(targets) for _, targets in self.task.pieces)
        for step in (1, 2):
            process.freezing.set_training_mode()
            process.buffers.start_step()
            for index, (_, targets) in enumerate(self.task.pieces):
                if index:
                    process.buffers.restore()
                with counters.watch():
                    found = process.train(step, index)
                self.passes[step, index] = found
                if step == 1:
                    self._add(process.buffers.changes(len(targets) / total, index == 0), found)
                found.gradients = {}
            if step == 1:
                if self.last:
                    process.buffers.finish([vector.clone() for vector in self.sums])
                process.update(self.gradients)
                self.state = model_state.copy_tensors(process.module)
                with counters.watch(between=True):
                    self.blocks = process.evaluate(range(self.last + 1))
                    process.freezing.set_training_mode()
        after = describe_attributes(process.module)
        self.changed_attributes = [
            name for name, value in after.items() if name not in before or before[name] != value
        ]
        self._try_large_counts(process, counters)

    def _add(self, changes: list[torch.Tensor], found: Pass) -> None:
        if not self.sums:
            self.sums = [vector.clone() for vector in changes]
        else:
            for mine, other in zip(self.sums, changes, strict=True):
                mine.add_(other)
        for name, gradient in found.gradients.items():
            ours = self.gradients.get(name)
            self.gradients[name] = gradient if ours is None else ours + gradient

    def _try_large_counts(self, process: Process, counters: Counters) -> None:
        """Set what counts passes to other numbers, as if many steps had been done."""

        def try_pass() -> str | None:
            process.buffers.restore()
            try:
                again = process.train(2, self.last)
            except UserError:
                raise
            except Exception as error:
                if out_of_memory.is_out_of_memory(error):
                    raise
                return f"a pass fails where it has counted many ({error})"
            differing = _differing(self.passes[2, self.last].bits, again.bits)
            return "what is computed depends on it" if differing else None

        for name, words in counters.find_influential(try_pass):
            self.found.append(
                f"{name} counts passes, and {words}, but another process has a smaller count, and "
                f"one that resumes has none"
            )

    def _compute_second_microbatch(self) -> None:
        """Compute only the second micro-batch, as another process does."""
        process, where = Process(self.task, watched=self.watched), "on a second process"
        for step in (1, 2):
            process.freezing.set_training_mode()
            process.buffers.start_step()
            found = process.train(step, self.last)
            found.gradients = {}
            self._compare("a micro-batch", where, self.passes[step, self.last], found)
            if step == 1:
                process.buffers.finish([vector.clone() for vector in self.sums])
                process.update(self.gradients)
                self.gradients = {}
                self._compare_state("after a step", where, process)
                self._compare_evaluation(where, process)

    def _resume(self) -> None:
        """Compute the second step from a checkpoint of the first."""
        process, where = Process(self.task, watched=self.watched), "after a resume"
        process.load(self.state)
        self._compare_state("from a checkpoint", where, process)
        self._compare_evaluation(where, process)
        process.freezing.set_training_mode()
        process.buffers.start_step()
        found = process.train(2, self.last)
        self._compare("a micro-batch", where, self.passes[2, self.last], found)

    def _compare_evaluation(self, where: str, process: Process) -> None:
        found = process.evaluate([self.last])[self.last]
        self._compare("an evaluation", where, self.blocks[self.last], found)

    def _compare_state(self, when: str, where: str, process: Process) -> None:
        ours, theirs = self.state, model_state.tensors(process.module)
        names = [
            name
            for name in sorted(ours.keys() | theirs.keys())
            if name not in ours
            or name not in theirs
            or not model_state.same_bits(ours[name], theirs[name])
        ]
        if names:
            self.found.append(f"{when} {_list(names)} has other values {where}")

    def _compare(self, what: str, where: str, ours: Pass, theirs: Pass) -> None:
        labels = _differing(ours.bits, theirs.bits)
        if not labels:
            return
        text = f"{what} gives other bits {where} ({_list(labels)})"
        if ours.modules:
            text += _place(ours, theirs)
        if self.changed_attributes:
            text += (
                f"; what it remembers and no process knows of another: "
                f"{_list(self.changed_attributes)}"
            )
        self.found.append(text)


def _place(ours: Pass, theirs: Pass) -> str:
    """Return the first module that makes something else of the same inputs."""
    for (name, inputs, outputs), (other, other_inputs, other_outputs) in zip(
        ours.modules, theirs.modules, strict=False
    ):
        if name != other or _differing(inputs, other_inputs):
            break
        if _differing(outputs, other_outputs):
            return f", first in the module {name}" if name else ", in its own forward()"
    return ""


def _differing(ours: Bits, theirs: Bits) -> list[str]:
    return [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
