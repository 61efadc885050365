"""Reads the file that an offline run of Weights & Biases writes."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_log(path: Path) -> Iterator[Any]:
    """The protobuf records of a run-*.wandb file.

    The format is that of LevelDB's log (github.com/google/leveldb, doc/log_format.md) after a
    file header of 7 bytes, with a plain CRC-32 over the type and the data.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, collected = 7, b""
    while position < len(content):
        left_in_block = 32768 - position % 32768
        if left_in_block < 7:  # too little for a header: zeros
            position += left_in_block
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, position)
        data = content[position + 7 : position + 7 + length]
        assert zlib.crc32(bytes([kind]) + data) == checksum
        position += 7 + length
        collected += data
        if kind in (1, 4):  # a full record, or the last piece of one
            record = Record()
            record.ParseFromString(collected)
            collected = b""
            yield record
    assert not collected


class OfflineRun:
    """The contents of the one offline run below a folder."""

    def __init__(self, output_dir: Path) -> None:
        (self.folder,) = output_dir.glob("wandb/offline-run-*")
        (path,) = self.folder.glob("run-*.wandb")
        self.rows: dict[int, dict[str, Any]] = {}
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.files: set[str] = set()
        self.run: Any = None
        self.exit_code: int | None = None
        self.is_preempted = False
        for record in read_log(path):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                row = self.rows.setdefault(record.history.step.num, {})
                row.update(self._items(record.history.item))
            elif kind == "run":
                self.run = record.run
                self.config.update(self._items(record.run.config.update))
            elif kind == "summary":
                self.summary.update(self._items(record.summary.update))
            elif kind == "files":
                self.files.update(file.path for file in record.files.files)
            elif kind == "preempting":
                self.is_preempted = True
            elif kind == "exit":
                self.exit_code = record.exit.exit_code

    @staticmethod
    def _items(items: Any) -> dict[str, Any]:
        return {
            ">".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items
        }

    def table(self, key: str) -> dict[str, Any]:
        """The columns and rows of a logged table."""
        (path,) = {row[f"{key}>path"] for row in self.rows.values() if f"{key}>path" in row}
        table: dict[str, Any] = json.loads((self.folder / "files" / path).read_text())
        return table
