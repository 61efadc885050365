"""`python -m trainer COMMAND`, or `lockstep COMMAND` where it is installed: all there is to do."""

from __future__ import annotations

import argparse

from trainer import command_line, exit_codes
from trainer.commands import (
    compare,
    crossval,
    doctor,
    evaluate,
    export,
    inspect_data,
    lr_find,
    models,
    predict,
    profile,
    replay,
    submit,
    summary,
    train,
    verify,
)

COMMANDS = {
    "compare": compare,
    "crossval": crossval,
    "doctor": doctor,
    "evaluate": evaluate,
    "export": export,
    "inspect-data": inspect_data,
    "lr-find": lr_find,
    "models": models,
    "predict": predict,
    "profile": profile,
    "replay": replay,
    "submit": submit,
    "summary": summary,
    "train": train,
    "verify": verify,
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; what it does not know are keys of a configuration."""
    program = "lockstep" if command_line.is_console_command() else "python -m trainer"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=(module.__doc__ or "").splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # Else --processes, which is the run's, would stand for --processes_per_node.
            allow_abbrev=False,
            # The help of training is that of a configuration, which has every key.
            add_help=module is not train,
        )
        module.add_arguments(command)
    return parser


def run() -> None:
    """Run the command that the command line names."""
    parser = build_parser()
    arguments, others = parser.parse_known_args()
    if others and "configuration" not in arguments:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    arguments.configuration = others
    COMMANDS[arguments.command].run(arguments)


def main() -> None:
    """The program: exits with a code of the contract."""
    exit_codes.exit_after(run)


if __name__ == "__main__":
    main()
