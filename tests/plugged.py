"""The examples of docs/how/solver.md and docs/plugins.md, by file."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
PAGE = "\n".join((DOCS / page).read_text(encoding="utf-8") for page in ("how/solver.md", "plugins.md"))
EXAMPLES = dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
PYPROJECT = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
