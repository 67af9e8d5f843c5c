"""What training cost: the table, the figure, and the marks of solvers that are not to be taken as they stand."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from reports_large import SOLVERS
from reports_large import write as write_large

import solverbench as sb
from solverbench import reports
from solverbench.reports.bundle import tidy
from solverbench.reports.drawing import ticks
from solverbench.reports.drawing.palette import KNOWN
from solverbench.reports.figures import contents, costs, images
from solverbench.reports.figures.sprites import Sprites
from solverbench.reports.pages import data, markdown, sections, tables
from solverbench.reports.parts import parts

UNKNOWN = "unknown values of the paper were chosen by validation"


@pytest.fixture
def trained(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the cost of every finished learned cell."""
    known = frame["learned"] & frame["status"].isin(["done", "cached"])
    spent = {
        "cost_training_seeds": 3, "cost_training_student_calls": 300_000 * frame["nfe"],
        "cost_training_teacher_calls": 1_344_000, "cost_training_seconds": 130.0,
        "cost_training_peak_memory_bytes": 400 * 2**20, "validation": 0.0357, "validation_spread": 0.00029,
    }  # fmt: skip
    return frame.assign(**{name: pd.Series(value, index=frame.index).where(known) for name, value in spent.items()})


def only(frame: pd.DataFrame, *solvers: str) -> pd.DataFrame:
    return frame[frame["solver"].isin(solvers)]


def test_every_learned_cell_has_its_cost_once_beside_its_metrics(trained: pd.DataFrame, record: dict) -> None:
    spent = costs.rows(parts(tidy(trained), record))
    assert list(zip(spent["label"], spent["nfe"], strict=True)) == [
        *(("gs", nfe) for nfe in (3, 4, 5, 6, 8, 10)),
        *(("gas", nfe) for nfe in (4, 5, 6, 10)),
    ]
    row = spent[(spent["label"] == "gas") & (spent["nfe"] == 4)].iloc[0]
    assert row["calls"] == 4 * 300_000 + 1_344_000
    assert (row["frechet_data"], row["frechet_teacher"], row["rmse_teacher"]) == (0.86, 0.25, 0.069)


def test_the_table_says_it_for_people(trained: pd.DataFrame, record: dict, write) -> None:
    text = markdown.page(sections.of(reports.load(write(only(trained, "gs", "gas"), record))))
    assert "| gas | 4 |  | 3 | 1 200 000 | 1 344 000 | 2 min | 400 MiB | 0.0357 | 0.00029 |" in text
    assert "![Training cost and quality](figure-training.png)" in text


def test_the_figure_has_a_panel_for_each_metric_and_a_point_for_each_cell(trained: pd.DataFrame, record: dict) -> None:
    figure = contents.costs(parts(tidy(trained), record)).draw()
    assert len(figure.axes) == 3
    axes = figure.axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    points = [line for line in axes.lines if line.get_linestyle() == "None"]
    assert [len(line.get_xdata()) for line in points] == [6, 4]
    np.testing.assert_allclose(points[1].get_ydata(), [0.86, 0.49, 0.55, 0.44])
    assert [text.get_text() for text in axes.texts] == ["3", "4", "5", "6", "8", "10", "4", "5", "6", "10"]


@pytest.mark.usefixtures("unrendered", "remembered")
def test_a_report_with_costs_has_their_files_and_one_without_has_none(
    trained: pd.DataFrame, frame: pd.DataFrame, record: dict, write
) -> None:
    some = {"metrics": {"rmse_teacher": record["metrics"]["rmse_teacher"]}}
    for name, source, count in (("with", trained, 5), ("without", frame, 0)):
        rows = only(source[source["metric"] == "rmse_teacher"], "gs", "dpm")
        written = reports.write(write(rows, record | some, name))
        assert sum(path.name.startswith("figure-training") for path in written) == count


def test_a_solver_that_was_measured_otherwise_is_not_in_the_first_parts_panel(
    trained: pd.DataFrame, record: dict
) -> None:
    apart = (trained["solver"] == "gs") & (trained["metric"] == "rmse_teacher")
    content = contents.costs(parts(tidy(trained.assign(n=trained["n"].where(~apart, 500))), record))
    assert content is not None
    figure = content.draw()
    labels = [{str(line.get_label()) for line in axes.lines} & {"gs", "gas"} for axes in figure.axes]
    assert labels == [{"gs", "gas"}, {"gs", "gas"}, {"gas"}]


