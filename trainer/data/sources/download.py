"""Download published files from their mirrors into the cache."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pooch

# For each address of a mirror: a machine without a network must not wait for minutes.
_CONNECT_TIMEOUT_S = 3.0
_READ_TIMEOUT_S = 30.0
_CHUNK_BYTES = 2**16


class DownloadError(Exception):
    """No mirror had all missing files; the message has one line a mirror."""


def cache_folder(name: str) -> Path:
    """Return the folder where a data set is cached: by default ~/.cache/lockstep/NAME on Linux."""
    import pooch

    return Path(pooch.os_cache("lockstep")).expanduser() / name


def download(registry: Mapping[str, str], mirrors: Sequence[str], folder: Path) -> None:
    """Download the files that `folder` lacks, or has with another checksum.

    A file is put there whole and with its checksum, or not at all. A mirror that fails is not
    asked again: the next one goes on with the files that are missing, and so does the next call.

    Args:
        registry: checksum of each file as ALGORITHM:HEXADECIMAL, by file name.
        mirrors: addresses that end in a slash, tried in order.

    Raises:
        DownloadError: a file is still missing after the last mirror.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")  # it would announce every attempt
    downloader = _downloader()
    failures: list[str] = []
    for mirror in mirrors:
        files = pooch.create(folder, mirror, registry=dict(registry))
        for name in registry:
            try:
                files.fetch(name, downloader=downloader)
            except (ValueError, OSError) as error:
                failures.append(f"{mirror}{name}: {_reason(error)}")
                break
        else:
            return
    raise DownloadError("\n".join(failures))


def download_file(address: str, path: Path) -> None:
    """Download a file whose checksum may be unknown.

    Raises:
        DownloadError: it could not be downloaded.
    """
    try:
        _downloader()(address, str(path), None)
    except (ValueError, OSError) as error:
        raise DownloadError(f"{address}: {_reason(error)}") from error


def _downloader() -> pooch.HTTPDownloader:
    import pooch

    return pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=_CHUNK_BYTES,
        timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S),
    )


def _reason(error: ValueError | OSError) -> str:
    """Say in a few words what failed; the network libraries take many lines."""
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
        case OSError():
            return str(error)
        case _:
            return "has another checksum than the published file"
