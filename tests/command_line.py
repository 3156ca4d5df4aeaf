"""Commands of ``irconv``, run in this process: what they print when they succeed, and when they fail as they should."""

from __future__ import annotations

from click.testing import CliRunner, Result

from irconv.cli import main


class Command:
    """``irconv`` with these words first, such as ``bench``."""

    def __init__(self, *first: str):
        self.first = first

    def call(self, *args: str) -> Result:
        return CliRunner().invoke(main, (*self.first, *args))

    def output(self, *args: str) -> str:
        """What it prints; it has to succeed."""
        result = self.call(*args)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result.output

    def fails(self, *args: str, status: int = 1) -> str:
        """What it prints; it has to fail with this status, and no traceback."""
        result = self.call(*args)
        assert result.exit_code == status, result.output + repr(result.exception)
        assert "Traceback" not in result.output
        return result.output
