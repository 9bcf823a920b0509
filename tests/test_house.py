"""The house itself: folders, floors and docstrings are what `pyproject.toml` and `docs/architecture.md` say."""

import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cached_property
from pathlib import Path

import pytest

import econrl

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = {"econrl.gym": "gymnasium", "econrl.sb3": "stable_baselines3"}


def folders():
    """The packages on disk, by their import names; the zoo stands beside econrl, and is imported as econrl.models."""
    found = {str(file.parent.relative_to(ROOT)).replace("/", ".") for file in (ROOT / "econrl").rglob("__init__.py")}
    return found | {"econrl.models"}


def modules():
    names = [m.name for m in pkgutil.walk_packages(econrl.__path__, "econrl.") if not m.name.endswith("__main__")]
    for name in names:
        if name not in EXTRAS or importlib.util.find_spec(EXTRAS[name]) is not None:
            yield importlib.import_module(name)


# What is written about it


def test_the_files_that_the_pages_name_exist():
    for page in ("docs/architecture.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`([a-z_0-9/.]+(?:\.py|\.md|\.txt|\.toml|/))`", (ROOT / page).read_text()))
        assert len(named) > 10
        places = [ROOT / place for place in ("", "econrl", "econrl/solvers", "econrl/solvers/common")]
        assert {name for name in named if not any((place / name).exists() for place in places)} == set(), page


# What is installed


def test_every_folder_is_a_package_that_is_installed():
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders()


def test_type_checkers_are_told_that_the_package_is_typed():
    assert (ROOT / "econrl" / "py.typed").exists()
    assert PROJECT["tool"]["setuptools"]["package-data"]["econrl"] == ["py.typed"]


# Docstrings


def test_every_public_method_says_what_it_does_where_it_is_first_defined():
    silent = set()
    for module in modules():
        if module.__name__.startswith("econrl.models"):
            continue  # the equations of a spec stand in the docstring of its class
        classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
        for cls in classes:
            if getattr(cls, "_is_protocol", False):
                continue  # it repeats what its classes say
            for name, method in vars(cls).items():
                kinds = (property, cached_property, classmethod, staticmethod)
                written = inspect.isfunction(method) or isinstance(method, kinds)
                own = not name.startswith("_") and written and "<lambda>" not in repr(method)
                if own and not any(c.__dict__[name].__doc__ for c in cls.__mro__ if name in c.__dict__):
                    silent.add(f"{module.__name__}.{cls.__qualname__}.{name}")
    assert silent == set()


# Floors


def lint_imports(folder):
    """The linter's exit and words on the econrl that lies in `folder`."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line", "refused"),
    [
        ("spec/shocks.py", "", None),
        ("spec/shocks.py", "def f():\n    from econrl.solve import solve\n", "econrl.spec is not allowed to import"),
        ("solvers/perturbation/linearise.py", "import econrl.solvers.auto\n", "is not allowed to import"),
        ("problem/layout.py", "from econrl.problem import mdp\n", "No cycles are allowed in econrl.problem"),
    ],
    ids=["as it is", "upwards, inside a function", "from a method to auto", "a circle within a folder"],
)
def test_imports_that_climb_or_run_in_circles_are_refused(tmp_path, file, line, refused):
    pytest.importorskip("importlinter", reason="import-linter is not installed: pip install '.[dev]'")
    shutil.copytree(ROOT / "econrl", tmp_path / "econrl", ignore=shutil.ignore_patterns("__pycache__", "models"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "econrl" / file).open("a") as end:
        end.write(line)
    code, words = lint_imports(tmp_path)
    assert (code == 0) == (refused is None), words
    assert (refused or "3 kept, 0 broken") in words


def test_no_module_imports_a_model():
    for file in (ROOT / "econrl").rglob("*.py"):
        if "models" not in file.relative_to(ROOT).parts:
            assert not re.search(r"^\s*(from|import) econrl\.models\b", file.read_text(), flags=re.MULTILINE), file
