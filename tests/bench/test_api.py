"""The functions for scripts and notebooks: what they return, what they say of mistakes, and what a notebook shows."""

import inspect

import numpy as np
import pytest
import torch
import toys

import solverbench as sb
from solverbench.bench.run_options import RunOptions

SMALL = {"samples": 20, "replicates": 1, "nfe": "3,4"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    out = tmp_path_factory.mktemp("api")
    return out, sb.run(solvers="euler,dpm", teachers=toys.teacher(), out=out, **SMALL)


def test_run_shows_its_options():
    signature, doc = inspect.signature(sb.run), inspect.getdoc(sb.run)
    assert list(signature.parameters)[: len(inspect.signature(RunOptions).parameters)] == list(
        inspect.signature(RunOptions).parameters
    )
    assert all(f"    {name}: " in doc for name in signature.parameters)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"samples": "20"}, "samples '20': of type str; give a whole number or None"),
        ({"samples": True}, "samples True: of type bool; give a whole number or None"),
        ({"full": 1}, "full 1: of type int; give True or False"),
        ({"out": 3}, "out 3: of type int; give text or a path"),
        ({"solvers": ["dpm", 3]}, r"solvers \['dpm', 3\]: 3 is no solver; give specs"),
        ({"teachers": [None]}, r"teachers \[None\]: None is no teacher; give names"),
        ({"nfe": 3.5}, r"nfe '3.5': '3.5' isn't a number or a range"),
    ],
)
def test_a_value_of_another_type_is_one_line(tmp_path, wrong, said):
    with pytest.raises(sb.UserError, match=said):
        sb.run(**{"solvers": "euler", "out": tmp_path / "runs", **SMALL, **wrong})
    assert not (tmp_path / "runs").exists()


def test_a_failed_cell_warns(tmp_path):
    def broken(x, sigma):
        raise ValueError("no network")

    with pytest.warns(UserWarning, match="euler nfe=3 on toy: .*ValueError: no network"):
        sb.run(solvers="euler", teachers=toys.teacher(broken), out=tmp_path, samples=20, replicates=1, nfe=3)


def test_results_are_tables(ran):
    out, frame = ran
    found = sb.load_results(out)
    table = found.table("rmse_teacher")
    assert (table.index.tolist(), table.columns.tolist()) == (["euler", "dpm"], [3, 4])
    value = frame[(frame.metric == "rmse_teacher") & (frame.solver == "dpm") & (frame.nfe == 4)].value.item()
    assert table.loc["dpm", 4] == pytest.approx(value)
    with pytest.raises(sb.BundleError, match=r"metric 'fid': there is .*rmse_teacher; give metric= one of them"):
        found.table("fid")
    with pytest.raises(sb.BundleError, match=r"the table of a metric: there is .*; give metric= one of them"):
        found.table()
    shown = found._repr_html_()
    assert shown.count("<table") == frame.metric.nunique()
    assert "rmse_teacher on toy" in shown


def test_noise_is_that_of_the_images():
    teacher = toys.teacher()
    x = sb.noise("50000-50002", teacher)
    assert x.shape == (3, 1, 4, 4)
    assert torch.equal(x[1:], sb.noise([50001, 50002], teacher))
    assert torch.equal(x[:1], sb.noise(50000, teacher))
    for wrong in ([1.5], [-1], ["a"]):
        with pytest.raises(sb.UserError, match="not whole numbers from 0"):
            sb.noise(wrong, teacher)


def test_a_solver_is_trained_and_run(tmp_path):
    settings = {"iterations": 3, "train_size": 20, "validation_size": 20, "training_seeds": 1, "batch": 10}
    [trained] = sb.train("gs", 3, settings=settings, out=tmp_path)
    assert trained.record["runs"][0]["validation"] > 0
    frame = sb.run(solvers="gs", nfe=3, out=tmp_path, samples=20, replicates=1)
    assert np.isfinite(frame.value).all()
    with pytest.raises(sb.UserError, match="there is no setting 'iteration'; did you mean 'iterations'"):
        sb.train("gs", 3, settings={"iteration": 3}, out=tmp_path)


def test_a_notebook_shows_teacher_and_tableau():
    teacher = toys.teacher()
    assert "<th>name</th><td>toy</td>" in teacher._repr_html_()
    assert len(repr(teacher)) < 400
    html = sb.tableau("dpm", nfe=3, schedule=sb.EDM())._repr_html_()
    assert html.count("<tr>") == 5
    assert "<th>input 0</th><td>80</td><td>80</td><td>1</td></tr>" in html


def test_a_printed_tableau_is_a_small_table():
    tableau = sb.tableau("dpm", nfe=3, schedule=sb.EDM())
    assert str(tableau).splitlines() == [
        "          level    told         x        d0       d1      d2",
        "input 0      80      80         1",
        "input 1   2.339   2.339   0.02924    0.9708",
        "input 2  0.0684  0.0684  0.000855    -0.457    1.456",
        "sample    0.002           2.5e-05  -0.01336  0.04258  0.9708",
    ]
    assert repr(tableau) == "Tableau(nfe=3, start=80, levels=80 2.339 0.0684 0.002)"
    many = sb.tableau("euler", nfe=60, schedule=sb.EDM())
    assert str(many).endswith("(61 x 61 weights: see .weights)")
    assert max(map(len, str(many).splitlines())) < 40
    assert len(repr(many)) < 100
    grid = sb.make("dpm").grid(sb.EDM(), 3)
    assert repr(grid) == "Grid(3 steps: 80 2.339 0.0684 0.002; EDM(sigma_min=0.002, sigma_max=80.0))"
