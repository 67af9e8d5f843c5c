"""The whole report: which files, what the page says, the same bytes again, and nothing half written."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import forms
import numpy as np
import pandas as pd
import pytest
from reports_large import write

from solverbench import reports
from solverbench.reports import report as reporting
from solverbench.reports.bundle import tidy
from solverbench.reports.drawing import base
from solverbench.reports.drawing.images import Grid, draw_grid
from solverbench.reports.figures import contents, gallery, images, widths
from solverbench.reports.pages import markdown, overview, sections, tables
from solverbench.reports.parts import Part, parts

PARTS = ("digits-frechet_data", "digits-frechet_teacher", "digits-rmse_teacher")


class Once(NamedTuple):
    """A bundle with its whole report, which all tests share: its folder, the bundle's files, the report's."""

    folder: Path
    before: set[Path]
    written: list[Path]


@pytest.fixture(scope="module")
def once(bundle: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Once:
    folder = bundle(tmp_path_factory.mktemp("once") / "bundle")
    return Once(folder, set(folder.iterdir()), reports.write(folder))


@pytest.fixture
def copy(once: Once, tmp_path: Path) -> Path:
    """The bundle and its report in a folder that a test may change."""
    return Path(shutil.copytree(once.folder, tmp_path / "bundle"))


def page(folder: Path) -> str:
    return markdown.page(sections.of(reports.load(folder)))


def edit(folder: Path, **changes: object) -> None:
    record = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    (folder / "bundle.json").write_text(json.dumps(record | changes), encoding="utf-8")


def test_write_returns_every_file_and_leaves_no_other(once: Once) -> None:
    folder, before, written = once
    figures = ["figure", *(f"figure-{part}" for part in PARTS), "images-digits", "differences-digits"]
    expected = {f"{name}.{kind}" for name in figures for kind in ("png", "pdf", "svg", "csv", "py")}
    expected |= {f"table-{part}.{kind}" for part in PARTS for kind in ("md", "csv", "tex")}
    expected |= {f"verdicts.{kind}" for kind in ("md", "csv", "tex")} | {"report.html", "images.html", "report.md"}
    expected |= {"ahead.csv", "figures.json", "report.json"}
    assert {path.name for path in written} == expected
    assert set(folder.iterdir()) - before == set(written)
    assert written[-1].name == "report.md"


def test_the_same_bundle_gives_the_same_bytes_in_another_process_at_another_time(once: Once, copy: Path) -> None:
    first = {path.name: path.read_bytes() for path in once.written}
    folder, age = copy, time.time() - once.written[-1].stat().st_mtime
    time.sleep(max(0.0, 1.1 - age))
    (copy / "report.json").unlink()
    code = f"import sys; sys.path[:0] = {sys.path!r}; from solverbench import reports; reports.write({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [name for name, content in first.items() if (folder / name).read_bytes() != content] == []


def test_every_link_of_the_page_leads_to_a_file(once: Once) -> None:
    import re

    folder = once.folder
    text = (folder / "report.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) >= 20
    assert [link for link in links if not (folder / link).exists()] == []


def test_the_page_holds_command_verdicts_notes_protocol_and_environment(folder: Path) -> None:
    text = page(folder)
    assert (
        "```\nsolverbench run --solvers euler,dpm,unipc,ipndm,heun,gs,gas --nfe 3-6,8,10 --teachers digits\n```" in text
    )
    assert "42 cells asked for: 33 done, 5 cached, 1 failed, 2 unsupported, 1 needs-training." in text
    assert "2 claims: 1 unresolved, 1 held." in text
    assert "| unresolved | gas is below gs at NFE 4 | to data | -0.04 | -0.11 to 0.03 |" in text
    assert "| intervals | 95 %, delete-a-group jackknife over 30 seed blocks" in text
    assert "| torch | 2.13.0+cpu |" in text
    assert "| dpm | dpm:grid=logsnr:lower_order_final=true:order=3:prediction=data | classical |" in text


def test_every_cell_without_a_result_is_listed_with_its_whole_reason(folder: Path) -> None:
    text = page(folder)
    for nfe in (3, 5):
        assert f"| digits | heun | {nfe} | unsupported | heun with nfe={nfe}: each step costs 2" in text
    assert r"| digits | gas | 8 | failed | FloatingPointError: NaN in call 5 \| image_17 |" in text
    assert "| digits | gas | 3 | needs-training | run: solverbench train gas --nfe 3 --teacher digits |" in text


def test_tags_stand_in_a_line_of_their_own_near_the_top(folder: Path) -> None:
    edit(folder, tags=["replicates=1 (default 3)"])
    lines = page(folder).splitlines()
    assert lines[2] == "> **Read with care:** replicates=1 (default 3)"
    edit(folder, tags=["replicates=1 (default 3)", "n=40; few"])
    assert page(folder).splitlines()[2:5] == ["> **Read with care:**", "> - replicates=1 (default 3)", "> - n=40; few"]


def test_the_text_says_who_is_ahead_as_the_page_does(folder: Path) -> None:
    text = page(folder)
    ahead = text[text.index("## Who is ahead") : text.index("## Notes")]
    [part] = [each for each in overview.rows(sections.of(reports.load(folder))) if each["name"] == "frechet_data"]
    row = next(line for line in ahead.splitlines() if line.startswith(f"| {part['rows'][0]['teacher']} |"))
    told = [cell.strip().strip("*").partition("**")[0] for cell in row.split("|")[2:-1]]
    assert told == [cell["text"] for cell in part["rows"][0]["cells"]]
    assert "[ahead.csv](ahead.csv) has each comparison" in ahead
    assert "Who is ahead" not in page(write(folder.parent / "one", ["dpm"]))


def test_what_the_head_says_is_not_repeated_in_the_notes(folder: Path) -> None:
    doubt = "the reference of toy isn't converged"
    edit(folder, tags=[doubt], notes=[doubt, "something else"])
    text = page(folder)
    assert text.count(doubt) == 1
    assert "- something else" in text


def test_a_learned_solver_below_its_teacher_is_pointed_out_once(folder: Path) -> None:
    text = page(folder)
    assert "learned solver gs at NFE 8, 10 is nearer to the data" in text
    assert "learned solver gas at NFE 10 is nearer" in text  # NFE 5 is spoken of in the runner's own note
    assert text.count("gas at NFE 5") == 1
    assert "within the intervals at NFE 8." in text
    edit(folder, notes=[])
    assert "learned solver gas at NFE 5, 10 is nearer" in page(folder)


def test_nothing_is_pointed_out_without_a_teacher_line(folder: Path) -> None:
    edit(folder, lines=[], notes=[])
    assert "## Notes" not in page(folder)


def test_a_failed_write_leaves_the_old_report_whole(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(copy, notes=["another note"])
    folder, before = copy, {path.name: path.read_bytes() for path in copy.iterdir()}

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(reports.BundleError, match=r"cannot be written .*No space left"):
        reports.write(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The formats of the pictures that are drawn in this process from now on; they hold a word instead.

    Of the figures of one form, the first in this process is composed.
    """
    made: list[str] = []
    compose = contents.Content.draw
    monkeypatch.setattr(contents.Content, "draw", lambda content: forms.once(content, compose))
    monkeypatch.setattr(base, "render", lambda figure, kind: made.append(kind) or b"a picture")
    return made


