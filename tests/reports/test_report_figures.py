"""Figures: what is drawn, that labels do not collide, that bytes repeat and that a session is left alone."""

import itertools
import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox
from reports_large import write as write_large

from solverbench import reports
from solverbench.reports.bundle import tidy
from solverbench.reports.drawing import base
from solverbench.reports.drawing.palette import KNOWN, PLUGIN_COLOURS, PLUGIN_MARKERS, look_of, shape, style
from solverbench.reports.drawing.panel import panels
from solverbench.reports.drawing.ticks import linear_ticks, log_ticks, spread, wrapped
from solverbench.reports.figures import contents
from solverbench.reports.figures.sprites import Sprites
from solverbench.reports.figures.widths import VENUES
from solverbench.reports.pages import data, html, markdown, sections
from solverbench.reports.parts import parts


def with_record(frame: pd.DataFrame, record: dict) -> pd.DataFrame:
    frame.attrs["record"] = record
    return frame


def texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is seen, with its box in pixels, once the axes have placed their own."""
    figure.canvas.draw()
    artists = [*figure.texts]
    for axes in figure.axes:
        artists += [*axes.texts, axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    return [(artist.get_text(), artist.get_window_extent()) for artist in artists if artist.get_text()]


def assert_no_collision(figure: Figure) -> None:
    whole = Bbox([[0, 0], figure.get_size_inches() * figure.dpi])
    for name, box in texts(figure):
        assert whole.x0 <= box.x0, name
        assert box.x1 <= whole.x1, name
        assert whole.y0 <= box.y0, name
        assert box.y1 <= whole.y1, name
    for (one, a), (two, b) in itertools.combinations(texts(figure), 2):
        assert not (a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1), (one, two)


def series(axes: Axes, label: str) -> np.ndarray:
    return np.asarray(next(line for line in axes.lines if line.get_label() == label).get_ydata(), dtype=float)


def close_together(frame: pd.DataFrame, count: int, name: str = "solver{}") -> pd.DataFrame:
    one = frame[frame["solver"] == "gs"]
    return pd.concat(
        one.assign(solver=name.format(i), spec=name.format(i), value=one["value"] * (1 + i / 1000))
        for i in range(count)
    )


@pytest.mark.parametrize("metric", ["frechet_data", None])
@pytest.mark.parametrize("name", ["solver{}", "solver{}:order={}:grid=polynomial".replace("={}", "=3")])
def test_labels_of_ten_solvers_close_together_do_not_collide(
    frame: pd.DataFrame, record: dict, metric: str | None, name: str
) -> None:
    assert_no_collision(reports.draw(with_record(close_together(frame, 10, name), record), metric))


@pytest.mark.parametrize("metric", ["frechet_data", "rmse_teacher", None])
@pytest.mark.parametrize("nfe", [(3, 4, 5, 6, 8, 10), (6,)])
@pytest.mark.parametrize("scale", [1.0, 1e-5])
def test_labels_of_the_usual_selections_do_not_collide(
    frame: pd.DataFrame, record: dict, metric: str | None, nfe: tuple[int, ...], scale: float
) -> None:
    frame[["value", "low", "high"]] *= scale
    other = frame.assign(teacher="mixture")
    some = pd.concat([frame, other])
    assert_no_collision(reports.draw(with_record(some[some["nfe"].isin(nfe)], record), metric))


def test_four_metrics_stand_side_by_side_without_collisions(frame: pd.DataFrame, record: dict) -> None:
    fourth = frame[frame["metric"] == "rmse_teacher"].assign(metric="rmse_exact")
    entry = {"label": "RMSE to the exact solution of the teacher's ODE (pixels in [-1, 1])", "log": True}
    more = record | {"metrics": record["metrics"] | {"rmse_exact": entry}}
    figure = reports.draw(with_record(pd.concat([frame, fourth]), more))
    assert len(figure.axes) == 4
    assert_no_collision(figure)


def test_a_figure_has_the_width_of_a_paper_column(frame: pd.DataFrame, record: dict) -> None:
    source = with_record(frame, record)
    assert reports.draw(source, "frechet_data").get_size_inches()[0] == 3.25
    assert reports.draw(source).get_size_inches()[0] == 6.75


def test_the_axis_label_is_the_metrics_own_with_n_and_replicates(frame: pd.DataFrame, record: dict) -> None:
    axes = reports.draw(with_record(frame, record), "frechet_data").axes[0]
    label = axes.get_ylabel().replace("\u00a0", " ").replace("\n", " ")
    assert label == "Fréchet distance to the data (digits features), n = 10 000 × 3"
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["3", "4", "5", "6", "8", "10"]


def test_a_linear_axis_where_the_record_says_so(frame: pd.DataFrame, record: dict) -> None:
    record["metrics"]["frechet_data"]["log"] = False
    assert reports.draw(with_record(frame, record), "frechet_data").axes[0].get_yscale() == "linear"


def test_a_line_breaks_where_a_cell_is_missing(frame: pd.DataFrame, record: dict) -> None:
    axes = reports.draw(with_record(frame, record), "frechet_data").axes[0]
    assert np.isnan(series(axes, "heun")).tolist() == [True, False, True, False, False, False]
    assert np.isnan(series(axes, "gas")).tolist() == [True, False, False, False, True, False]


def test_a_zero_on_a_logarithmic_axis_is_shown_as_below_it(frame: pd.DataFrame, record: dict) -> None:
    frame.loc[(frame["solver"] == "gs") & (frame["nfe"] == 6), ["value", "low"]] = [0.0, -0.1]
    axes = reports.draw(with_record(frame, record), "frechet_data").axes[0]
    assert math.isnan(series(axes, "gs")[3])
    assert any(line.get_marker() == 7 and line.get_xdata()[0] == 6 for line in axes.lines)


def test_horizontal_lines_are_drawn_with_labels_and_bands(frame: pd.DataFrame, record: dict) -> None:
    figure = reports.draw(with_record(frame, record), "frechet_data")
    flat = {float(line.get_ydata()[0]) for line in figure.axes[0].lines if len(set(line.get_ydata())) == 1}
    assert {0.515, 0.13} <= flat
    shown = {text.get_text().replace("\n", " ") for text in figure.texts}
    assert {"teacher, heun 63 calls", "data floor", "gas", "euler"} <= shown
    assert len(figure.axes[0].patches) == 2


def test_a_reference_value_on_another_n_says_so_and_is_no_line(frame: pd.DataFrame, record: dict, write) -> None:
    """A distance depends on n: a floor of another n can't be reached, and would press the solvers together."""
    record["lines"][0]["n"], record["lines"][1]["n"] = 5000, 10000
    first, second = parts(tidy(frame), record)[0].lines
    assert (first.label, second.label) == ("teacher, heun 63 calls, n = 5 000", "data floor")
    few = frame.assign(n=250)
    record["lines"][0]["n"] = 10000
    figure = reports.draw(with_record(few, record), "frechet_data")
    assert {text.get_text() for text in figure.texts if text.get_gid() == "tag"} <= set(frame["solver"])
    assert figure.axes[0].get_ylim()[0] > 0.25
    bundle = reports.load(write(few, record))
    page = sections.of(bundle)
    assert [each["label"] for each in data.of(page, Sprites({}, {}, {}, ""))["parts"][0]["lines"]] == []
    text = markdown.page(page)
    assert "Horizontal lines, with their 95 % intervals: teacher floor" in text
    assert "those on another number of images than the solvers, as distances depend on it: teacher, heun" in text
    assert "data floor, n = 10 000 (to data) 0.13" in text


