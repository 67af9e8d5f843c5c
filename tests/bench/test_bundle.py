"""The bundle: everything a report needs, of exactly the cells asked for."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import toys

import solverbench as sb
from solverbench import extras, reports
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions
from solverbench.reports.pages import tables
from solverbench.reports.parts import parts

SMALL = {"samples": 40, "replicates": 2, "nfe": "3,4"}


def run(out, solvers="dpm,heun", **options):
    return runner.run(RunOptions(**({"solvers": solvers, "teachers": toys.teacher(), "out": out} | SMALL | options)))


def record(result):
    return json.loads((result.folder / "bundle.json").read_text())


def test_reports_reads_what_the_runner_writes(tmp_path):
    result = run(tmp_path)
    bundle = reports.load(result.folder)
    assert len(bundle.frame) == len(result.frame) == 12
    assert set(bundle.images) == {"toy|dpm|3", "toy|dpm|4", "toy|heun|4", "toy|teacher|8"}
    assert {images.shape for images in bundle.images.values()} == {(4, 1, 4, 4)}


def test_results_csv_is_the_frame(tmp_path):
    result = run(tmp_path)
    read = pd.read_csv(result.folder / "results.csv", dtype=str, keep_default_na=False)
    assert list(read.columns) == list(result.frame.columns)
    done = result.frame.value.notna()
    assert np.array_equal(read.value[done].astype(float), result.frame.value[done].astype(float))
    assert (read.status == result.frame.status).all()


def test_the_folder_is_named_by_the_selection(tmp_path):
    names = {
        run(tmp_path, **options).folder.name
        for options in ({}, {"solvers": "dpm"}, {"nfe": "3"}, {"batch": 7}, {"seeds": "60000-60079"})
    }
    assert len(names) == 5
    assert run(tmp_path).folder.name in names
    assert all(name.startswith("toy-dpm") for name in names)


def test_the_protocol_tags_and_counts_are_stated(tmp_path):
    found = record(run(tmp_path))
    assert found["schema"] == 1
    assert found["tags"] == [
        "replicates=2 (default 3)",
        "n=40 (default 10000): intervals are wide, Fréchet distances are biased upwards",
    ]
    assert found["counts"] == {"done": 3, "cached": 0, "failed": 0, "unsupported": 1, "needs-training": 0}
    assert "2 replicates of 40 images" in found["protocol"]["seeds"]
    assert found["command"].startswith("solverbench run --solvers dpm,heun --nfe 3-4 --teachers toy --samples 40")
    assert {line["label"] for line in found["lines"]} == {"teacher, heun 8 calls", "data floor"}
    assert any("can't be compared, and figures leave the lines out" in note for note in found["notes"])


def test_a_terminal_and_a_report_show_a_value_with_the_same_digits(tmp_path):
    result = run(tmp_path)
    bundle = reports.load(result.folder)
    there = {part.metric: tables.entries(part) for part in parts(bundle.frame, bundle.record)}
    for shown in result.tables:
        metric = shown.title.split(" on ")[0]
        for solver, entries in shown.rows:
            for nfe, entry in zip(shown.budgets, entries, strict=True):
                if entry.half:
                    report = there[metric][solver, nfe]
                    assert (entry.value.rstrip("*"), entry.half) == (report.value, f"±{report.margin}")
    outcome = next(each for each in result.cells if each.measures)
    entry = there["rmse_teacher"][outcome.cell.solver, outcome.cell.nfe]
    assert f"rmse_teacher {entry.value} ± {entry.margin}" in outcome.summary


def test_a_learned_solver_below_its_teachers_distance_is_pointed_out(tmp_path, monkeypatch):
    """The toy's facts are moved so that any solver is below the teacher; only a learned one is pointed out."""
    teacher = toys.teacher()
    own = {"mean": 90.0, "low": 89.0, "high": 91.0, "n": 40}
    monkeypatch.setitem(teacher.evaluation.facts, "teacher_distance", own)
    result = run(tmp_path, solvers="dpm", teachers=teacher)
    assert not any("nearer to the data" in note for note in record(result)["notes"])
    for outcome in result.cells:
        object.__setattr__(outcome.cell, "learned", True)
    from solverbench.bench.bundle import notes

    found = notes.notes(result.cells, result.cells[0].cell.protocol)
    assert [note.split(" is nearer")[0] for note in found if "nearer to the data" in note] == ["dpm NFE 3", "dpm NFE 4"]


class Abreast(sb.Solver):
    """A call at the state and two inside the step, which don't need each other."""

    name, paper = "abreast", "none"

    def steps(self, nfe):
        return nfe // 3

    def integrate(self, denoise, x, grid):
        for s, t in itertools.pairwise(grid.sigmas):
            slope = (x - denoise(x, s)) / s
            inner = [(t**r * s ** (1 - r)) for r in (0.3, 0.7)]
            middles = [x + (m - s) * slope for m in inner]
            x = x + (t - s) / 2 * sum((y - denoise(y, m)) / m for y, m in zip(middles, inner, strict=True))
        return x


def test_serial_calls_stand_beside_calls_and_a_note_says_where_they_are_fewer(tmp_path):
    sb.register(Abreast)
    result = run(tmp_path, solvers="dpm,abreast", nfe="6")
    assert dict(zip(result.frame.solver, result.frame.serial_calls, strict=True)) == {"dpm": 6, "abreast": 4}
    [said] = [note for note in record(result)["notes"] if "serial calls" in note]
    assert said.endswith("can run them side by side: abreast NFE 6: 4 serial calls")
    assert said in result.summary()
    assert reports.draw(reports.load(result.folder), kind="serial").axes
    assert not any("serial" in note for note in record(run(tmp_path / "2", solvers="dpm"))["notes"])


def test_a_teacher_without_features_is_told_what_an_fid_of_it_needs(tmp_path):
    teacher = replace(toys.teacher(), evaluation=None)
    result = runner.run(RunOptions(solvers="euler", nfe="2", teachers=teacher, out=tmp_path, samples=20, replicates=1))
    [note] = [note for note in record(result)["notes"] if note.startswith("no FID of toy: ")]
    assert extras.install("fid") in note or "inception-2015-12-05.pt" in note
    assert (result.exit_code, set(result.frame.metric)) == (0, {"rmse_teacher"})


def test_a_metric_without_any_value_has_no_table_and_one_line_that_says_why(tmp_path):
    """The toy teacher has no data, so its distance to them can't be measured."""
    result = run(tmp_path, metrics="fid,rmse_teacher", nfe="3", solvers="dpm,unipc")
    assert [table.title.partition(" ")[0] for table in result.tables] == ["rmse_teacher"]
    [line] = [line for line in result.summary().splitlines() if line.startswith("no ") and "fid" in line]
    assert line.startswith("no fid of toy: ")
