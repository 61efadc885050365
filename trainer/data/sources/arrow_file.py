"""Read files of columns: Parquet, and Arrow's stream and file formats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.base.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".arrow")

_FILE_FORMAT = b"ARROW1"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_READ_BYTES = 2**20
"""of a column of a Parquet file at once: a group of rows may be larger than the memory"""


class ArrowFile:
    """Read one file.

    Args:
        path: the file, which ends in one of SUFFIXES.

    Raises:
        UserError: it is not whole, or pyarrow is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parquet: Any = None
        with _explain_errors(path):
            if path.suffix.lower() == ".parquet":
                from pyarrow import parquet

                self._parquet = parquet.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False)
                self.schema: pa.Schema = self._parquet.schema_arrow
            else:
                self.schema = _open_ipc(path)[0]

    def iter_batches(self, columns: Sequence[str], most_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order, some at a time.

        Args:
            columns: those that are needed, or fields of one, such as `image.path`.
            most_rows: at a time; an Arrow file has its own batches, mapped and not read.

        Raises:
            UserError: the file is damaged or cut off.
        """
        with _explain_errors(self.path):
            if self._parquet:
                yield from self._parquet.iter_batches(most_rows, None, columns, use_threads=False)
            else:
                yield from _open_ipc(self.path)[1]

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """Return the names of the labels 0, 1, ... of a column, as the Hugging Face hub keeps them.

        They are a JSON in the schema's metadata, which `datasets.Features` writes.

        Raises:
            UserError: two classes have one name.
        """
        try:
            stored = json.loads((self.schema.metadata or {})[b"huggingface"])
            feature = stored["info"]["features"][column]
            if isinstance(feature, list):  # of several labels, as older versions write it
                (feature,) = feature
            names = feature.get("feature", feature)["names"]
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return None
        if len(set(names)) < len(names):
            raise UserError(f"{self.path}: two classes of the column {column} have the same name")
        return tuple(names)


@contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UserError(
            f"data.root: reading {path} needs pyarrow: pip install 'lockstep-trainer[parquet]'"
        ) from error
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"data.root: there is no file {path}") from error
    except PermissionError:
        raise
    except (pa.ArrowException, OSError) as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: damaged or cut off ({words}); get it again") from error


def _open_ipc(path: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return the schema and the batches of a file in one of Arrow's own formats."""
    import pyarrow as pa

    with path.open("rb") as file:
        is_stream = file.read(len(_FILE_FORMAT)) != _FILE_FORMAT
        file.seek(max(0, path.stat().st_size - len(_END_OF_STREAM)))
        if is_stream and file.read() != _END_OF_STREAM:
            # The format allows a stream to just stop; then nothing would tell that it was cut.
            raise pa.ArrowInvalid("it has no end-of-stream mark")
    mapped = pa.memory_map(str(path))
    if is_stream:
        stream = pa.ipc.open_stream(mapped)
        return stream.schema, iter(stream)
    opened = pa.ipc.open_file(mapped)
    batches = map(opened.get_batch, range(opened.num_record_batches))
    return opened.schema, batches
