"""launch/Containerfile copies what it needs, pins what it installs, and runs without rights."""

from __future__ import annotations

import json
import re
import shlex

from tests.conftest import REPOSITORY
from tests.launch.pods import CONTAINER, JOB
from tests.launch.test_packaging import EXTRAS

TEXT = (REPOSITORY / "launch" / "Containerfile").read_text(encoding="utf-8")
STEPS = [
    tuple(line.split(" ", 1))
    for line in re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
    if line
]
PROGRAM = "/opt/lockstep/"


def values(word: str) -> list[str]:
    return [value for step, value in STEPS if step == word]


def test_what_is_copied_is_there_and_is_the_program() -> None:
    copied = set()
    for value in values("COPY"):
        *sources, target = shlex.split(value)
        assert target.startswith(PROGRAM)
        for source in sources:
            assert (REPOSITORY / source).exists(), source
            assert target == PROGRAM + (source if (REPOSITORY / source).is_dir() else "")
        copied.update(sources)
    assert copied >= {"constraints.txt", "pyproject.toml", "trainer", "models", "configs"}
    script = CONTAINER["command"][1]
    assert script.startswith(PROGRAM)
    assert script.removeprefix(PROGRAM).split("/")[0] in copied


def test_every_installation_is_pinned() -> None:
    installs = [part for value in values("RUN") for part in value.split("&&") if "pip " in part]
    assert len(installs) == 2
    for install in installs:
        assert f"--constraint {PROGRAM}constraints.txt" in install
        assert "--no-cache-dir" in install
    (extras,) = re.findall("^EXTRAS=(.+)$", "\n".join(values("ARG")), re.MULTILINE)
    assert {*extras.split(",")} <= {*EXTRAS}


def test_it_runs_as_the_user_of_the_pods_in_their_volume() -> None:
    words = [word for word, _ in STEPS]
    assert words[-3:] == ["USER", "WORKDIR", "ENTRYPOINT"]
    user = JOB["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
    assert f"useradd --uid {user} --create-home {values('USER')[-1]}" in " ".join(values("RUN"))
    mounts = [each["mountPath"] for each in CONTAINER["volumeMounts"]]
    assert values("WORKDIR") == ["/lockstep"]
    assert "/lockstep" in mounts
    assert json.loads(values("ENTRYPOINT")[0]) == ["python", "-m", "trainer"]
