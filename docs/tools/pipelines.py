"""Write the table of pipelines of docs/teachers-latent.md: `python docs/tools/pipelines.py`.

Each tiny pipeline of the tests is loaded by its own call, in each number format, which measures how closely it follows
the pipeline's own sampler. Needs diffusers and transformers; ten minutes.
"""

import datetime
import json
import logging
import re
import sys
import tempfile
import warnings
from pathlib import Path

from sections import begin, replaced

from solverbench import load_teacher
from solverbench.errors import UserError
from solverbench.teachers.families import folders
from solverbench.teachers.teacher import Teacher

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "teachers-latent.md"


def rows(place: Path) -> tuple[list[str], int]:
    """Return a row for each tiny pipeline, and how many are read.

    A row has the name, what reads it, and the differences or the reason of a refusal.
    """
    sys.path.insert(0, str(ROOT / "tests"))
    import tiny_pipelines
    from pipeline_teachers import described

    found, read = [], 0
    for name in sorted(tiny_pipelines.NAMES, key=str.lower):
        folder = tiny_pipelines.make(name, place / name)
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        reader = "`diffusers`, `pipeline`" if folders.known(index) else "`pipeline`"
        try:
            teacher = load_teacher(described(place, name, folder))
            single = "; one image a call" if "one image" in teacher.notes[-1] else ""
            halves = [measured(described(place, name, folder, {"dtype": dtype})) for dtype in ("bf16", "fp16")]
            cells = [reader, f"{teacher.passes}{single}", difference(teacher), *halves]
            read += 1
        except UserError as error:
            cells = [reader.replace(", `pipeline`", ""), f"refused: {reason(error)}", "", "", ""]
            cells[0] = cells[0] if "diffusers" in cells[0] else ""
        found.append(f"| `{name}` | {' | '.join(cells)} |")
        print(found[-1], flush=True)
    return found, read


def measured(spec: str) -> str:
    """Return the difference of a teacher in half precision, or why it isn't read in it."""
    try:
        return difference(load_teacher(spec))
    except UserError as error:
        return f"refused: {reason(error)}"


def difference(teacher: Teacher) -> str:
    """Return what the check at load found, as text."""
    said = re.search(r"follows to (\S+) over", teacher.notes[-1])
    assert said is not None
    return f"{float(said[1]):.0e}" if float(said[1]) > 1e-12 else "0"


def reason(error: UserError) -> str:
    """Return what is wrong, without sentences that hold for every pipeline."""
    return re.sub(r"^one call of \w+ doesn't stand for its sampler: ", "", error.wrong).split(", more than")[0]


def section(made: list[str], read: int) -> str:
    """Return the section with its table, of which some are read."""
    import diffusers

    head = (
        f"Of {len(made)} tiny folders {read} are read and {len(made) - read} are refused "
        f"({datetime.datetime.now(tz=datetime.UTC).date():%d %B %Y}, diffusers {diffusers.__version__}, CPU)."
    )
    columns = "| pipeline | read by | passes | float32 | bfloat16 | float16 |"
    return "\n".join(["", head, "", columns, "|---|---|---|---|---|---|", *made, ""])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("solverbench").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        made, read = rows(Path(folder))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(page, begin("pipelines.py"), section(made, read)))
