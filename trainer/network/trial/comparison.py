"""Whether imaginary processes that compute the same come to the same bits."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field

import torch

from trainer.base import out_of_memory, seeding
from trainer.base.errors import UserError
from trainer.base.tensor_files import Tensors
from trainer.network import model_state
from trainer.network.model_state import same_bits
from trainer.network.new_model import fill_new_memory
from trainer.network.trial.attributes import Watch, changed, listing, put_back
from trainer.network.trial.counters import Counters
from trainer.network.trial.processes import Bits, Pass, Process, Task


@dataclass
class Record:
    """What the process that computes all has done."""

    passes: dict[tuple[int, int], Pass] = field(default_factory=dict)
    """by step, from 1, and micro-batch"""
    blocks: dict[int, Pass] = field(default_factory=dict)
    """of the evaluation after the first step"""
    sums: list[torch.Tensor] = field(default_factory=list)
    """the buffers' changes in the first step"""
    gradients: Tensors = field(default_factory=dict)
    """their sums in the first step"""
    state: Tensors = field(default_factory=dict)
    """after the first step"""


def examine(task: Task) -> list[str]:
    """What differs, in words; nothing where all bits are equal.

    Raises:
        UserError: a pass puts other parameters in the place of those that are to be trained.
    """
    with seeding.preserve_generators():
        found = _Trial(task, watched=False).differences()
        if found:  # once more to see where; a watched network may take slower ways
            found = _Trial(task, watched=True).differences() or found
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()  # it has noted the trial's shapes
    return found


class _Trial:
    def __init__(self, task: Task, *, watched: bool) -> None:
        self.task = task
        self.watched = watched
        self.last = len(task.pieces) - 1
        self.found: list[str] = []

    def differences(self) -> list[str]:
        watch = Watch()
        try:
            record, attributes = self._alone(watch)
            if self.last:
                self._beside(record, attributes)
            self._resumed(record, attributes)
        finally:
            put_back(watch)
        return self.found

    def _alone(self, watch: Watch) -> tuple[Record, list[str]]:
        """All micro-batches in their order, an evaluation between the steps."""
        process, record = Process(self.task, watched=self.watched), Record()
        counters = Counters(process.module, watch)
        first = watch.look(process.module)
        total = sum(len(targets) for _, targets in self.task.pieces)
        for step in (1, 2):
            process.module.train()
            process.buffers.start_step()
            for index, (_, targets) in enumerate(self.task.pieces):
                if index:
                    process.buffers.restore()
                with counters.counting():
                    found = process.train(step, index)
                record.passes[step, index] = found
                if step == 1:
                    changes = process.buffers.changes(len(targets) / total, index == 0)
                    self._add(record, changes, found)
                found.gradients = {}
            if step == 1:
                if self.last:
                    process.buffers.finish([vector.clone() for vector in record.sums])
                process.update(record.gradients)
                record.state = model_state.copy_tensors(process.module)
                with counters.counting(between=True):
                    record.blocks = process.evaluate(range(self.last + 1))
                    process.module.train()
        attributes = changed(first, watch.look(process.module))
        self._turn_on(process, counters, record)
        return record, attributes

    def _add(self, record: Record, changes: list[torch.Tensor], found: Pass) -> None:
        if not record.sums:
            record.sums = [vector.clone() for vector in changes]
        else:
            for mine, other in zip(record.sums, changes, strict=True):
                mine.add_(other)
        for name, gradient in found.gradients.items():
            ours = record.gradients.get(name)
            record.gradients[name] = gradient if ours is None else ours + gradient

    def _turn_on(self, process: Process, counters: Counters, record: Record) -> None:
        """As if many steps had been done: whatever counts passes is set to other numbers."""

        def other() -> str | None:
            process.buffers.restore()
            try:
                again = process.train(2, self.last)
            except UserError:
                raise
            except Exception as error:
                if out_of_memory.is_out_of_memory(error):
                    raise
                return f"a pass fails where it has counted many ({error})"
            differing = _differing(record.passes[2, self.last], again)
            return "what is computed depends on it" if differing else None

        for name, words in counters.that_matter(other):
            self.found.append(
                f"{name} counts passes, and {words}, but another process has not as many of them, "
                f"and one that resumes has none"
            )

    def _beside(self, record: Record, attributes: list[str]) -> None:
        """The second micro-batch alone, as another process has it."""
        process = Process(self.task, watched=self.watched)
        where = "on a second process"
        for step in (1, 2):
            process.module.train()
            process.buffers.start_step()
            found = process.train(step, self.last)
            found.gradients = {}
            self._compare("a micro-batch", where, record.passes[step, self.last], found, attributes)
            if step == 1:
                process.buffers.finish([vector.clone() for vector in record.sums])
                process.update(record.gradients)
                record.gradients = {}
                self._compare_states("after a step", where, record, process, attributes)
                blocks = process.evaluate([self.last])
                self._compare_blocks(where, record, blocks, attributes)

    def _resumed(self, record: Record, attributes: list[str]) -> None:
        """The second step from what a checkpoint holds after the first.

        In memory filled with NaN, which shows whether something is read that nobody has written.
        """
        # Where the kernels are any, these would be others than before.
        chosen = torch.get_deterministic_debug_mode() > 0
        with fill_new_memory() if chosen else contextlib.nullcontext():
            self._go_on(record, attributes)

    def _go_on(self, record: Record, attributes: list[str]) -> None:
        process, where = Process(self.task, watched=self.watched), "after a resume"
        process.load(record.state)
        self._compare_states("from a checkpoint", where, record, process, attributes)
        self._compare_blocks(where, record, process.evaluate([self.last]), attributes)
        process.module.train()
        process.buffers.start_step()
        found = process.train(2, self.last)
        self._compare("a micro-batch", where, record.passes[2, self.last], found, attributes)

    def _compare_blocks(
        self, where: str, record: Record, blocks: dict[int, Pass], attributes: list[str]
    ) -> None:
        for index, found in blocks.items():
            self._compare("an evaluation", where, record.blocks[index], found, attributes)

    def _compare_states(
        self, when: str, where: str, record: Record, process: Process, attributes: list[str]
    ) -> None:
        ours, theirs = record.state, model_state.tensors(process.module)
        names = [
            name
            for name in sorted(ours.keys() | theirs.keys())
            if name not in ours or name not in theirs or not same_bits(ours[name], theirs[name])
        ]
        if names:
            self.found.append(f"{when} {listing(names)} has other values {where}")

    def _compare(
        self, what: str, where: str, ours: Pass, theirs: Pass, attributes: list[str]
    ) -> None:
        labels = _differing(ours, theirs)
        if not labels:
            return
        text = f"{what} gives other bits {where} ({listing(labels)})"
        if ours.modules:
            text += _place(ours, theirs)
        if attributes:
            text += f"; what it keeps and no process knows of another: {listing(attributes)}"
        self.found.append(text)


def _place(ours: Pass, theirs: Pass) -> str:
    """The first module that makes something else of the same."""
    for (name, inputs, outputs), (other, other_inputs, other_outputs) in zip(
        ours.modules, theirs.modules, strict=False
    ):
        if name != other or _apart(inputs, other_inputs):
            break
        if _apart(outputs, other_outputs):
            return f", first in the module {name}" if name else ", in its own forward()"
    return ""


def _differing(ours: Pass, theirs: Pass) -> list[str]:
    return _apart(ours.bits, theirs.bits)


def _apart(ours: Bits, theirs: Bits) -> list[str]:
    return [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
