"""Say what will run here, and what to do where a run would fail.

Looks at cores, devices, launch, processes, network, versions and, with a configuration, at its
folder, disk, data, model and memory. Nothing is changed or downloaded. Started as a run is, by any
launcher, it speaks for all processes. Exit code 2 where the run would fail.

example: python -m trainer doctor --config configs/digits.yaml --processes 2
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence

from trainer.base.errors import UserError
from trainer.base.terminal import print_report
from trainer.base.timeouts import has_abandoned_call
from trainer.commands.doctor import machine
from trainer.commands.doctor.finding import Finding, Findings
from trainer.commands.options import add_json_option
from trainer.config import command_line
from trainer.config.schema import RunConfig
from trainer.ranks import exit_codes, processes

LINE_WIDTH = 100

SIGNS = {"ok": "ok", "warning": "warning", "problem": "PROBLEM"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's argument; the others are the configuration's."""
    add_json_option(parser)
    parser.set_defaults(configuration=[])


def run(arguments: argparse.Namespace) -> None:
    """Print the findings, on rank 0.

    Raises:
        UserError: the run would fail.
    """
    findings = diagnose(arguments.configuration)
    # Rank 0 has the exit code too: a launcher ends all others when the first of them fails.
    if processes.launched_rank() > 0:
        return
    if has_abandoned_call():
        # Python would end it in the middle of other libraries' code, which aborts the process.
        try:
            with exit_codes.exit_with_code():
                _report(findings, arguments.json)
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(int(end.code or 0))
    _report(findings, arguments.json)


def diagnose(words: Sequence[str]) -> list[Finding]:
    """Check everything; a collective if there are several processes.

    Args:
        words: the configuration as on train.py's command line; empty for the machine only.

    Returns:
        The findings of all ranks on rank 0, nothing on the others.

    Raises:
        RankError: on the first rank of another machine, where it has not met rank 0.
        LostRankError, OwnError: a rank has failed.
    """
    findings = Findings()
    asked = findings.attempt("configuration", lambda: command_line.parse(words)) if words else None
    kernels = machine.check_kernels(asked or RunConfig())
    try:
        from trainer.commands.doctor.diagnosis import check_machine_and_run
    except (ImportError, OSError) as error:  # OSError: a library of the system is missing
        advice = "install into this environment: pip install -c constraints.txt -e ."
        return [*findings, machine.versions(), Finding("imports", "problem", str(error), advice)]
    return check_machine_and_run(asked, findings, kernels)


def _report(findings: list[Finding], as_json: bool) -> None:
    problems = [finding.name for finding in findings if finding.state == "problem"]
    rows = [dataclasses.asdict(finding) for finding in findings]
    print_report({"works": not problems, "findings": rows}, _lines(findings), as_json=as_json)
    if problems:
        raise UserError(f"a run would fail here: {', '.join(dict.fromkeys(problems))}")


def _lines(findings: list[Finding]) -> Iterator[str]:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        head = f"{SIGNS[finding.state]:<9}{finding.name:<{width}}  "
        advice = [f"-> {finding.advice}"] if finding.advice else []
        for paragraph in [*finding.text.splitlines(), *advice]:
            yield from textwrap.wrap(
                paragraph,
                LINE_WIDTH,
                initial_indent=head,
                subsequent_indent=" " * len(head),
                break_long_words=False,
                break_on_hyphens=False,
            )
            head = " " * len(head)
