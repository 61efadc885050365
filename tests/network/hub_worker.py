"""Find weights on the hub in a process of its own, whose variables say which, and print as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from types import SimpleNamespace
from typing import Any

from trainer.base.errors import UserError
from trainer.config.schema import ModelConfig
from trainer.network import weights_sources


def attempt(name: str, download: bool) -> dict[str, Any]:
    """Return what was found, or the message."""
    try:
        found = weights_sources.find(ModelConfig(weights=name), download=download)
    except UserError as error:
        return {"message": str(error), "kind": type(error).__name__}
    assert found is not None
    return {**dataclasses.asdict(found), "file": str(found.file)}


if __name__ == "__main__":
    from huggingface_hub.utils import _http

    # It asks five times more after a connection has broken off, and waits half a minute in all.
    _http.time = SimpleNamespace(**vars(time) | {"sleep": lambda _: None})  # type: ignore[attr-defined]
    print(json.dumps([attempt(*words) for words in json.loads(sys.argv[1])]))
