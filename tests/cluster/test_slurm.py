"""The cluster itself: two nodes, which run a job together."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.slurm import NODES, Slurm


def test_two_nodes_run_a_job_together(slurm: Slurm, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\nsrun sh -c 'echo $SLURMD_NODENAME'\n")
    job = slurm.submit("--nodes=2", "--ntasks-per-node=1", f"--output={tmp_path}/log", script)
    assert slurm.wait(job)["JobState"] == "COMPLETED"
    assert sorted((tmp_path / "log").read_text().split()) == list(NODES)
