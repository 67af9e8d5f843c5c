"""The examples of docs/plugins.md, by file."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", PAGE, re.DOTALL))
PYPROJECT = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[0]
