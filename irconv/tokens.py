"""The tokenizer under the parser of the IR text: one compiled regular expression, one token at a time, errors with a place."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from irconv.errors import ParseError
from irconv.places import Location
from irconv.syntax import ATOM, STRING, Atom, shown

_TOKEN = re.compile(
    rf"(?P<space>[ \t\r]+)|(?P<newline>\n)|(?P<name>%(?:{ATOM}|{STRING}))|(?P<string>{STRING})"
    rf"|(?P<block>[0-9]+%[0-9]+)|(?P<atom>{ATOM})|(?P<mark>[()\[\]{{}}:,=#])"
)
_EXCERPT = 80


class Tokens:
    """A text being read; ``kind``, ``token``, ``start`` and ``line`` are those of the current token.

    kind: name, string, block (``1%16``), atom, mark, newline, or end.
    """

    def __init__(self, text: str, source: str):
        self.text = text
        self.source = source
        self.kind = self.token = ""
        self.start = self.end = 0
        self.line = 1

    def advance(self) -> str:
        """Step to the next token; returns the text of the one left behind."""
        left = self.token
        while True:
            if self.kind == "newline":
                self.line += 1
            self.start = self.end
            match = _TOKEN.match(self.text, self.start)
            if match is None:
                self._no_token()
                return left
            self.kind, self.token, self.end = str(match.lastgroup), match[0], match.end()
            if self.kind != "space":
                return left

    def _no_token(self) -> None:
        self.kind, self.token = "end", ""
        if self.start < len(self.text):
            character = self.text[self.start]
            self.fail(f"unexpected {character!r}", "strings end on their line" if character in '"%' else None)

    def fail(self, message: str, hint: str | None = None, position: int | None = None) -> NoReturn:
        """Raise ParseError at ``position`` of the current line, or at the current token."""
        raise self.error(message, hint, position)

    def error(self, message: str, hint: str | None = None, position: int | None = None) -> ParseError:
        """The ParseError that :meth:`fail` raises."""
        excerpt = self._excerpt(self.start if position is None else position)
        return ParseError(message, hint=hint, location=Location(self.source, self.line), excerpt=excerpt)

    def _excerpt(self, position: int) -> str:
        """The line around a position, with a caret below it."""
        begin = self.text.rfind("\n", 0, position) + 1
        newline = self.text.find("\n", position)
        finish = len(self.text) if newline < 0 else newline
        before = self.text[max(begin, position - _EXCERPT) : position].lstrip()
        after = self.text[position : min(finish, position + _EXCERPT)].rstrip()
        line = "".join(c if c.isprintable() else "?" for c in before + after)
        return f"{line}\n{' ' * len(before)}^"

    def at(self, token: str) -> bool:
        """Whether the current token is this mark or bare word."""
        return self.token == token and self.kind in ("mark", "atom")

    def accept(self, token: str) -> bool:
        """Step over this mark or bare word if it is the current token."""
        if self.at(token):
            self.advance()
            return True
        return False

    def expect(self, token: str) -> None:
        """Step over this mark or bare word; ParseError if it is not the current token."""
        if not self.accept(token):
            self.fail(f"expected {token!r}, got {self.found()}")

    def found(self) -> str:
        """The current token, for messages."""
        names = {"end": "the end of the text", "newline": "the end of the line"}
        return names.get(self.kind) or shown(Atom(self.token))

    def end_line(self) -> None:
        """Step over the end of the line and blank lines after it."""
        if self.kind != "newline":
            self.fail(f"expected the end of the line, got {self.found()}")
        self.skip_newlines()

    def skip_newlines(self) -> None:
        """Step over blank lines."""
        while self.kind == "newline":
            self.advance()

    def label(self, what: str) -> str:
        """Read a bare or quoted label; ``what`` says in the message what was expected."""
        if self.kind == "string":
            return self._unquoted(self.token)
        if self.kind != "atom":
            self.fail(f"expected {what}, got {self.found()}")
        return self.advance()

    def name(self) -> str:
        """Read the name of a value; returns it without its percent sign."""
        if self.kind != "name":
            self.fail(f"expected the %name of a value, got {self.found()}")
        return self._unquoted(self.token[1:]) if self.token[1] == '"' else self.advance()[1:]

    def string(self) -> str:
        """Read a quoted string."""
        if self.kind != "string":
            self.fail(f"expected a quoted string, got {self.found()}")
        return self._unquoted(self.token)

    def _unquoted(self, quoted: str) -> str:
        try:
            value = json.loads(quoted)
            value.encode()  # lone surrogates cannot be written to any file
        except ValueError:
            self.fail(f"{shown(Atom(quoted))} is not a JSON string")
        self.advance()
        return str(value)

    def integer(self) -> int:
        """Read an integer of at most 64 bits."""
        if self.kind != "atom" or not self.token.removeprefix("-").isdecimal() or len(self.token) > 20:
            self.fail(f"expected an integer, got {self.found()}")
        return int(self.advance())