def test_a_report_that_did_not_change_is_not_drawn_again(copy: Path, once: Once, drawings: list[str]) -> None:
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    assert [path.name for path in reports.write(copy)] == [path.name for path in once.written]
    assert drawings == []
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_a_repeated_run_writes_nothing_and_imports_no_drawing_library(copy: Path, once: Once) -> None:
    """Its cells are cached where they were done, and its own time is another one."""
    table = (copy / "results.csv").read_text(encoding="utf-8")
    assert ",done," in table
    (copy / "results.csv").write_text(table.replace(",done,", ",cached,"), encoding="utf-8")
    record = json.loads((copy / "bundle.json").read_text(encoding="utf-8"))
    counts = {**record["counts"], "cached": record["counts"]["cached"] + record["counts"]["done"], "done": 0}
    edit(copy, counts=counts, environment={**record["environment"], "seconds": "9 for this run"})
    before = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; from solverbench import reports\n"
        f"print(*[path.name for path in reports.write({str(copy)!r})]); sys.exit('matplotlib' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == [path.name for path in once.written]
    assert {path.name: path.stat().st_mtime_ns for path in copy.iterdir()} == before


@pytest.mark.parametrize(
    "text", ["", "[]", '{"stamp": 1}', '{"stamp": "%s", "files": 1}', '{"stamp": "%s", "files": []}']
)
def test_a_damaged_record_of_the_report_writes_it_again(copy: Path, drawings: list[str], text: str) -> None:
    stamp = json.loads((copy / "report.json").read_text(encoding="utf-8"))["stamp"]
    (copy / "report.json").write_text(text.replace("%s", stamp), encoding="utf-8")
    (copy / "report.html").unlink()
    reports.write(copy)
    assert (copy / "report.html").is_file()
    assert drawings == []


