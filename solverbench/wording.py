"""Wording of errors: `<what was asked>: <what is wrong, with the value>; <what to do>`, each part a field."""

from __future__ import annotations

import copyreg
import difflib
import math
import re
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

LONGEST = 1000
"""Largest number of characters of an error's field that are shown; the attributes hold the whole text."""
BELOW_ERROR = "below the reference's error"
"""The verdict on a difference that is told apart from 0 but is smaller than the error of its reference."""


class Problem(Exception):
    """An error with three fields, whose text is the sentence `ASKED: WRONG; REMEDY`.

    Args:
        asked: what the user gave: a spec, an option with its value, a path, a name.
        wrong: what is wrong with it.
        remedy: what to do instead.
    """

    def __init__(self, *, asked: object, wrong: str, remedy: str) -> None:
        self.asked, self.wrong, self.remedy = str(asked), wrong, remedy
        super().__init__(f"{self.asked}: {wrong}; {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    @classmethod
    def of(cls, problem: Problem, *, asked: object = None) -> Self:
        """Return a problem as an error of this class.

        Args:
            asked: subject of the new error, whose `wrong` then names the problem's own subject; if None, the same one.
        """
        if asked is None:
            return cls(asked=problem.asked, wrong=problem.wrong, remedy=problem.remedy)
        return cls(asked=asked, wrong=problem.finding(asked), remedy=problem.remedy)

    def __str__(self) -> str:
        """Return the sentence as one line, with unprintable characters escaped and long fields cut."""
        return printable(f"{_cut(self.asked)}: {_cut(self.wrong)}; {_cut(self.remedy)}")

    def without(self, asked: object) -> str:
        """Return the sentence for a context that already names `asked`: without the subject if it is `asked`."""
        if self.asked != str(asked):
            return str(self)
        return printable(f"{_cut(self.wrong)}; {_cut(self.remedy)}")

    def finding(self, asked: object) -> str:
        """Return `without(asked)`, also without the remedy."""
        about = "" if self.asked == str(asked) else f"{_cut(self.asked)}: "
        return printable(about + _cut(self.wrong))


@contextmanager
def concerning(asked: object) -> Iterator[None]:
    """Make `asked` the subject of every problem that the block raises; see `Problem.of`."""
    try:
        yield
    except Problem as error:
        raise type(error).of(error, asked=asked) from error.__cause__


def suggest(word: str, known: Iterable[str], remedy: str) -> str:
    """Return `remedy`, preceded by "did you mean ...?" if a known word is similar.

    A word with the same letters in another order is nearest, then one that begins with the given word, then the most
    similar one.
    """
    low, words = word.lower(), list(known)
    near = [each for each in words if sorted(each) == sorted(low)]
    near += [each for each in words if len(low) > 2 and each.startswith(f"{low}_")]
    near += difflib.get_close_matches(low, words, n=1)
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


def ends(text: str, most: int) -> str:
    """Return a text of at most `most` characters: a longer one without its middle, as both ends tell names apart."""
    if len(text) <= most:
        return text
    first = most // 2
    return f"{text[:first]}…{text[len(text) - (most - first - 1) :]}"


def wrapped(line: str, room: int | None) -> list[str]:
    """Return a line in lines of at most `room` characters, those after the first indented; a word is never broken.

    It breaks behind a comma, colon or semicolon where it can, so that a metric keeps its value and its interval, and a
    spec, which has no space, stays whole even if it is longer than `room`.

    Args:
        room: None for lines of any length.
    """
    if room is None or len(line) <= room:
        return [line]
    pieces = re.split(r"(?<=[,;:]) ", line)
    joined = " ".join(each.replace(" ", "\0") if len(each) <= _PIECE else each for each in pieces)
    found = textwrap.wrap(
        joined, max(room, _PIECE + 2), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return [each.replace("\0", " ") for each in found]


_PIECE = 38
"""Largest number of characters between two commas that stay on one line."""


def decimals(value: float, error: float = math.nan) -> int:
    """Return the decimal places of a number: its standard error keeps one digit, or two if it starts with 1 or 2.

    Without a standard error, the value keeps three significant digits. All tables, of a terminal and of a report, use
    this rule.
    """
    if math.isfinite(error) and error > 0:
        first = int(f"{error:e}"[0])
        return max(0, (1 if first <= 2 else 0) - math.floor(math.log10(error)))
    return max(0, 2 - math.floor(math.log10(abs(value)))) if value and math.isfinite(value) else 2


def number_text(value: float, places: int, sign: str = "") -> str:
    """Return a number with so many decimals, or with an exponent if it would have more than 12 digits."""
    plain = abs(value) < 1e12 and places <= 12
    return f"{value:{sign}.{places}f}" if plain else f"{value:{sign}.3g}"


def interval_texts(
    value: float, low: float, high: float, *, error: float = math.nan, sign: str = ""
) -> tuple[str, str, str]:
    """Return a value and the ends of its 95 % interval as text, with the same number of decimals; see `decimals`.

    Texts of an unknown interval are empty.

    Args:
        error: standard error of the value; if it is unknown, a fourth of the interval's width.
        sign: "+" to write the sign of positive numbers, too.
    """
    known = math.isfinite(low) and math.isfinite(high)
    places = decimals(value, error if math.isfinite(error) or not known else (high - low) / 4)
    shown, *ends = (number_text(number, places, sign) for number in (value, low, high))
    return (shown, ends[0], ends[1]) if known else (shown, "", "")


def bracketed(value: float, low: float, high: float, sign: str = "") -> str:
    """Return a value and its 95 % interval as one text, such as `0.0167 [0.0150, 0.0183]`; see `interval_texts`."""
    shown, *ends = interval_texts(value, low, high, sign=sign)
    return f"{shown} [{', '.join(ends)}]" if all(ends) else shown


def masked(difference: float, low: float, high: float, error: float | None) -> bool:
    """Return whether it is only the error of the reference that leaves a difference undecided: `BELOW_ERROR`.

    Its interval excludes 0, but another reference of the same accuracy might turn its sign. More images don't help.

    Args:
        low: lower end of the difference's interval.
        high: its upper end.
        error: error of the reference; None or NaN if it is unknown.
    """
    return error is not None and abs(difference) < error and not low <= 0 <= high


def csv_text(value: object) -> object:
    """Return a value for a CSV file: a text that a spreadsheet would take for a formula gets an apostrophe in front."""
    if not isinstance(value, str) or len(value) < 2 or value[0] not in "=+-@\t\r":
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def of_csv(text: str) -> str:
    """Return the text that `csv_text` was given."""
    return text[1:] if text[:1] == "'" and csv_text(text[1:]) == text else text


def _cut(text: str) -> str:
    """Return the text, without its middle if it is longer than `LONGEST`."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST * 3 // 4]} … ({len(text)} characters) … {text[-LONGEST // 8 :]}"
