"""Read a receipt: whether it is whole, and whether the files of its run say the same.

Neither needs a computation: an edit that leaves the digests as they were shows at once, and one
that computes them again contradicts the run's files or, in the end, the run itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.base.errors import DifferentRunError, UserError
from trainer.base.numerics import Environment
from trainer.base.strict_json import check_type, parse_json, read_text
from trainer.base.tensor_files import read_specs, read_tensors, weights_sha256
from trainer.checkpoint.reading import Checkpoint
from trainer.checkpoint.sharing import NAMES
from trainer.config import stored_config
from trainer.config.schema import RunConfig
from trainer.data.scaling import network_tensors
from trainer.finished.run_record import RunRecord, position
from trainer.run import receipt as receipts
from trainer.run.receipt import FORMAT_VERSION, HEAD, LINK, NAME, RESULT, Receipt
from trainer.training.state_digest import digest_state

_PARTS = {
    "configuration": dict[str, Any],
    "fingerprints": dict[str, str],
    "skipped_steps": list[int],
    "chain": list[dict[str, int | str]],
    "result": dict[str, Any],
    "made_with": dict[str, Any],
    "sha256": str,
}
_FIRST_LINK = ("epoch", "step", "records_sha256", "state_sha256")
"""what a link's digest was of in the first receipts, which had no marks"""
_MADE_WITH = {"environment": Environment, "equality": dict[str, Any], "versions": dict[str, str]}

_OTHERWISE = (
    "verify it with the version that wrote it, or move it away and verify the run's folder, whose "
    "metrics, checkpoints and results are then compared"
)


class ReceiptRecord(RunRecord):
    """What a receipt alone says that its run computed: no step, and no figure of an epoch."""

    receipt: Receipt

    @property
    def last_step(self) -> int:
        """The last step of the run."""
        step: int = self.receipt["chain"][-1]["step"]
        return step

    @property
    def end(self) -> tuple[int, int]:
        """The position after the last epoch."""
        return len(self.receipt["chain"]) + 1, self.last_step

    @property
    def skipped_steps(self) -> list[int]:
        """Steps that were left out."""
        steps: list[int] = self.receipt["skipped_steps"]
        return steps


def read(path: Path) -> Receipt:
    """Read a receipt, and check that it is as it was written.

    Raises:
        UserError: it is missing, of another version, or no receipt.
        DifferentRunError: it has been changed since; says where.
    """
    text = read_text(path)
    receipt: Receipt = parse_json(text, path)
    check_type(receipt, dict[str, Any], str(path))
    version = receipt.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version is {version!r}, and this version of Lockstep reads receipts "
            f"of {FORMAT_VERSION}; {_OTHERWISE}"
        )
    for key, hint in _PARTS.items():
        check_type(receipt.get(key), hint, f"{path}: {key}")
    if _is_of_first_form(receipt):
        raise UserError(
            f"{path}: is a receipt of the first form, whose links have no step_marks and "
            f"state_marks, and this version of Lockstep reads only those that have them; "
            f"{_OTHERWISE}"
        )
    _check_parts(receipt, path)
    sealed = receipts.seal(receipt)
    difference = _first_fault(receipt, sealed)
    if difference is None and text != receipts.to_text(sealed):
        # Compared as text, as a key that comes twice would be read as the last one.
        difference = "it has something that no receipt has"
    if difference:
        raise DifferentRunError(f"{path}: was changed after the run: {difference}")
    return receipt


def _is_of_first_form(receipt: Receipt) -> bool:
    """Return whether a receipt is one of the first form, as it was written then."""
    before = receipts.head_sha256(receipt)
    for link in receipt["chain"]:
        if link.keys() != {*_FIRST_LINK, "sha256"}:
            return False
        before = receipts.link_sha256(before, link, _FIRST_LINK)
        if link["sha256"] != before:
            return False
    return bool(receipt["chain"])


def _check_parts(receipt: Receipt, path: Path) -> None:
    for number, link in enumerate(receipt["chain"], start=1):
        for key in (*LINK, "sha256"):
            where = f"{path}: chain: link {number}: {key}"
            check_type(link.get(key), int if key in ("epoch", "step") else str, where)
    if [link["epoch"] for link in receipt["chain"]] != list(range(1, len(receipt["chain"]) + 1)):
        raise UserError(f"{path}: chain: must be of the epochs 1, 2, 3 and so on")
    if not receipt["chain"]:
        raise UserError(f"{path}: chain: must have a link for each epoch, found none")
    for key in (*RESULT, "sha256"):
        hint = dict[str, float] if key == "test" else str
        check_type(receipt["result"].get(key), hint, f"{path}: result.{key}")
    for key in receipts.TEST:
        check_type(receipt["result"]["test"].get(key), float, f"{path}: result.test.{key}")
    for key, made in _MADE_WITH.items():
        check_type(receipt["made_with"].get(key), made, f"{path}: made_with.{key}")
    because = receipt["made_with"]["equality"].get("because")
    check_type(because, list[str], f"{path}: made_with.equality.because")
    check_type(receipt["fingerprints"].get("data.root"), str, f"{path}: fingerprints.data.root")


def _first_fault(receipt: Receipt, sealed: Receipt) -> str | None:
    """Say which digest of a receipt is wrong first; None if all are right.

    Args:
        sealed: the same with the right ones.
    """
    for link, right in zip(receipt["chain"], sealed["chain"], strict=True):
        if link["sha256"] != right["sha256"]:
            what = f"the link of epoch {link['epoch']}"
            before = f", or what comes before it: {', '.join(HEAD)}" if link["epoch"] == 1 else ""
            return f"{what}{before}"
    if receipt["result"]["sha256"] != sealed["result"]["sha256"]:
        return "result"
    if receipt["sha256"] != sealed["sha256"]:
        return "made_with or its own sha256"
    return None


