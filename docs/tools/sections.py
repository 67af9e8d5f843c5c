"""Parts of pages that a script writes, between two comments, and the numbers they are made of."""

import csv
import re
from pathlib import Path

END = "<!-- end -->"


def begin(script: str, name: str = "") -> str:
    """Return the comment in front of what this script makes; `name` tells several parts of one page apart."""
    return f"<!-- {name}{', ' * bool(name)}made by docs/tools/{script} -->"


def replaced(text: str, start: str, made: str) -> str:
    """Return the page with what stands between `start`, a comment of `begin`, and the next `END` replaced."""
    return re.sub(f"{re.escape(start)}.*?{re.escape(END)}", lambda _: f"{start}\n{made}\n{END}", text, flags=re.DOTALL)


def read(path: Path) -> list[dict[str, str]]:
    """Return the lines of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
