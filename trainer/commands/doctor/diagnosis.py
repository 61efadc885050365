"""Run all checks: of this process and its machine, of the configured run, of all ranks together."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from trainer.base.errors import RankError, UserError
from trainer.base.timeouts import run_with_timeout
from trainer.commands.doctor import machine, rank_checks, resources, run_checks
from trainer.commands.doctor.finding import Finding, Findings, merge
from trainer.commands.doctor.rank_checks import RankReport
from trainer.commands.doctor.run_checks import LoadedRun
from trainer.config.run_status import RunStatus
from trainer.config.schema import RunConfig
from trainer.data.environment import describe_environment
from trainer.ranks import collectives, lost_ranks, process_group, processes
from trainer.run.run_folder import OpenedRun, fill_pinned

LOADING_LIMIT_S = 9.0
"""to read the data and build the model: other ranks wait for it, and the doctor has a limit"""


def check_machine_and_run(
    asked: RunConfig | None, findings: Findings, kernels: Finding
) -> list[Finding]:
    """Check everything but the configuration and its kernels, as `doctor.diagnose` describes.

    Args:
        asked: the run's configuration; None for the machine only.
        findings: of the configuration, to which all others are added.
        kernels: what was found about them before torch was imported.
    """
    config = asked or RunConfig()
    variables, devices = machine.check_launch_variables(config), machine.check_devices()
    findings += [
        machine.check_processes(config), variables, machine.cores(), machine.versions(), kernels,
        devices,
    ]  # fmt: skip
    if asked and kernels.state == "ok":
        findings.append(machine.describe_promise(asked))
    started = _started_count(config)
    # Processes can meet even where the recipe asks for another number of them.
    can_meet = machine.check_processes(RunConfig()).state == "ok"
    accelerator = None
    if can_meet and devices.state == variables.state == "ok":
        accelerator = rank_checks.connect_ranks(config, findings)
    if accelerator is None:
        if processes.launched_rank() == 0:
            return _check_run(asked, findings, None, started)
        problems = [finding.text for finding in findings if finding.state == "problem"]
        # Rank 0 may not be there to say it.
        if problems and processes.launched_local_rank() == 0:
            raise RankError(problems[-1])
        return []
    lost_ranks.note_host(accelerator)
    try:
        found = _check_run(asked, findings, accelerator, started)
    except RuntimeError as error:
        raise (lost_ranks.diagnose(accelerator, error) or error) from error
    process_group.leave(accelerator)
    return found


def _check_run(
    asked: RunConfig | None, findings: Findings, accelerator: Accelerator | None, started: int
) -> list[Finding]:
    """Check the run and compare the ranks.

    Args:
        asked, findings: of this rank.
        accelerator: None if this rank could not meet the others.
        started: how many processes train.py would start.
    """
    is_main = accelerator is None or accelerator.is_main_process
    opened = _open_folder(asked, findings, accelerator, started)
    config = opened.config if opened else asked or RunConfig()
    threads = config.threads or processes.DEFAULT_THREADS
    findings.append(machine.check_threads(threads, max(started, processes.local_count())))
    if is_main:
        findings.append(machine.check_weights_and_biases(config.tracking.wandb))
    start, needed_bytes = None, 0
    if opened and opened.finished:
        text = f"{config.output_dir} holds this run, finished: nothing is left to do"
        findings.append(Finding("output_dir", "ok", text))
    elif opened and (run := _load(config, findings, first_start=opened.status.state is None)):
        device = accelerator.device if accelerator else torch.device("cpu")
        environment = describe_environment(device, config)
        start = (run.weights_sha256, run.dataset.fingerprint, environment)
        needed_bytes = run.needs.memory
        if is_main:
            validates = len(run.dataset.validation) > 0
            findings.append(resources.check_disk(config, run.needs, has_validation=validates))
        if device.type == "cuda":
            findings.append(resources.check_gpu_memory(run.needs, device))
            needed_bytes = run.needs.checkpoint  # of which a copy is made outside the GPU
    if accelerator is None or accelerator.num_processes == 1:
        return _conclude([RankReport(asked, start, started * needed_bytes, findings)])
    findings.append(rank_checks.measure_all_reduce(accelerator))
    ranks = gather_object([RankReport(asked, start, needed_bytes, findings)])
    return _conclude(ranks) if is_main else []


def _started_count(config: RunConfig) -> int:
    """Return how many processes train.py starts; 1 where it would refuse to."""
    try:
        return machine.count_to_start(config)
    except UserError:
        return 1


def _open_folder(
    asked: RunConfig | None, findings: Findings, accelerator: Accelerator | None, started: int
) -> OpenedRun | None:
    """Return the run as rank 0 finds it in its folder, on all ranks; None without a run."""

    def look() -> OpenedRun | None:
        if asked is None:
            return None
        count = max(started, processes.launched_count())
        found = findings.attempt("output_dir", lambda: run_checks.open_folder(asked, count))
        pins = processes.default_pins(asked, count)
        return found or OpenedRun(fill_pinned(asked, pins), False, RunStatus())

    return collectives.run_on_main_rank(accelerator, look) if accelerator else look()


def _load(config: RunConfig, findings: Findings, *, first_start: bool) -> LoadedRun | None:
    """Load data and model, in a limited time, and try the network before its first start."""
    findings.attempt("train.microbatches", lambda: processes.check_microbatches(config))
    assert config.threads is not None
    torch.set_num_threads(config.threads)
    # A call that is too late must not add to a list that is being printed.
    own, start_s = Findings(), time.monotonic()
    try:
        run = run_with_timeout(LOADING_LIMIT_S, lambda: run_checks.load(config, own))
    except TimeoutError:
        findings += (found := list(own))
        limit = f"within {LOADING_LIMIT_S:g} s, and so not checked"
        name, text = "data", f"not read {limit}; nor is the model"
        if any(finding.name == "data" for finding in found):
            name, text = "model", f"not built and tried {limit}"
        findings.append(Finding(name, "warning", text, "a run waits as long as it takes"))
        return None
    findings += own
    if run and first_start:
        left_s = LOADING_LIMIT_S - (time.monotonic() - start_s)
        findings.append(run_checks.try_network(run, max(1.0, left_s)))
    return run


def _conclude(ranks: Sequence[RankReport]) -> list[Finding]:
    """Merge the findings of all ranks, and add those that compare them."""
    merged = merge((f"rank {i} on {rank.host}", rank.findings) for i, rank in enumerate(ranks))
    common = Findings()
    rank_checks.compare(ranks, common)
    return [*merged, *common, *resources.check_memory(ranks)]
