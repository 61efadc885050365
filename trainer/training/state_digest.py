"""The digest of all that a run's next step depends on, at the end of an epoch.

It covers what a checkpoint there contains: weights and buffers, the optimiser's state, the average,
the best weights so far, and the position; not times, and nothing of the machine. Random state is
none, as every stream is a function of the position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from trainer.base.files import canonical_json
from trainer.base.tensor_files import Tensors, bytes_of, tensor_specs

POSITION_KEYS = (
    "epoch", "step", "last_accuracy", "best_accuracy", "best_epoch", "best_step",
    "plateaus", "plateau_epoch",
)  # fmt: skip
"""of `RunState`"""
CHOICE_KEYS = ("best_figure", "best_loss")
"""likewise, where they are not null: older versions had none"""


MARK_DIGITS = 4
"""hexadecimal digits of a digest that say where two parted, and prove nothing"""


class StateDigest(NamedTuple):
    """The digest of a state, and of how far two states are the same."""

    sha256: str
    marks: str
    """for each tensor the first digits of the digest up to it, one after the other"""


def digest_state(files: Mapping[str, Tensors], small: Mapping[str, Any]) -> StateDigest:
    """Return the SHA-256 of a state, with its marks.

    For each file and tensor, in the order of their names, it goes over a line of JSON with both
    names, the type and the shape, and over the tensor's bytes, little-endian and C-contiguous; then
    over a line with the small values.

    Args:
        files: tensors of each file of a checkpoint, by its name, as `Snapshot.collect` gives them.
        small: the small values, likewise, or state.json of a checkpoint.
    """
    digest, marks = hashlib.sha256(), list[str]()
    for file in sorted(files):
        specs = tensor_specs(files[file])
        for name in sorted(files[file]):
            digest.update(canonical_json([file, name, *specs[name]]) + b"\n")
            digest.update(bytes_of(files[file][name]))
            marks.append(digest.hexdigest()[:MARK_DIGITS])
    run = {key: small["run"][key] for key in POSITION_KEYS}
    run |= {key: value for key in CHOICE_KEYS if (value := small["run"].get(key)) is not None}
    others = {key: small[key] for key in ("optimizer", "scaler")}
    digest.update(canonical_json({"run": run, **others}) + b"\n")
    return StateDigest(digest.hexdigest(), "".join(marks))


def first_differing_mark(ours: str, theirs: str) -> int | None:
    """Return which mark is the first that differs, from 0; None if none does."""
    for at in range(0, max(len(ours), len(theirs)), MARK_DIGITS):
        if ours[at : at + MARK_DIGITS] != theirs[at : at + MARK_DIGITS]:
            return at // MARK_DIGITS
    return None