@pytest.mark.parametrize("across", ["calls", "speed"])
def test_a_teacher_without_a_value_leaves_another_ones_figures(trained: pd.DataFrame, record: dict, across) -> None:
    """Its metrics are more than a figure has panels for, and come first."""
    own = only(trained, "gas").assign(cost_images_per_second=100.0)
    first = own[own["metric"] == "rmse_teacher"].assign(teacher="mixture", status="needs-training", value=np.nan)
    others = [first.assign(metric=f"other_{k}") for k in range(5)]
    known = parts(tidy(pd.concat([*others, own])), record)
    content = contents.costs(known, across)
    figure = content.draw()
    assert [axes.get_label() for axes in figure.axes] == [part.name for part in known if part.teacher == "digits"]
    assert set(content.data["teacher"]) == {"digits"}


@pytest.fixture
def abreast(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with serial calls: a third less than the calls of heun, all of them for the others."""
    fewer = frame["solver"] == "heun"
    return frame.assign(serial_calls=frame["nfe"].where(~fewer, frame["nfe"] * 2 // 3).where(frame["value"].notna()))


def test_serial_calls_are_an_axis_where_they_differ_from_calls(abreast: pd.DataFrame, record: dict) -> None:
    found = parts(tidy(abreast), record)
    content = contents.KINDS["serial"].make(contents.Source(None, found))
    assert content is not None
    heun = content.data[(content.data["series"] == "heun") & (content.data["metric"] == "rmse_teacher")]
    assert heun["serial"].tolist() == [nfe * 2 // 3 for nfe in heun["nfe"]]
    axes = content.draw().axes[0]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("linear", "serial calls per sample")
    assert {line.get_xdata()[0] for line in axes.lines if str(line.get_label()) == "heun"} == {heun["serial"].min()}


def test_without_a_difference_or_in_an_older_bundle_there_is_no_such_figure(
    frame: pd.DataFrame, abreast: pd.DataFrame, record: dict
) -> None:
    for each in (frame, abreast.assign(serial_calls=frame["nfe"]), abreast.assign(value=np.nan, reason="none")):
        assert contents.KINDS["serial"].make(contents.Source(None, parts(tidy(each), record))) is None


def test_the_page_and_the_report_tell_serial_calls(abreast: pd.DataFrame, record: dict, write) -> None:
    made = sections.of(reports.load(write(only(abreast, "heun", "dpm"), record)))
    assert "![Serial calls and quality](figure-serial.png)" in markdown.page(made)
    page = data.of(made, Sprites({}, {}, {}, ""))
    points = {(page["solvers"][p["solver"]]["label"], p["nfe"]): p["serial"] for p in page["parts"][0]["points"]}
    assert (points["dpm", 10], points["heun", 10], points["heun", 5]) == (10, 6, None)


def test_an_unknown_cost_is_left_empty(trained: pd.DataFrame, record: dict) -> None:
    trained["cost_training_peak_memory_bytes"] = 0
    trained["validation_spread"] = np.nan
    texts = [each.texts for each in costs.made(parts(tidy(trained), record))]
    assert {each["peak memory"] for each in texts} == {each["spread over seeds"] for each in texts} == {""}


def test_a_search_that_serves_several_cells_has_one_row_and_tells_its_origin(
    trained: pd.DataFrame, record: dict, write
) -> None:
    """The cost in a cell's own columns is the sum of training and search; a row of the table is one of them."""
    users = trained["solver"].isin(["dpm", "unipc", "gs"])
    zero = {"cost_training_student_calls": 0, "cost_training_teacher_calls": 0, "cost_training_seconds": 0}
    frame = trained.fillna({name: pd.Series(0.0, trained.index).where(users) for name in zero})
    frame.loc[users, "cost_training_teacher_calls"] += 15_360
    frame.loc[users, "cost_training_seconds"] += 2.0
    more = {"search": "grid-gits.json", "search_origin": "packaged",
            "cost_search_teacher_calls": 15_360, "cost_search_seconds": 2.0}  # fmt: skip
    empty = {name: "" if isinstance(value, str) else np.nan for name, value in more.items()}
    frame = frame.assign(**{name: np.where(users, value, empty[name]) for name, value in more.items()})
    frame = frame.assign(parameters_origin=np.where(frame["learned"], "run folder", ""))
    bundle = reports.load(write(only(frame, "dpm", "unipc", "gs"), record))
    found = costs.made(parts(bundle.frame, record))
    assert [(each.solvers, each.nfe, each.origin) for each in found] == [
        *((("gs",), (nfe,), "here") for nfe in (3, 4, 5, 6, 8, 10)),
        (("dpm", "unipc", "gs"), (3, 4, 5, 6, 8, 10), "packaged"),
    ]
    assert [each.teacher_calls for each in found] == [1_344_000] * 6 + [15_360]
    text = markdown.page(sections.of(bundle))
    assert "| dpm, unipc, gs | 3-6, 8, 10 | packaged |  | 0 | 15 360 | 2 s |  |  |  |" in text
    assert text.count("15 360") == 1


def marked(frame: pd.DataFrame, **changes: object) -> pd.DataFrame:
    """The frame with a mark on gas at NFE 4, where it is the best, or on all of gs."""
    here = (frame["solver"] == "gas") & (frame["nfe"] == 4) if "metric_loss" in changes else frame["solver"] == "gs"
    [(column, value)] = changes.items()
    return frame.assign(**{column: pd.Series("", index=frame.index, dtype=object).where(~here, value)})


def test_a_solver_trained_on_the_metric_is_marked_and_never_best(frame: pd.DataFrame, record: dict) -> None:
    plain = tables.entries(parts(tidy(frame), record)[0])
    assert (plain["gas", 4].rank, plain["gs", 4].rank) == ("best", "tied")
    part = parts(tidy(marked(frame, metric_loss="True")), record)[0]
    cells = tables.entries(part)
    assert (cells["gas†", 4].rank, cells["gs", 4].rank) == ("", "best")
    assert cells["gas†", 5].rank == "best"  # that one was trained otherwise
    for text in (tables.markdown(part), tables.latex(part)):
        assert "trained on the metric's own features, so never marked best: gas" in text.replace("’", "'")
    assert "| gas† |" in tables.markdown(part)
    assert "gas$\\dagger$ &" in tables.latex(part)
    assert "gas†," in tables.comma_separated(part)


def test_an_inferred_method_is_marked_in_every_table_and_keeps_its_rank(frame: pd.DataFrame, record: dict) -> None:
    part = parts(tidy(marked(frame, inferred=UNKNOWN)), record)[0]
    assert tables.entries(part)["gs‡", 3].rank == "best"
    assert f"- `‡` gs‡: {UNKNOWN}" in tables.markdown(part)
    assert f"$\\ddagger$: gs$\\ddagger$: {UNKNOWN}" in tables.latex(part)


def test_marks_stand_in_figures_images_and_the_page(frame: pd.DataFrame, record: dict, write) -> None:
    bundle = reports.load(write(marked(frame, inferred=UNKNOWN), record))
    figure = reports.draw(bundle, "frechet_data")
    assert "gs‡" in {text.get_text() for text in figure.texts}
    colours = {line.get_label(): line.get_color() for line in figure.axes[0].lines}
    assert colours["gs‡"] == KNOWN["gs"].colour
    layout = images.grid(bundle.frame, bundle.images, "digits")
    assert layout is not None
    assert "gs‡" in layout.rows
    page = markdown.page(sections.of(bundle))
    assert f"Marks at names: `‡` gs‡: {UNKNOWN}." in page


def test_a_verdicts_caution_stands_in_its_row(folder: Path, record: dict, write, frame: pd.DataFrame) -> None:
    record["verdicts"][0]["caution"] = "gas: training seeds differ by 3.0%, this by 2.0%"
    record["verdicts"].append({**record["verdicts"][0], "claim": "gs against s4s_alt", "verdict": "gs ahead"})
    text = markdown.page(sections.of(reports.load(write(frame, record))))
    head = text.index("| verdict | claim | metric | difference | 95 % interval | caution |")
    places = [text.index(f"\n| {verdict} |", head) for verdict in ("unresolved", "gs ahead", "held")]
    assert places == sorted(places)
    assert "| gas: training seeds differ by 3.0%, this by 2.0% |" in text
    assert "| caution |" not in markdown.page(sections.of(reports.load(folder)))


@pytest.fixture
def timed(frame: pd.DataFrame) -> pd.DataFrame:
    """500 images a call, of which a call takes 2 ms each; gas has half its calls side by side; one cell was slow."""
    finished = frame["value"].notna()
    seconds = 0.002 * frame["nfe"] * 30_000
    seconds[(frame["solver"] == "euler") & (frame["nfe"] == 8)] *= 5
    serial = frame["nfe"].where(frame["solver"] != "gas", frame["nfe"] / 2).round()
    spent = {
        "cost_denoiser_seconds": seconds, "cost_seconds": seconds + 10, "cost_batch": 500, "serial_calls": serial,
        "cost_images_per_second": 30_000 / (seconds + 10),
    }  # fmt: skip
    more = {name: pd.Series(value, index=frame.index).where(finished) for name, value in spent.items()}
    return frame.assign(**more, cost_device="NVIDIA H200")


def test_latency_is_the_serial_calls_times_the_time_of_a_call(timed: pd.DataFrame, record: dict) -> None:
    """A machine that was busy for one cell moves none: the time of a call is the median of all."""
    found = parts(tidy(timed), record)
    [call] = costs.call_times(found)
    assert call.text == "2 ms per image and call, 500 images a call, NVIDIA H200 (median of 38 cells)"
    rows = costs.latency(found).set_index(["label", "nfe"])
    assert rows.loc[("euler", 8), "latency"] == pytest.approx(16)
    assert rows.loc[("gas", 4), "latency"] == pytest.approx(4)
    assert rows.loc[("gas", 4), "rmse_teacher"] == 0.069
    assert costs.tells_more(found)


def test_latency_is_a_figure_a_section_and_an_axis_of_the_page(timed: pd.DataFrame, record: dict, write) -> None:
    figure = contents.costs(parts(tidy(timed), record), "latency").draw()
    assert {axes.get_xlabel() for axes in figure.axes} == {"milliseconds per image"}
    report = sections.of(reports.load(write(timed, record)))
    text = markdown.page(report)
    assert "![Milliseconds per image and quality](figure-latency.png)" in text
    assert "Measured: digits: 2 ms per image and call, 500 images a call, NVIDIA H200" in text
    given = data.of(report, Sprites({}, {}, {}, ""))
    labels = [solver["label"] for solver in given["solvers"]]
    [point] = [each for each in given["parts"][0]["points"] if labels[each["solver"]] == "gas" and each["nfe"] == 4]
    assert point["latency"] == pytest.approx(4)
    assert given["timed"][0]["teacher"] == "digits"


def test_latency_that_only_rescales_the_calls_is_drawn_on_request_alone(timed: pd.DataFrame, record: dict) -> None:
    alike = timed.assign(serial_calls=timed["nfe"].where(timed["value"].notna()))
    found = parts(tidy(alike), record)
    assert not costs.tells_more(found)
    assert contents.costs(found, "latency") is not None
    assert contents.costs(parts(tidy(timed.drop(columns="cost_denoiser_seconds")), record), "latency") is None


def test_times_of_two_teachers_batches_or_devices_stay_apart(timed: pd.DataFrame, record: dict) -> None:
    other = timed.assign(teacher="shapes", cost_denoiser_seconds=3 * timed["cost_denoiser_seconds"], cost_device="cpu")
    other.loc[other["solver"] == "dpm", "cost_batch"] = 100
    found = parts(tidy(pd.concat([timed, other], ignore_index=True)), record)
    told = [(each.teacher, each.batch, each.device, each.milliseconds) for each in costs.call_times(found)]
    assert [each[:3] for each in told] == [
        ("digits", 500, "NVIDIA H200"), ("shapes", 500, "cpu"), ("shapes", 100, "cpu"),
    ]  # fmt: skip
    np.testing.assert_allclose([each[3] for each in told], [2, 6, 6])


def numbers(figure: Figure) -> Iterator[list[Any]]:
    """The boxes of the numbers at the points of each panel, in pixels."""
    figure.canvas.draw()
    for axes in figure.axes:
        yield [each.get_window_extent() for each in axes.texts if each.get_gid() == "number"]


@pytest.mark.parametrize("budgets", [(3, 5, 7, 9), (3, 4, 5)], ids=["first and last", "all"])
def test_no_two_numbers_of_a_busy_figure_overlap(tmp_path: Path, budgets: tuple[int, ...]) -> None:
    solvers = SOLVERS if len(budgets) > 3 else SOLVERS[-8:]
    write_large(tmp_path / "a", solvers, ["digits"], budgets, ["frechet_data", "precision"])
    figure = sb.plot(reports.load(tmp_path / "a"), kind="speed")
    for boxes in numbers(figure):
        assert len(boxes) > 12
        assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]


