"""The command line: ``irconv show | run | opt | explain | compare | profile | bench | train | build | doctor``.

MODEL is ``file.py:name`` (a module, a class or function that makes one, a function of tensors), ``file.onnx`` or ``file.ir``.
Errors that a user can cause are printed without a traceback and end with status 1; a wrong command line ends with 2.
"""

from __future__ import annotations

import click

from irconv.cli.bench import bench
from irconv.cli.build import build
from irconv.cli.compare import compare
from irconv.cli.doctor import doctor
from irconv.cli.explain import explain
from irconv.cli.group import Commands
from irconv.cli.opt import opt
from irconv.cli.profile import profile
from irconv.cli.run import run
from irconv.cli.show import show
from irconv.cli.train import train


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="irconv")
@click.option("--traceback", is_flag=True, help="Show Python's traceback of an error.")
def main(traceback: bool) -> None:
    """A compiler for convolutional networks: see, change, run and train them.

    MODEL is file.py:name, file.onnx or file.ir.
    """


for command in (show, run, opt, explain, compare, profile, bench, train, build, doctor):
    main.add_command(command)
