"""Running files of users' own: once in a process, and each folder as a package of its own.

A file may import what lies beside it, or in the package that it belongs to, as if Python had been
started there. No folder goes onto sys.path, where a `random.py` or a `models.py` would hide other
modules from everybody: such names mean the user's files in the user's files alone, and two folders
may both have a `blocks.py`. Every file is read once, and its digest is that of the code that runs;
bytecode is neither read nor written, as it may be older than a file of the same second.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, all_suffixes
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, ClassVar

PREFIX = "lockstep_plugin_"
"""of the names of the packages"""

_OURS = {Path(__file__).parent.resolve(), Path(__file__).parent.resolve().with_name("trainer")}
_STANDARD = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
_SITES = {"site-packages", "dist-packages"}

_lock = threading.RLock()
_names: dict[Path, str] = {}
"""of the module that a plug-in's file is"""
_sources: dict[str, bytes] = {}
"""what was in the files of the user's modules when they ran, by the modules' names"""
_imported: dict[str, set[str]] = {}
"""what a module has imported of the user's own"""
_paths: set[str] = set()
"""of all files of users' own whose code has run, as tracebacks name them"""
_places: dict[str, tuple[str, ...]] = {}
"""the packages in which a module's imports are looked up first"""


def run(file: Path) -> ModuleType:
    """The module of a file; its code runs where it, or a file that it has imported, is new.

    Args:
        file: absolute, without links.

    Raises:
        Exception, SystemExit: whatever the code raises; nothing of it is left then.
    """
    with _lock:
        if _Finder not in sys.meta_path:
            sys.meta_path.insert(0, _Finder)
        name = _names.get(file)
        if name is not None and not _is_unchanged(name):
            _forget(name.partition(".")[0], set())
            name = None
        if name is not None:
            return sys.modules[name]
        importlib.invalidate_caches()
        before = {other for other in sys.modules if other.startswith(PREFIX)}
        package, name = _name(file)
        root = package.partition(".")[0]
        _names[file] = name
        _places[name] = tuple(dict.fromkeys((package, root)))
        try:
            module = importlib.import_module(name)
        except BaseException:
            _forget(root, before)
            raise
        _note(name, package)  # its __init__.py has run too
        return module


def source(file: Path) -> bytes:
    """The code of a file: its own, and after it names and digests of what else it has imported.

    That is the user's files alone, as far as they have been run by now. Nothing in it says where
    the folder lies.
    """
    with _lock:
        name = _names[file]
        root = name.partition(".")[0]
        found = _closure(name)
    others = {other.removeprefix(f"{root}."): found[other] for other in found if other != name}
    lines = [f"\n{other} {_digest_of(others[other])}" for other in sorted(others)]
    return found[name] + "".join(lines).encode()


def has_run(file: Path) -> bool:
    """Whether the code of a file has run in this process."""
    return file in _names


def is_of_user(path: str) -> bool:
    """Whether the code of a file, as a traceback names it, is a user's own."""
    return path in _paths


# ---------------------------------------------------------------------- names


def _name(file: Path) -> tuple[str, str]:
    """The package of a file under a name of its own, and the file's module in it."""
    folders: list[str] = []
    root = file.parent
    while (root / "__init__.py").is_file() and root.name.isidentifier():
        folders.insert(0, root.name)
        root = root.parent
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:16]
    top = f"{PREFIX}{digest}"
    if top not in sys.modules:
        package = ModuleType(top)
        package.__path__ = [str(root)]
        sys.modules[top] = package
    package_name = ".".join([top, *folders])
    if folders and file.name == "__init__.py":
        return package_name, package_name
    stem = file.stem
    if not stem.isidentifier():  # no import statement could name it
        stem = f"file_{hashlib.sha256(file.name.encode()).hexdigest()[:16]}"
        _Finder.files[f"{package_name}.{stem}"] = file
    return package_name, f"{package_name}.{stem}"


def _is_in(name: str, root: str) -> bool:
    return name == root or name.startswith(f"{root}.")


def _forget(root: str, kept: set[str]) -> None:
    for name in [name for name in sys.modules if _is_in(name, root) and name not in kept]:
        del sys.modules[name]
        for table in (_sources, _imported, _places):
            table.pop(name, None)
    for file, name in list(_names.items()):
        if _is_in(name, root) and name not in kept:
            del _names[file]


# ---------------------------------------------------------------------- what was imported


def _is_unchanged(name: str) -> bool:
    for other, content in _closure(name).items():
        file = _file_of(sys.modules[other])
        if file is None or not file.is_file() or file.read_bytes() != content:
            return False
    return True


