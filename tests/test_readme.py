"""The README tells the truth: its Python runs, its commands work, its excerpt is what is printed, its files are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

import irconv
from irconv.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


SHORTER = {"bench": ("--rounds", "1", "--turn", "0")}
"""Options behind those of a command that do the same fewer times."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line[2:], comments=True) for line in lines]


def test_python_blocks_run_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(blocks("python")):
        exec(compile(block, f"README.md, block {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "ops deep" in printed
    assert "4.5 [[-1.5, 0.0], [1.5, 3.0]]" in printed
    assert float(re.search(r"loss ([\d.]+)", printed)[1]) < 0.5


@pytest.mark.parametrize("words", [c for c in commands() if c[0] == "irconv"], ids=" ".join)
def test_irconv_commands_work(words, tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # what commands write stays out of the checkout
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [*words[1:], *SHORTER.get(words[1], ())])
    assert result.exit_code == 0, result.output


def test_scripts_named_in_the_readme_exist():
    scripts = [c[0] for c in commands() if c[0] != "irconv"]
    assert scripts == ["examples/train_lenet.sh", "tests/run.sh"]
    assert all((ROOT / script).is_file() for script in scripts)


def test_the_excerpt_is_what_is_printed(monkeypatch):
    """Every line of the excerpt is printed, in order; an ellipsis stands for anything."""
    command, *excerpt = blocks("text")[0].splitlines()
    change, show = command.removeprefix("$ ").split("; ")
    monkeypatch.chdir(ROOT / change.removeprefix("cd "))
    printed = iter(CliRunner().invoke(main, shlex.split(show)[1:]).output.splitlines())
    for line in excerpt:
        pattern = ".*".join(re.escape(part) for part in line.split("…"))
        assert line == "…" or any(re.fullmatch(pattern, candidate) for candidate in printed), line


def test_files_of_the_table_exist():
    rows = re.findall(r"^\| (`.*?`) \|", README, re.MULTILINE)
    outside = not (ROOT / "irconv").is_dir()  # a copy of the tests beside an installed package
    for row in rows:
        for name in re.findall(r"`([^`]+)`", row):
            if outside and name == ".ci/":
                continue  # not copied
            installed = Path(irconv.__file__).parent / name.removeprefix("irconv/")
            places = [ROOT / name, installed if outside else ROOT / "irconv" / name]
            assert any(place.exists() for place in places), name
