"""What goes into a paper: LaTeX compiles, fonts are embedded, scripts draw the same figure again."""

import ast
import csv
import functools
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reports_large import HOSTILE, write

from solverbench import reports
from solverbench.reports import drawing
from solverbench.reports.drawing import base
from solverbench.reports.drawing.base import blank
from solverbench.reports.figures import gallery, scripts
from solverbench.reports.figures.widths import VENUES
from solverbench.reports.pages import lists

PDFLATEX, PDFFONTS = shutil.which("pdflatex"), shutil.which("pdffonts")
SOME = {"solvers": ["euler", "dpm", "heun", "gs", "gas"], "teachers": ["digits", "shapes"], "budgets": (3, 4, 5)}
PREAMBLE = "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{mathptmx,array,booktabs,graphicx}\n"
METRICS = ["frechet_data", "rmse_teacher"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report; where no program looks at the others, with the figures alone that a script draws again."""
    path, draw = write(tmp_path_factory.mktemp("paper") / "a", **SOME, metrics=METRICS), gallery.draw
    with pytest.MonkeyPatch.context() as patch:
        if no_latex() and no_pdffonts():
            patch.setattr(gallery, "_ALONE", 1000)
            patch.setattr(gallery, "draw", lambda to, made, names: draw(to, made, set(names).intersection(SCRIPTS)))
        reports.write(path)
    return path


def compile(folder: Path, to: Path, figures: bool = False) -> str:
    """The log of a paper that takes in every table of a report, and its figures."""
    tables = "\n".join(f"\\input{{{path}}}" for path in sorted(folder.glob("*.tex")))
    drawn = (
        "\n".join(f"\\includegraphics{{{path.stem}}}\n\n" for path in sorted(folder.glob("*.pdf"))) if figures else ""
    )
    found = typeset(f"\\graphicspath{{{{{folder}/}}}}\n\\begin{{document}}\n{tables}\n{drawn}\n", to)
    assert found.returncode == 0, found.stdout[-2000:]
    return found.stdout


def typeset(text: str, to: Path) -> "subprocess.CompletedProcess[str]":
    """Run pdflatex on the preamble and this text, which begins the document."""
    (to / "paper.tex").write_text(f"{PREAMBLE}{text}\\end{{document}}\n", encoding="utf-8")
    command = [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    return subprocess.run(command, cwd=to, capture_output=True, text=True, errors="replace", check=False)


@functools.cache
def no_latex() -> str:
    """Why nothing can be typeset: no pdflatex, or one without the packages and fonts that a paper needs; tried once."""
    if not PDFLATEX:
        return "no pdflatex"
    tiny = (
        "\\begin{document}\n\\begin{tabular}{lr}\n\\toprule a & \\textbf{b} \\\\\n\\midrule\n"
        "$x_1 \\pm 2$ & \\textsuperscript{c} \\textit{d} \\texttt{e} \\\\\n\\bottomrule\n\\end{tabular}\n"
    )
    with tempfile.TemporaryDirectory() as to:
        found = typeset(tiny, Path(to))
        if found.returncode == 0 and Path(to, "paper.pdf").exists():
            return ""
    said = [line for line in found.stdout.splitlines() if line.startswith("!")] or [f"exit code {found.returncode}"]
    return f"pdflatex can't typeset a table here: {said[0]}"


@functools.cache
def no_pdffonts() -> str:
    """Why no fonts can be listed: no program for it, or one that can't read a PDF; tried once."""
    if not PDFFONTS:
        return "no pdffonts"
    with tempfile.TemporaryDirectory() as to:
        blank(1, 1).save(empty := Path(to, "empty.pdf"))
        found = subprocess.run([PDFFONTS, str(empty)], capture_output=True, text=True, check=False)
    return f"pdffonts can't read a PDF here: {found.stderr.strip() or found.returncode}" if found.returncode else ""


@pytest.fixture
def latex() -> None:
    if reason := no_latex():
        pytest.skip(reason)


@pytest.fixture
def pdffonts() -> str:
    """The program."""
    if reason := no_pdffonts():
        pytest.skip(reason)
    return str(PDFFONTS)


@pytest.mark.usefixtures("latex")
def test_every_table_compiles_and_every_font_of_the_paper_is_embedded(
    folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    log = compile(folder, tmp_path, figures=True)
    assert "Missing character" not in log
    program = request.getfixturevalue("pdffonts")
    listed = subprocess.run([program, "paper.pdf"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    rows = listed.splitlines()[2:]
    assert any("DejaVuSans" in row for row in rows)
    # columns from the right: object ID (two), unicode, subset, embedded
    assert [row for row in rows if row.split()[-5] != "yes"] == []
    assert "Type 3" not in listed


@pytest.mark.usefixtures("latex")
def test_tables_with_hostile_names_compile(tmp_path: Path) -> None:
    from solverbench.reports.pages import sections, tables

    folder = write(tmp_path / "a", HOSTILE, ["digi_ts & 50% #1"], (3, 4), ["frechet_data"])
    report = sections.of(reports.load(folder))
    for part in report.parts:
        (tmp_path / "a" / "table.tex").write_text(tables.latex(part))
    for name, content in lists.files(report):
        if name.endswith(".tex"):
            (tmp_path / "a" / name).write_bytes(content)
    compile(tmp_path / "a", tmp_path)


@pytest.mark.parametrize(("name", "columns"), [("verdicts", lists.VERDICTS), ("published", lists.PUBLISHED)])
def test_a_list_fits_a_column_of_a_paper_and_has_every_field(
    folder: Path, name: str, columns: tuple[lists.Column, ...]
) -> None:
    text = (folder / f"{name}.tex").read_text(encoding="utf-8")
    assert "longtable" not in text  # which can't stand in two columns
    assert "table*" not in text
    assert sum(column.share for column in columns) == pytest.approx(1.0)
    shares = re.findall(r"p\{\\dimexpr ([0-9.]+)\\linewidth-2\\tabcolsep\\relax\}", text)
    assert shares == [f"{column.share:.2f}" for column in columns] * text.count("\\begin{table}")
    assert text.count("p{") == len(shares)  # no column has a width of its own
    for column in columns:
        longest = max(map(len, column.title.split()))
        assert 3.2 * longest < column.share * 234 - 3  # points: a letter of \\scriptsize; a column of ICML's
    plain = re.sub(r"\\allowbreak\{\}|\\newline|[\\{}$,]|&", " ", text.replace("$-$", "-")).split()
    [*_, row] = csv.reader((folder / f"{name}.csv").read_text(encoding="utf-8").splitlines())
    for word in re.split(r"[\s,/:=_]+", " ".join(each for each in row if each not in ("yes", "no", ""))):
        assert word.lstrip("'") in re.split(r"[\s/:=_]+", " ".join(plain)), word


def test_a_long_list_becomes_tables_that_a_page_has_room_for() -> None:
    head = ("verdict", "claim", "metric", "difference", "95 % interval", "caution")
    row = ("unresolved", "gas NFE 3 ahead of dpm NFE 3 on digits", "RMSE", "-0.1", "-0.2 to 0.0", "c" * 70)
    text = lists.latex("verdicts", head, [row] * 400, "400 claims.", lists.VERDICTS)
    tables = text.split("\\begin{table}")[1:]
    assert text.count("\\label{tab:verdicts}") == text.count("\\caption{") == 1
    assert all("continued" in each for each in tables[1:])
    counts = [each.count("unresolved") for each in tables]
    assert (sum(counts), max(counts)) == (400, 15)  # four lines each
    assert text.count("\\clearpage") == (len(tables) - 1) // 12  # TeX keeps so many tables back, and no more
    assert text.count("c" * 70) == 400  # the caution, which no column names
    assert "$-$0.2 to 0.0" in text


@pytest.mark.usefixtures("latex")
def test_every_list_and_table_fits_its_column(folder: Path, tmp_path: Path) -> None:
    """No line is wider by more than rounding; the class's own columns are 229.5 points wide."""
    names = [path for path in sorted(folder.glob("*.tex")) if path.name[:5] not in ("table", "paire")]
    inputs = "\n".join(f"\\input{{{path}}}" for path in names)
    found = typeset(f"\\begin{{document}}\\twocolumn\n{inputs}\n", tmp_path)
    assert found.returncode == 0, found.stdout[-2000:]
    wide = [float(width) for width in re.findall(r"Overfull .hbox \(([0-9.]+)pt", found.stdout)]
    assert max(wide, default=0.0) < 3.0


def test_the_intervals_of_differences_stand_below_their_values(folder: Path) -> None:
    lines = (folder / "paired-digits-frechet_data.tex").read_text(encoding="utf-8").split("\\midrule\n")[1].splitlines()
    for value, interval in zip(lines[0:-3:2], lines[1:-3:2], strict=True):
        assert len(value.split("&")) == len(interval.split("&")) == 4
        assert "[" not in value
        shown = [text.strip(" \\") not in ("--",) for text in value.split("&")[1:]]
        assert ["\\tiny [" in text for text in interval.split("&")[1:]] == shown


@pytest.mark.parametrize("pattern", ["table-*.tex", "paired-*.tex", "verdicts.tex", "published.tex"])
def test_every_environment_of_a_table_ends_and_its_caption_stands_once(folder: Path, pattern: str) -> None:
    paths = sorted(folder.glob(pattern))
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")
        opened: list[str] = []
        for what, name in re.findall(r"\\(begin|end)\{([a-z*]+)\}", text):
            if what == "begin":
                opened.append(name)
            else:
                assert opened.pop() == name, path.name
        assert opened == []
        plain = re.sub(r"\\[{}\\]", "", text)
        assert plain.count("{") == plain.count("}")
        assert text.count("\\caption{") == text.count("\\label{") == 1


def test_fonts_of_each_figure_are_embedded_truetype(folder: Path, pdffonts: str) -> None:
    for path in sorted(folder.glob("*.pdf")):
        listed = subprocess.run([pdffonts, str(path)], capture_output=True, text=True, check=True).stdout
        for row in listed.splitlines()[2:]:
            assert re.search(r"TrueType\b.*\byes +yes +", row), (path.name, row)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An interpreter that sees pandas, matplotlib and seaborn with what they need, and nothing of this project."""
    import importlib.util

    site = tmp_path_factory.mktemp("fresh")
    needed = ["pandas", "numpy", "matplotlib", "seaborn", "mpl_toolkits", "dateutil", "six", "pytz", "tzdata",
              "packaging", "pyparsing", "kiwisolver", "contourpy", "cycler", "fontTools", "PIL"]  # fmt: skip
    for name in needed:
        spec = importlib.util.find_spec(name)
        if spec is not None:
            inside = spec.submodule_search_locations
            place = Path(next(iter(inside)) if inside else str(spec.origin))
            (site / place.name).symlink_to(place)
    for place in Path(np.__file__).parents[1].glob("*.libs"):
        (site / place.name).symlink_to(place)
    code = f"import runpy, sys; sys.path.append({str(site)!r}); sys.argv = sys.argv[1:]"
    code += "; runpy.run_path(sys.argv[0], run_name='__main__')"
    return [sys.executable, "-I", "-S", "-c", code]


SCRIPTS = ("figure-digits-frechet_data", "figure", "figure-teachers-frechet_data", "figure-speed", "figure-training",
           "levels-digits", "weights-digits", "images-digits", "differences-digits")  # fmt: skip


DRIVER = """
import json, runpy, sys, traceback
import matplotlib
to, *scripts = sys.argv[1:]
failed = {}
for script in scripts:
    sys.argv = [script, to]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        try:
            runpy.run_path(script, run_name="__main__")
        except BaseException:
            failed[script] = traceback.format_exc()
print(json.dumps(failed))
"""
"""Every script in one process, which starts once, and each with the settings of a fresh one."""


@pytest.fixture(scope="module")
def redrawn(
    folder: Path, elsewhere: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """Where the scripts have drawn, and the traceback of each that failed."""
    to = tmp_path_factory.mktemp("redrawn")
    (to / "driver.py").write_text(DRIVER, encoding="utf-8")
    scripts = [str(folder / f"{name}.py") for name in SCRIPTS]
    line = [*elsewhere, str(to / "driver.py"), str(to), *scripts]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=to)
    assert done.returncode == 0, done.stderr[-1500:]
    return to, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_draws_the_same_figure_from_its_csv_without_this_project(
    folder: Path, redrawn: tuple[Path, dict[str, str]], name: str
) -> None:
    to, failed = redrawn
    assert failed.get(str(folder / f"{name}.py")) is None
    again, before = (np.asarray(Image.open(place / f"{name}.png").convert("L")).astype(int) for place in (to, folder))
    np.testing.assert_array_equal(again, before)  # the code and its numbers are the same, so the pixels are, too
    assert np.abs(before - 255).mean() > 1
    assert (to / f"{name}.svg").read_bytes() == (folder / f"{name}.svg").read_bytes()
    assert (to / f"{name}.pdf").read_bytes().startswith(b"%PDF")


EVERY = 'FORMATS = ("png", "pdf", "svg")'
"""As a script has it."""


def test_the_scripts_of_hostile_names_draw_the_same(
    tmp_path: Path, elsewhere: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a", HOSTILE, ["digi_ts & 50% #1"], (3, 4), ["frechet_data"])
    monkeypatch.setattr(base, "FORMATS", ("svg",))  # here and in the scripts: names are the same in every format
    reports.write(path)
    scripts = sorted(map(str, path.glob("*.py")))
    for script in map(Path, scripts):
        text = script.read_text(encoding="utf-8")
        assert text.count(EVERY) == 1
        script.write_text(text.replace(EVERY, 'FORMATS = ("svg",)'), encoding="utf-8")
    (tmp_path / "driver.py").write_text(DRIVER, encoding="utf-8")
    line = [*elsewhere, str(tmp_path / "driver.py"), str(tmp_path), *scripts]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout.splitlines()[-1]) == {}
    assert len(scripts) >= 5
    for script in map(Path, scripts):
        assert (tmp_path / f"{script.stem}.svg").read_bytes() == script.with_suffix(".svg").read_bytes()


@pytest.mark.parametrize("kind", scripts.MODULES)
def test_the_modules_that_a_script_copies_share_no_name_and_need_no_other(kind: str) -> None:
    """A second definition would take the place of the first one; an import of the project would be cut off."""
    names: list[str] = []
    for module in scripts.MODULES[kind]:
        tree = ast.parse((Path(drawing.__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.append(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names += [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("solverbench"):
                assert node in tree.body, ast.unparse(node)  # an import within a function would stay in the script
                assert str(node.module).rpartition(".")[2] in scripts.MODULES[kind]
                assert all(each.asname is None for each in node.names)
            elif isinstance(node, ast.Import):
                assert not any(each.name.startswith("solverbench") for each in node.names)
    assert sorted(names) == sorted(set(names))
    assert "draw" in names
    assert "solverbench.reports" not in scripts.script(kind, "name", {}).replace("`solverbench.reports", "`")


def test_a_script_reads_the_numbers_from_its_csv(folder: Path, elsewhere: list[str], tmp_path: Path) -> None:
    for kind in ("py", "csv"):
        shutil.copy(folder / f"figure-digits-frechet_data.{kind}", tmp_path)
    table = tmp_path / "figure-digits-frechet_data.csv"
    lines = table.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if ",measured,gas,4," in line)
    fields = lines[place].split(",")
    fields[lines[0].split(",").index("value")] = "0.9"
    table.write_text("\n".join([*lines[:place], ",".join(fields), *lines[place + 1 :]]) + "\n")
    subprocess.run([*elsewhere, str(tmp_path / "figure-digits-frechet_data.py")], check=True, cwd=tmp_path)
    again, before = (
        np.asarray(Image.open(f / "figure-digits-frechet_data.png").convert("L")).astype(int)
        for f in (tmp_path, folder)
    )
    assert np.abs(again - before).mean() > 0.05


@pytest.mark.parametrize("venue", VENUES)
def test_figures_fit_the_columns_of_a_venue(folder: Path, venue: str) -> None:
    bundle = reports.load(folder)
    one = reports.draw(bundle, "frechet_data", "digits", width=venue)
    assert one.get_size_inches()[0] == VENUES[venue].single
    for kind in ("nfe", "grid", "speed", "training", "trajectory", "levels", "weights"):
        assert reports.draw(bundle, kind=kind, width=venue).get_size_inches()[0] in (
            VENUES[venue].single,
            VENUES[venue].double,
        )


def test_an_unknown_venue_kind_or_baseline_is_refused_by_name(folder: Path) -> None:
    bundle = reports.load(folder)
    with pytest.raises(reports.BundleError, match=r"width 'a4': not known; choose from icml"):
        reports.draw(bundle, width="a4")
    with pytest.raises(reports.BundleError, match=r"kind 'pie': .* choose from nfe, grid"):
        reports.draw(bundle, kind="pie")
    with pytest.raises(reports.BundleError, match=r"baseline 'unipc': .* choose from euler, dpm, heun, gs, gas"):
        reports.write(folder, baseline="unipc")
