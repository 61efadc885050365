"""What Lockstep does on a GPU: its tests, the same bits, and its speed beside other loops.

    python benchmarks/gpu.py [--root DIR]       on a machine with a GPU, in eight minutes
    python benchmarks/gpu.py --device cpu --small       without one: tries it, in two minutes

It needs torch, accelerate and what train.py imports; loops whose packages are missing are left out.
Each program has a process and a limit of time, the most important ones come first, and the page is
written before the first and after each: whatever crashes, hangs or stops it, the page says what was
found and what is missing. DIR holds cifar10-jpg.zip, CIFAR-10 as JPEG files; without it images are
made. benchmarks/results/gpu.json has the figures, gpu.md the page.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apart
import gpu_programs
import page
import psutil
import torch
from gpu_cases import Task
from gpu_programs import PARTS, Program, programs

LEAST_S = 5.0
"""with less time left a program is not begun"""
CPU_SLOWNESS = 4
"""how many times as long a program may take without a GPU"""
LOG_LINES = 40
"""of a program that did not end well, that are kept with the figures"""

NOT_RUN = "not run"
BEGUN = "begun, and not ended"
DONE = "done"

TITLE = "On a GPU"
SMALL = "**A trial of the programs in small: none of these figures means anything.**"


class StopSignalError(Exception):
    """SIGTERM or SIGINT has come."""


@contextlib.contextmanager
def stops_are_errors() -> Iterator[None]:
    """Raise StopSignalError where a signal comes that asks to stop."""

    def stop(number: int, _: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # what follows is not disturbed
        raise StopSignalError(signal.Signals(number).name)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def environment(device: str) -> dict[str, str]:
    """Return the variables of a program's process."""
    if device == "cpu":
        found = apart.environment(apart.REPOSITORY / "benchmarks")
    else:
        more = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        places = [str(apart.REPOSITORY), str(apart.REPOSITORY / "benchmarks"), *filter(None, more)]
        found = os.environ | {"PYTHONPATH": os.pathsep.join(places), "PYTHONUNBUFFERED": "1"}
    return found | {"LOCKSTEP_PROCESSES": "1", "OMP_NUM_THREADS": "1"}


