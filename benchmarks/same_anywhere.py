"""Does a portable recipe end with the same digest on any cores, processes and x86-64 processors?

    python benchmarks/same_anywhere.py [NAME ...] [--folder DIR]     an hour; NAME: only these cases

Digits, natively with some of the cores allowed, by each launcher, on 1 to 8 processes, on
processors that qemu emulates (Debian's qemu-user-static), and killed and moved between all of
these; then receipts and segments are computed again on another processor than the run's own.
With --folder the runs are kept, and the same command goes on where it stopped. The page is
benchmarks/results/same_anywhere.md.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apart
import page
import psutil

RECIPES = {
    "digits": [],
    "digits, 24 micro-batches": ["--train.microbatches", "24", "--train.batch_size", "96"],
}
"""by its title: what is added to `--config configs/digits.yaml`"""

SAVING = ["--checkpoint.every_steps", "5", "--checkpoint.keep", "100", "--tracking.wandb"]
SAVING += ["disabled"]
EMULATOR = "qemu-x86_64-static"


@dataclass(frozen=True)
class Leg:
    """A start of the command, and how it ends."""

    processes: int | None = None
    """None: as many as the command starts by itself"""
    cores: int | None = None
    """how many may be used; None: all"""
    processor: str | None = None
    """a model of qemu's; None: this machine's"""
    launcher: str = "python"
    """or torchrun, or accelerate launch"""
    killed_by: signal.Signals | None = None
    after_step: int = 0
    """of which there is a checkpoint when it is killed"""

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command of a Python program."""
        count = [] if self.processes is None else ["--processes", str(self.processes)]
        program = [*words, *count] if words[0].endswith("train.py") else list(words)
        if self.launcher == "torchrun":
            command = apart.by_torchrun([sys.executable, *program], self.processes or 1)
        elif self.launcher == "accelerate launch":
            file = str(apart.REPOSITORY / "launch" / "cpu_2.yaml")
            options = ["--config_file", file, "--num_processes", str(self.processes)]
            start = "from accelerate.commands.accelerate_cli import main; main()"
            command = [sys.executable, "-c", start, "launch", *options, *program]
        else:
            command = [sys.executable, *program]
        if self.processor:
            command = [EMULATOR, "-cpu", self.processor, *command]
        if self.cores:
            command = ["taskset", "--cpu-list", f"0-{self.cores - 1}", *command]
        return command

    def __str__(self) -> str:
        parts = [f"emulated {self.processor}" if self.processor else "native"]
        parts += [self.launcher] if self.launcher != "python" else []
        if self.processes:
            parts.append(f"{self.processes} process{'es' * (self.processes > 1)}")
        if self.cores:
            parts.append(f"{self.cores} core{'s' * (self.cores > 1)} allowed")
        if self.killed_by:
            parts.append(f"{self.killed_by.name} after step {self.after_step}")
        return ", ".join(parts)


KILL, TERM = signal.SIGKILL, signal.SIGTERM
HASWELL, EPYC = "Haswell", "EPYC"
MOVES = {
    "digits": [
        Leg(2, killed_by=KILL, after_step=10),
        Leg(1, processor=HASWELL, killed_by=KILL, after_step=25),
        Leg(2, launcher="accelerate launch", killed_by=TERM, after_step=40),
        Leg(cores=1, killed_by=KILL, after_step=55),
        Leg(1, processor=EPYC, killed_by=TERM, after_step=70),
        Leg(4, killed_by=TERM, after_step=85),
        Leg(2, launcher="torchrun"),
    ],
    "digits, 24 micro-batches": [
        Leg(8, killed_by=KILL, after_step=10),
        Leg(1, processor=EPYC, killed_by=TERM, after_step=20),
        Leg(3, killed_by=TERM, after_step=30),
        Leg(cores=1, killed_by=KILL, after_step=40),
        Leg(1, processor=HASWELL, killed_by=KILL, after_step=50),
        Leg(6),
    ],
}


