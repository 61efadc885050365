"""launch/kubernetes.yaml and trainjob.yaml are what their APIs read, and their pods do a run."""

from __future__ import annotations

import importlib
import runpy
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import free_ports, wait_until
from tests.conftest import REPOSITORY
from tests.faults.running import LONG, steps_logged
from tests.launch.pods import CONTAINER, JOB, KUBERNETES, TRAINJOB, Pod, objects
from tests.runs import Run, check_same, train_here

MODELS = {
    "PersistentVolumeClaim": "io_k8s_api_core_v1_persistent_volume_claim",
    "Service": "io_k8s_api_core_v1_service",
    "Job": "io_k8s_api_batch_v1_job",
    "TrainingRuntime": "trainer_v1alpha1_training_runtime",
    "TrainJob": "trainer_v1alpha1_train_job",
}
"""modules of the API's objects in kubeflow_trainer_api.models; each has a class of the same name"""


@pytest.mark.parametrize(
    ("file", "kind"),
    [(file, kind) for file in (KUBERNETES, TRAINJOB) for kind in objects(file)],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_api_knows_every_field(file: Path, kind: str) -> None:
    """Its model leaves out what it does not know, and refuses values of other types."""
    module = importlib.import_module(f"kubeflow_trainer_api.models.{MODELS[kind]}")
    (model,) = (
        each for name, each in vars(module).items() if name.lower() == MODELS[kind].replace("_", "")
    )
    given = objects(file)[kind]
    assert model.from_dict(given).to_dict() == given


def test_both_files_do_the_same() -> None:
    runtime = objects(TRAINJOB)["TrainingRuntime"]
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    trainjob = objects(TRAINJOB)["TrainJob"]["spec"]
    theirs, ours = job["template"]["spec"], JOB["spec"]
    for rules in (each["podFailurePolicy"]["rules"] for each in (theirs, ours)):
        for rule in rules:
            rule.get("onExitCodes", {}).pop("containerName", None)
    for key in ("podFailurePolicy", "successPolicy", "backoffLimit", "podReplacementPolicy"):
        assert theirs[key] == ours[key]
    assert trainjob["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert trainjob["trainer"]["args"] == CONTAINER["args"]
    assert trainjob["trainer"]["resourcesPerNode"] == CONTAINER["resources"]
    assert trainjob["trainer"]["numNodes"] == ours["completions"] == ours["parallelism"]
    pods = [each["template"]["spec"] for each in (theirs, ours)]
    for key in ("restartPolicy", "terminationGracePeriodSeconds", "securityContext", "volumes"):
        assert pods[0][key] == pods[1][key]
    containers = [each["containers"][0] for each in pods]
    for key in ("image", "command", "volumeMounts"):
        assert containers[0][key] == containers[1][key]


@pytest.fixture
def pods() -> Iterator[list[Pod]]:
    started: list[Pod] = []
    yield started
    for each in started:
        each.process.kill()


def test_a_pod_is_evicted_and_the_job_goes_on_with_fewer(pods: list[Pod], tmp_path: Path) -> None:
    words = [*LONG, "--threads", "1"]
    assert train_here(tmp_path / "undisturbed", *words) == 0
    folder = tmp_path / "runs" / "digits"
    (port,) = free_ports(1)
    # Both come, however slowly, before either trains.
    pods += [Pod(index, tmp_path, port, *words, last_call_s=60) for index in (1, 0)]
    wait_until(lambda: steps_logged(folder) > 15 or pods[0].process.poll() is not None, 120)
    pods[0].evict(grace_s=JOB["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
    output = "".join(each.log.read_text() for each in pods)
    assert [each.action() for each in pods] == ["Ignore", "Ignore"], output
    assert "saved" in output
    pods.append(Pod(0, tmp_path, port, *words))
    assert pods[-1].action() == "Complete"
    output = pods[-1].log.read_text()
    assert "going on after step" in output
    assert "Traceback" not in output
    check_same(Run(folder, 0, output), Run(tmp_path / "undisturbed", 0))


def test_a_mistake_fails_the_job_at_once(pods: list[Pod], tmp_path: Path) -> None:
    (port,) = free_ports(1)
    pods.append(Pod(0, tmp_path, port, "--train.epoch", "3"))
    assert pods[0].action() == "FailJob", pods[0].log.read_text()
    output = pods[0].log.read_text()
    assert output.count("did you mean train.epochs?") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("of_workers", "code"),
    [
        ([75, 75], 75),
        ([-signal.SIGTERM], 75),
        ([75, -signal.SIGTERM], 75),
        ([1, 2], 2),
        ([75, 1], 1),
        ([75, -signal.SIGKILL], 1),
        ([3], 1),
    ],
)
def test_the_code_of_a_pod_is_that_of_its_workers(of_workers: list[int], code: int) -> None:
    pod = runpy.run_path(str(REPOSITORY / "launch" / "pod.py"))
    assert pod["exit_code"](of_workers) == code


def test_a_pod_that_waits_for_the_first_ends_at_once(pods: list[Pod], tmp_path: Path) -> None:
    (port,) = free_ports(1)
    pods.append(Pod(1, tmp_path, port))
    wait_until(lambda: "waiting for 127.0.0.1" in pods[0].log.read_text(), 60)
    pods[0].evict(grace_s=10)
    assert pods[0].action() == "Ignore"
    assert not (tmp_path / "runs").exists()
