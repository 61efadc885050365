"""Remove from files of torch where the code of a network lay on the machine that wrote them."""

from __future__ import annotations

import io
from typing import Any
from zipfile import ZipFile, ZipInfo

_HEADER_BYTES = 30
"""of a member of a zip, before its name"""
_ALIGNMENT_BYTES = 64
"""of each member's content, by which torch maps tensors into memory"""
_PADDING = b"FB"
"""torch's name of the field of a header that does nothing"""


def remove_from_program(program: Any) -> None:
    """Remove the lines of source from the operators of a `torch.export.ExportedProgram`."""
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)


def remove_from_torchscript(content: bytes) -> bytes:
    """Leave out the members of a TorchScript file that tell the debugger the lines of source.

    Torch reads the file without them; what it computes is in others.
    """
    written = io.BytesIO()
    with ZipFile(io.BytesIO(content)) as whole, ZipFile(written, "w") as kept:
        for one in whole.infolist():
            if one.filename.endswith(".debug_pkl"):
                continue
            info = ZipInfo(one.filename)
            begin = written.tell() + _HEADER_BYTES + len(one.filename.encode()) + 4
            padding = -begin % _ALIGNMENT_BYTES
            info.extra = _PADDING + padding.to_bytes(2, "little") + b"Z" * padding
            kept.writestr(info, whole.read(one))
    return written.getvalue()