def test_another_bundle_or_baseline_is_another_report(copy: Path, drawings: list[str]) -> None:
    edit(copy, notes=["another note"])
    reports.write(copy)
    assert "another note" in (copy / "report.html").read_text(encoding="utf-8")
    stamp = (copy / "report.json").read_bytes()
    reports.write(copy, baseline="unipc")
    assert (copy / "report.json").read_bytes() != stamp
    assert drawings == []


def test_the_cells_of_each_table_are_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Part] = []
    compute = tables._entries
    monkeypatch.setattr(tables, "_entries", lambda part: made.append(part) or compute(part))
    report = sections.of(reports.load(folder))
    assert list(reporting._pages(report))
    assert markdown.page(report)
    assert len(made) == len(report.parts) == len(PARTS)


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"\x89PNG"), lambda path: path.unlink()])
def test_a_damaged_or_missing_picture_alone_is_drawn_again(copy: Path, drawings: list[str], spoil) -> None:
    spoil(copy / "images-digits.png")
    reports.write(copy)
    assert drawings == ["png", "pdf", "svg"]
    assert (copy / "images-digits.png").read_bytes() == b"a picture"
    reports.write(copy)
    assert len(drawings) == 3


@pytest.mark.parametrize(
    "text", [None, "", "[]", '{"figure": 1}', '{"figure": {"stamp": 1, "files": []}}', "[" * 10**5]
)
def test_a_damaged_record_of_the_figures_draws_them_again(copy: Path, once: Once, drawings: list[str], text) -> None:
    (copy / "report.json").unlink()
    (copy / "figures.json").unlink() if text is None else (copy / "figures.json").write_text(text, encoding="utf-8")
    reports.write(copy)
    assert len(drawings) == len([path for path in once.written if path.suffix in (".png", ".pdf", ".svg")])


def test_what_a_picture_shows_decides_whether_it_is_drawn_again(
    copy: Path, drawings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = len(list(copy.glob("*.png")))
    edit(copy, notes=["another note"])
    reports.write(copy)
    assert drawings == []  # no figure shows it
    table = (copy / "results.csv").read_text(encoding="utf-8")
    (copy / "results.csv").write_text(table.replace(",0.015,", ",0.016,"), encoding="utf-8")  # an RMSE
    reports.write(copy)
    assert len(drawings) == 3 * 2  # the figure of RMSE and the one of all metrics
    drawings.clear()
    with np.load(copy / "images.npz") as archive:
        stored = dict(archive)
    stored["digits|gas|4"][0] += 1
    np.savez(copy / "images.npz", **stored)
    reports.write(copy)
    assert len(drawings) == 3 * 2  # images and differences
    drawings.clear()
    reports.write(copy, width="iclr")
    assert len(drawings) == 3 * (figures - 2)  # images have a width of their own
    drawings.clear()
    script = contents.scripts.script
    monkeypatch.setattr(contents.scripts, "script", lambda *asked: script(*asked) + "# another drawing code\n")
    edit(copy, notes=["a third note"])  # else nothing is drawn at all: the code is the same on disk
    reports.write(copy, width="iclr")
    assert len(drawings) == 3 * figures


def test_figures_are_the_same_bytes_by_however_many_processes(once: Once, folder: Path) -> None:
    drawn = {path.stem for path in once.written if path.suffix == ".png"}
    assert len(drawn) <= gallery._ALONE  # by one process
    alone = {path.name: path.read_bytes() for path in once.written if path.stem in drawn}
    written = _figures(folder, 2)
    assert [path.name for path in written] == [*alone, gallery.STAMPS]
    assert {path.name: path.read_bytes() for path in written[:-1]} == alone


def test_a_process_that_cannot_draw_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(_complaining(folder)))
    with pytest.raises(
        reports.BundleError, match=r"figures can't be drawn \(OSError: no space\); draw the report again"
    ):
        _figures(folder, 2)


