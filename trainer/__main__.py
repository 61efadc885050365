"""The commands of Lockstep: `python -m trainer COMMAND`, or `lockstep COMMAND` once installed."""

from __future__ import annotations

import argparse
from pathlib import Path

from trainer.commands import (
    bench,
    cache,
    compare,
    convert_weights,
    crossval,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    features,
    inspect_data,
    lr_find,
    models,
    options,
    predict,
    profile,
    push,
    replay,
    report,
    submit,
    summary,
    sweep,
    train,
    verify,
)
from trainer.config import command_line
from trainer.ranks import exit_codes, processes

COMMANDS = {
    "bench": bench,
    "cache": cache,
    "compare": compare,
    "convert-weights": convert_weights,
    "crossval": crossval,
    "demo": demo,
    "doctor": doctor,
    "evaluate": evaluate,
    "explain": explain,
    "export": export,
    "features": features,
    "inspect-data": inspect_data,
    "lr-find": lr_find,
    "models": models,
    "predict": predict,
    "profile": profile,
    "push": push,
    "replay": replay,
    "report": report,
    "submit": submit,
    "summary": summary,
    "sweep": sweep,
    "train": train,
    "verify": verify,
}


ON_RANK_0 = {
    *("bench", "cache", "compare", "convert-weights", "explain", "export", "models", "push"),
    *("report", "submit", "summary"),
}
"""commands that one process does: rank 0, where a launcher has started several"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; unknown arguments are keys of a configuration."""
    program = "lockstep" if command_line.is_console_command() else "python -m trainer"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=(module.__doc__ or "").splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # Otherwise --processes, which is the run's, would stand for --processes_per_node.
            allow_abbrev=False,
            # The help of training is that of a configuration, which has every key.
            add_help=module is not train,
        )
        command.register("type", Path, _path)
        module.add_arguments(command)
    return parser


def _path(text: str) -> Path:
    """Parse a path; an empty one, of a shell's unset variable, would be `.`."""
    if not text:
        raise argparse.ArgumentTypeError(options.EMPTY)
    return Path(text)


def run() -> None:
    """Run the command that the command line names."""
    parser = build_parser()
    arguments, others = parser.parse_known_args()
    if others and "configuration" not in arguments:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if others[:1] == [""]:  # of inspect-data and models, a folder or a name
        parser.error(f"{arguments.command}: the first argument {options.EMPTY}")
    if arguments.command in ON_RANK_0 and processes.launched_rank() > 0:
        return
    arguments.configuration = others
    COMMANDS[arguments.command].run(arguments)


def main() -> None:
    """Run the program, and exit with a code of the contract."""
    with exit_codes.program():
        run()


if __name__ == "__main__":
    main()
