"""Get files of a repository of the Hugging Face hub, by way of huggingface_hub and its cache.

Its variables apply, among them HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from trainer.base.errors import UserError, first_line
from trainer.config.weights_rules import HUB_NAME

PREFIX = "hf:"
WEIGHTS = "model.safetensors"
_PICKLES = ("pytorch_model.bin", "model.pth", "pytorch_model.pth")


class NotAtHandError(UserError):
    """A file is not there, or cannot be reached now: it may be right all the same."""


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit.

    Args:
        download: whether to ask the hub for what the cache of this machine lacks.
    """

    repository: str
    commit: str
    download: bool

    @property
    def name(self) -> str:
        """As in model.weights; means the same files for ever."""
        return f"{PREFIX}{self.repository}@{self.commit}"

    def get(self, file: str) -> Path | None:
        """Return where a file is on this machine; None if the repository has no such file.

        Raises:
            UserError: as `find`.
        """
        return _get(self.repository, file, self.commit, self.download)


def find(name: str, *, download: bool, file: str = WEIGHTS) -> tuple[Snapshot, Path]:
    """Return a repository, and where its weights are on this machine.

    Args:
        name: `hf:OWNER/NAME`, for the newest commit, or `hf:OWNER/NAME@REVISION`.
        download: whether to ask the hub; if not, only the cache is looked at.
        file: the name of the weights in the repository.

    Raises:
        NotAtHandError: the hub cannot be reached, and the cache does not have it.
        UserError: there is no such repository, revision or file, or access is not granted.
    """
    parts = re.fullmatch(HUB_NAME, name)
    assert parts is not None
    repository, revision = parts["repository"], parts["revision"]
    weights = _get(repository, file, revision, download)
    if weights is None:
        raise UserError(_describe_absence(repository, file, revision, download))
    # Whatever else is needed is of the same commit, in case somebody writes to it meanwhile.
    return Snapshot(repository, _commit_of(weights), download), weights


def request_error() -> type[Exception]:
    """Return what is raised where the network fails.

    It is of httpx or httpx2: huggingface_hub has changed its library twice.
    """
    from huggingface_hub import errors

    found: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    return found


def _get(repository: str, file: str, revision: str | None, download: bool) -> Path | None:
    """Return the path of a file in the cache, after a download if need be; None: it has none."""
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

    where = _name(repository, revision)
    try:
        return Path(
            hf_hub_download(repository, file, revision=revision, local_files_only=not download)
        )
    except errors.LocalEntryNotFoundError as error:
        known = try_to_load_from_cache(repository, file, revision=revision)
        if known is not None and not isinstance(known, str):
            return None  # the cache remembers that the repository does not have it
        why = f" ({first_line(error)})" * download
        raise NotAtHandError(
            f"model.weights: {where}: {file} is not in the cache of the hub's files, and the hub "
            f"is not reached{why}; get it once where there is a network: hf download {repository}"
        ) from error
    except errors.EntryNotFoundError:
        return None
    except errors.GatedRepoError as error:
        raise UserError(
            f"model.weights: {where}: its owner grants access by request; ask for it on its page, "
            f"and log in: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"model.weights: {where}: the repository has no such revision") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"model.weights: {where}: the hub has no such repository, or it is private and you "
            f"are not logged in (hf auth login)"
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"model.weights: {where}: {first_line(error)}") from error
    except (request_error(), OSError, errors.HfHubHTTPError, errors.XetDownloadError) as error:
        raise NotAtHandError(
            f"model.weights: {where}: {file} cannot be downloaded: {first_line(error)}"
        ) from error


def _describe_absence(repository: str, file: str, revision: str | None, download: bool) -> str:
    where = _name(repository, revision)
    for pickle in _PICKLES:
        if download and _get(repository, pickle, revision, download):
            return (
                f"model.weights: {where}: has no {file} but {pickle}, a pickle, which could run "
                f"code and is not read; convert it once: hf download {repository} {pickle} "
                f"--local-dir . && python -m trainer convert-weights {pickle}"
            )
    return f"model.weights: {where}: the repository has no {file}"


def _name(repository: str, revision: str | None) -> str:
    return f"{PREFIX}{repository}" + (f"@{revision}" if revision else "")


def _commit_of(path: Path) -> str:
    """Return the commit of a file in the cache, whose path is .../snapshots/COMMIT/FILE."""
    return path.parts[path.parts.index("snapshots") + 1]