def cases() -> dict[str, tuple[str, list[Leg]]]:
    """Return the recipe and the legs of each case, by its name."""
    usable = len(os.sched_getaffinity(0))
    digits = [Leg(cores=count) for count in range(1, usable + 1)]
    digits += [Leg(count) for count in (1, 2, 4)]
    digits += [Leg(2, launcher="accelerate launch"), Leg(4, launcher="torchrun")]
    digits += [Leg(1, processor=name) for name in (HASWELL, EPYC)]
    many = [Leg(count) for count in (1, 2, 3, 4, 6, 8)]
    found = {}
    for recipe, legs in zip(RECIPES, (digits, many), strict=True):
        for leg in legs:
            found[f"{recipe}: {leg}"] = (recipe, [leg])
        found[f"{recipe}: moved"] = (recipe, MOVES[recipe])
    return found


def folder_name(case: str) -> str:
    """Return the name of a case's folder."""
    return re.sub(r"[^a-z0-9]+", "_", case.lower()).strip("_")


def newest_checkpoint(run: Path) -> int:
    """Return the step of a run's newest checkpoint; 0: there is none."""
    names = [path.name for path in (run / "checkpoints").glob("step-*")]
    return max((int(found[0]) for name in names if (found := re.findall(r"\d+$", name))), default=0)


def do(leg: Leg, run: Path, recipe: str) -> str:
    """Start the training, and kill it where the leg says so; return at which step it ended.

    Raises:
        RuntimeError: it ended otherwise than it should.
    """
    words = [str(apart.REPOSITORY / "train.py"), "--config"]
    words += [str(apart.REPOSITORY / "configs" / "digits.yaml"), *RECIPES[recipe], *SAVING]
    with (run.parent / f"{run.name}.log").open("a") as log:
        process = subprocess.Popen(
            leg.command([*words, "--output_dir", str(run)]),
            env=apart.environment(),
            stdout=log,
            stderr=log,
        )
        while leg.killed_by and newest_checkpoint(run) < leg.after_step and process.poll() is None:
            time.sleep(0.002)
        if leg.killed_by is TERM:
            process.terminate()
        elif leg.killed_by:
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                one.kill()
        code = process.wait()
    finished = (run / "results.json").exists()
    if finished is not (leg.killed_by is None) or (code == 0) is not finished:
        raise RuntimeError(f"{leg}: ended with {code}; see {run}.log")
    return f"{leg} (saved: {newest_checkpoint(run)})" if leg.killed_by else str(leg)


def train(run: Path, recipe: str, legs: Sequence[Leg]) -> dict[str, Any]:
    """Train by all legs, from where an earlier call stopped; return what the run ended with."""
    run.parent.mkdir(parents=True, exist_ok=True)
    notes = run.parent / f"{run.name}.legs.json"
    done: list[str] = json.loads(notes.read_text()) if notes.exists() else []
    for leg in legs[len(done) :]:
        done.append(do(leg, run, recipe))
        notes.write_text(json.dumps(done))
    results, receipt = apart.read_results(run), json.loads((run / "receipt.json").read_text())
    return {
        "recipe": recipe,
        "legs": done,
        "final_weights_sha256": results["final_weights_sha256"],
        "last_link_sha256": receipt["result"]["sha256"],
        "accuracy": results["test"]["accuracy"],
    }


@dataclass(frozen=True)
class Check:
    """A verification."""

    title: str
    case: str
    """of whose run"""
    leg: Leg
    words: tuple[str, ...] = ()
    of_receipt: bool = False
    """without the run's folder"""


SAMPLE = ("--sample", "2", "--seed", "1")
CHECKS = [
    *(
        Check(f"a native run, on an emulated {name}", "digits: native, 1 process",
              Leg(cores=1, processor=name), SAMPLE)
        for name in (HASWELL, EPYC)
    ),
    *(
        Check(f"the run of an emulated {name}, natively",
              f"digits: emulated {name}, 1 process", Leg())
        for name in (HASWELL, EPYC)
    ),
    Check("the run that was moved, natively", "digits: moved", Leg()),
    Check(f"the run that was moved, on an emulated {HASWELL}", "digits: moved",
          Leg(cores=1, processor=HASWELL), SAMPLE),
    Check("the receipt alone of the run that was moved, natively", "digits: moved", Leg(),
          of_receipt=True),
]  # fmt: skip


