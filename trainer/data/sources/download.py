"""Getting published files from their mirrors."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.base.files import sync

# For each address of a mirror: a machine without a network must not wait for minutes.
_CONNECT_TIMEOUT_S = 3.0
_READ_TIMEOUT_S = 30.0
_CHUNK_BYTES = 2**16


class DownloadError(Exception):
    """No mirror had all that was missing; the message has one line a mirror."""


def cache_folder(name: str) -> Path:
    """Where the files of a data set are kept: by default ~/.cache/lockstep/NAME on Linux."""
    import pooch

    return Path(pooch.os_cache("lockstep")).expanduser() / name


def download(
    md5: Mapping[str, str], mirrors: Sequence[str], folder: Path, *, alone: bool = True
) -> None:
    """Put the files into `folder`, each whole and with the right checksum or not at all.

    A mirror that fails is not asked again: the next one goes on with what is missing, and so does
    the next start.

    Args:
        md5: checksum of each file, hexadecimal, by file name.
        mirrors: addresses that end in a slash, tried in order.
        alone: whether the caller keeps others from downloading into the same folder.

    Raises:
        DownloadError: a file is still missing after the last mirror.
    """
    partial = folder / (".partial" if alone else f".partial.{platform.node()}.{os.getpid()}")
    remaining = list(md5)
    failures: list[str] = []
    for mirror in mirrors:
        try:
            while remaining:
                _download_file(mirror + remaining[0], md5[remaining[0]], partial, folder)
                del remaining[0]
        except (ValueError, OSError) as error:
            failures.append(f"{mirror}{remaining[0]}: {_reason(error)}")
    # With what a process that was killed had begun.
    shutil.rmtree(partial, ignore_errors=True)
    if remaining:
        raise DownloadError("\n".join(failures))


def _download_file(url: str, md5: str, partial: Path, folder: Path) -> None:
    """Fill a file in `partial`, so that what a killed process leaves behind is found again."""
    import pooch

    name = url.rpartition("/")[2]
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=_CHUNK_BYTES,
        timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S),
    )
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # else it announces every attempt
    try:
        found = pooch.retrieve(url, f"md5:{md5}", fname=name, path=partial, downloader=downloader)
    finally:
        logger.setLevel(level)
    whole = Path(found)
    sync(whole)
    whole.replace(folder / name)
    sync(folder)


def _reason(error: ValueError | OSError) -> str:
    """A few words; those of the network libraries run over many lines."""
    from requests import exceptions

    match error:
        case exceptions.HTTPError(response=response) if response is not None:
            return f"answered {response.status_code}"
        case exceptions.Timeout():
            return "did not answer in time"
        case exceptions.ChunkedEncodingError():
            return "broke off"
        case exceptions.ConnectionError():
            return "could not be reached"
        case exceptions.RequestException() | OSError():
            return str(error)
        case _:
            return "has another checksum than the published file"