def configuration(receipt: Receipt, path: Path, data_root: str | None) -> RunConfig:
    """Return the configuration of the run that a receipt is of.

    Args:
        path: of the receipt.
        data_root: where the images are here, which it does not say.

    Raises:
        UserError: names the key that is wrong.
    """
    return stored_config.from_flat({**receipt["configuration"], "data.root": data_root}, path)


def record_of(receipt: Receipt, path: Path) -> RunRecord:
    """Return what is to be computed again where there is nothing but a receipt."""
    made, result = receipt["made_with"], receipt["result"]
    results = {
        "environment": made["environment"],
        "equality": made["equality"],
        "data": {"fingerprint": receipt["fingerprints"]["data.root"]},
        **{key: result[key] for key in RESULT},
    }
    return ReceiptRecord(path, {}, {}, results, receipt)


# ---------------------------------------------------------------------- against a run's files


def find_contradictions(run: RunRecord, stops: list[Checkpoint]) -> list[str]:
    """Say where the files of a finished run are not those that its receipt is of.

    Args:
        stops: its checkpoints.

    Raises:
        UserError: a file is damaged.
    """
    assert run.receipt is not None
    found = [
        *_in_configuration(run.receipt, run),
        *_in_metrics(run.receipt, run),
        *_in_results(run.receipt, run),
        *_in_weights(run.receipt, run),
        *_in_checkpoints(run.receipt, stops),
    ]
    return [f"{NAME}: {text}" for text in found]


def _in_configuration(receipt: Receipt, run: RunRecord) -> Iterator[str]:
    config = stored_config.read_folder(run.folder)
    processes = receipt["configuration"].get("processes", 0)
    theirs = receipts.configuration_of(config, processes)
    for key in sorted(theirs.keys() | receipt["configuration"].keys()):
        ours = receipt["configuration"].get(key)
        if ours != theirs.get(key):
            yield f"configuration: {key} {ours!r}, but {theirs.get(key)!r} in config.yaml"


def _in_metrics(receipt: Receipt, run: RunRecord) -> Iterator[str]:
    epochs = [run.epochs[number] for number in sorted(run.epochs)]
    steps = receipts.steps_by_epoch(run.steps.values(), epochs)
    if len(epochs) != len(receipt["chain"]):
        yield f"has {len(receipt['chain'])} epochs, but metrics.jsonl has {len(epochs)}"
    for link, record, own in zip(receipt["chain"], epochs, steps, strict=False):
        theirs = {
            "step": max((step["step"] for step in own), default=0),
            "records_sha256": receipts.records_sha256(own, record),
            "state_sha256": record.get("state_sha256"),
            "step_marks": receipts.step_marks(own),
            "state_marks": record.get("state_marks"),
        }
        for key, value in theirs.items():
            if link[key] != value:
                where = f"epoch {link['epoch']} in metrics.jsonl"
                yield f"{key} of {where} is {value}, and {link[key]} here"
                return  # the first is enough


def _in_results(receipt: Receipt, run: RunRecord) -> Iterator[str]:
    results = run.results
    assert results is not None
    ours = {**receipt["result"], **receipt["made_with"]}
    theirs = {**results, "test": {key: results["test"].get(key) for key in receipts.TEST}}
    for key in (*RESULT, "versions", "environment", "equality"):
        if ours[key] != theirs.get(key):
            yield f"{key} is {ours[key]}, but {theirs.get(key)} in results.json"
    data, fingerprints = results["data"], receipt["fingerprints"]
    for key, name in (("data.root", "fingerprint"), ("test", "test_fingerprint")):
        if fingerprints.get(key) != data.get(name):
            yield f"fingerprints: {key} is not the data.{name} in results.json"
    if receipt["skipped_steps"] != run.skipped_steps:
        yield f"skipped_steps is {receipt['skipped_steps']}, but {run.skipped_steps} in its metrics"
    if receipt["sha256"] != results.get("receipt_sha256"):
        yield f"sha256 is not the receipt_sha256 in results.json, {results.get('receipt_sha256')}"


def _in_weights(receipt: Receipt, run: RunRecord) -> Iterator[str]:
    path = run.folder / "model.safetensors"
    if not path.exists():
        yield "model.safetensors, whose digest it has, is missing"
        return
    found = weights_sha256(read_tensors(path, network_tensors(read_specs(path))))
    if found != receipt["result"]["weights_sha256"]:
        yield f"weights_sha256 of model.safetensors is {found}"


def _in_checkpoints(receipt: Receipt, stops: list[Checkpoint]) -> Iterator[str]:
    ends = {(link["epoch"] + 1, link["step"]): link for link in receipt["chain"]}
    code = {key: own for key, own in receipt["fingerprints"].items() if key != "test"}
    for saved in stops:
        if code != {key: own for key, own in saved.state["fingerprints"].items() if own}:
            yield f"fingerprints are not those of {saved.folder.name}"
        if link := ends.get(position(saved)):
            tensors = {name: saved.tensors(name) for name in NAMES}
            files = {name: own for name, own in tensors.items() if own}
            if digest_state(files, saved.state).sha256 != link["state_sha256"]:
                yield f"{saved.folder.name} is not the state at the end of epoch {link['epoch']}"
