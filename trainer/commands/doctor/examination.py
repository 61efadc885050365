"""The doctor's round: the process alone, the run that is asked for, the processes together."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from trainer.base import numerics
from trainer.base.errors import LostRankError, RankError
from trainer.base.timeouts import run_with_timeout
from trainer.commands.doctor import group, machine, memory, recipe
from trainer.commands.doctor.finding import Finding, Findings, merge
from trainer.commands.doctor.recipe import Prepared
from trainer.config import command_line
from trainer.config.schema import RunConfig
from trainer.ranks import collectives, lost_ranks, process_group, processes
from trainer.run.run_folder import OpenedRun, RunStatus, fill_pinned

RECIPE_LIMIT_S = 9.0
"""to read the data and build the model: others wait for it, and the whole has a limit"""


def examine(words: Sequence[str]) -> list[Finding]:
    """Look at everything; a collective where there are several processes.

    Args:
        words: the configuration as on train.py's command line; empty for the machine alone.

    Returns:
        The findings of all ranks on rank 0, nothing on the others.

    Raises:
        RankError, LostRankError: on other ranks than 0, where the ranks have not met or are lost.
    """
    findings = Findings()
    asked = findings.attempt("configuration", lambda: command_line.parse(words)) if words else None
    config = asked or RunConfig()
    findings.append(machine.launched_processes(config))
    findings.append(variables := machine.launch_variables(config))
    findings.append(machine.cores())
    findings.append(machine.versions())
    findings.append(devices := machine.devices())
    # Another count than the recipe's keeps no processes from meeting.
    apart = machine.launched_processes(RunConfig()).state == "problem"
    possible = not apart and devices.state == variables.state == "ok"
    accelerator = group.join(config, findings) if possible else None
    if accelerator is None and processes.launched_rank() > 0:
        return _report_apart(findings)
    if accelerator is None or accelerator.num_processes == 1:
        return _look(asked, findings, accelerator)
    lost_ranks.register(accelerator)
    try:
        found = _look(asked, findings, accelerator)
    except RuntimeError as error:
        return [*findings, _lost(accelerator, error)]
    process_group.leave(accelerator)
    return found


def _report_apart(findings: Findings) -> list[Finding]:
    """On one rank of a machine that has not met rank 0, which may not be there to say it."""
    problems = [finding.text for finding in findings if finding.state == "problem"]
    if problems and processes.launched_local_rank() == 0:
        raise RankError(problems[-1])
    return []


def _lost(accelerator: Accelerator, error: RuntimeError) -> Finding:
    lost = lost_ranks.diagnose(accelerator, error)
    if not isinstance(lost, LostRankError):
        raise lost or error
    if not accelerator.is_main_process:
        raise LostRankError(str(lost), prints=lost.prints) from error
    return Finding("processes", "problem", str(lost), "look for that rank's own message")


def _look(
    asked: RunConfig | None, findings: Findings, accelerator: Accelerator | None
) -> list[Finding]:
    """The run and the other ranks.

    Args:
        asked: the configuration of this rank.
        findings: of this rank so far.
        accelerator: None where this rank looks alone, as it could not meet others.
    """
    opening = _opening(asked, findings, accelerator)
    config = opening.config if opening else asked or RunConfig()
    findings.append(machine.threads(config.threads or processes.default_threads()))
    if accelerator is None or accelerator.is_main_process:
        findings.append(machine.weights_and_biases(config.tracking.wandb))
    prepared = None
    if opening and opening.finished:
        text = f"{config.output_dir} holds this run, finished: nothing is left to do"
        findings.append(Finding("output_dir", "ok", text))
    elif opening:
        prepared = _prepare(config, findings, first_start=opening.status.state is None)
    if prepared and (accelerator is None or accelerator.is_main_process):
        findings.append(recipe.disk(config, prepared))
    start, needed_bytes = None, 0
    if prepared:
        device = accelerator.device if accelerator else torch.device("cpu")
        here = numerics.describe(device, config.train.evaluation_batch_size)
        start = (prepared.weights, prepared.images, here)
        needed_bytes = prepared.needs.memory_bytes
        if device.type == "cuda":
            findings.append(memory.of_gpu(prepared.needs, device))
            needed_bytes = prepared.needs.checkpoint_bytes  # of which a copy is made outside
    if accelerator is None or accelerator.num_processes == 1:
        return _conclude([group.facts_of(asked, start, needed_bytes, findings)])
    findings.append(group.measure(accelerator))
    ranks = gather_object([group.facts_of(asked, start, needed_bytes, findings)])
    return _conclude(ranks) if accelerator.is_main_process else []


def _opening(
    asked: RunConfig | None, findings: Findings, accelerator: Accelerator | None
) -> OpenedRun | None:
    """The run as rank 0 finds it in its folder, for all ranks; None without a configuration."""

    def look() -> OpenedRun | None:
        if asked is None:
            return None
        count = accelerator.num_processes if accelerator else processes.launched_count()
        found = findings.attempt("output_dir", lambda: recipe.open_folder(asked, count))
        pins = processes.default_pins(asked, count)
        return found or OpenedRun(fill_pinned(asked, pins), False, RunStatus())

    return collectives.run_on_main_rank(accelerator, look) if accelerator else look()


def _prepare(config: RunConfig, findings: Findings, *, first_start: bool) -> Prepared | None:
    """Data and model, in a limited time."""
    findings.attempt("train.microbatches", lambda: processes.check_microbatches(config))
    assert config.threads is not None
    torch.set_num_threads(config.threads)
    # What comes too late must not come into a list that is printed meanwhile.
    own, start_s = Findings(), time.monotonic()
    try:
        prepared = run_with_timeout(RECIPE_LIMIT_S, lambda: recipe.prepare(config, own))
    except TimeoutError:
        found, limit = list(own), f"within {RECIPE_LIMIT_S:g} s, and so not looked at"
        findings += found
        name, text = "data", f"not read {limit}; nor is the model"
        if any(finding.name == "data" for finding in found):
            name, text = "model", f"not built and tried {limit}"
        findings.append(Finding(name, "warning", text, "a run waits as long as it takes"))
        return None
    findings += own
    if prepared and first_start:  # a run that goes on has had its trial
        left_s = RECIPE_LIMIT_S - (time.monotonic() - start_s)
        findings.append(recipe.try_network(prepared, max(1.0, left_s)))
    return prepared


def _conclude(ranks: Sequence[group.Rank]) -> list[Finding]:
    """One list from those of all ranks, and from the comparison of them."""
    own = merge((f"rank {i} on {rank.host}", rank.findings) for i, rank in enumerate(ranks))
    common = Findings()
    group.compare(ranks, common)
    return [*own, *common, *memory.findings(ranks)]
