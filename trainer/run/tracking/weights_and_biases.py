"""The course of a run at Weights & Biases."""

from __future__ import annotations

import contextlib
import logging
import netrc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args
from urllib.parse import urlsplit

from trainer.base.timeouts import run_with_timeout
from trainer.run.tracking.attempts import (
    CALL_TIMEOUT_S,
    MOST_CURVES,
    PICTURES,
    SHARES,
    Guarded,
    Tracker,
    first_line,
)
from trainer.training.observer import Record

if TYPE_CHECKING:
    import wandb

Mode = Literal["auto", "online", "offline", "disabled"]

PROJECT = "lockstep"
"""where neither the recipe nor wandb's own settings name one"""

MODES = {"dryrun": "offline", "run": "online", "shared": "online"}
"""of WANDB_MODE: wandb's other names, and what they are here"""

INIT_TIMEOUT_S = 8
"""how long the server may take to accept the run; after that it is kept offline"""
MOST_TABLE_ROWS = 10_000
"""wandb shows no more of a table, and leaves the others out without a word"""
GOODBYE_TIMEOUT_S = 5
"""how long the library may take to end after it has failed"""

NO_KEY = "no key found; `wandb login` stores one"

logger = logging.getLogger("lockstep")


class WandbTracker:
    """A run at Weights & Biases that is open."""

    def __init__(self, run: wandb.Run) -> None:
        self._run = run
        self._step = 0
        run.define_metric("epoch/*", step_metric="epoch")

    def log(self, records: Sequence[Record]) -> None:
        """As `Tracker`: steps as train/loss and train/lr, epochs as epoch/*."""
        for record in records:
            if record["event"] == "step":
                self._step = record["step"]
                values = {f"train/{key}": record[key] for key in ("loss", "lr")}
            else:
                values = {f"epoch/{key}": value for key, value in record.items()
                          if key not in ("event", "epoch") and value is not None}  # fmt: skip
            # An epoch joins the row of its last step; without a step it would take the next one's.
            self._run.log({**values, "epoch": record["epoch"]}, step=self._step)

    def finish(
        self, results: dict[str, Any] | None, output_dir: Path, stopped: bool = False
    ) -> None:
        """As `Tracker`."""
        if stopped:
            self._run.mark_preempting()
        if results is not None:
            _log_results(self._run, results, output_dir)
        self._run.finish(exit_code=0 if results is not None else 1)


def run_id(otherwise: str) -> str:
    """The run's id at Weights & Biases: WANDB_RUN_ID, as a sweep's agent sets it, or another."""
    return os.environ.get("WANDB_RUN_ID") or otherwise


def follow(
    config: dict[str, Any],
    output_dir: Path,
    mode: Mode,
    project: str | None,
    name: str,
    run_id: str,
) -> Tracker | None:
    """Open the run, or go on with the one of this `run_id`; its files go to output_dir/wandb.

    What the recipe leaves open is for wandb's own variables and settings: WANDB_PROJECT,
    WANDB_NAME, WANDB_DIR and so on, as they are documented there.

    `auto` is what the environment's WANDB_MODE says, else online where a key is found, else
    offline. Where the server refuses or does not answer in time, the run is kept offline.

    Args:
        project: None: wandb's own, or PROJECT.
        name: where wandb has none.

    Returns:
        None where it is disabled, or the library cannot be imported.
    """
    mode = resolved(mode)
    if mode == "disabled":
        return None
    try:
        import wandb
    except ModuleNotFoundError:
        level = logging.INFO if mode == "auto" else logging.WARNING
        logger.log(level, "Weights & Biases is off: the package wandb is not installed")
        return None
    except Exception as error:  # what a broken installation raises can be anything
        logger.warning("Weights & Biases is off: wandb's import: %s", first_line(error))
        return None

    def open_run(*, online: bool) -> wandb.Run:
        users = wandb.setup(_settings()).settings
        return wandb.init(
            id=run_id,
            name=users.run_name or name,
            project=project or users.project or PROJECT,
            config=config,
            dir=None if os.environ.get("WANDB_DIR") else output_dir,
            mode="online" if online else "offline",
            resume=users.resume or "allow",
            settings=_settings(),
        )

    run: wandb.Run | None = None
    try:
        found_key = mode != "offline" and run_with_timeout(CALL_TIMEOUT_S, has_key)
        if mode == "online" and not found_key:
            raise RuntimeError(NO_KEY)
        if found_key:
            limit_s = 3 * float(wandb.setup(_settings()).settings.init_timeout)
            run = run_with_timeout(limit_s, lambda: open_run(online=True))
    except (Exception, SystemExit) as error:
        logger.warning("Weights & Biases: this run is kept offline: %s", first_line(error))
        let_go()  # else the failed attempt holds on to the run's id
    return Guarded("Weights & Biases", lambda: WandbTracker(run or open_run(online=False)), let_go)


