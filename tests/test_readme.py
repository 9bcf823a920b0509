"""The README says what runs: its Python blocks are executed, its commands exist."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from econrl.command.cli import app

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def run(source: list[str]) -> dict:
    names: dict = {"__name__": "readme"}
    for block in source:
        exec(compile(block, "README.md", "exec"), names)
    return names


def test_the_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install '.[gym]'")
    run(blocks("python"))
    assert (tmp_path / "out" / "my_growth" / "solution.json").exists()
    assert (tmp_path / "policy.png").stat().st_size > 10_000


def test_the_block_for_stable_baselines3_runs():
    pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed: pip install '.[sb3]'")
    names = run(["from econrl.models import StochasticGrowth", "model = StochasticGrowth()", *blocks("python sb3")])
    assert names["solution"].info["steps"] >= 2000


def test_the_two_commands_are_in_the_makefile():
    makefile = (README.parent / "Makefile").read_text()
    for command in ("solve", "test", "lint", "bench"):
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE)
        assert f"make {command}" in README.read_text() or command == "lint"


LINES = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("econrl ")]


@pytest.mark.parametrize("command", sorted({line.split()[1] for line in LINES}))
def test_the_commands_exist_with_their_options(command):
    help_text = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert help_text.exit_code == 0
    lines = [line for line in LINES if line.startswith(f"econrl {command}")]
    for option in {word for line in lines for word in line.split() if word.startswith("--")}:
        assert option in help_text.output
