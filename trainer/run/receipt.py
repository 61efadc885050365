"""receipt.json: what a finished run was made from, and a chain of digests of what it computed.

    format_version      1
    configuration       every key that can change the weights, in dotted form
    fingerprints        SHA-256 of the images and of users' code, by the key that names them
    skipped_steps       those left out because their loss was not finite
    chain               for each epoch
        epoch, step             both counted from 1, at the end of the epoch
        records_sha256          of the epoch's losses and rates, `records_sha256` here
        state_sha256            of all that the next step depends on, `training/state_digest`
        step_marks, state_marks the first digits of digests up to each step and each tensor, which
                                say where a computation parts from the run
        sha256                  of the link before, and of these six
    result              the last link: digests of the weights, figures of the test, and `sha256`
    made_with           versions, machine, and the digest of Lockstep's own code
    sha256              of all of the above

The first link follows on a digest of everything before `chain`. So two runs with one last link were
made from the same and computed the same, on whatever machine. It is a function of config.yaml,
metrics.jsonl and results.json: an interrupted run needs nothing else to end with the same receipt.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import models
import trainer
from trainer.base.files import canonical_json, sha256_of, write_text
from trainer.base.strict_json import nan_to_null
from trainer.config.same_run import keys_of_run
from trainer.config.schema import RunConfig
from trainer.network.weights_sources import may_be_downloaded
from trainer.run.metrics_log import by_event
from trainer.training.observer import Record
from trainer.training.state_digest import MARK_DIGITS

NAME = "receipt.json"
FORMAT_VERSION = 1

HEAD = ("format_version", "configuration", "fingerprints", "skipped_steps")
"""keys whose digest the chain begins with"""
LINK = ("epoch", "step", "records_sha256", "state_sha256", "step_marks", "state_marks")
"""keys that a link's digest is of, after that of the link before"""
MOST_STEP_MARKS = 256
"""of an epoch; where it has more steps, every second or third or so has a mark"""
RESULT = ("final_weights_sha256", "weights_sha256", "test")
"""likewise, of the last one"""
ANY_PLACE = "FILE"
"""of a file whose digest is known, instead of its path"""
TEST = ("accuracy", "loss", "samples")
EPOCH_FIGURES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")

log = logging.getLogger("lockstep")

Receipt = dict[str, Any]


def write(folder: Path, receipt: Receipt | None) -> None:
    """Write a run's receipt.json; what an end of fewer epochs has left there goes.

    Args:
        receipt: None: the run has none.
    """
    signature_of(folder / NAME).unlink(missing_ok=True)
    if receipt is None:
        (folder / NAME).unlink(missing_ok=True)
        log.warning("no %s: a version of Lockstep that had none did a part of this run", NAME)
        return
    write_text(folder / NAME, to_text(receipt))


def make(
    config: RunConfig,
    results: Mapping[str, Any],
    fingerprints: Mapping[str, str | None],
    records: Iterable[Record],
) -> Receipt | None:
    """Return the receipt of a run that has ended.

    Args:
        config: with all that the start has filled in.
        results: what results.json holds.
        fingerprints: of the images and of users' code, as checkpoints have them.
        records: the lines of metrics.jsonl.

    Returns:
        None where an older version did a part of the run, which has no digests of its state.
    """
    steps, epochs = by_event(records)
    if any("state_marks" not in record for record in epochs):
        return None
    receipt: Receipt = {
        "format_version": FORMAT_VERSION,
        "configuration": configuration_of(config, results["train"]["processes"]),
        "fingerprints": {
            **{key: value for key, value in fingerprints.items() if value is not None},
            "test": results["data"]["test_fingerprint"],
        },
        "skipped_steps": results["train"]["skipped_steps"],
    }
    links = [
        {
            "epoch": record["epoch"],
            "step": own[-1]["step"],
            "records_sha256": records_sha256(own, record),
            "state_sha256": record["state_sha256"],
            "step_marks": step_marks(own),
            "state_marks": record["state_marks"],
        }
        for record, own in zip(epochs, steps_by_epoch(steps, epochs), strict=True)
    ]
    receipt["chain"] = links
    receipt["result"] = result_of(results)
    receipt["made_with"] = made_with(results)
    return seal(receipt)


