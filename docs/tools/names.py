"""Write the tables of docs/names.md from registries/names.toml: `python docs/tools/names.py`."""

from itertools import groupby
from pathlib import Path

from sections import begin, replaced

from solverbench import registries

PAGE = Path(__file__).parents[1] / "names.md"
MARKS = {"equal": "=", "near": "≈", "none": "–"}


def tables() -> str:
    """Return a heading and a table for each group of names."""
    parts = []
    for title, found in groupby(registries.foreign(), key=lambda each: each.title):
        rows = list(found)
        lines = [f"## {title}", "", rows[0].about, "", "| name | | spec, and what differs |", "|---|---|---|"]
        for each in rows:
            told = "<br>".join(filter(None, [f"`{each.spec}`" if each.spec else "", each.differs]))
            lines.append(f"| `{each.name}` | {MARKS[each.agrees]} | {told} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def section(text: str) -> str:
    """Return the page with its tables replaced."""
    return replaced(text, begin("names.py"), f"\n{tables()}\n")


if __name__ == "__main__":
    PAGE.write_text(section(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
