"""Serve a page to try a finished run's model: drop pictures or use the camera.

The page shows classes, probabilities and what the answer came from (Grad-CAM). It is served on this
machine alone unless --host says otherwise, needs nothing from outside, and keeps no picture. For
programs: POST a picture to /predict, and get the JSON of `predict --json`. Ctrl-C ends it. With
--static DIR the same page is written as files, for any web space: the model then runs in the
browser, by onnxruntime-web, and pictures stay on the device.

example: python -m trainer demo runs/photos --port 8000
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.base.errors import UserError
from trainer.base.terminal import print_report
from trainer.commands.options import (
    add_json_option,
    add_max_megapixels_option,
    add_min_confidence_option,
    add_model_option,
    add_trained_model_argument,
    choose_kernels_of,
)
from trainer.config.schema import RunConfig
from trainer.ranks import processes
from trainer.ranks.process_group import join_process_group

if TYPE_CHECKING:
    from accelerate import Accelerator

    from trainer.commands.demo.server import DemoServer
    from trainer.finished.trained_model import TrainedModel

HOST, PORT = "127.0.0.1", 8000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    add_trained_model_argument(parser)
    parser.add_argument(
        "--port",
        type=_port,
        metavar="N",
        help=f"of the page, 0 for any free one; default: {PORT}",
    )
    parser.add_argument(
        "--host",
        metavar="NAME",
        help="the address to listen on; 0.0.0.0 lets everybody in the network use the page; "
        f"default: {HOST}, this machine alone",
    )
    parser.add_argument(
        "--static",
        type=Path,
        metavar="DIR",
        help="write the page as files into a new folder instead",
    )
    parser.add_argument(
        "--ort",
        type=Path,
        metavar="DIR",
        help="with --static: the folder dist of onnxruntime-web, where it is not to be downloaded",
    )
    add_max_megapixels_option(parser, "is refused")
    add_min_confidence_option(parser)
    add_model_option(parser)
    add_json_option(parser)


def _port(text: str) -> int:
    """Return the number in an argument, as argparse's `type`."""
    if not (text.isascii() and text.isdecimal() and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a number from 0 to 65535")
    return int(text)


def run(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C, or write it.

    Raises:
        UserError: there is no finished run, its model takes no pictures, the port is taken, or the
            folder is.
    """
    if arguments.static is None and arguments.ort is not None:
        raise UserError("--ort: is only for --static")
    if arguments.static is not None and (arguments.host, arguments.port) != (None, None):
        raise UserError("--static: writes files and serves nothing; leave --host and --port out")
    if processes.launched_count() > 1:
        raise UserError("demo: answers by one process; give it to no launcher that starts several")
    choose_kernels_of(arguments.run)
    with join_process_group(RunConfig()) as accelerator:
        from trainer.finished import answers, trained_model

        stored = trained_model.load(arguments.run, arguments.model)
        answers.check_min_confidence(stored, arguments.min_confidence)
        if stored.channels not in (1, 3):
            raise UserError(
                f"RUN: its model takes images of {stored.channels} channels, and a page can show "
                "and send grey or coloured pictures only; use predict"
            )
        if arguments.static is None:
            _serve(stored, arguments, accelerator)
        else:
            _write(stored, arguments)


def _serve(stored: TrainedModel, arguments: argparse.Namespace, accelerator: Accelerator) -> None:
    from trainer.commands.demo import page
    from trainer.commands.demo.answering import Answerer
    from trainer.commands.demo.server import DemoServer

    answerer = Answerer(
        stored.to(accelerator.device), arguments.min_confidence, arguments.max_megapixels
    )
    files = page.files(stored, page.name_of(arguments.run))
    host = HOST if arguments.host is None else arguments.host
    port = PORT if arguments.port is None else arguments.port
    with DemoServer(host, port, files, answerer) as server:
        urls = server.urls
        with _stop_by_signals(server):
            lines = [*urls, "until Ctrl-C"]
            print_report({"url": urls[0], "urls": urls}, lines, as_json=arguments.json)
            server.serve_forever()
        answerer.close()


@contextlib.contextmanager
def _stop_by_signals(server: DemoServer) -> Iterator[None]:
    """End the server where Ctrl-C or a request to stop comes, in whatever it is at that moment."""

    def stop(*_: object) -> None:
        threading.Thread(target=server.shutdown, daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write(stored: TrainedModel, arguments: argparse.Namespace) -> None:
    from trainer.commands.demo import page, static

    limits = {key: getattr(arguments, key) for key in ("min_confidence", "max_megapixels")}
    name = page.name_of(arguments.run)
    found = static.write(stored, arguments.static, name, limits, arguments.ort)
    lines = [f"{file:<28}  {size:>12,} bytes" for file, size in found["files"].items()]
    if not found["has_maps"]:
        lines.append("without maps: the network does not end with one linear layer over its maps")
    lines.append(f"look at it: python -m http.server --directory {found['folder']}")
    print_report(found, lines, as_json=arguments.json)