def run_program(program: Program, task: Task, limit_s: float) -> tuple[dict[str, Any], str | None]:
    """Run a program in a process of its own.

    Returns:
        What it found, with its status and its seconds; and which signal has come meanwhile.
    """
    output = Path(task.work_dir) / f"{program.name}.json"
    log = Path(task.work_dir) / f"{program.name}.log"
    words = [program.module, json.dumps(dataclasses.asdict(task)), str(output)]
    start_s = time.monotonic()
    stopped = None
    with log.open("wb") as text:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpu_cases", *words],
            env=environment(task.device),
            stdin=subprocess.DEVNULL,
            stdout=text,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
            status = DONE if code == 0 else "failed"
        except subprocess.TimeoutExpired:
            status = f"stopped after its {limit_s:.0f} s"
        except StopSignalError as signal_name:
            stopped = str(signal_name)
            status = f"stopped by {stopped}"
        finally:
            end(process)
    found = {**page.read_figures(output), "status": status, "seconds": time.monotonic() - start_s}
    if status != DONE:
        found["log"] = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    return found, stopped


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and all that it has started, also launchers in sessions of their own."""
    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for one in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def measure(arguments: argparse.Namespace, figures: dict[str, Any], work_dir: str) -> str | None:
    """Run one program after the other, and write the page after each; return what stopped it."""
    end_s = time.monotonic() + arguments.seconds
    slowness = 1 if arguments.device == "cuda" else CPU_SLOWNESS
    chosen = [one for one in programs(arguments.device, arguments.small) if wanted(one, arguments)]
    figures["programs"] = {
        one.name: {"part": one.part, "title": one.title, "status": NOT_RUN} for one in chosen
    }
    for program in chosen:
        entry = figures["programs"][program.name]
        if absent := absent_packages(program, figures):
            entry["status"] = f"left out: {', '.join(absent)} is not there"
            continue
        left_s = end_s - time.monotonic()
        if left_s < LEAST_S:
            return None
        root = str(arguments.root) if arguments.root else None
        task = Task(arguments.device, arguments.small, work_dir, root, program.options)
        print(f"{program.part}: {program.title} ...", file=sys.stderr, flush=True)
        entry["status"] = BEGUN
        write(arguments.output, figures)  # with all before, should this be the end
        found, stopped = run_program(program, task, min(program.limit_s * slowness, left_s))
        entry.update(found)
        if stopped:
            return stopped
    return None


def absent_packages(program: Program, figures: dict[str, Any]) -> list[str]:
    """Return what a program needs and the machine has not."""
    absent = figures["programs"]["machine"].get("absent", [])
    return [name for name in program.needs if name in absent]


def wanted(program: Program, arguments: argparse.Namespace) -> bool:
    """Tell whether a program is asked for; what describes and prepares always is."""
    return not arguments.part or program.part in (*arguments.part, "machine", "images")


def write(output: Path, figures: dict[str, Any]) -> None:
    """Write the figures and the page."""
    page.write_quietly(output, figures, build_page(figures))


def build_page(figures: dict[str, Any]) -> list[str]:
    """Return the page of what was found so far."""
    found = figures["programs"]
    machine = found.get("machine", {})
    missing = [
        [one["part"], one["title"], one["status"], gpu_programs.cell((one.get("log") or [""])[-1])]
        for one in found.values()
        if one["status"] != DONE
    ]
    lines = [f"# {TITLE}", "", f"    {figures['command']}", "", describe(machine, figures), ""]
    if figures["small"] or figures["device"] == "cpu":
        lines += [SMALL if figures["small"] else "**On the CPU: no GPU has computed this.**", ""]
    if missing:
        heads = ["part", "missing", "as", "its last line"]
        lines += [*page.table(heads, missing), ""]
    for part, (title, build) in PARTS.items():
        entries = {name: one for name, one in found.items() if one["part"] == part}
        if entries and (body := build(entries)):
            lines += [f"## {title}", "", *body, ""]
    return lines


def describe(machine: dict[str, Any], figures: dict[str, Any]) -> str:
    """Return a paragraph about the machine, its packages and the code."""
    if "torch" not in machine:
        return f"On a machine that was not described; commit {figures['commit']}."
    gpu = "no GPU"
    if machine["gpu"]:
        gpu = (
            f"{machine['gpus']} × {machine['gpu']} with {machine['memory_gb']:.0f} GB, CUDA "
            f"{machine['cuda']}, cuDNN {machine['cudnn']}"
        )
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    absent = f" Not there: {', '.join(machine['absent'])}." if machine["absent"] else ""
    return (
        f"{gpu}, {machine['cores']} cores, Python {machine['python']}, torch {machine['torch']}; "
        f"{packages}; commit {figures['commit']}.{absent}"
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = page.parser(__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the programs")
    parser.add_argument("--part", nargs="+", choices=PARTS, help="only these")
    parser.add_argument("--seconds", type=float, default=460, help="for all of it")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder with cifar10-jpg.zip")
    parser.add_argument("--commit", default=None, help="of the code, where no git is")
    page.add_output(parser, "gpu.json")
    return parser


def main() -> None:
    """Measure, and write the page whatever comes."""
    arguments = parser().parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser().error("--device cuda: torch finds no GPU; --device cpu --small tries the programs")
    usual = parser().parse_args([])
    figures: dict[str, Any] = {
        "command": page.command_of("gpu.py", arguments, usual, "commit"),
        "commit": arguments.commit or page.commit(),
        "device": arguments.device,
        "small": arguments.small,
        "programs": {},
    }
    work_dir = tempfile.mkdtemp(prefix="gpu-")
    try:
        with stops_are_errors():
            stopped = measure(arguments, figures, work_dir)
    except StopSignalError as signal_name:  # between two programs
        stopped = str(signal_name)
        for entry in figures["programs"].values():
            if entry["status"] == BEGUN:
                entry["status"] = f"stopped by {stopped}"
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
    write(arguments.output, figures)
    print("\n".join(build_page(figures)))
    if stopped:
        sys.exit(128 + signal.Signals[stopped])


if __name__ == "__main__":
    main()
