"""A cache for tests, apart from this machine's real one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def one_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use one new cache for all that is done in this context, such as the tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
