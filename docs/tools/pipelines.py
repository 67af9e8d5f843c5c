"""Write the table of pipelines of docs/teachers-latent.md: `python docs/tools/pipelines.py`.

Each tiny pipeline of the tests is loaded by its own call, which measures how closely it follows the pipeline's own
sampler. Needs diffusers and transformers; two minutes.
"""

import datetime
import json
import logging
import re
import sys
import tempfile
import warnings
from pathlib import Path

from solverbench import load_teacher
from solverbench.errors import UserError
from solverbench.teachers.families import folders

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "teachers-latent.md"
BEGIN, END = "<!-- made by docs/tools/pipelines.py -->", "<!-- end -->"


def rows(place: Path) -> list[str]:
    """Return a row for each tiny pipeline: its name, what reads it, and the difference or the reason of a refusal."""
    sys.path.insert(0, str(ROOT / "tests"))
    import tiny_pipelines
    from pipeline_teachers import described

    found = []
    for name in sorted(tiny_pipelines.NAMES, key=str.lower):
        folder = tiny_pipelines.make(name, place / name)
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        reader = "`diffusers`, `pipeline`" if folders.known(index) else "`pipeline`"
        try:
            teacher = load_teacher(described(place, name, folder))
            said = re.search(r"follows to (\S+) over", teacher.notes[-1])
            assert said is not None
            single = "; one image a call" if "one image" in teacher.notes[-1] else ""
            cells = [reader, str(teacher.passes), f"{float(said[1]):.0e}{single}" if float(said[1]) else f"0{single}"]
        except UserError as error:
            cells = [reader.replace(", `pipeline`", ""), "", f"refused: {reason(error)}"]
            cells[0] = cells[0] if "diffusers" in cells[0] else ""
        found.append(f"| `{name}` | {' | '.join(cells)} |")
        print(found[-1], flush=True)
    return found


def reason(error: UserError) -> str:
    """Return what is wrong, without sentences that hold for every pipeline."""
    return re.sub(r"^one call of \w+ doesn't stand for its sampler: ", "", error.wrong).split(", more than")[0]


def section(made: list[str]) -> str:
    """Return the section with its table."""
    import diffusers

    read = sum("refused" not in row for row in made)
    head = (
        f"Of {len(made)} tiny folders {read} are read and {len(made) - read} are refused "
        f"({datetime.datetime.now(tz=datetime.UTC).date():%d %B %Y}, diffusers {diffusers.__version__}, float32, CPU)."
    )
    return "\n".join(
        [BEGIN, "", head, "", "| pipeline | read by | passes | difference |", "|---|---|---|---|", *made, "", END]
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("solverbench").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        made = rows(Path(folder))
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: section(made), page, flags=re.DOTALL))
