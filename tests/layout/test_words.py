"""Phrases that readers stumbled over don't come back in docstrings, comments, messages and pages."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("solverbench", "baselines", "registries", "reports", "tools", "benchmarks", "docs", "examples")
PHRASES = {
    "anew": "again; recomputed",
    "by this door": "this way",
    "by the same door": "the same way",
    "left away": "left out",
    "isn't any more": "is no longer",
    "take up what": "resume from; restore from",
    "taken up again": "resumed",
    "what is there of": "the part that is stored",
    "what they come to": "the tableau that they give",
    "asked again and again": "polled",
    "of a beginning": "of the first part",
    "stands beside": "is next to",
    "in vain": "without effect; name what failed",
    "mend it there": "fix it there",
    "is handed": "gets",
    "hand it the": "pass it the",
    "a thing of type": "an object of type",
    "goes on where": "resumes",
    "gone on from": "resumed",
    "made again by": "computed again by",
    "which makes it again": "to compute it again",
    "makes them again": "computes them again",
    "has it whole": "has an intact copy",
    "stands twice": "occurs twice",
    "code of its own": "its own code; custom code",
    "goes round in a circle": "forms a circle",
    "by other numbers": "with other coefficients",
    "where none came in": "for inputs without one",
    "any that is free": "a free one",
    "from before that": "earlier",
    "what is kept of": "results of",
    "what is known of": "facts about",
    "what a run would do": "the planned work",
    "what becomes of": "how something ends; is set aside, is left out",
    "of what is missing": "the missing cells, calls or files",
    "is to be said of": "a remark on",
    "has a use for": "needs",
    "without a word": "without a note",
    "whole or not there": "complete or missing",
    "says too little": "isn't meaningful",
    "stands last": "comes last",
    "may stand for": "a candidate for",
    "from which on": "smallest ... that",
    "with a meaning here": "that this module handles",
    "values that a regular step combines": "number of outputs that a regular step combines",
}
"""What isn't written, and what is written instead."""


@pytest.mark.parametrize("phrase", PHRASES)
def test_it_is_said_in_plain_words(phrase):
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".md", ".j2", ".txt") and "node_modules" not in path.parts:
                text = " ".join(path.read_text(encoding="utf-8").split())
                found += [path.relative_to(ROOT).as_posix()] * len(re.findall(rf"\b{phrase}\b", text, re.I))
    assert not found, f"say {PHRASES[phrase]!r} instead"


def test_no_docstring_is_a_placeholder_or_begins_in_the_middle():
    wrong = re.compile(r'"""(?:TODO\.?|\.|Nothing\.|Nothing: |Of |The same\b)')
    for folder in ("solverbench", "baselines", "registries", "reports"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            assert not wrong.findall(path.read_text(encoding="utf-8")), path
