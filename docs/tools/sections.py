"""Parts of pages that a script writes, between two comments."""

import re

END = "<!-- end -->"


def begin(script: str, name: str = "") -> str:
    """Return the comment in front of what this script makes; `name` tells several parts of one page apart."""
    return f"<!-- {name}{', ' * bool(name)}made by docs/tools/{script} -->"


def replaced(text: str, start: str, made: str) -> str:
    """Return the page with what stands between `start`, a comment of `begin`, and the next `END` replaced."""
    return re.sub(f"{re.escape(start)}.*?{re.escape(END)}", lambda _: f"{start}\n{made}\n{END}", text, flags=re.DOTALL)