def seal(receipt: Receipt) -> Receipt:
    """Return a receipt with its digests, computed from everything else in it."""
    before = head_sha256(receipt)
    links = []
    for link in receipt["chain"]:
        before = link_sha256(before, link, LINK)
        links.append({**{key: link[key] for key in LINK}, "sha256": before})
    result = {key: receipt["result"][key] for key in RESULT}
    result["sha256"] = link_sha256(before, result, RESULT)
    whole = {key: receipt[key] for key in (*HEAD, "made_with")}
    whole |= {"chain": links, "result": result}
    order = (*HEAD, "chain", "result", "made_with")
    return {**{key: whole[key] for key in order}, "sha256": _sha256(whole)}


def signature_of(path: Path) -> Path:
    """Return where the signature of a receipt is, if it is signed."""
    return path.with_name(f"{path.name}.sig")


def to_text(receipt: Receipt) -> str:
    """Return a receipt as its file has it.

    A configuration may have an infinity, which `base.files.to_json` refuses.
    """
    return json.dumps(receipt, indent=2) + "\n"


# ---------------------------------------------------------------------- digests


def head_sha256(receipt: Receipt) -> str:
    """Return what the first link follows on."""
    return _sha256({key: receipt[key] for key in HEAD})


def link_sha256(before: str, link: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the digest of a link.

    Args:
        before: that of the link before.
        keys: LINK or, of the last one, RESULT.
    """
    return _sha256([before, *(link[key] for key in keys)])


def records_sha256(steps: Iterable[Record], epoch: Record) -> str:
    """Return the digest of an epoch's figures: loss and rate of each step, and its means.

    Args:
        steps: the records of its steps.
        epoch: its own record.
    """
    rows = [_row(record) for record in steps]
    return _sha256(nan_to_null([rows, *(epoch[key] for key in EPOCH_FIGURES)]))


def step_marks(steps: Sequence[Record]) -> str:
    """Return the marks of an epoch: first digits of the digest of all its steps up to some.

    Args:
        steps: the records of its steps.
    """
    digest, marks, marked = hashlib.sha256(), list[str](), set(marked_steps(len(steps)))
    for number, record in enumerate(steps):
        digest.update(canonical_json(nan_to_null(_row(record))) + b"\n")
        if number in marked:
            marks.append(digest.hexdigest()[:MARK_DIGITS])
    return "".join(marks)


def marked_steps(count: int) -> list[int]:
    """Return which steps of an epoch have a mark, from 0; of this many the last one always has."""
    every = -(-count // MOST_STEP_MARKS)
    return sorted({*range(every - 1, count, every), count - 1}) if count else []


def _row(record: Record) -> list[Any]:
    return [record["step"], record["loss"], record["lr"]]


def steps_by_epoch(steps: Iterable[Record], epochs: Sequence[Record]) -> list[list[Record]]:
    """Return the records of the steps of each of these epochs."""
    found: dict[int, list[Record]] = {record["epoch"]: [] for record in epochs}
    for record in steps:
        if record["epoch"] in found:
            found[record["epoch"]].append(record)
    return list(found.values())


@functools.cache  # a process runs the code that it has imported
def code_sha256() -> str:
    """Return the digest of Lockstep's own code: names and contents of its Python files."""
    digest = hashlib.sha256()
    for package in (models, trainer):
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            digest.update(f"{name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _sha256(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


# ---------------------------------------------------------------------- parts


def configuration_of(config: RunConfig, processes: int) -> dict[str, Any]:
    """Return the keys that can change the weights, as JSON brings them back.

    Args:
        processes: on which the run was; part of it only where its sums depend on them.
    """
    found = keys_of_run(config)
    if config.train.reduction == "fast":
        found["processes"] = processes
    # A copy of a file may lie anywhere; its digest says which it is.
    if config.model.weights is not None and not may_be_downloaded(config.model):
        found["model.weights"] = ANY_PLACE
    if config.train.teacher is not None:
        found["train.teacher"] = ANY_PLACE
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain


def result_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part `result` of a receipt, without its digest, from results.json."""
    digests = {key: results[key] for key in ("final_weights_sha256", "weights_sha256")}
    return {**digests, "test": {key: results["test"][key] for key in TEST}}


def made_with(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part `made_with` of a receipt, from results.json and the code that runs."""
    return {
        "code_sha256": code_sha256(),
        "versions": results["versions"],
        "environment": results["environment"],
        "equality": results["equality"],
    }
