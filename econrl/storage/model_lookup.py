"""A model by its name in the zoo, or by the file that a user wrote it in."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from econrl.errors import EconrlError, SpecError
from econrl.problem.diagnose import line_of
from econrl.spec.model import Model
from econrl.storage.saving import subclasses

T = TypeVar("T")


def find_model(text: str) -> type[Model]:
    """The class that `growth`, `StochasticGrowth`, `my/file.py` or `my/file.py:MyModel` stands for.

    Importing a file runs it. Raises SpecError where there is none, where a file defines several and none is named, and
    where a file cannot be imported.
    """
    file, colon, name = text.rpartition(":")
    if not file.endswith(".py"):
        file, colon, name = text, "", ""
    if not file.endswith(".py"):
        return find_in_zoo(text)
    if not Path(file).is_file():
        raise SpecError(f"there is no file '{file}'")
    return pick(file, models_of(import_file(Path(file))), name if colon else None)


def make_model(cls: type[Model], parameters: dict[str, Any]) -> Model:
    """An instance; raises SpecError where the class does not take the parameters, or lacks some."""
    try:
        return cls(**parameters)
    except EconrlError:
        raise
    except Exception as error:
        raise SpecError(f"{cls.__name__} cannot be made: {type(error).__name__}: {error}") from error


# The zoo


def zoo() -> list[type[Model]]:
    """The models of econrl.models."""
    package = guarded("econrl.models", lambda: importlib.import_module("econrl.models"))
    return [getattr(package, name) for name in package.__all__]


def stem(cls: type[Model]) -> str:
    """The name of the file that defines a class, without .py."""
    return Path(sys.modules[cls.__module__].__file__ or cls.__module__).stem


def find_in_zoo(name: str) -> type[Model]:
    """The model of this name, or of the file of this name. Raises SpecError where there is none, or are several."""
    found = [cls for cls in zoo() if name.lower() in (cls.__name__.lower(), stem(cls).lower())]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{cls.__name__} ({stem(cls)})" for cls in found or zoo())
    problem = f"'{name}' stands for several models" if found else f"there is no model '{name}'"
    raise SpecError(f"{problem}; give a .py file, or one of: {known}")


# A user's file


def import_file(path: Path) -> ModuleType:
    """Import a file by its path, once; its own folder is where its imports look first, as for a script."""
    path = path.resolve()
    zoo()  # so that a file of the zoo is found among the imported modules
    imported = already_imported(path)
    if imported is not None:
        return imported
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    name = path.stem if path.stem not in sys.modules else str(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look a class's module up there
    try:
        guarded(str(path), lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
    except EconrlError:
        del sys.modules[name]
        raise
    return module


def already_imported(path: Path) -> ModuleType | None:
    """The module that was made from this file, if any was."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("__file__")  # getattr would make lazy modules import themselves
        if isinstance(file, str) and os.path.basename(file) == path.name and Path(file).resolve() == path:
            return module
    return None


def models_of(module: ModuleType) -> list[type[Model]]:
    """The models that a module defines, not those that it imports."""
    own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    return [cls for cls in dict.fromkeys(own) if issubclass(cls, Model)]


def pick(file: str, models: list[type[Model]], name: str | None) -> type[Model]:
    """The model called `name`; without a name, the only one."""
    if not models:
        raise SpecError(f"'{file}' defines no model: derive a class from econrl.Model")
    chosen = models if name is None else [cls for cls in models if cls.__name__ == name]
    if len(chosen) == 1:
        return chosen[0]
    known = ", ".join(f"{file}:{cls.__name__}" for cls in models)
    problem = f"'{file}' defines several models" if chosen else f"'{file}' defines no model '{name}'"
    raise SpecError(f"{problem}; give one of: {known}")


# Where a user's file went wrong


def guarded(file: str, run: Callable[[], T]) -> T:
    """run(), which imports `file`; whatever that raises becomes a SpecError with file and line."""
    try:
        return run()
    except (Exception, SystemExit) as error:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        where = line_of(error, lambda name: not is_machinery(name)) or file
        raise SpecError(f"'{file}' cannot be imported: {type(error).__name__}: {text} ({where})") from error


def line_in_model(error: BaseException) -> str | None:
    """`file, line n` of the innermost call of an error that stands in a file with a model; None where none does."""
    files = {getattr(sys.modules.get(cls.__module__), "__file__", None) for cls in subclasses(Model)}
    return line_of(error, lambda name: name in files)


def is_machinery(file: str) -> bool:
    """Frozen import code, this file, and installed packages: not where a user looks for a mistake."""
    return file.startswith("<") or file == __file__ or "importlib" in file or "site-packages" in file
