"""The columns of an Arrow file that count: their types, and what they say as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainer.base.errors import UserError
from trainer.data.sources.arrow_arrays import are_images, is_list
from trainer.data.sources.arrow_file import ArrowFile
from trainer.data.sources.table_rows import SEPARATOR, Role

if TYPE_CHECKING:
    import pyarrow as pa


def check_types(file: ArrowFile, columns: Sequence[tuple[Role, str]], *, several: bool) -> None:
    """Make sure that each column has a type that its role can have.

    Args:
        several: whether a picture may have several labels.

    Raises:
        UserError: names the column, its type and what it must be.
    """
    import pyarrow as pa

    for role, name in columns:
        kind = file.schema.field(name).type
        if role == "file":
            fields = [kind.field(number).name for number in range(kind.num_fields)]
            is_right = fields and {"bytes", "path"} <= set(fields)
            is_right = is_right or is_text(kind) or pa.types.is_binary(kind)
            is_right = is_right or pa.types.is_large_binary(kind) or are_images(kind)
            rule = (
                "a picture's bytes, a struct {bytes, path}, lists of numbers as (height, width) or "
                "(height, width, channels), or the name of a file"
            )
        else:
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if role == "label" and is_list(kind):
                if not several:
                    raise UserError(
                        f"{file.path}: the column {name} has the type {kind}, several labels for a "
                        "picture; they are read with data.multi_label: true"
                    )
                kind = kind.value_type
            is_right = is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
            is_right = is_right or (role == "weight" and pa.types.is_floating(kind))
            rule = "numbers" if role == "weight" else "text or whole numbers"
        if not is_right:
            raise UserError(
                f"data.{role}_column: the column {name} of {file.path} has the type {kind}; it "
                f"must be {rule}"
            )


def is_text(kind: pa.DataType) -> bool:
    """Return whether values of a type are text."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def texts_of(column: pa.Array) -> list[str]:
    """Return the values of a column as text, "" for none; those of a list joined."""
    import pyarrow as pa

    if is_list(column.type):
        return [_join(several or ()) for several in column.to_pylist()]
    return [text or "" for text in column.cast(pa.string()).to_pylist()]


def _join(labels: Sequence[object]) -> str:
    for label in labels:
        if SEPARATOR in str(label):
            raise UserError(
                f"data.label_column: the label {label!r} has a {SEPARATOR}, which stands between "
                "two labels; rename it"
            )
    return SEPARATOR.join(map(str, labels))


def paths_of(column: pa.Array) -> list[str]:
    """Return the paths in a column of text or of structs."""
    import pyarrow as pa
    from pyarrow import compute

    is_struct = pa.types.is_struct(column.type)
    return texts_of(compute.struct_field(column, ["path"]) if is_struct else column)
