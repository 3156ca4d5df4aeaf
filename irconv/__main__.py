"""``python -m irconv``: the command line."""

from irconv.cli import main

main(prog_name="irconv")