def _closure(name: str) -> dict[str, bytes]:
    """The module and all of the user's own that it has imported, with their code."""
    found: dict[str, bytes] = {}
    waiting = [name]
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        file = _file_of(module) if module else None
        if name in found or module is None or file is None:
            continue
        if name not in _sources:  # found by Python itself, on sys.path
            _sources[name] = file.read_bytes()
        found[name] = _sources[name]
        waiting += sorted(_imported.get(name, ()))
        if not name.startswith(PREFIX):
            waiting += _named_in(module, found[name]) if file.suffix == ".py" else []
    return found


def _named_in(module: ModuleType, content: bytes) -> list[str]:
    """Modules of the user's own that the import statements of one name that Python has found."""
    names: list[str] = []
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            if node.level:
                base = importlib.util.resolve_name(base, module.__package__ or "")
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name for name in names if name in sys.modules and _is_users(sys.modules[name])]


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _is_users(module: ModuleType) -> bool:
    file = _file_of(module)
    return file is not None and file.is_file() and not _is_installed(file)


def _is_installed(path: Path) -> bool:
    """Whether it belongs to Python, to an installed package, or to Lockstep."""
    path = path.resolve()
    return not (_STANDARD | _OURS).isdisjoint(path.parents) or not _SITES.isdisjoint(path.parts)


def _digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _note(importing: str, name: str) -> None:
    """Note that a module has imported another, and the packages in which that lies."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        other = ".".join(parts[:count])
        module = sys.modules.get(other)
        if other != importing and module is not None and _is_users(module):
            _imported.setdefault(importing, set()).add(other)
            _paths.add(str(module.__file__))


# ---------------------------------------------------------------------- Python's import system


class _Loader(SourceFileLoader):
    """Runs a user's file."""

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        content = self.get_data(path)
        _sources[fullname] = content
        _paths.add(path)
        return self.source_to_code(content, path)

    def exec_module(self, module: ModuleType) -> None:
        importing = _importing_module()
        if importing is not None:  # by importlib perhaps, where no import statement says it
            _note(importing, module.__name__)
        root = module.__name__.partition(".")[0]
        _places.setdefault(module.__name__, _places.get(importing or "", (root,)))
        own = {**vars(builtins), "__import__": _import_for(module.__name__)}
        vars(module)["__builtins__"] = own
        super().exec_module(module)


class _Finder:
    """Finds the modules of users' packages, by Python's own rules."""

    files: ClassVar[dict[str, Path]] = {}
    """modules with a file that no import statement can name"""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(PREFIX):
            return None
        if name in cls.files:
            file = str(cls.files[name])
            return importlib.util.spec_from_file_location(name, file, loader=_Loader(name, file))
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path)
        return spec


def _import_for(importing: str) -> Callable[..., Any]:
    """What an import statement does in a module of a user's."""

    def do_import(
        name: str, variables: Any = None, local: Any = None, names: Any = (), level: int = 0
    ) -> Any:
        place = None if level else _place_of(importing, name)
        if place is None:
            found = builtins.__import__(name, variables, local, names, level)
            full = name
            if level:
                full = importlib.util.resolve_name("." * level + name, _package(variables))
        else:
            full = f"{place}.{name}"
            found = importlib.import_module(full)
            if names:
                found = builtins.__import__(full, None, None, names, 0)
            else:  # `import a.b` makes a name of a
                found = sys.modules[f"{place}.{name.partition('.')[0]}"]
        _note(importing, full)
        for inner in names or ():
            if f"{full}.{inner}" in sys.modules:
                _note(importing, f"{full}.{inner}")
        return found

    return do_import


def _package(variables: Any) -> str:
    package: str = variables.get("__package__") or ""
    return package


def _place_of(importing: str, name: str) -> str | None:
    """The user's package in which a name is to be found; None: Python finds it."""
    first = name.partition(".")[0]
    for place in _places.get(importing, ()):
        if f"{place}.{name}" == importing:  # timm.py that imports timm
            continue
        for folder in getattr(sys.modules.get(place), "__path__", ()):
            if Path(folder, first).resolve() not in _OURS and _lies_in(Path(folder), name):
                return place
    return None


def _lies_in(folder: Path, name: str) -> bool:
    found = folder.joinpath(*name.split("."))
    files = [found.with_name(found.name + suffix) for suffix in all_suffixes()]
    files += [found / "__init__.py"]
    if any(file.is_file() for file in files):
        return not _SITES & set(folder.parts)
    # A folder alone is the last that Python takes for a module.
    first = name.partition(".")[0]
    return found.is_dir() and importlib.util.find_spec(first) is None


def _importing_module() -> str | None:
    """The module of a user's own whose code is at work, the innermost."""
    return next((name for name in map(_module_of, _frames()) if name.startswith(PREFIX)), None)


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
