"""`python -m trainer COMMAND`: what there is to do besides training."""

from __future__ import annotations

import argparse
import sys

from trainer import exit_codes
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
    verify,
)
from trainer.ranks import orphans, rank_output

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
    "verify": verify,
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; what it does not know are keys of a configuration."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=(module.__doc__ or "").splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # Else --processes, which is the run's, would stand for --processes_per_node.
            allow_abbrev=False,
        )
        module.add_arguments(command)
    return parser


def main() -> None:
    """Run a command; exits with a code of the contract."""
    rank_output.hush_other_ranks()
    parser = build_parser()
    arguments, others = parser.parse_known_args()
    if others and "configuration" not in arguments:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    arguments.configuration = others
    orphans.end_with_launcher()
    sys.exit(exit_codes.run(lambda: COMMANDS[arguments.command].run(arguments)))


if __name__ == "__main__":
    main()
