"""Write the page as files for any web space: the model runs in the browser, by onnxruntime-web."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from trainer.base.errors import UserError
from trainer.base.files import sha256_of, write_json
from trainer.commands.demo import graph, page
from trainer.commands.options import report_write_errors
from trainer.data.sources.download import DownloadError, cache_folder, download
from trainer.finished.export import writing
from trainer.finished.export.description import Order
from trainer.finished.trained_model import TrainedModel

ORT_VERSION = "1.30.0"
ORT_FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
"""files of onnxruntime-web, in dist/ of its package, with their SHA-256"""
ORT_MIRRORS = (
    f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{ORT_VERSION}/dist/",
    f"https://unpkg.com/onnxruntime-web@{ORT_VERSION}/dist/",
)
LICENSE = "onnxruntime_license.txt"
MODEL = "model.onnx"


def write(
    trained: TrainedModel,
    folder: Path,
    name: str,
    limits: dict[str, Any],
    ort: Path | None,
) -> dict[str, Any]:
    """Write the page into a new folder, whole or not at all.

    Args:
        trained: on the CPU.
        folder: one that does not exist, or is empty.
        name: what the page calls the run.
        limits: `min_confidence` and `max_megapixels`, as of the served page.
        ort: a folder with ORT_FILES; None: they are downloaded once.

    Returns:
        `folder`, its `files` with their bytes, and whether the page `has_maps`.

    Raises:
        UserError: the folder has something in it, a file is missing or another, or the model cannot
            be exported.
    """
    with report_write_errors("--static", folder):
        is_taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if is_taken:
        raise UserError(f"--static: {folder} is there already; name a new folder, or empty it")
    runtime = find_runtime(ort)
    facts: dict[str, Any] = {}

    def fill(temporary: Path) -> None:
        facts["has_maps"] = write_model(trained, temporary / MODEL)
        for file in runtime:
            shutil.copyfile(file, temporary / file.name)
        for part in ("demo.css", "demo.js", LICENSE):
            (temporary / part).write_bytes(page.read(part))
        (temporary / "classify.js").write_bytes(page.read("classify_static.js"))
        html = page.render(trained, name, is_served=False)
        (temporary / "index.html").write_text(html, encoding="utf-8")
        thresholds = None if trained.thresholds is None else list(trained.thresholds)
        known = {"class_names": list(trained.class_names), "thresholds": thresholds, **limits}
        write_json(temporary / "model.json", known | {"weights_sha256": trained.weights_sha256})

    with report_write_errors("--static", folder):
        _write_folder(folder, fill)
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    return {"folder": str(folder), "files": files, **facts}


def _write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` fill a hidden folder, and give it its name where it is complete."""
    temporary = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def find_runtime(ort: Path | None) -> list[Path]:
    """Return the files of onnxruntime-web.

    Raises:
        UserError: one is missing or has another checksum, or they cannot be downloaded.
    """
    if ort is None:
        folder = cache_folder(f"onnxruntime-web-{ORT_VERSION}")
        registry = {name: f"sha256:{digest}" for name, digest in ORT_FILES.items()}
        try:
            download(registry, ORT_MIRRORS, folder)
        except DownloadError as error:
            raise UserError(
                f"--static: onnxruntime-web could not be downloaded; on a machine that can: npm "
                f"pack onnxruntime-web@{ORT_VERSION}, and then --ort DIR, its folder "
                f"package/dist\n{error}"
            ) from error
        return [folder / name for name in ORT_FILES]
    for name, digest in ORT_FILES.items():
        if not (ort / name).is_file():
            raise UserError(
                f"--ort: {ort / name} is missing; name the folder dist of "
                f"onnxruntime-web {ORT_VERSION}"
            )
        if sha256_of(ort / name) != digest:
            raise UserError(
                f"--ort: {ort / name} is not that of onnxruntime-web {ORT_VERSION}: it has another "
                "SHA-256"
            )
    return [ort / name for name in ORT_FILES]


def write_model(trained: TrainedModel, path: Path) -> bool:
    """Write the graph that the page asks, and return whether it gives maps.

    Raises:
        UserError: it cannot be exported, or does not give the same with its new ends.
    """
    order = Order("onnx", with_preprocessing=True)
    writing.export(trained, order, path, "it is written for a page")
    import onnx
    import onnxruntime

    exported = path.read_bytes()
    proto = onnx.load_from_string(exported)
    has_maps = graph.add_ends(proto, trained)
    onnx.checker.check_model(proto, full_check=True)
    height, width = trained.image_size
    pattern = np.arange(3 * (height + 3) * width) % 251
    pictures = pattern.reshape(1, height + 3, width, 3).astype(np.uint8)
    given = {"pictures": pictures, graph.INVERT: np.array(0, np.float32)}
    before, after = (
        onnxruntime.InferenceSession(one, providers=["CPUExecutionProvider"])
        for one in (exported, proto.SerializeToString())
    )
    expected = before.run(["probabilities"], {"pictures": pictures})[0]
    if not np.array_equal(after.run(["probabilities"], given)[0], expected):
        raise UserError("--static: the page's graph does not give what the exported one gives")
    onnx.save(proto, path)
    return has_maps
