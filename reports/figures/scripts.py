"""The script that draws a figure again: its constants, and a copy of the modules that drew it in the report."""

import ast
import json
import pprint
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

_OWN = "solverbench.reports.drawing"
_FOLDER = Path(__file__).parents[1] / "drawing"
_PANEL = ("palette", "ticks", "base", "panel")
MODULES = {
    "curves": (*_PANEL, "curves"),
    "grids": (*_PANEL, "grids"),
    "costs": (*_PANEL, "costs"),
    "levels": ("palette", "ticks", "base", "levels"),
    "weights": ("palette", "base", "weights"),
    "images": ("base", "images"),
}
"""The modules of `solverbench.reports.drawing` that a figure's script is a copy of, by its kind, in their order."""
_HEAD = '''"""Draws NAME.png, .pdf and .svg again from NAME.csv{images}.

    python NAME.py [FOLDER FOR THE RESULT]

It needs matplotlib, pandas and seaborn alone. FIGURE holds what the CSV does not: widths in inches, titles, solvers.
Below it is the code that drew the figure in the report. Change what you like.
"""
'''
_TAIL = """

# ---- reads the CSV and draws


def main() -> None:
    here = Path(__file__).resolve()
    data = pd.read_csv(here.with_suffix(".csv"), dtype=str, keep_default_na=False)
    data = data.replace("^'(?=[=+@-])", "", regex=True)  # without it a spreadsheet takes a name for a formula
    for column in data.columns.difference({texts}):
        data[column] = [float(text) if text else np.nan for text in data[column]]
    figure = draw({arguments})
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent
    for kind in FORMATS:
        (folder / f"{{here.stem}}.{{kind}}").write_bytes(render(figure, kind))


if __name__ == "__main__":
    main()
"""


def script(kind: str, name: str, figure: Mapping[str, Any]) -> str:
    """Return the script of a figure.

    Args:
        kind: a key of `MODULES`.
        name: the name of the figure's files, without their ending.
        figure: its constants; see the `draw` of its module.
    """
    imports, code = _copied(kind)
    head = _HEAD.format(images=" and images.npz" if kind == "images" else "").replace("NAME", name or "NAME")
    constants = f"FIGURE = {pprint.pformat(dict(figure), width=118, sort_dicts=False)}"
    texts = ["panel", "kind", "series", "teacher", "metric", "key", "missing", *figure.get("options", ())]
    named = f"[{', '.join(json.dumps(name, ensure_ascii=False) for name in texts)}]"
    stored = ', np.load(here.parent / "images.npz", allow_pickle=False)' if kind == "images" else ""
    return f"{head}\n{imports}\n\n{constants}\n{code}{_TAIL.format(arguments=f'data, FIGURE{stored}', texts=named)}"


@cache
def _copied(kind: str) -> tuple[str, str]:
    """Return the imports of the modules of a kind, and the rest of their code."""
    imports: dict[str, set[str]] = {"": {"sys", "numpy as np", "pandas as pd"}, "pathlib": {"Path"}}
    code = list[str]()
    for module in MODULES[kind]:
        text = (_FOLDER / f"{module}.py").read_text(encoding="utf-8")
        tree, lines = ast.parse(text), text.splitlines()
        begin = 0
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                begin = node.end_lineno or node.lineno
                where = str(node.module) if isinstance(node, ast.ImportFrom) else ""
                if not where.startswith(_OWN):
                    imports.setdefault(where, set()).update(ast.unparse(alias) for alias in node.names)
        said = (ast.get_docstring(tree) or "").splitlines()
        heading = [f"# ---- {said[0]}", *(f"# {line}".rstrip() for line in said[1:])]
        code.append("\n".join(["\n", *heading]) + "\n\n" + "\n".join(lines[begin:]).strip("\n"))
    return _sorted(imports), "\n".join(code)


def _sorted(imports: Mapping[str, set[str]]) -> str:
    """Return import statements in two groups, those of Python itself first."""
    lines = [f"import {name}" for name in imports[""]]
    lines += [f"from {module} import {', '.join(sorted(names))}" for module, names in imports.items() if module]
    groups: tuple[list[str], list[str]] = ([], [])
    for line in sorted(lines, key=lambda line: (line.startswith("from"), line)):
        groups[line.split()[1].partition(".")[0] not in sys.stdlib_module_names].append(line)
    return "\n\n".join("\n".join(group) for group in groups)