def resolved(mode: Mode) -> Mode:
    """The mode, where `auto` is what the environment's WANDB_MODE says."""
    asked = os.environ.get("WANDB_MODE", "")
    asked = MODES.get(asked, asked)
    return cast(Mode, asked) if mode == "auto" and asked in get_args(Mode) else mode


def _settings() -> wandb.Settings:
    """Settings that neither print, nor ask, nor collect anything but what is logged.

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
    """Whether wandb would find a key: in the environment, its settings or the netrc file.

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


def _log_results(run: wandb.Run, results: dict[str, Any], output_dir: Path) -> None:
    import numpy as np
    import wandb

    from trainer.run.console import worst_rows

    test = results["test"]
    per_class = test["per_class"]
    values: dict[str, Any] = {f"test/{key}": test[key] for key in SHARES if key in test}
    if "augmented" in test:
        values["test/augmented_accuracy"] = test["augmented"]["accuracy"]
    if len(per_class) <= MOST_CURVES:
        values |= {f"test/class_accuracy/{row['name']}": row["accuracy"] for row in per_class}
    rows = [list(row.values()) for row in worst_rows(per_class, MOST_TABLE_ROWS, MOST_TABLE_ROWS)]
    values["test/per_class"] = wandb.Table(columns=list(per_class[0]), data=rows)
    names = [row["name"] for row in per_class]
    if len(names) ** 2 <= MOST_TABLE_ROWS:
        confusion = np.array(test["confusion"])
        target, predicted = (
            np.repeat(axis.ravel(), confusion.ravel()) for axis in np.indices(confusion.shape)
        )
        values["test/confusion"] = wandb.plot.confusion_matrix(
            y_true=target.tolist(),
            preds=predicted.tolist(),
            class_names=names,
            title="Test set",
        )
    else:
        values["test/confused"] = _most_confused(names, output_dir)
    for name in PICTURES:
        path = output_dir / f"{name}.png"
        if path.exists():
            values[f"pictures/{name}"] = wandb.Image(str(path))
    run.log(values)
    run.summary.update({"test/worst_class": test["worst_class"]})


def _most_confused(names: Sequence[str], output_dir: Path) -> wandb.Table:
    """The most frequent mistakes: of so many classes the matrix is too large for a table."""
    import wandb

    from trainer.run.report.run_report import read_predictions
    from trainer.training.metrics import confusion_of

    columns = read_predictions(output_dir / "predictions.npz")
    confusion = confusion_of(columns["target"], columns["predicted"], len(names))
    support = confusion.support()
    rows = []
    for cell in confusion.mistakes()[:MOST_TABLE_ROWS].tolist():
        true, predicted = int(confusion.true[cell]), int(confusion.predicted[cell])
        count = int(confusion.count[cell])
        rows.append([names[true], names[predicted], count, count / int(support[true])])
    return wandb.Table(columns=["true", "predicted", "images", "share of the class"], data=rows)


def let_go() -> None:
    """End wandb's service process, so that neither Python's exit nor a pipe waits for it.

    What it has written to the disk stays there for `wandb sync`.
    """
    import psutil
    import wandb

    # It has failed already and been reported: that it cannot say goodbye either is no news.
    with contextlib.suppress(Exception, SystemExit):
        run_with_timeout(GOODBYE_TIMEOUT_S, wandb.teardown)
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it may end by itself meanwhile
            if child.name().startswith("wandb-core"):
                child.kill()
