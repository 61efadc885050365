"""Run users' files: each once in a process, and each folder as its own package.

A file may import its neighbours, or modules of the package that it belongs to, as if Python had
been started there. No folder goes onto sys.path, where a `random.py` or a `models.py` would hide
other modules from everybody: such names mean the user's files in the user's files only, and two
folders may both have a `blocks.py`. Every file is read once, and its digest is that of the code
that runs; bytecode is neither read nor written, as it may be older than a file of the same second.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import importlib.util
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from models.construct import is_user_file
from trainer.base import user_code_errors

PREFIX = "lockstep_plugin_"
"""of the names of the packages"""


@dataclass
class _Record:
    """Facts about a user's module."""

    content: bytes = b""
    """of its file when it ran"""
    places: tuple[str, ...] = ()
    """the packages in which its imports are looked up first"""
    imported: set[str] = field(default_factory=set)
    """names of the user's modules that it has imported"""


_records: defaultdict[str, _Record] = defaultdict(_Record)
_files: dict[str, Path] = {}
"""modules whose file no import statement can name, such as my-net.py"""


def import_file(file: Path) -> ModuleType:
    """Return the module of a file; its code runs where it, or a file that it imports, is new.

    Args:
        file: absolute, without links.

    Raises:
        Exception, SystemExit: whatever the code raises; nothing of the module is left then.
    """
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    package, name = _names(file)
    root = package.partition(".")[0]
    if name in _records and name in sys.modules:
        if _is_unchanged(name):
            return sys.modules[name]
        _forget(root, kept=set())
    importlib.invalidate_caches()
    before = {other for other in sys.modules if _is_in(other, root)}
    if root not in sys.modules:
        sys.modules[root] = ModuleType(root)
        sys.modules[root].__path__ = [str(_root_of(file)[0])]
    _records[name] = _Record(places=tuple(dict.fromkeys((package, root))))
    try:
        module = importlib.import_module(name)
    except BaseException:
        _forget(root, kept=before)
        raise
    _note_import(name, package)  # its __init__.py has run too
    return module


def source(file: Path) -> bytes:
    """Return the code of a file that has run, then names and digests of the files it has imported.

    Only the user's files that have run count, and not the folder's path.
    """
    name = _names(file)[1]
    found = _closure(name)
    root = name.partition(".")[0]
    others = {other.removeprefix(f"{root}."): found[other] for other in found if other != name}
    lines = [f"\n{other} {hashlib.sha256(others[other]).hexdigest()}" for other in sorted(others)]
    return found[name] + "".join(lines).encode()


# ---------------------------------------------------------------------- names


def _root_of(file: Path) -> tuple[Path, list[str]]:
    """Return the folder that has a file's package, and the names of the package's parts."""
    folder, parts = file.parent, list[str]()
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, parts


def _names(file: Path) -> tuple[str, str]:
    """Return the names of a file's package and of its module."""
    root, parts = _root_of(file)
    package = ".".join([PREFIX + hashlib.sha256(str(root).encode()).hexdigest()[:16], *parts])
    if parts and file.name == "__init__.py":
        return package, package
    if file.stem.isidentifier():
        return package, f"{package}.{file.stem}"
    name = f"{package}.file_{hashlib.sha256(file.name.encode()).hexdigest()[:16]}"
    _files[name] = file
    return package, name


def _is_in(name: str, root: str) -> bool:
    return name == root or name.startswith(f"{root}.")


def _forget(root: str, kept: set[str]) -> None:
    for name in [name for name in {*sys.modules, *_records} if _is_in(name, root)]:
        if name not in kept:
            sys.modules.pop(name, None)
            _records.pop(name, None)


# ---------------------------------------------------------------------- what was imported


def _is_unchanged(name: str) -> bool:
    for other, content in _closure(name).items():
        file = _file_of(sys.modules[other])
        if file is None or not file.is_file() or file.read_bytes() != content:
            return False
    return True


