"""Write the Slurm job of a run, show it, and submit it where asked to.

The arguments of a run follow, as for train.py. The job runs launch/slurm.sbatch; its script lies in
the run's folder. Accounts and the like are for sbatch's own variables, such as SBATCH_ACCOUNT.
With --space it is an array of the workers of a sweep, each on --processes_per_node cores.

example: python -m trainer submit --config configs/digits.yaml --nodes 2 --time 10 --submit
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from trainer.base.errors import UserError
from trainer.base.files import write_text
from trainer.commands import sweep
from trainer.commands.options import positive_integer
from trainer.config import command_line
from trainer.config.schema import RunConfig, folder_of
from trainer.ranks import processes

REPOSITORY = Path(__file__).resolve().parents[2]
JOB = REPOSITORY / "launch" / "slurm.sbatch"

RANGE = r"\d+(-\d+(:\d+)?)?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments; the others are the run's."""
    parser.add_argument("--nodes", type=positive_integer, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--processes_per_node",
        type=positive_integer,
        metavar="N",
        help="default: one a GPU, else 1",
    )
    parser.add_argument(
        "--gpus_per_node", type=positive_integer, metavar="N", help="default: the CPU"
    )
    parser.add_argument(
        "--time",
        type=_matching(r"(\d+-)?\d+(:\d+){0,2}", "a time such as 30 (minutes), 8:00:00 or 1-12"),
        help="limit; the job saves two minutes before and comes back; default: the partition's",
    )
    parser.add_argument("--partition", help="default: the cluster's")
    arrays = parser.add_mutually_exclusive_group()
    arrays.add_argument(
        "--array",
        type=_matching(rf"{RANGE}(,{RANGE})*(%\d+)?", "a list of seeds such as 0-2 or 1,5"),
        metavar="SEEDS",
        help="a run for each seed, in OUTPUT_DIR/seed-N; such as 0-2",
    )
    arrays.add_argument(
        "--folds",
        type=positive_integer,
        metavar="N",
        help="a run for each fold of a cross-validation, in OUTPUT_DIR/fold-K",
    )
    sweep.add_search_options(parser, is_required=False)
    parser.add_argument("--script", type=Path, help="default: OUTPUT_DIR/job.sbatch")
    parser.add_argument("--submit", action="store_true", help="submit it by sbatch")
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Write the script, and submit it.

    Raises:
        UserError: the run would not start, or Slurm does not take the job.
    """
    if not JOB.is_file():
        raise UserError(f"{JOB}: does not exist; submit from a clone of the repository")
    words = arguments.configuration
    per_node = arguments.processes_per_node or arguments.gpus_per_node or 1
    if arguments.space:
        config = _check_sweep(arguments)
        words = _sweep_words(arguments)
        arguments.array = f"1-{arguments.workers}"
    else:
        if arguments.folds:
            words = [*words, "--data.folds", str(arguments.folds)]
            arguments.array = f"1-{arguments.folds}"
        config = command_line.parse([*words, *(["--data.fold", "1"] if arguments.folds else [])])
        _check_count(config, arguments.nodes * per_node)
    text = _script(config, arguments, per_node, words)
    folder = folder_of(config).absolute()
    path = arguments.script or folder / "job.sbatch"
    try:
        # Slurm runs no job whose log has no folder.
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror})") from error
    print(text)
    if arguments.submit:
        print(_submit(path))
    else:
        print(f"Not submitted yet: sbatch {shlex.quote(str(path))}, or add --submit")
    if arguments.folds:
        print(f"When all folds are finished: {_report_command(config, arguments)}")


def _check_sweep(arguments: argparse.Namespace) -> RunConfig:
    """Return the recipe of a sweep, each of whose workers is a job of one node.

    Raises:
        UserError: the sweep would not start, or its workers cannot be such jobs.
    """
    for name in ("array", "folds"):
        if getattr(arguments, name):
            raise UserError(f"--{name}: a sweep has none; --workers says how many jobs it has")
    if arguments.nodes > 1:
        raise UserError(
            f"--nodes: must be 1 for a sweep, found {arguments.nodes}; --workers counts them"
        )
    return sweep.read(arguments).base


def _sweep_words(arguments: argparse.Namespace) -> list[str]:
    """Return the arguments of each worker, which is the command `sweep`."""
    own = {
        name: str(getattr(arguments, name)) for name in ("space", "trials", "at_once", "pruning")
    }
    options = [word for name, value in own.items() for word in (f"--{name}", value)]
    return ["sweep", *options, *arguments.configuration]


def _report_command(config: RunConfig, arguments: argparse.Namespace) -> str:
    """Return the command that reports on a cross-validation."""
    words = ["python", "-m", "trainer", "crossval", "--folds", str(arguments.folds)]
    as_launched = ["--processes", "null"] if config.processes else []
    return shlex.join([*words, *arguments.configuration, *as_launched])


def _script(
    config: RunConfig, arguments: argparse.Namespace, per_node: int, words: Sequence[str]
) -> str:
    folder = folder_of(config).absolute()
    options = {
        "job-name": re.sub(r"\s", "_", folder.name),
        "nodes": arguments.nodes,
        # A worker of a sweep is one task, which starts the processes of its trials itself.
        "ntasks-per-node": 1 if arguments.space else per_node,
        "cpus-per-task": per_node * (config.threads or 1) if arguments.space else config.threads,
        "gpus-per-node": arguments.gpus_per_node,
        "time": arguments.time,
        "partition": arguments.partition,
        "array": arguments.array,
        "chdir": Path.cwd(),
        "output": folder / ("slurm-%A_%a.log" if arguments.array else "slurm-%j.log"),
    }
    common = [line for line in JOB.read_text("utf-8").splitlines() if line.startswith("#SBATCH")]
    own_lines = [
        f"#SBATCH --{name}={shlex.quote(str(value))}"
        for name, value in options.items()
        if value is not None
    ]
    lines = [
        "#!/usr/bin/env bash",
        "# Written by python -m trainer submit.",
        *(line for line in common if "--job-name" not in line),
        *own_lines,
        f"export PYTHON={shlex.quote(sys.executable)}",
        f"exec {shlex.join([str(JOB), *words])}",
    ]
    return "\n".join(lines) + "\n"


def _submit(path: Path) -> str:
    """Submit a script; return what sbatch prints."""
    try:
        done = subprocess.run(["sbatch", path], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError(
            f"sbatch: there is no Slurm on this machine; submit {path} where there is one"
        ) from error
    if done.returncode:
        raise UserError(f"sbatch: refuses {path}: {done.stderr.strip()}")
    return done.stdout.strip()


def _check_count(config: RunConfig, count: int) -> None:
    if config.processes not in (None, count):
        raise UserError(
            f"processes: this run must have {config.processes}, but the job has {count}; "
            f"choose other --nodes and --processes_per_node"
        )
    if config.train.microbatches is not None:
        processes.check_microbatches(config, count)


def _matching(pattern: str, what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return text

    return check
