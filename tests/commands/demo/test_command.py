"""`python -m trainer demo`: its start, its end, and what it refuses."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.commands.command import Capture, run_command
from tests.conftest import REPOSITORY
from tests.stored import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("run") / "model.safetensors")


def test_it_serves_until_it_is_interrupted(model: Path) -> None:
    words = [sys.executable, "-m", "trainer", "demo", str(model), "--port", "0", "--json"]
    with subprocess.Popen(
        words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            text = ""
            while not text.endswith("}\n"):
                line = process.stdout.readline()
                assert line, process.communicate()
                text += line
            url = json.loads(text)["url"]
            assert url.startswith("http://127.0.0.1:")
            with urllib.request.urlopen(f"{url}healthz", timeout=60) as reply:
                assert json.load(reply)["model"] == "lab_cnn"
            # A connection that nobody uses does not keep it.
            with socket.create_connection(("127.0.0.1", int(url.split(":")[2][:-1]))):
                process.send_signal(signal.SIGINT)
                assert process.communicate(timeout=60) == ("", "")
        finally:
            process.kill()
    assert process.returncode == 0


def five_channels(metadata: dict[str, Any]) -> None:
    metadata["mean"] = metadata["deviation"] = [[[1.0]]] * 5


def test_what_it_refuses(model: Path, tmp_path: Path, capsys: Capture) -> None:
    bands = write_model(tmp_path / "bands.safetensors", channels=5, change=five_channels)
    labels = write_model(
        tmp_path / "labels.safetensors", change=lambda found: found.update(thresholds=[0.5] * 3)
    )
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").write_text("{}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, message in (
            ([model, "--port", port], f"--port: {port} is taken by another program"),
            ([model, "--port", "70000"], "'70000' is not a port"),
            ([model, "--host", "no.such.host.invalid"], "--host: 'no.such.host.invalid'"),
            ([model, "--host", "192.0.2.1", "--port", "0"], "--host: 192.0.2.1 cannot be"),
            ([bands], "RUN: its model takes images of 5 channels"),
            ([labels, "--min_confidence", "0.5"], "--min_confidence: must be left out"),
            ([tmp_path / "unfinished"], "has no model.safetensors, its run is"),
            ([tmp_path / "missing"], "there is no such run"),
        ):
            code, output, errors = run_command(capsys, "demo", *words)
            assert (code, output) == (2, ""), words
            assert message in errors
