"""The pictures of docs/idea.md can be made again, by the script that the page names."""

import os
from pathlib import Path

import forks

ROOT = Path(__file__).parents[2]


def test_the_script_makes_the_pictures_of_the_page(tmp_path: Path) -> None:
    way = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    script = ROOT / "docs" / "tools" / "pictures.py"
    forks.run([script, tmp_path], check=True, env=os.environ | {"PYTHONPATH": way})
    made = {path.name for path in tmp_path.iterdir() if path.stat().st_size > 10_000}
    assert made == {path.name for path in (ROOT / "docs" / "images").glob("idea-*.png")}