TWO = {
    "rmse_teacher": {"label": "RMSE to the teacher's own sample from the same noise (pixels in [-1, 1])",
                     "short": "RMSE to teacher", "log": True},
    "rmse_exact": {"label": "RMSE to the exact solution of the teacher's ODE (pixels in [-1, 1])",
                   "short": "RMSE to exact", "log": True},
}  # fmt: skip


def test_panels_of_like_metrics_are_told_apart_by_a_short_bold_name(frame: pd.DataFrame, record: dict) -> None:
    own = frame[frame["metric"] == "rmse_teacher"].assign(cost_images_per_second=10.0)
    both = tidy(pd.concat([own, own.assign(metric="rmse_exact")]))
    record["metrics"] = TWO
    found = parts(both, record)
    for content in (contents.curves(found), contents.grid(found), contents.costs(found, "speed")):
        figure = content.draw()
        bold = [text.get_text() for text in figure.texts if text.get_fontweight() == "bold"]
        assert sorted(bold) == ["RMSE to exact", "RMSE to teacher"]
        if content.kind != "costs":  # whose points have numbers that may touch
            assert_no_collision(figure)


@pytest.mark.parametrize("metrics", [1, 2, 4])
@pytest.mark.parametrize("width", ["icml", "neurips", "cvpr"])
def test_no_title_is_broken_inside_a_bracket(frame: pd.DataFrame, record: dict, metrics: int, width: str) -> None:
    entries = {f"m{k}": {**TWO["rmse_exact"], "short": ""} for k in range(metrics)}
    own = frame[frame["metric"] == "rmse_teacher"]
    found = parts(tidy(pd.concat([own.assign(metric=name) for name in entries])), record | {"metrics": entries})
    figure = contents.curves(found, VENUES[width]).draw()
    lines = [line for name, _ in texts(figure) for line in name.replace("\u00a0", " ").split("\n")]
    assert any("[-1, 1]" in line for line in lines)
    for line in lines:
        assert line.count("[") == line.count("]"), line
        assert line.count("(") == line.count(")"), line


