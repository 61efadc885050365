"""Sign a receipt with a key of SSH's, and check such a signature: by OpenSSH's ssh-keygen."""

from __future__ import annotations

import subprocess
from pathlib import Path

from trainer.base.errors import DifferentRunError, UserError
from trainer.base.files import write_text
from trainer.base.strict_json import describe_value, error_text
from trainer.run.receipt import signature_of

NAMESPACE = "lockstep-receipt"
"""what a signature is for: one of something else is none of a receipt"""


def sign(receipt: Path, key: Path) -> Path:
    """Write the signature of a receipt next to it, and return its path.

    Args:
        key: a private key, or a public one whose private one an agent holds. ssh-keygen asks the
            terminal for a passphrase.

    Raises:
        UserError: ssh-keygen is not installed, cannot sign with that key, or the signature cannot
            be written.
    """
    done = _ssh_keygen("--sign", "sign", "-f", str(key), "-n", NAMESPACE, content=receipt)
    if done.returncode:
        raise UserError(f"--sign: {key}: ssh-keygen cannot sign with it: {_words(done.stderr)}")
    path = signature_of(receipt)
    try:
        write_text(path, done.stdout)
    except OSError as error:
        raise UserError(f"--sign: {path} cannot be written ({error_text(error)})") from error
    return path


def signer_of(receipt: Path, allowed: Path) -> str:
    """Return whose signature a receipt has, by the name in a file of allowed signers.

    Args:
        allowed: as ssh-keygen's manual describes it under ALLOWED SIGNERS: a line for each key.

    Raises:
        UserError: ssh-keygen is not installed, or there is no such file.
        DifferentRunError: there is no signature, or it is of another content or of nobody there.
    """
    if not allowed.is_file():
        raise UserError(f"--signers: {allowed}: there is no such file")
    signature = signature_of(receipt)
    if not signature.is_file():
        raise DifferentRunError(f"{receipt}: is not signed, there is no {signature}")
    about = ("-s", str(signature), "-f", str(allowed))
    found = _ssh_keygen("--signers", "find-principals", *about, content=receipt)
    for name in found.stdout.splitlines():
        who = ("-I", name, "-n", NAMESPACE)
        if not _ssh_keygen("--signers", "verify", *about, *who, content=receipt).returncode:
            return name
    raise DifferentRunError(
        f"{signature}: is not a signature of {receipt} by anybody in {allowed} "
        f"({_words(found.stderr) if found.returncode else 'it is of another content or purpose'})"
    )


def _ssh_keygen(
    option: str, action: str, *words: str, content: Path
) -> subprocess.CompletedProcess[str]:
    try:
        with content.open("rb") as file:
            return subprocess.run(
                ["ssh-keygen", "-Y", action, *words],
                stdin=file, capture_output=True, text=True, errors="replace", check=False,
            )  # fmt: skip
    except FileNotFoundError as error:
        raise UserError(
            f"{option}: needs ssh-keygen of OpenSSH (Debian, Ubuntu: apt-get install "
            f"openssh-client)"
        ) from error


def _words(text: str) -> str:
    return describe_value(text.strip()).strip("'\"")
