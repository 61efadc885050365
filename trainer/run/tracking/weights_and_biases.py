"""Weights & Biases: online, offline or not at all, and the tables that a run logs there."""

from __future__ import annotations

import contextlib
import logging
import netrc
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args
from urllib.parse import urlsplit

from trainer.base.errors import first_line
from trainer.base.timeouts import run_with_timeout
from trainer.run.console import worst_rows
from trainer.run.main_figure import has_several_labels, main_figure
from trainer.run.tracking.accelerate_trackers import (
    PROJECT,
    AccelerateTracker,
    class_figures,
    pictures,
)
from trainer.run.tracking.tracker import START_TIMEOUT_S, GuardedTracker
from trainer.training.observer import Record

if TYPE_CHECKING:
    import wandb
    from accelerate.tracking import GeneralTracker

Mode = Literal["auto", "online", "offline", "disabled"]

MODES = {"dryrun": "offline", "run": "online", "shared": "online"}
"""of WANDB_MODE: wandb's other names, and what they are here"""

INIT_TIMEOUT_S = 8
"""how long the server may take to accept the run; after that it is kept offline"""
MOST_TABLE_ROWS = 10_000
"""wandb shows no more rows of a table, and drops the others silently"""
GOODBYE_TIMEOUT_S = 5
"""how long the library may take to end after it has failed"""

NO_KEY = "no key found; `wandb login` stores one"

logger = logging.getLogger("lockstep")


class WandbTracker(AccelerateTracker):
    """A run at Weights & Biases, with tables of the classes and of what is confused."""

    def __init__(self, tracker: GeneralTracker, folder: Path, step: int) -> None:
        super().__init__(tracker, folder, step)
        self._run: wandb.Run = tracker.tracker
        self._run.define_metric("epoch/*", step_metric="epoch")

    def figures(self, record: Record) -> dict[str, Any]:
        """Return the figures of a record, its epoch, the axis of epoch/*, and the digest."""
        digest = record.get("weights_sha256")
        more = {"epoch": record["epoch"]} | ({"epoch/weights_sha256": digest} if digest else {})
        return super().figures(record) | more

    def mark_stopped(self) -> None:
        """Tell the server that the run will go on, so that a sweep starts it again."""
        self._run.mark_preempting()

    def finish(self, results: dict[str, Any] | None) -> None:
        """Log the results, tables and pictures, and close the run as finished or as failed."""
        if results is not None:
            import wandb

            test = results["test"]
            images = {name: wandb.Image(str(path)) for name, path in pictures(self.folder).items()}
            values = self.test_figures(test) | class_figures(test) | self._tables(test) | images
            # All in one row, the next: wandb drops what comes for a step that it has already.
            self.tracker.log(values)
            self._run.summary.update({"test/worst_class": test["worst_class"]})
        self._run.finish(exit_code=0 if results is not None else 1)

    def _tables(self, test: dict[str, Any]) -> dict[str, Any]:
        import numpy as np
        import wandb

        per_class = test["per_class"]
        names = [row["name"] for row in per_class]
        shown = worst_rows(per_class, MOST_TABLE_ROWS, MOST_TABLE_ROWS, main_figure(test))
        rows = [list(row.values()) for row in shown]
        tables = {"test/per_class": wandb.Table(columns=list(per_class[0]), data=rows)}
        if has_several_labels(test):  # of several labels there is no confusion matrix
            return tables
        if len(names) ** 2 > MOST_TABLE_ROWS:
            return tables | {"test/confused": self._most_confused(names)}
        confusion = np.array(test["confusion"])
        target, predicted = (
            np.repeat(axis.ravel(), confusion.ravel()) for axis in np.indices(confusion.shape)
        )
        matrix = wandb.plot.confusion_matrix(
            y_true=target.tolist(), preds=predicted.tolist(), class_names=names, title="Test set"
        )
        return tables | {"test/confusion": matrix}

    def _most_confused(self, names: list[str]) -> wandb.Table:
        """Return the most frequent mistakes: the whole matrix is too large for a table."""
        import wandb

        from trainer.run.report.mistakes import read_predictions
        from trainer.training.confusion import count_confusion

        columns = read_predictions(self.folder / "predictions.npz")
        confusion = count_confusion(columns["target"], columns["predicted"], len(names))
        support = confusion.support()
        rows = []
        for cell in confusion.mistakes()[:MOST_TABLE_ROWS].tolist():
            true, predicted = int(confusion.true[cell]), int(confusion.predicted[cell])
            count = int(confusion.count[cell])
            rows.append([names[true], names[predicted], count, count / int(support[true])])
        return wandb.Table(columns=["true", "predicted", "images", "share of the class"], data=rows)


