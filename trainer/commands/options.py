"""What the commands' arguments have in common: --json, --model, numbers, files, a run's values."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from trainer.base import kernels
from trainer.base.errors import UserError
from trainer.config import stored_config
from trainer.config.schema import DataConfig, RunConfig, folder_of
from trainer.ranks import processes

log = logging.getLogger("lockstep")


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add --json; `base.terminal.print_report` prints by it."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add --model: the code of a user-defined model runs only if its user names it."""
    parser.add_argument(
        "--model", metavar="NAME", help="the name of a user-defined model, whose code is run"
    )


def add_trained_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add RUN; `trained_model.load` reads what it names."""
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="a finished run's folder, or its model.safetensors"
    )


EMPTY = "is empty; name what is meant (is a variable of the shell not set?)"


def add_pictures_argument(parser: argparse.ArgumentParser) -> None:
    """Add FILE...; `named_pictures.list_named` lists what they stand for."""
    parser.add_argument(
        "files",
        type=_not_empty,
        nargs="+",
        metavar="FILE",
        help="a picture, a folder or an archive (.zip, .tar) of pictures, or the address of an "
        "archive",
    )


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError(EMPTY)
    return text


def positive_integer(text: str) -> int:
    """Return the number in an argument, as argparse's `type`.

    Raises:
        ArgumentTypeError: it is not an integer of at least 1.
    """
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def add_max_megapixels_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --max_megapixels.

    Args:
        what: is done with a picture of more, in words.
    """
    parser.add_argument(
        "--max_megapixels",
        type=positive_integer,
        default=DataConfig.max_megapixels,
        metavar="N",
        help=f"a picture of more million pixels {what}; default: %(default)s",
    )


def add_min_confidence_option(parser: argparse.ArgumentParser) -> None:
    """Add --min_confidence."""
    parser.add_argument(
        "--min_confidence",
        type=_share,
        default=0.0,
        metavar="P",
        help="name no class where the most probable one is less probable than this: the class is "
        "then 'not sure', null in JSON; the run's report shows what is gained",
    )


def _share(text: str) -> float:
    """Return the number in an argument, as argparse's `type`."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def choose_kernels_of(run: Path) -> None:
    """Compute with the kernels of a finished run, if this machine has them; before torch comes.

    Args:
        run: its folder, or its model.safetensors, which may have been moved away from it.

    Raises:
        UserError: its configuration is damaged.
    """
    asked = stored_config.kernels_of(run)
    try:
        kernels.choose(asked)
    except UserError as error:
        log.warning("equal to rounding, not in bits: %s", error)


def check_output(option: str, path: Path | None, *suffixes: str) -> None:
    """Find out before the work whether a file can be written.

    Args:
        suffixes: one of which its name must end in; none: any name.

    Raises:
        UserError: the name is wrong, or its folder does not exist.
    """
    if path is None:
        return
    wrong = bool(suffixes) and path.suffix not in suffixes
    # A device or a pipe would be replaced.
    is_other = path.exists() and not path.is_file()
    if wrong or is_other or not path.absolute().parent.is_dir():
        ending = f" that ends in {' or '.join(suffixes)}" if suffixes else ""
        raise UserError(f"{option}: {path} must be a file{ending} in an existing folder")


def complete(config: RunConfig) -> RunConfig:
    """Return `config` with what an earlier start of its run has filled in.

    Of processes that a launcher has started rank 0 alone does so, later: only it sees the folder.

    Raises:
        UserError: the folder holds another run.
    """
    if processes.is_launched():
        return config
    from trainer.run.run_folder import RunFolder

    return RunFolder(folder_of(config)).complete(config)


@contextlib.contextmanager
def report_write_errors(option: str, path: Path) -> Iterator[None]:
    """Name the option and its file where writing it in this context fails.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{option}: {path} cannot be written ({error.strerror})") from error
