"""Signatures of receipts by ssh keys."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commands.command import Capture
from tests.commands.receipt.forging import forge, verify


def make_key(folder: Path, name: str) -> str:
    """Make a pair of keys; return the line of a file of allowed signers."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
    subprocess.run(words, check=True)
    return f"{name}@example.org {(folder / f'{name}.pub').read_text()}"


def test_a_signature(own: Path, tmp_path: Path, capsys: Capture) -> None:
    signers, others = tmp_path / "signers", tmp_path / "others"
    signers.write_text(make_key(tmp_path, "ada"))
    others.write_text(make_key(tmp_path, "eve"))
    path = own / "receipt.json"
    quick = ("--segment", "1")
    code, _, errors = verify(capsys, own, *quick, "--signers", signers)
    assert code == 3
    assert "receipt.json: is not signed" in errors
    code, output, _ = verify(capsys, own, *quick, "--sign", tmp_path / "ada")
    assert code == 0
    assert f"signed: {path}.sig" in output
    code, output, _ = verify(capsys, own, *quick, "--signers", signers, "--json")
    assert code == 0
    assert json.loads(output)["receipt"]["signed_by"] == "ada@example.org"
    code, _, errors = verify(capsys, own, *quick, "--signers", others)
    assert code == 3
    assert f"is not a signature of {path} by anybody in {others}" in errors
    forge(path, lambda receipt: receipt["made_with"].update(code_sha256="0" * 64))
    code, output, errors = verify(capsys, own, *quick, "--signers", signers)
    assert (code, output) == (3, "")
    assert "another content or purpose" in errors


def test_no_signature_where_something_differs_or_is_missing(
    own: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(tmp_path, "ada")
    key = ("--sign", tmp_path / "ada")
    quick = ("--segment", "1")
    for words, message in (
        (("--sign", tmp_path / "nobody"), "--sign: "),
        ((*key, "--tolerance", "0.1"), "--sign: is for a run that agrees in bits"),
        (("--sign", own / "config.yaml"), "config.yaml: ssh-keygen cannot sign with it: "),
        (("--signers", tmp_path / "nobody"), "--signers: "),
    ):
        code, _, errors = verify(capsys, own, *quick, *words)
        assert code == 2
        assert message in errors
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, errors = verify(capsys, own, *quick, *key)
    assert code == 2
    assert "--sign: needs ssh-keygen of OpenSSH" in errors
    monkeypatch.undo()
    forge(own / "receipt.json", lambda receipt: receipt["result"].update(weights_sha256="0" * 64))
    assert verify(capsys, own, *quick, *key)[0] == 3
    assert not (own / "receipt.json.sig").exists()
    (own / "receipt.json").unlink()
    code, _, errors = verify(capsys, own, *quick, *key)
    assert code == 2
    assert f"--sign: {own} has no receipt" in errors