def run_id(default: str) -> str:
    """Return the run's id at Weights & Biases: WANDB_RUN_ID, set by a sweep's agent, or ours."""
    return os.environ.get("WANDB_RUN_ID") or default


def start(
    config: dict[str, Any], folder: Path, mode: Mode, project: str | None, run_id: str, step: int
) -> GuardedTracker | None:
    """Open the run, or go on with the one of this `run_id`; its files go to folder/wandb.

    wandb's own variables and settings, such as WANDB_PROJECT, WANDB_NAME and WANDB_DIR, decide what
    the recipe leaves open.

    `auto` is the mode of the environment's WANDB_MODE; without that, online where a key is found,
    and offline where not. Where the server refuses or does not answer in time, the run is kept
    offline.

    Args:
        folder: of the run; its name is the run's where wandb has none.
        project: None: wandb's own, or PROJECT.
        step: after which the run goes on.

    Returns:
        None if it is disabled, or wandb is not installed.
    """
    mode = resolve_mode(mode)
    if mode == "disabled":
        return None
    if find_spec("wandb") is None:
        level = logging.INFO if mode == "auto" else logging.WARNING
        logger.log(level, "Weights & Biases is off: the package wandb is not installed")
        return None

    def open_run(*, online: bool) -> WandbTracker:
        import wandb
        from accelerate import tracking

        users = wandb.setup(_settings()).settings
        tracker = tracking.WandBTracker(
            project or users.project or PROJECT,
            id=run_id,
            name=users.run_name or folder.name,
            config=config,
            dir=None if os.environ.get("WANDB_DIR") else folder,
            mode="online" if online else "offline",
            resume=users.resume or "allow",
            # A run that the caller has open, as in a notebook, would be closed or logged into.
            reinit="create_new" if wandb.run else None,
            settings=_settings(),
        )
        tracker.start()
        return WandbTracker(tracker, folder, step)

    def open_best() -> WandbTracker:
        import wandb

        try:
            if mode != "offline" and has_key():
                limit_s = 3 * float(wandb.setup(_settings()).settings.init_timeout)
                # Leave time to keep it offline, however long the user's WANDB_INIT_TIMEOUT is.
                limit_s = min(limit_s, START_TIMEOUT_S - 30)
                return run_with_timeout(limit_s, lambda: open_run(online=True))
            if mode == "online":
                raise RuntimeError(NO_KEY)
        except (Exception, SystemExit) as error:
            logger.warning("Weights & Biases: this run is kept offline: %s", first_line(error))
            end_service()  # the failed attempt holds on to the run's id
        return open_run(online=False)

    return GuardedTracker("Weights & Biases", open_best, end_service)


def resolve_mode(mode: Mode) -> Mode:
    """Return the mode, where `auto` is what the environment's WANDB_MODE says."""
    asked = os.environ.get("WANDB_MODE", "")
    asked = MODES.get(asked, asked)
    return cast(Mode, asked) if mode == "auto" and asked in get_args(Mode) else mode


def _settings() -> wandb.Settings:
    """Return settings that neither print, nor ask, nor collect anything but what is logged.

    Where the user has set one by its variable, such as WANDB_CONSOLE, it is the user's.
    """
    import wandb

    ours: dict[str, Any] = {
        "silent": True,
        "quiet": True,
        "console": "off",
        "init_timeout": INIT_TIMEOUT_S,
        "login_timeout": 1,
        "disable_git": True,
        "disable_code": True,
        "save_code": False,
        "x_disable_meta": True,
        "x_disable_stats": True,
        "x_save_requirements": False,
    }
    left = {key: value for key, value in ours.items() if f"WANDB_{key.upper()}" not in os.environ}
    return wandb.Settings(**left)


def has_key() -> bool:
    """Return whether wandb would find a key: in the environment, its settings or the netrc file.

    The library's own question for it may ask the user, or the server.
    """
    import wandb

    settings = wandb.setup(_settings()).settings
    variables = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
    if settings.api_key or any(os.environ.get(name) for name in variables):
        return True
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        keys = netrc.netrc(path)
    except (OSError, netrc.NetrcParseError):
        return False
    # api.wandb.ai: keys of the public server stay under its first name.
    hosts = (urlsplit(settings.base_url).netloc, "api.wandb.ai")
    return any(keys.authenticators(host) for host in hosts)


def end_service() -> None:
    """End wandb's service process, so that neither Python's exit nor a pipe waits for it.

    What it has written to the disk stays there for `wandb sync`.
    """
    import psutil

    # It has failed already and been reported: no second message if this fails too.
    with contextlib.suppress(Exception, SystemExit):
        run_with_timeout(GOODBYE_TIMEOUT_S, sys.modules["wandb"].teardown)
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it may end by itself meanwhile
            if child.name().startswith("wandb-core"):
                child.kill()