def _complaining(folder: Path) -> Path:
    program = folder / "program"
    program.write_text("#!/bin/sh\necho 'OSError: no space' >&2\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def _figures(folder: Path, processes: int) -> list[Path]:
    bundle = reports.load(folder)
    return gallery.write(bundle, parts(bundle.frame, bundle.record), widths.DEFAULT, processes=processes)


@pytest.mark.usefixtures("unrendered", "remembered")
def test_no_file_is_written_in_its_final_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, write = [], Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda self, content: names.append(self.name) or write(self, content))
    written = {path.name for path in reports.write(folder)}
    assert names
    assert written.isdisjoint(names)


@pytest.mark.usefixtures("unrendered", "remembered")
def test_two_teachers_have_their_own_figures_tables_and_images(folder: Path, frame: pd.DataFrame, write) -> None:
    both = pd.concat([frame, frame.assign(teacher="a/b c")])
    other = write(both, json.loads((folder / "bundle.json").read_text(encoding="utf-8")))
    names = {path.name for path in reports.write(other)}
    assert {"figure-a-b-c-frechet_data.png", "table-a-b-c-rmse_teacher.tex", "images-a-b-c.png"} <= names
    assert "## a/b c: Fréchet distance to the data" in (other / "report.md").read_text(encoding="utf-8")


def test_an_image_grid_has_a_row_per_solver_below_the_teacher(folder: Path) -> None:
    bundle = reports.load(folder)
    layout = images.grid(bundle.frame, bundle.images, "digits")
    assert layout is not None
    assert list(layout.rows) == ["teacher\n63 calls", "euler", "dpm", "unipc", "ipndm", "heun", "gs", "gas"]
    assert list(layout.columns) == ["NFE 3", "NFE 4", "NFE 5", "NFE 6", "NFE 8", "NFE 10"]
    assert dict(layout.marks) == {
        (5, 0): "unsupported",
        (5, 2): "unsupported",
        (7, 0): "needs training",
        (7, 4): "failed",
    }
    np.testing.assert_array_equal(bundle.images[layout.keys[6, 1]], bundle.images["digits|gs|4"])


@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_are_enlarged_pixel_for_pixel(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, channels, 8, 8), dtype=np.uint8)
    layout = Grid(["gs"], ["NFE 4"], {(0, 0): image}, {}, taught=False)
    canvas = draw_grid(layout).canvas
    canvas.draw()
    shown = np.asarray(canvas.buffer_rgba())[..., :3]
    zoom = 9
    large = np.broadcast_to(image[0].transpose(1, 2, 0), (8, 8, 3)).repeat(zoom, axis=0).repeat(zoom, axis=1)
    found = np.lib.stride_tricks.sliding_window_view(shown, large.shape)[:, :, 0]
    assert any((found[y, x] == large).all() for y in range(30, 50) for x in range(found.shape[1]))


def test_a_teacher_without_images_has_no_grid(frame: pd.DataFrame) -> None:
    assert images.grid(tidy(frame), {"mixture|gs|4": np.zeros((1, 1, 8, 8), dtype=np.uint8)}, "digits") is None
