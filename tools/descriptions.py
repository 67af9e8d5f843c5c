"""Write registries/descriptions.json: what `solverbench info` prints of each classical solver, without torch.

    python tools/descriptions.py

A test compares the file with what the command makes of the classes.
"""

from __future__ import annotations

import json
from pathlib import Path

from solverbench import registries
from solverbench.cli import describe
from solverbench.method.spec import solver_class

FILE = Path(registries.__file__).parent / "descriptions.json"


def made() -> dict[str, str]:
    """Return the description of each built-in classical solver by name and alias, `{}` for the package's folder."""
    home = str(Path(registries.__file__).parents[1])
    names = [name for name in registries.solvers.builtin if not solver_class(name).learned]
    names += [alias for name in names for alias in registries.solvers.aliases(name)]
    return {name: describe.solver(name, "digits", Path("runs")).replace(home, "{}") for name in sorted(names)}


if __name__ == "__main__":
    FILE.write_text(json.dumps(made(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