def test_a_long_bracket_and_a_long_word_still_fit_a_line() -> None:
    for width in (8, 12, 20):
        for text in ("KID (a feature space of a very long name [0, 1] of mine)", "x" * 50, "", "a (b"):
            assert all(len(line) <= width for line in wrapped(text, width).split("\n"))
    assert wrapped("RMSE (pixels in [-1, 1])", 10).split("\n") == ["RMSE", "(pixels in", "[-1,\u00a01])"]


def test_labels_stand_in_the_order_of_the_line_ends(frame: pd.DataFrame, record: dict) -> None:
    figure = reports.draw(with_record(frame, record), "frechet_data")
    tags = sorted((text for text in figure.texts if text.get_gid() == "tag"), key=lambda text: -text.get_position()[1])
    last = frame[(frame["nfe"] == 10) & (frame["metric"] == "frechet_data")].sort_values("value", ascending=False)
    assert [tag.get_text() for tag in tags if tag.get_text() in set(frame["solver"])] == last["solver"].to_list()


def test_a_solver_keeps_its_colour_and_marker_in_every_selection(frame: pd.DataFrame, record: dict) -> None:
    looks = []
    for some in (["gas"], ["euler", "dpm", "gas"], ["gas", "heun", "gs", "unipc"]):
        axes = reports.draw(with_record(frame[frame["solver"].isin(some)], record), "frechet_data").axes[0]
        line = next(line for line in axes.lines if line.get_label() == "gas")
        looks.append((line.get_color(), line.get_marker(), line.get_linestyle()))
    assert len(set(looks)) == 1


