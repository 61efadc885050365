"""A receipt and what it was made from, made up: two epochs of two and of three steps."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from trainer.config import stored_config
from trainer.config.schema import RunConfig
from trainer.run import receipt
from trainer.run.receipt import Receipt
from trainer.training.observer import Record

Fingerprints = dict[str, str | None]

IMAGES, TEST_IMAGES, CODE = "1" * 64, "2" * 64, "3" * 64
FINGERPRINTS: Fingerprints = {"data.root": IMAGES, "model.name": None, "train.loss": CODE}
CONFIG = {"data.name": "digits", "train.epochs": 2, "optimizer.weight_decay": 0.01}
ENDS = (2, 5)
"""the last step of each epoch"""


def sha256(value: Any) -> str:
    """The digest of a value, as the documentation of receipts defines it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def make_config(**changes: Any) -> RunConfig:
    return stored_config.from_flat({**CONFIG, **changes}, Path("config.yaml"))


def make_records() -> list[Record]:
    """The lines of metrics.jsonl."""
    records: list[Record] = []
    for step in range(1, 6):
        epoch = 1 + (step > ENDS[0])
        line = {"event": "step", "epoch": epoch, "step": step, "loss": 1 / step, "lr": 0.1 * step}
        records.append({**line, "more": "than a receipt has"})
        if step in ENDS:
            figures = {key: (epoch + place) / 8 for place, key in enumerate(receipt.EPOCH_FIGURES)}
            state = {"state_sha256": f"{epoch}a" * 32, "state_marks": f"{epoch}bcd" * 3}
            records.append({"event": "epoch", "epoch": epoch, **figures, **state, "seconds": 3.0})
    return records


def make_results() -> dict[str, Any]:
    """What results.json holds, as far as a receipt is concerned."""
    return {
        "final_weights_sha256": "4" * 64,
        "weights_sha256": "5" * 64,
        "test": {"accuracy": 0.5, "loss": 1.25, "samples": 8, "worst_class": "cat"},
        "train": {"processes": 2, "skipped_steps": []},
        "data": {"fingerprint": IMAGES, "test_fingerprint": TEST_IMAGES},
        "versions": {"torch": "9.9"},
        "environment": {"device": "cpu", "torch": "9.9"},
        "equality": {"in_bits": True, "because": []},
    }


def make_receipt() -> Receipt:
    found = receipt.make(make_config(), make_results(), FINGERPRINTS, make_records())
    assert found is not None
    return found
