"""Damage checkpoints: every file of one, every kind of place in it, every kind of damage.

Each must be detected, named and answered by the checkpoint before.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fault_runs import Attempt, FaultError, Recipe, differences

from trainer.checkpoint.reading import MANIFEST
from trainer.checkpoint.writing import Checkpoints
from trainer.config.schema import CheckpointConfig

# With a moving average and validation a checkpoint has all the files that there are.
RECIPE = Recipe("digits", 10, ("--train.epochs", "4", "--train.ema_decay", "0.9"))
SECTOR_BYTES = 512

Damage = Callable[[bytes, int, np.random.Generator], bytes]


@dataclass(frozen=True)
class Case:
    """One way to damage a checkpoint."""

    file: str
    place: str
    damage: str


@dataclass(frozen=True)
class Draw:
    """A damaged checkpoint, and what came of it."""

    case: Case
    position: int
    problem: str | None

    def __str__(self) -> str:
        return f"{self.case.damage} in {self.case.file} at byte {self.position} ({self.case.place})"


def flip(content: bytes, position: int, generator: np.random.Generator) -> bytes:
    """Flip a bit."""
    changed = bytearray(content)
    changed[position] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def zero(content: bytes, position: int, generator: np.random.Generator) -> bytes:
    """Fill a sector, or the start of one, with zeros, as if the disk had never written it."""
    count = min(int(generator.integers(1, SECTOR_BYTES + 1)), len(content) - position)
    return content[:position] + bytes(count) + content[position + count :]


def truncate(content: bytes, position: int, generator: np.random.Generator) -> bytes:
    """Remove the end."""
    return content[:position]


def extend(content: bytes, generator: np.random.Generator) -> bytes:
    """Append random bytes."""
    return content + generator.bytes(int(generator.integers(1, 4096)))


DAMAGES: dict[str, Damage] = {"flip": flip, "zero": zero, "truncate": truncate}
"""at a place"""
EXCHANGE = "the file of the checkpoint before"
WHOLE_FILE = ("extend", "remove", EXCHANGE)
ANYWHERE = "the whole file"


def places(file: str, content: bytes) -> dict[str, range]:
    """Return the kinds of places in a file, and their bytes."""
    size = len(content)
    found = {"first byte": range(1), "last byte": range(size - 1, size)}
    if file.endswith(".safetensors"):
        data = 8 + int.from_bytes(content[:8], "little")
        found |= {"length of the header": range(8), "header": range(8, data)}
        return found | {"tensors": range(data, size)}
    return found | {"inside": range(1, size - 1)}


def cases(folder: Path) -> list[Case]:
    """Return every way to damage the checkpoint in `folder`."""
    found = []
    for path in sorted(folder.iterdir()):
        kinds = places(path.name, path.read_bytes())
        found += [Case(path.name, *pair) for pair in itertools.product(kinds, DAMAGES)]
        found += [Case(path.name, ANYWHERE, damage) for damage in WHOLE_FILE]
    return found


def damage(case: Case, checkpoints: Path, generator: np.random.Generator) -> int | None:
    """Damage the newest checkpoint; return at which byte, or None if nothing has changed."""
    before, newest = names(checkpoints)
    path = checkpoints / newest / case.file
    content = path.read_bytes()
    position = 0
    if case.damage == "remove":
        path.unlink()
        return position
    if case.damage == EXCHANGE:
        changed = (checkpoints / before / case.file).read_bytes()
    elif case.damage == "extend":
        changed, position = extend(content, generator), len(content)
    else:
        position = int(generator.choice(places(case.file, content)[case.place]))
        changed = DAMAGES[case.damage](content, position, generator)
    path.write_bytes(changed)
    return position if changed != content else None


def names(checkpoints: Path) -> tuple[str, str]:
    """Return the last but one checkpoint and the last."""
    before, newest = sorted(path.name for path in checkpoints.glob("step-*"))[-2:]
    return before, newest


def problem_of(checkpoints: Path, case: Case, said: list[str]) -> str | None:
    """Return what is wrong with the answer to a damaged checkpoint; None if nothing is."""
    before, newest = names(checkpoints)
    try:
        found = Checkpoints(checkpoints, CheckpointConfig()).newest()
    except Exception as error:  # a user would have had any of them
        return f"{type(error).__name__}: {error}"
    if found is None or found.folder.name != before:
        return "the checkpoint before was not used"
    # The manifest of the other checkpoint is whole, and does not fit the files that it finds.
    foreign_manifest = case.file == MANIFEST and case.damage == EXCHANGE
    named = str(Path(newest) / ("" if foreign_manifest else case.file))
    if not any(named in line for line in said):
        return "the damaged file was not named"
    if not (checkpoints / f"damaged-{newest}").is_dir():
        return "the damaged checkpoint was not set aside"
    return None


@contextlib.contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Collect the library's warnings instead of showing them."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("lockstep")
    log.addHandler(handler)
    log.propagate = False
    try:
        yield said
    finally:
        log.removeHandler(handler)
        log.propagate = True


def run(folder: Path, count: int, seed: int) -> Iterator[Draw]:
    """Train a run, and damage copies of its newest checkpoint, by all cases in a drawn order.

    A draw that changes nothing, such as a zero for a zero, does not count.
    """
    Attempt(folder / "undisturbed", RECIPE, processes=1).finish()
    pristine = folder / "undisturbed" / "checkpoints"
    generator = np.random.default_rng(seed)
    all_cases = cases(pristine / names(pristine)[1])
    turns = itertools.cycle(all_cases[index] for index in generator.permutation(len(all_cases)))
    with collect_warnings() as said:
        made = 0
        while made < count:
            case = next(turns)
            with tempfile.TemporaryDirectory() as parent:
                checkpoints = Path(parent) / "checkpoints"
                shutil.copytree(pristine, checkpoints)
                position = damage(case, checkpoints, generator)
                if position is not None:
                    said.clear()
                    yield Draw(case, position, problem_of(checkpoints, case, said))
                    made += 1


def resume(folder: Path, seed: int) -> Iterator[Draw]:
    """After `run`: damage each file once, and let the command finish the run."""
    pristine = folder / "undisturbed"
    generator = np.random.default_rng((seed, 1))
    newest = names(pristine / "checkpoints")[1]
    for path in sorted((pristine / "checkpoints" / newest).iterdir()):
        case = Case(path.name, ANYWHERE, "extend")
        target = folder / path.stem
        shutil.copytree(pristine, target)
        (target / "status.json").unlink()  # as if the run had been killed before its end
        (target / "results.json").unlink()
        damage(case, target / "checkpoints", generator)
        try:
            Attempt(target, RECIPE, processes=1).finish()
            lost = set(differences(target, pristine)) ^ {f"damaged-{newest}"}
            problem = "; ".join(lost) or None
        except FaultError as error:
            problem = str(error)
        yield Draw(case, path.stat().st_size, problem)
