"""Write a trained model as one file for other programs, check it, and note it in its run.

All but safetensors are written by `worker` in a separate process, as torch's exporters may crash on
a network that they do not understand.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.base.errors import UserError
from trainer.base.files import sha256_of, sync, write_file
from trainer.base.tensor_files import read_tensors, write_tensors
from trainer.config.schema import RunConfig
from trainer.data.measurements import fingerprint_of
from trainer.data.scaling import encode_scaling, network_tensors
from trainer.finished import evaluation_images, trained_model
from trainer.finished.export import checking, formats, record
from trainer.finished.export.description import Order, describe
from trainer.finished.export.formats import Format
from trainer.finished.export.modules import PixelModel
from trainer.finished.export.quantisation import CALIBRATION_IMAGES
from trainer.finished.run_record import are_images_of_run
from trainer.finished.trained_model import TrainedModel

log = logging.getLogger("lockstep")


def export(
    trained: TrainedModel,
    order: Order,
    target: Path,
    config: RunConfig | str,
    *,
    must_test: bool = False,
) -> dict[str, Any]:
    """Write the model to `target`, whole and checked or not at all.

    Args:
        trained: on the CPU; of a network that any process can build by its name.
        config: of its run, whose images it is tested on and quantised by; or why there is none.
        must_test: the user has named the images: without them nothing is written.

    Returns:
        What was written, see `describe`; with `checked`: over how many images it was compared, the
        largest difference of a value, and the tolerance; and `tested`: what
        `checking.compare_on_images` found on the run's test images, or None, and then
        `not_tested_because`. The same goes into the run's exports.json.

    Raises:
        UserError: a package is missing, there are no images that must be, the network cannot be
            written in this format, the file does not give what the original gives, or the exporter
            has crashed.
    """
    if target.exists() and target.samefile(trained.file):
        raise UserError(f"{target}: is the run's own file; choose another --output")
    formats.require(order.form)
    if not isinstance(config, str):
        record.read(trained.file.parent)  # a damaged one is found before the work
    facts = describe(trained, order)
    found: dict[str, Any] = {}

    def write(temporary: Path) -> None:
        if order.form == "safetensors":
            found["checked"] = _write_safetensors(trained, temporary, target)
            return
        found.update(write_graph(trained, order, temporary, target, config))
        found.update(_test(trained, order, temporary, config, must_test=must_test))

    try:
        _write_with_weights(target, write)
        size_bytes = sum(file.stat().st_size for file in files_of(order.form, target))
        written = {"file": str(target), "bytes": size_bytes, **facts, **found}
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    if not isinstance(config, str):
        _note(trained.file.parent, order, target, written)
    return written


def write_graph(
    trained: TrainedModel, order: Order, path: Path, target: Path, config: RunConfig | str
) -> dict[str, Any]:
    """Write a model in any format but safetensors, in a separate process, and check it on patterns.

    Args:
        path: of the file; where this fails, a part of it may be left.
        target: what it will be called, for messages.
        config: as of `export`.

    Returns:
        What was `checked`, and of int8 the `calibration`.

    Raises:
        UserError: as `export`.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        task: dict[str, Any] = {"form": order.form, "facts": describe(trained, order)}
        task |= {"file": str(trained.file), "model": trained.name}
        task["input_type"] = None if order.with_preprocessing else order.input_type
        task["calibration"] = None
        if order.form == "int8":
            chosen = _calibrate(trained, order, config, Path(folder))
            task["calibration"], found["calibration"] = chosen
        task |= {"temporary": str(path), "target": str(target)}
        return found | {"checked": _run_worker(task)}


def files_of(form: Format, path: Path) -> list[Path]:
    """Return the files of an export: OpenVINO's has its weights in another."""
    return [path, path.with_suffix(".bin")] if form == "openvino" else [path]


def _write_with_weights(target: Path, write: Any) -> None:
    """Do as `write_file`, with the file of OpenVINO's weights that may be beside it."""
    left: list[Path] = []

    def write_both(temporary: Path) -> None:
        weights = temporary.with_suffix(".bin")
        left.append(weights)
        write(temporary)
        if weights.exists():
            weights.chmod(temporary.stat().st_mode)
            sync(weights)
            # Whoever is killed after the next line leaves no pair, rather than one of two exports.
            target.unlink(missing_ok=True)
            weights.replace(target.with_suffix(".bin"))

    try:
        write_file(target, write_both)
    finally:
        for weights in left:
            weights.unlink(missing_ok=True)


def _calibrate(
    trained: TrainedModel, order: Order, config: RunConfig | str, folder: Path
) -> tuple[str, dict[str, Any]]:
    """Write some validation images as the network takes them; return the file and what they are.

    Raises:
        UserError: there are no images.
    """
    if isinstance(config, str):
        raise UserError(f"--format int8: needs the run's validation images, and {config}")
    # The training images, where a run has held out none.
    split = "train" if config.data.validation_size == 0 else "validation"
    images = evaluation_images.load(trained, config, split).images
    count = min(len(images), CALIBRATION_IMAGES)
    chosen = np.linspace(0, len(images) - 1, count).round().astype(np.int64)
    pixels = images.images.index_select(0, torch.from_numpy(chosen)).cpu()
    path = folder / "calibration.npy"
    # With preprocessing, what comes before the network makes float32 of them.
    dtype = torch.float32 if order.with_preprocessing else getattr(torch, order.input_type)
    np.save(path, pixels.to(dtype).numpy(), allow_pickle=False)
    return str(path), {"split": split, "images": count}