def _closure(name: str) -> dict[str, bytes]:
    """Return a module and all of the user's that it has imported, with their code."""
    found: dict[str, bytes] = {}
    waiting = [name]
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        file = _file_of(module) if module else None
        if name in found or module is None or file is None:
            continue
        if name not in _records:  # found by Python itself, on sys.path
            _records[name] = _Record(file.read_bytes())
            if file.suffix == ".py":
                _records[name].imported |= _named_in(module, _records[name].content)
        found[name] = _records[name].content
        waiting += sorted(_records[name].imported)
    return found


def _named_in(module: ModuleType, content: bytes) -> set[str]:
    """Return the user's modules that a module on sys.path imports by statements."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            if node.level:
                base = importlib.util.resolve_name(base, module.__package__ or "")
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return {name for name in names if _is_users(sys.modules.get(name))}


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _is_users(module: ModuleType | None) -> bool:
    file = _file_of(module) if module else None
    return file is not None and is_user_file(str(file))


def _note_import(importing: str, name: str) -> None:
    """Note that a module has imported another, and the packages in which that lies."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        other = ".".join(parts[:count])
        if other != importing and _is_users(sys.modules.get(other)):
            _records[importing].imported.add(other)
            user_code_errors.note_file(str(sys.modules[other].__file__))


# ---------------------------------------------------------------------- Python's import system


class _Finder:
    """Finds the modules of users' packages, by Python's own rules."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(PREFIX):
            return None
        if name in _files:
            file = str(_files[name])
            return importlib.util.spec_from_file_location(name, file, loader=_Loader(name, file))
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Runs a user's file."""

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        content = _records[fullname].content = self.get_data(path)
        user_code_errors.note_file(path)
        return self.source_to_code(content, path)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        record = _records[name]
        importing = _importing_module()
        if importing is not None:  # by importlib perhaps, without an import statement
            _note_import(importing, name)
            record.places = record.places or _records[importing].places
        record.places = record.places or (name.partition(".")[0],)
        own = {**vars(builtins), "__import__": _import_for(name)}
        vars(module)["__builtins__"] = own
        super().exec_module(module)


def _import_for(importing: str) -> Callable[..., Any]:
    """Return what import statements call in a user's module."""

    def do_import(
        name: str, variables: Any = None, local: Any = None, names: Any = (), level: int = 0
    ) -> Any:
        place = None if level else _place_of(importing, name)
        if place is None:
            found = builtins.__import__(name, variables, local, names, level)
            package = variables.get("__package__") or "" if level else ""
            full = importlib.util.resolve_name("." * level + name, package) if level else name
        else:
            full = f"{place}.{name}"
            found = importlib.import_module(full)
            if names:
                found = builtins.__import__(full, None, None, names, 0)
            else:  # `import a.b` makes a name of a
                found = sys.modules[f"{place}.{name.partition('.')[0]}"]
        _note_import(importing, full)
        for inner in names or ():
            if f"{full}.{inner}" in sys.modules:
                _note_import(importing, f"{full}.{inner}")
        return found

    return do_import


def _place_of(importing: str, name: str) -> str | None:
    """Return the user's package that has a name; None: Python finds it."""
    for place in _records[importing].places:
        spec = _spec_in(place, name)
        if spec is None or f"{place}.{name}" == importing:  # timm.py that imports timm
            continue
        if spec.origin is None:  # a folder without __init__.py, the last that Python takes
            if importlib.util.find_spec(name.partition(".")[0]) is None:
                return place
        elif is_user_file(spec.origin):
            return place
    return None


def _spec_in(place: str, name: str) -> ModuleSpec | None:
    """Return what a dotted name is in a package; None if it is not there."""
    path = list(getattr(sys.modules.get(place), "__path__", ()))
    spec = None
    for part in name.split("."):
        spec = PathFinder.find_spec(part, path) if path else None
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec


def _importing_module() -> str | None:
    """Return the innermost of the user's modules whose code is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith(PREFIX):
            return name
        frame = frame.f_back
    return None
