"""Runs all benchmarks, or the named ones: `python benchmarks [NAME ...]`, from the project's folder.

Prints a line of JSON per figure, with its spread, its goal and a verdict (`reached`, `missed`, or `unresolved` if the
spread is too wide to decide), the commit and the machine; --save appends it to results.jsonl. `ablation.py`,
`faults.py`, `forgeries.py`, `sweep.py`, `two_samples.py` and `uncertainty.py` in this folder measure no time and are
run separately.
"""

from __future__ import annotations

import importlib
import sys

import harness

NAMES = ("executor", "overhead", "sharing", "training", "engine", "pipeline", "frechet", "grid", "formats", "gpu")

if __name__ == "__main__":
    words = sys.argv[1:]
    named = [word for word in words if word in NAMES]
    rest = [word for word in words if word not in NAMES]
    if rest and not rest[0].startswith("-"):
        sys.exit(f"benchmark {rest[0]!r}: there is none; choose from {', '.join(NAMES)}")
    measures = [importlib.import_module(name).measure for name in named or NAMES]
    harness.main(*measures, words=rest)