def _test(
    trained: TrainedModel, order: Order, path: Path, config: RunConfig | str, *, must_test: bool
) -> dict[str, Any]:
    """Return what the file does with the run's test images, or why that is not known.

    Raises:
        UserError: the images that must be there cannot be read.
    """
    if isinstance(config, str):
        return {"tested": None, "not_tested_because": config}
    assert order.form != "safetensors"
    try:
        images = evaluation_images.load(trained, config, "test")
    except UserError as error:
        if must_test:
            raise
        log.warning("not compared on the test images: %s", error)
        return {"tested": None, "not_tested_because": str(error)}
    own = are_images_of_run(trained.file.parent, images.fingerprint, fingerprint_of(images.images))
    uint8 = order.with_preprocessing or order.input_type == "uint8"
    tested = checking.compare_on_images(
        formats.open_file(order.form, path),
        trained,
        images,
        config.data,
        with_preprocessing=order.with_preprocessing,
        dtype=torch.uint8 if uint8 else torch.float32,
    )
    _warn(order, tested, own)
    return {"tested": tested | {"own_images": own}}


def _warn(order: Order, tested: dict[str, Any], own: bool | None) -> None:
    """Warn of a file that answers otherwise than its format lets expect."""
    if own is False:
        log.warning("the test images have changed since the run: the comparison is on others")
    tolerance = checking.tolerance_of(order.form, with_preprocessing=order.with_preprocessing)
    found = tested["largest_probability_difference"]
    if tolerance is not None and found > tolerance:
        log.warning(
            "%s: probabilities of test images differ by up to %.2g, where %g is usual; %s of %s "
            "images get another answer",
            order.form, found, tolerance, f"{tested['other_answers']:,}", f"{tested['images']:,}",
        )  # fmt: skip
    if tested["accuracy_lost"] > checking.MOST_LOST:
        log.warning(
            "%s: the accuracy on the test images is %.2f %%, where the original has %.2f %%",
            order.form, 100 * tested["accuracy"], 100 * tested["own_accuracy"],
        )  # fmt: skip


def _note(folder: Path, order: Order, target: Path, written: dict[str, Any]) -> None:
    """Write the facts of an export into exports.json, where the run's folder can be written."""
    inside = target.parent.resolve() == folder.resolve()
    keys = ("bytes", "weights_sha256", "calibration", "checked", "tested", "not_tested_because")
    facts = {
        "format": order.form,
        "with_preprocessing": order.with_preprocessing,
        "input_type": "uint8" if order.with_preprocessing else order.input_type,
        "file": target.name if inside else str(target.resolve()),
        "sha256": {file.name: sha256_of(file) for file in files_of(order.form, target)},
        **{key: written[key] for key in keys if key in written},
    }
    key = record.key_of(order.form, with_preprocessing=order.with_preprocessing)
    try:
        record.add(folder, key, facts)
    except OSError as error:
        log.warning("%s: not noted there (%s)", folder / record.NAME, error.strerror or error)


def _write_safetensors(trained: TrainedModel, path: Path, target: Path) -> dict[str, Any]:
    numbers, scaling = encode_scaling(trained.scaling)
    metadata = json.dumps(json.loads(trained.metadata) | numbers)
    # From the run's file: the module's tensors may have changed with its mode.
    weights = network_tensors(read_tensors(trained.file))
    write_tensors(path, {**weights, **scaling}, {"model": metadata})
    again = trained_model.load(path, trained.name)
    original, copy = (PixelModel(one).eval() for one in (trained, again))
    return checking.check_pixels(copy, original, target, checking.TOLERANCE, same_draws=True)


def _run_worker(task: dict[str, Any]) -> dict[str, Any]:
    """Have a file written and checked by a separate process; return what was checked.

    Raises:
        UserError: the file could not be written, or the process has ended without a word.
    """
    # As PYTHONPATH, so that user-defined code is found there too; -P: only there.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "trainer.finished.export.worker"],
        # Not as an argument: the names of thousands of classes are longer than one may be.
        input=json.dumps(task).encode(),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        ending = _describe_ending(done)
        raise UserError(f"--format {task['form']}: {ending}; nothing is written") from None
    if "error" in found:
        raise UserError(found["error"])
    checked: dict[str, Any] = found["checked"]
    return checked


def _describe_ending(done: subprocess.CompletedProcess[bytes]) -> str:
    """Say how the process has ended, with its last line on standard error."""
    code = done.returncode
    if code == -signal.SIGKILL:
        how = "was killed (SIGKILL), as happens where memory runs out"
    elif code < 0:
        how = f"crashed on this network (signal {-code}, {signal.Signals(-code).name})"
    else:
        how = f"ended with exit code {code}"
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"the process of the exporter {how}" + "".join(f": {line[:200]}" for line in last)
