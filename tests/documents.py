"""The pages that people read, and what is in them: fenced and indented blocks, code in a line, links, headings."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
MADE = {"changelog.md", "reference/python.md", "reference/commands.md", "reference/options.md"}
"""Pages of the site that are made when it is built."""

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)


def tool(script: str) -> ModuleType:
    """The module docs/tools/<script>.py."""
    sys.path.insert(0, str(ROOT / "docs" / "tools"))
    try:
        return importlib.import_module(script)
    finally:
        sys.path.pop(0)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fenced(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block."""
    return [(language, body) for _, language, body in _FENCE.findall(text)]


def prose(text: str) -> str:
    """The text without its fenced and indented blocks."""
    return re.sub(r"^(?:    |\t).*$", "", _FENCE.sub("", text), flags=re.M)


def shell_lines(text: str) -> list[str]:
    """Each line that begins with `solverbench` or `python -m solverbench`: in blocks, and as code in a line."""
    blocks = "\n".join([text, *re.findall(r"`((?:solverbench|python -m (?:solverbench|tools))[^`]*)`", prose(text))])
    joined = re.sub(r"\s*\\\n\s*", " ", blocks)
    found = re.findall(
        r"^\s*(?:\$ |> )?((?:(?:python -m )?solverbench(?:\.[\w.]+)?|python -m tools\.[\w.]+) .*)$", joined, re.M
    )
    in_block = [line for line in found if not line.endswith("|")]
    return [re.sub(r"\s+#.*$", "", line).strip() for line in in_block]


def links(text: str) -> list[str]:
    """The targets of links and images, those of other sites left out."""
    found = re.findall(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)", prose(text))
    found += re.findall(r"<(?:img|source)\b[^>]*?\b(?:src|srcset)=\"([^\"]+)\"", text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """What a link may name in the page: the ids that both GitHub and MkDocs give a heading."""
    headings = re.findall(r"^#{1,6} +(.*?) *#*$", prose(text), re.M)
    plain = [
        re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", each)).strip().lower() for each in headings
    ]
    return {re.sub(r"[-\s]+", "-", each) for each in plain} & {each.replace(" ", "-") for each in plain}