def verify(check: Check, folder: Path) -> dict[str, Any]:
    """Verify the run of a case; return what the page says of it.

    Raises:
        RuntimeError: it does not agree.
    """
    run = folder / folder_name(check.case)
    source = run / "receipt.json" if check.of_receipt else run
    words = ["-m", "trainer", "verify", str(source), *check.words, "--json"]
    done = subprocess.run(
        check.leg.command(words),
        env=apart.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{check.title}: {done.returncode}: {done.stdout} {done.stderr}")
    report = json.loads(done.stdout)
    return {key: report.get(key) for key in ("in_bits", "steps", "sample", "segments")}


def lines_of(figures: page.Figures) -> list[str]:
    """Write the page."""
    lines = [
        "# The same digest on any cores, processes and processors",
        "",
        "    python benchmarks/same_anywhere.py",
        "",
        "`configs/digits.yaml` has portable kernels. Each row is a run; *emulated* processors are",
        "those of qemu's user mode. A run that was *moved* is started, killed when the checkpoint",
        "of a step is there, and started again otherwise, by all of its rows in turn. The digests",
        "are the first digits of the SHA-256 of the last weights, and of the last link of the",
        "receipt's chain, which depends on all losses, and all weights and optimiser states at the",
        "ends of epochs. The number of cores that may be used is limited by `taskset`.",
    ]
    trainings = {name: one for name, one in figures.items() if "recipe" in one}
    for recipe, changes in RECIPES.items():
        rows = [
            ["<br>".join(one["legs"]), one["final_weights_sha256"][:12],
             one["last_link_sha256"][:12], one["machine"].rpartition(" commit ")[2]]
            for one in trainings.values()
            if one["recipe"] == recipe
        ]  # fmt: skip
        if not rows:
            continue
        own = [one for one in trainings.values() if one["recipe"] == recipe]
        different = len({(one["final_weights_sha256"], one["last_link_sha256"]) for one in own})
        verdict = "All are the same" if different == 1 else f"There are {different} different ones"
        command = " ".join(["--config configs/digits.yaml", *changes])
        lines += ["", f"## {recipe[0].upper()}{recipe[1:]}", "", f"    {command}", ""]
        lines += [f"{verdict}: `{own[0]['final_weights_sha256']}`.", ""]
        lines += page.table(["start", "last weights", "last link", "commit"], rows)
    rows = [
        [check.title, _part(found), str(found["steps"]), "agrees" * bool(found["in_bits"])]
        for check in CHECKS
        if (found := figures.get(check.title))
    ]
    if rows:
        lines += ["", "## Verified on another processor", ""]
        lines += page.table(["what and where", "segments", "steps", "in bits"], rows)
    machines = sorted({one["machine"].rpartition(", commit")[0] for one in figures.values()})
    return [*lines, "", f"On {'; '.join(machines)}."]


def _part(found: dict[str, Any]) -> str:
    if found["sample"] is None:
        return "all"
    return f"{' and '.join(map(str, found['sample']))} of {found['segments']}"


def main() -> None:
    """Do the cases, and write the page after each."""
    parser = page.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases; default: all")
    parser.add_argument("--folder", type=Path, help="of the runs; default: a temporary one")
    page.add_output(parser, "same_anywhere.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        tasks = {
            name: partial(train, folder / folder_name(name), recipe, legs)
            for name, (recipe, legs) in cases().items()
        }
        tasks |= {check.title: partial(verify, check, folder) for check in CHECKS}
        figures = page.read_figures(arguments.output)
        for name in arguments.names or tasks:
            figures[name] = page.measure("python benchmarks/same_anywhere.py", tasks[name])
            ordered = {key: figures[key] for key in tasks if key in figures}
            page.write_figures(arguments.output, ordered, lines_of(ordered))


if __name__ == "__main__":
    main()