def test_known_solvers_differ_and_an_unknown_one_has_a_fixed_style() -> None:
    assert len(set(KNOWN.values())) == len(KNOWN)
    assert style("dpm:order=2") == style("dpm") == style("dpmpp", "dpm:grid=logsnr:order=3")
    code = "from solverbench.reports.drawing.palette import style; print(style('myplugin'))"
    seen = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout.strip()
        for env in ({"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)}, {"PYTHONPATH": ":".join(sys.path)})
    }
    assert seen == {str(style("myplugin"))}


def test_a_plugin_has_no_look_of_a_built_in_solver_and_a_marker_for_each_spec(frame: pd.DataFrame) -> None:
    assert not set(PLUGIN_MARKERS) & {each.marker for each in KNOWN.values()}
    assert not set(PLUGIN_COLOURS) & {each.colour for each in KNOWN.values()}
    for name in ("ab2", "mine", "solver_7", "x"):
        specs = {f"{name}:order={k}": f"{name}:order={k}" for k in range(4)} | {"dpm": "dpm", "dpm:order=2": "dpm"}
        looks = {label: look_of(specs, label) for label in specs}
        own = [looks[label] for label in specs if label.startswith(name)]
        assert len({marker for _, marker, _, _ in own}) == 4
        assert len({colour for colour, *_ in own}) == 1
        assert looks["dpm"][:2] == looks["dpm:order=2"][:2] == ("#0173b2", "s")
    for marker in PLUGIN_MARKERS:
        assert Line2D([0], [0], marker=shape(marker)).get_marker() == shape(marker)
        assert f'case "{marker}"' in html.asset("page.js")


def test_two_variants_of_a_solver_share_its_colour_and_differ_in_line(frame: pd.DataFrame, record: dict) -> None:
    other = frame[frame["solver"] == "dpm"].assign(solver="dpm:order=2", spec="dpm:order=2")
    axes = reports.draw(with_record(pd.concat([frame, other]), record), "frechet_data").axes[0]
    one, two = (next(line for line in axes.lines if line.get_label() == label) for label in ("dpm", "dpm:order=2"))
    assert one.get_color() == two.get_color()
    assert one.get_markerfacecolor() != two.get_markerfacecolor()
    assert one.get_linestyle() != two.get_linestyle()


def test_the_csv_beside_a_figure_is_what_is_drawn(frame: pd.DataFrame, record: dict) -> None:
    part = parts(tidy(frame), record)[0]
    content = contents.curves([part])
    axes, table = content.draw().axes[0], content.data
    for solver in part.solvers:
        np.testing.assert_array_equal(table[table["series"] == solver]["value"].to_numpy(float), series(axes, solver))
    assert table[table["series"] == "data floor"]["value"].to_list() == [0.13]
    assert (table[table["value"].isna()]["missing"] != "").all()


def test_a_selection_where_nothing_finished_still_draws_and_says_so(frame: pd.DataFrame, record: dict) -> None:
    frame[["status", "reason", "value"]] = ["failed", "boom", None]
    figure = reports.draw(with_record(frame, record))
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["no finished cell"] * 3


def test_an_unknown_metric_is_refused_with_the_ones_there(frame: pd.DataFrame, record: dict) -> None:
    with pytest.raises(reports.BundleError, match=r"metric 'fid': .* choose from frechet_data, frechet_teacher"):
        reports.draw(with_record(frame, record), "fid")


def test_drawing_leaves_the_session_alone_and_the_session_leaves_the_drawing_alone(
    frame: pd.DataFrame, record: dict
) -> None:
    source = with_record(frame, record)
    plain = base.render(reports.draw(source, "frechet_data"), "svg")
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.fonttype": "path", "axes.grid": True}):
        before = matplotlib.rcParams.copy()
        assert base.render(reports.draw(source, "frechet_data"), "svg") == plain
        assert matplotlib.rcParams.copy() == before
    assert not pyplot.get_fignums()


def test_a_notebook_shows_the_figure(frame: pd.DataFrame, record: dict, tmp_path: Path) -> None:
    figure = reports.draw(with_record(frame, record), "frechet_data")
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.save(str(tmp_path / "mine.pdf"))
    assert (tmp_path / "mine.pdf").read_bytes().startswith(b"%PDF")


def test_text_stays_text_and_fonts_are_embedded(frame: pd.DataFrame, record: dict) -> None:
    figure = reports.draw(with_record(frame, record), "frechet_data")
    svg = ET.fromstring(base.render(figure, "svg").decode())
    assert "euler" in {element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    pdf = base.render(figure, "pdf")
    assert b"/FontFile2" in pdf  # TrueType, type 42
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf


def test_ticks_are_few_and_round() -> None:
    for low, high in [(0.1, 30), (0.4, 0.6), (0.001, 1000), (2.0, 9.0), (0.5, 0.50001), (1e-6, 1e6)]:
        for ticks in (log_ticks(low, high), linear_ticks(low, high)):
            assert 1 <= len(ticks) <= 10
            assert all(low <= tick <= high for tick in ticks)
            assert ticks == sorted(set(ticks))
    assert log_ticks(0.1, 30) == [0.1, 1, 10]
    assert log_ticks(0.57, 1.3) == [0.6, 0.7, 0.8, 0.9, 1]


def test_spread_keeps_the_order_moves_little_and_stays_inside() -> None:
    assert spread([1.0, 5.0], [1, 1], 0, 10) == [1.0, 5.0]
    assert spread([5.0, 5.0], [1, 1], 0, 10) == [4.5, 5.5]
    assert spread([0.0, 0.0], [1, 1], 0, 10) == [0.5, 1.5]
    assert spread([10.0, 9.9], [2, 2], 0, 10) == [9.0, 7.0]
    assert spread([5.0, 5.1, 5.2, 9.0], [1, 1, 1, 1], 0, 10) == pytest.approx([4.1, 5.1, 6.1, 9.0])


def test_a_solver_has_one_look_in_every_figure_and_on_the_page_whatever_else_is_drawn(tmp_path: Path) -> None:
    """The second teacher has one of two variants alone, which would be the first variant there."""
    folder = write_large(tmp_path / "a", ["dpm", "unipc"], ["digits", "shapes"], (3, 4), ["frechet_data"])
    frame = pd.read_csv(folder / "results.csv", dtype={"cell": str})
    frame["solver"] = frame["solver"].replace("unipc", "dpm:order=2")
    frame["spec"] = frame["solver"]
    frame[(frame["teacher"] == "digits") | (frame["solver"] != "dpm")].to_csv(folder / "results.csv", index=False)
    bundle = reports.load(folder)
    found = parts(bundle.frame, bundle.record)
    seen = {}
    for kind, by in (("nfe", "curves"), ("speed", "costs")):
        content = contents.curves(found) if kind == "nfe" else contents.costs(found, kind)
        assert content is not None
        assert content.kind == by
        for panel in panels(content.data, content.figure):
            for label in panel.solvers:
                seen.setdefault(label, set()).add(look_of(panel.run, label))
    assert {label: len(looks) for label, looks in seen.items()} == {"dpm": 1, "dpm:order=2": 1}
    shown = {each["label"]: each for each in data.of(sections.of(bundle), Sprites({}, {}, {}, ""))["solvers"]}
    for label, [(colour, marker, _, fill)] in seen.items():
        assert (shown[label]["light"], shown[label]["marker"]) == (colour, marker)
        assert shown[label]["hollow"] is (fill != colour)
    assert [shown[label]["hollow"] for label in ("dpm", "dpm:order=2")] == [False, True]