def test_a_label_without_a_place_is_left_out() -> None:
    points, size, room = [(0.0, 0.0)] * 60, [(4.0, 4.0)] * 60, (-9.0, -9.0, 9.0, 9.0)
    spots = ticks.scattered(points, size, [], room)
    placed = [spot for spot in spots if spot is not None]
    assert spots[0] is not None
    assert 4 <= len(placed) < 60
    assert not any(abs(a[0] - b[0]) < 4 and abs(a[1] - b[1]) < 4 for a, b in combinations(placed, 2))


@pytest.mark.parametrize(
    ("column", "factor"),
    [("cost_training_seeds", 2), ("cost_training_student_calls", 0.25)],
    ids=["seeds", "iterations"],
)
def test_a_line_of_the_training_figure_joins_trainings_alike(
    trained: pd.DataFrame, record: dict, write, column: str, factor: float
) -> None:
    """Through a training of other seeds or iterations it would go back and forth."""
    frame = only(trained, "gs")
    frame.loc[frame["nfe"] == 5, column] *= factor
    [axes] = sb.plot(reports.load(write(frame, record)), "frechet_data", kind="training").axes
    lines = [line for line in axes.lines if line.get_marker() == "None" and line.get_color() == KNOWN["gs"].colour]
    assert [len(line.get_xdata()) for line in lines] == [2, 1, 3]  # NFE 3 and 4; 5; 6, 8 and 10
    assert all((np.diff(line.get_xdata()) > 0).all() for line in lines)
