"""Files and folders that appear whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from econrl.errors import SaveError

DESCRIPTION = "solution.json"  # marks a folder that econrl wrote


# Folders


def check_new_folder(path: str | Path, overwrite: bool = False) -> None:
    """Raises SaveError where `new_folder` would: `path` exists, unless `overwrite` and it is a saved solution."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        if not overwrite:
            raise SaveError(
                f"'{path}' exists; nothing was written. Choose another folder, or say overwrite=True (--overwrite)"
            )
        if not (path / DESCRIPTION).exists():
            raise SaveError(f"'{path}' is not a folder that econrl wrote; it will not be overwritten")
    parent = next(p for p in path.resolve().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise SaveError(f"cannot write to '{path}': '{parent}' is not a folder that can be written to")


@contextlib.contextmanager
def new_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into that becomes `path` once all of it is written; until then `path` stays as it was.

    Raises SaveError as `check_new_folder`, and where writing fails.
    """
    check_new_folder(path, overwrite)
    target = Path(path).resolve()
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            yield fresh
            check_new_folder(path, overwrite)  # somebody else may have been faster
            if target.exists():
                shutil.rmtree(target)
            fresh.chmod(0o755)
            fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


# Files


@contextlib.contextmanager
def new_file(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A file to write that becomes `path` once it is complete. Raises SaveError as `check_file`."""
    path = Path(path)
    check_file(path, overwrite)
    with writing(path):
        handle, fresh = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
        try:
            yield Path(fresh)
            os.chmod(fresh, 0o644)
            os.replace(fresh, path)
        finally:
            Path(fresh).unlink(missing_ok=True)


def check_file(path: str | Path, overwrite: bool = False) -> None:
    """Make the folder of `path`; raise SaveError where the file exists, unless `overwrite`, or cannot be written."""
    path = Path(path)
    if path.is_dir():
        raise SaveError(f"'{path}' is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise SaveError(
            f"'{path}' exists; nothing was written. Choose another file, or say overwrite=True (--overwrite)"
        )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise SaveError(f"cannot write to '{path}': its folder is read-only")


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """What the file system refuses (a full disk, no permission) is a SaveError."""
    try:
        yield
    except OSError as error:
        raise SaveError(f"cannot write to '{path}': {error.strerror or error}") from error
