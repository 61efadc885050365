"""Make tables of real picture files."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from trainer.config.schema import DataConfig
from trainer.data.dataset import Dataset
from trainer.data.loading import load
from trainer.data.sources import reading

HEADER = "file,label,part,group,weight"


def png(number: int) -> bytes:
    """Return a small picture of random pixels, which the number decides."""
    pixels = np.random.default_rng(number).integers(0, 256, (12, 10), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write_rows(folder: Path, count: int = 20) -> list[str]:
    """Write pictures into a folder; return a row for each: the last two in five are of the test."""
    (folder / "photos").mkdir(parents=True)
    rows = []
    for number in range(count):
        name = f"photos/{number}.png"
        (folder / name).write_bytes(png(number))
        part = "train" if number < 0.6 * count else "test"
        rows.append(f"{name},{'cat' if number % 2 else 'dog'},{part},film {number // 2},{number}")
    return rows


def write_csv(folder: Path, rows: Sequence[str], header: str = HEADER) -> Path:
    """Write a table into a folder."""
    path = folder / "labels.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def write_shard(
    path: Path,
    labels: Sequence[Any] | pa.Array,
    names: Sequence[str] = (),
    first: int = 0,
    **columns: Any,
) -> Path:
    """Write a file of columns as the Hugging Face hub keeps pictures.

    Args:
        labels: one for each picture.
        names: of the labels 0, 1, ..., for the schema.
        first: the number of the first picture.
        columns: others, or another one for `image`.
    """
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = [
        {"bytes": png(number), "path": f"{number}.png"}
        for number in range(first, first + len(labels))
    ]
    table = pa.table({"image": pa.array(pictures, kind), "label": labels} | columns)
    if names:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        described = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": described})
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=3)
    else:
        new = pa.ipc.new_stream if "stream" in path.name else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    return path


def prepared(table: Path | str, **keys: Any) -> Dataset:
    """Load the data set of a table; decode its pictures first if necessary."""
    config = DataConfig(**({"name": "table", "root": str(table)} | keys))
    reading.prepare(config)
    return load(config, 0)
