"""Wording of errors: `<what was asked>: <what is wrong, with the value>; <what to do>`, each part a field."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self

LONGEST = 1000
"""Largest number of characters of an error's field that are shown; the attributes hold the whole text."""


class Problem(Exception):
    """An error with three fields, whose text is one sentence.

    Args:
        wrong: the mistake, with the value; the whole sentence if nothing else is given.
        asked: the subject, such as a spec or a path.
        remedy: instruction for the user.
    """

    def __init__(self, wrong: str = "", *, asked: object = "", remedy: str = "") -> None:
        self.asked, self.wrong, self.remedy = str(asked), wrong, remedy
        found = f"{asked}: {wrong}" if self.asked else wrong
        super().__init__(f"{found}; {remedy}" if remedy else found)

    @classmethod
    def of(cls, problem: Problem) -> Self:
        """Return the same problem as an error of this class."""
        return cls(problem.wrong, asked=problem.asked, remedy=problem.remedy)

    def __str__(self) -> str:
        """Return the sentence as one line, with unprintable characters escaped and long fields cut."""
        found = f"{_cut(self.asked)}: {_cut(self.wrong)}" if self.asked else _cut(self.wrong)
        return printable(f"{found}; {_cut(self.remedy)}" if self.remedy else found)

    def without(self, asked: object) -> str:
        """Return the sentence for a context that already names `asked`: without the subject if it is `asked`."""
        if self.asked != str(asked):
            return str(self)
        return printable(f"{_cut(self.wrong)}; {_cut(self.remedy)}" if self.remedy else _cut(self.wrong))

    def finding(self, asked: object) -> str:
        """Return `without(asked)`, also without the remedy."""
        about = f"{_cut(self.asked)}: " if self.asked not in ("", str(asked)) else ""
        return printable(about + _cut(self.wrong))


def suggest(word: str, known: Iterable[str], remedy: str) -> str:
    """Return `remedy`, preceded by "did you mean ...?" if a known word is similar."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"did you mean {near[0]!r}? {remedy[0].upper()}{remedy[1:]}" if near else remedy


def one_line(what: object, *, typed: bool = False) -> str:
    """Return the text of an error or another object on one line, cut to 160 characters.

    Args:
        typed: whether to prepend an error's type; an error without text gives its type in any case.
    """
    text = printable(" ".join(str(what).split()))
    text = text if len(text) <= 160 else f"{text[:160]}…"
    kind = type(what).__name__ if isinstance(what, BaseException) and (typed or not text) else ""
    return ": ".join(filter(None, (kind, text)))


def printable(text: str) -> str:
    """Return the text on one line, with control, format and other unprintable characters escaped as in Python.

    A terminal obeys control characters, and a name with a line break could forge a line of output.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _cut(text: str) -> str:
    """Return the text, without its middle if it is longer than `LONGEST`."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST * 3 // 4]} … ({len(text)} characters) … {text[-LONGEST // 8 :]}"
