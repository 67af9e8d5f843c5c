"""The runner: every cell gets one status, bits depend on nothing but the cell, work is never done twice or lost."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import toys

import solverbench as sb
from solverbench.bench import estimates, scheduler
from solverbench.bench import plan as planning
from solverbench.bench import run as runner
from solverbench.bench import work as jobs
from solverbench.bench.progress import Silent
from solverbench.bench.run_options import RunOptions
from solverbench.errors import MissingError, SpecError, StoreError, UserError
from solverbench.sampling import sample
from solverbench.store.folder import CellFolder, Store
from solverbench.wording import decimals

SMALL = {"samples": 40, "replicates": 2, "batch": 3}
ONE = {"replicates": 1}
"""For tests in which a second replicate would be more of the same."""


def run(out, teacher=None, *, solvers="dpm,euler", nfe="3,4", progress=None, **options):
    return runner.run(
        RunOptions(solvers=solvers, nfe=nfe, teachers=teacher or toys.teacher(), out=out, **(SMALL | options)),
        progress=progress,
    )


def statuses(result):
    return {(each.cell.solver, each.cell.nfe): each.status for each in result.cells}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result and the store of an undisturbed run, which nobody may change."""
    out = tmp_path_factory.mktemp("whole") / "runs"
    return run(out), out


class Twice(sb.Solver):
    """Claims one call per step and makes two."""

    name = "twice"

    def integrate(self, denoise, x, grid):
        for n in range(grid.steps):
            d = (denoise(x, grid.sigmas[n]) + denoise(x, grid.sigmas[n])) / 2
            x = grid.sigmas[n + 1] / grid.sigmas[n] * x + (1 - grid.sigmas[n + 1] / grid.sigmas[n]) * d
        return x


class Broken(sb.Solver):
    """Has a bug."""

    name = "broken"

    def integrate(self, denoise, x, grid):
        raise ZeroDivisionError("a bug of a plugin")


class Watched:
    """The toy denoiser, counting calls and the torch threads it meets; breaks where told."""

    def __init__(self, breaks=lambda x, sigma: False):
        self.calls, self.threads, self.breaks = 0, set(), breaks

    def __call__(self, x, sigma):
        self.calls += 1
        self.threads.add(torch.get_num_threads())
        d = toys.denoise(x, sigma)
        return d * float("nan") if self.breaks(x, sigma) else d


def test_every_cell_ends_in_exactly_one_status(tmp_path):
    result = run(tmp_path, solvers=["dpm,heun,gs", Twice(), Broken()], nfe="3,4")
    assert statuses(result) == {
        ("dpm", 3): "done",
        ("dpm", 4): "done",
        ("heun", 3): "unsupported",
        ("heun", 4): "done",
        ("gs", 3): "needs-training",
        ("gs", 4): "needs-training",
        (Twice().spec, 3): "failed",
        (Twice().spec, 4): "failed",
        (Broken().spec, 3): "failed",
        (Broken().spec, 4): "failed",
    }
    assert result.counts == {"done": 3, "cached": 0, "failed": 4, "unsupported": 1, "needs-training": 2}
    reasons = {(each.cell.solver, each.cell.nfe): each.reason for each in result.cells}
    assert reasons["dpm", 3] == ""
    assert "use nfe=2 or nfe=4" in reasons["heun", 3]
    assert f"solverbench train gs --nfe 3 --teacher toy --out {tmp_path}" in reasons["gs", 3]
    assert reasons[Twice().spec, 3] == (
        "claims nfe=3 with steps(3) = 3, but its loop makes 6 calls; let steps(3) refuse (sb.refuse_budget): the loop "
        "can make 2 or 4"
    )
    assert "a bug of a plugin" in reasons[Broken().spec, 3]
    assert result.exit_code == 1


def test_the_table_has_a_row_per_cell_and_metric_also_without_a_value(tmp_path):
    frame = run(tmp_path, solvers="dpm,heun,gs", nfe="3", **ONE).frame
    assert list(zip(frame.solver, frame.metric, strict=True)) == [
        (solver, metric)
        for solver in ("dpm", "heun", "gs")
        for metric in ("frechet_data", "frechet_teacher", "rmse_teacher")
    ]
    assert frame.value.notna().tolist() == [True] * 3 + [False] * 6
    assert (frame.reason != "").tolist() == [False] * 3 + [True] * 6


def test_counted_calls_that_differ_from_the_claim_are_refused():
    teacher = toys.teacher()
    plan = sb.tableau("euler", nfe=4, teacher=teacher).plan(80.0)
    with pytest.raises(sample.SampleError, match="nfe=5: 4 calls of the denoiser were counted"):
        sample.sample(plan, teacher, range(3), nfe=5)


def test_a_second_run_calls_no_denoiser_and_gives_the_same_table(whole, tmp_path):
    first, out = whole
    shutil.copytree(out, tmp_path / "runs")
    watched = Watched()
    again = run(tmp_path / "runs", toys.teacher(watched))
    assert watched.calls == 0
    assert set(statuses(again).values()) == {"cached"}
    numbers = ["value", "low", "high", "std_error", "cell", "cost_seconds"]
    assert first.frame[numbers].equals(again.frame[numbers])
    assert first.folder.relative_to(out) == again.folder.relative_to(tmp_path / "runs")


def test_bits_depend_on_neither_workers_nor_neighbours_nor_the_callers_threads(tmp_path):
    run(tmp_path / "one", workers=1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(tmp_path / "three", workers=3, solvers="euler,dpm", nfe="4,3")
        with ThreadPoolExecutor(1) as fresh:
            assert [torch.get_num_threads(), fresh.submit(torch.get_num_threads).result()] == [2, 2]
    finally:
        torch.set_num_threads(before)
    for solver in ("dpm", "euler"):
        for nfe in (3, 4):
            run(tmp_path / "alone", solvers=solver, nfe=nfe, workers=2)
    assert toys.files_of(tmp_path / "one", pattern="cells/**/[bm]*") != {}
    for other in ("three", "alone"):
        assert toys.files_of(tmp_path / "one") == toys.files_of(tmp_path / other)


def test_workers_run_with_one_torch_thread(tmp_path):
    watched = Watched()
    torch.set_num_threads(2)
    try:
        run(tmp_path, toys.teacher(watched), **ONE)
    finally:
        torch.set_num_threads(1)
    assert watched.threads == {1}


def test_noise_is_the_same_for_every_solver_and_batch(tmp_path):
    starts = {}

    def spy(name):
        def denoise(x, sigma):
            if float(sigma) == 80.0:
                starts.setdefault(name, []).append(x.clone())
            return toys.denoise(x, sigma)

        return denoise

    for name, solver, batch in (("a", "euler", 4), ("b", "dpm", 4), ("c", "euler", 3)):
        run(tmp_path / name, toys.teacher(spy(name)), solvers=solver, nfe=3, batch=batch, workers=1, replicates=1)
    rows = {name: {tuple(row.flatten().tolist()) for x in seen for row in x} for name, seen in starts.items()}
    assert rows["a"] == rows["b"] == rows["c"]
    assert len(rows["a"]) == 40


def test_another_batch_makes_other_cells(tmp_path):
    run(tmp_path, solvers="euler", nfe=3, **ONE)
    assert statuses(run(tmp_path, solvers="euler", nfe=3, batch=4, **ONE)) == {("euler", 3): "done"}


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        (lambda x, sigma: True, "of 3 samples are not finite, the first has seed 500"),
        (lambda x, sigma: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_failing_cell_is_a_row_and_the_others_go_on(tmp_path, breaks, reason):
    """The third call of a three-call solver starts at a level that the others don't use."""
    level = sb.tableau("euler", nfe=3, teacher=toys.teacher()).sigmas[1]
    watched = Watched(lambda x, sigma: float(sigma) == pytest.approx(float(level), rel=1e-9) and breaks(x, sigma))
    result = run(tmp_path, toys.teacher(watched), **ONE)
    assert statuses(result) == {
        ("dpm", 3): "done",
        ("dpm", 4): "done",
        ("euler", 3): "failed",
        ("euler", 4): "done",
    }
    failed = result.frame[result.frame.status == "failed"]
    assert len(failed) == 3
    assert failed.reason.str.contains(reason).all()
    [error] = tmp_path.glob("cells/*/*/error.txt")
    assert reason in error.read_text()

    mended = run(tmp_path, **ONE)
    assert statuses(mended)["euler", 3] == "done"
    assert statuses(mended)["dpm", 3] == "cached"
    assert not list(tmp_path.glob("cells/*/*/error.txt"))


def test_features_that_do_not_fit_fail_their_metrics_alone(tmp_path):
    result = run(
        tmp_path, toys.teacher(extractor=lambda images: images.flatten().float()), solvers="euler", nfe=3, **ONE
    )
    [outcome] = result.cells
    assert (outcome.status, list(outcome.measures)) == ("done", ["rmse_teacher"])
    assert set(outcome.failed) == {"frechet_data", "frechet_teacher"}
    assert "return [B, D]" in outcome.failed["frechet_data"]
    assert result.exit_code == 1


def test_progress_counts_each_cell_to_its_own_share_and_all_to_the_runs(tmp_path):
    class Counting(Silent):
        shares, whole = {}, 0

        def begin(self, images, calls, seconds):
            self.whole, self.done = images, dict[str, int]()

        def share(self, images):
            self.shares = dict(images)

        def expect(self, seconds):
            self.left = seconds

        def advance(self, cell, images, calls):
            self.done[cell] = self.done.get(cell, 0) + images

    counting = Counting()
    run(tmp_path, progress=counting)
    assert sum(counting.shares.values()) == counting.whole == 4 * 2 * 40
    assert {cell: counting.done[cell] for cell in counting.shares} == counting.shares
    fixed, each = estimates.DRAWING
    assert counting.left >= fixed + 3 * each  # the drawing of three tables is left, longer on a busy machine


def test_an_interrupted_run_goes_on_to_the_same_bytes(whole, tmp_path):
    class Impatient(Silent):
        def __init__(self, after):
            self.left = after

        def advance(self, cell, images, calls):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    for after in (1, 9, 30):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "broken", progress=Impatient(after))
    stored = len(list(tmp_path.glob("broken/cells/*/*/blocks/*.npz")))
    assert 0 < stored < 80
    watched = Watched()
    run(tmp_path / "broken", toys.teacher(watched))
    assert watched.calls < (80 - stored) * 2 * 4 + 20 * 2 * 8 + 1
    assert toys.files_of(whole[1]) == toys.files_of(tmp_path / "broken")
    assert threading.active_count() == 1


@pytest.mark.parametrize("often", [False, True])
def test_what_blocks_cost_is_written_now_and_then_and_whole_at_the_end(tmp_path, monkeypatch, often):
    class Impatient(Silent):
        def advance(self, cell, images, calls):
            if len(list(tmp_path.glob("cells/*/*/blocks/*.npz"))) > 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "NOTED", -1.0 if often else 1e9)
    written, write = [], CellFolder.write_timing

    def counted(folder, timing):
        written.append(len(timing["blocks"]))
        write(folder, timing)

    monkeypatch.setattr(CellFolder, "write_timing", counted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=Impatient())
    kept = {path.parent: len(json.loads(path.read_text())["blocks"]) for path in tmp_path.glob("cells/*/*/timing.json")}
    assert kept == {path: len(list(path.glob("blocks/*.npz"))) for path in kept}
    assert len(list(tmp_path.glob("cells/*/*/blocks/*.npz"))) == sum(kept.values())
    run(tmp_path)
    assert len(written) > 20 if often else len(written) < 10
    assert written.count(20) == 4, "each of the four cells ends with the costs of all its blocks"


def test_an_interrupted_run_leaves_at_the_next_batch(tmp_path, monkeypatch):
    """Blocks of 400 batches: the one that is under way when the first is done is dropped, not finished."""

    class Impatient(Silent):
        made = 0

        def advance(self, cell, images, calls):
            self.made += images
            if self.made > 400:
                raise KeyboardInterrupt

    monkeypatch.setattr(scheduler, "TICK", 0.005)
    watched = Watched()
    block = 400 * (3 + 8)
    with pytest.raises(KeyboardInterrupt):
        run(
            tmp_path,
            toys.teacher(watched),
            solvers="euler",
            nfe=3,
            samples=4000,
            batch=1,
            workers=1,
            replicates=1,
            progress=Impatient(),
        )
    assert block <= watched.calls < 2 * block
    assert len(list(tmp_path.glob("cells/*/*/blocks/*"))) == 1


class Told(Silent):
    """What a run says of its store."""

    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


def test_a_damaged_block_is_named_and_it_alone_is_made_again(whole, tmp_path):
    shutil.copytree(whole[1], tmp_path / "runs")
    for path in tmp_path.glob("runs/cells/*/*/metrics.json"):
        path.unlink()
    block = sorted(tmp_path.glob("runs/cells/*/*/blocks/50004-*.npz"))[0]
    block.write_bytes(block.read_bytes()[:-1])
    planned = planning.plan(
        RunOptions(solvers="dpm,euler", nfe="3,4", teachers=toys.teacher(), out=tmp_path / "runs", **SMALL)
    )
    assert [each.blocks_missing for each in planned.cells].count(1) == 1
    assert f"damaged files, computed again: {block.name}" in planned.summary()
    watched, told = Watched(), Told()
    assert set(statuses(run(tmp_path / "runs", toys.teacher(watched), progress=told)).values()) == {"done"}
    assert told.lines == [
        f"{block}: damaged, its checksum doesn't match its content; set aside as *.damaged and computed again"
    ]
    assert 0 < watched.calls <= 2 * 4
    block.with_name(block.name + ".damaged").unlink()
    assert toys.files_of(whole[1]) == toys.files_of(tmp_path / "runs")


@pytest.mark.parametrize("name", ["metrics.json", "cell.json", "timing.json"])
def test_a_damaged_file_beside_the_blocks_is_made_from_them(tmp_path, name):
    run(tmp_path / "whole", solvers="euler", nfe=3, **ONE)
    shutil.copytree(tmp_path / "whole", tmp_path / "runs")
    [path] = tmp_path.glob(f"runs/cells/*/*/{name}")
    if name != "metrics.json":
        path.with_name("metrics.json").unlink()
    path.write_bytes(path.read_bytes()[5:])
    watched, told = Watched(), Told()
    run(tmp_path / "runs", toys.teacher(watched), solvers="euler", nfe=3, progress=told, **ONE)
    assert watched.calls == 0
    assert [line.partition(":")[0] for line in told.lines] == [str(path)]
    path.with_name(name + ".damaged").unlink()
    assert toys.files_of(tmp_path / "whole") == toys.files_of(tmp_path / "runs")


def test_the_first_result_of_a_block_stays(tmp_path):
    """A run that was taken for dead, and wasn't, changes nothing that another one built on."""
    result = run(tmp_path, solvers="euler", nfe=3, **ONE)
    [folder] = tmp_path.glob("cells/*/*")
    [path] = folder.glob("blocks/50004-*")
    before = path.read_bytes()
    store = Store.open(tmp_path)
    found = store.cell(result.cells[0].cell.key)
    other = found.read_block(result.cells[0].cell.protocol.blocks[0])
    found.write_block(result.cells[0].cell.protocol.blocks[1], other)
    assert path.read_bytes() == before
    assert not list(folder.glob("blocks/.*"))


def test_a_damaged_target_is_named_and_made_again(tmp_path):
    run(tmp_path / "whole", solvers="euler", nfe="3,4", **ONE)
    run(tmp_path / "runs", solvers="euler", nfe=3, **ONE)
    target = sorted(tmp_path.glob("runs/targets/*/*.npz"))[2]
    target.write_bytes(b"")
    told = Told()
    run(tmp_path / "runs", solvers="euler", nfe=4, progress=told, **ONE)
    assert told.lines == [
        f"{target}: damaged, its checksum doesn't match its content; set aside as *.damaged and computed again"
    ]
    target.with_name(target.name + ".damaged").unlink()
    assert toys.files_of(tmp_path / "whole") == toys.files_of(tmp_path / "runs")


def test_a_full_disk_ends_the_run_and_keeps_what_is_done(whole, tmp_path, monkeypatch):
    from solverbench.store import folder as store

    writes = store.files.write_arrays
    count = iter(range(1000))

    def until_full(path, arrays, *, replace):
        if next(count) >= 30:
            raise StoreError(asked=path, wrong="no space left", remedy="free some")
        writes(path, arrays, replace=replace)

    monkeypatch.setattr(store.files, "write_arrays", until_full)
    with pytest.raises(StoreError, match="no space left"):
        run(tmp_path / "runs")
    monkeypatch.undo()
    assert list(tmp_path.glob("runs/cells/*/*/blocks/*.npz"))
    run(tmp_path / "runs")
    assert toys.files_of(whole[1]) == toys.files_of(tmp_path / "runs")


def test_plan_says_what_run_will_do_and_writes_nothing(tmp_path):
    out = tmp_path / "runs"
    options = {"solvers": "dpm,heun,gs", "nfe": "3,4", "teachers": toys.teacher(), "out": out} | SMALL
    fresh = planning.plan(RunOptions(**options))
    assert not out.exists()
    assert [each.status for each in fresh.cells] == ["new", "new", "unsupported", "new", *["needs-training"] * 2]
    assert [each.blocks_missing for each in fresh.cells] == [20, 20, 0, 20, 0, 0]
    # 80 images by 3 calls, and the teacher's own 8 for each image, which only the first cell has to make.
    assert [each.calls for each in fresh.cells] == [80 * (3 + 8), 80 * 4, 0, 80 * 4, 0, 0]
    assert [each.own for each in fresh.cells] == [80 * 8, 0, 0, 0, 0, 0]
    assert fresh.summary().count("includes the teacher's own samples, which all rows use") == 1
    assert fresh.seconds > 0

    run(out, solvers="dpm", nfe=3)
    files = toys.files_of(tmp_path)
    later = planning.plan(RunOptions(**options))
    assert [each.status for each in later.cells][:2] == ["cached", "new"]
    assert later.cells[1].calls == 80 * 4
    assert toys.files_of(tmp_path) == files
    json.dumps(later.as_dict())
    assert "needs-training" in later.summary()


def test_no_possible_cell_is_exit_code_3(tmp_path):
    with pytest.raises(
        MissingError, match=r"heun nfe=3 on toy: unsupported, so .*; see 'solverbench plan' for all 2 cells"
    ) as refused:
        run(tmp_path, solvers="heun,gs", nfe=3)
    assert refused.value.exit_code == 3
    assert not (tmp_path / "reports").exists()


def test_what_a_finished_cell_is_is_written_again_where_it_was_lost(tmp_path):
    run(tmp_path, solvers="euler", nfe=3, **ONE)
    [told] = tmp_path.glob("cells/*/*/cell.json")
    before = told.read_bytes()
    told.unlink()
    assert statuses(run(tmp_path, solvers="euler", nfe=3, **ONE)) == {("euler", 3): "cached"}
    assert told.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"solvers": "unpic"}, UserError, "not registered"),
        ({"solvers": ""}, SpecError, "empty"),
        ({"solvers": []}, UserError, "none is given"),
        ({"solvers": "euler:order=3"}, SpecError, "no option 'order'"),
        ({"solvers": "euler:grid=80+9+9+0.002"}, UserError, "decreas"),
        ({"solvers": "euler:grid=80+9+0.002", "nfe": "5"}, UserError, "levels"),
        ({"nfe": "9-3"}, SpecError, "backwards"),
        ({"nfe": ""}, SpecError, "nfe"),
        ({"nfe": []}, SpecError, "nfe"),
        ({"nfe": 0}, SpecError, "below 1"),
        ({"teachers": "digitz"}, UserError, "not registered"),
        ({"teachers": []}, UserError, "none is given"),
        ({"samples": 25}, UserError, "samples 25: not a positive multiple of 10 .*; use 20"),
        ({"samples": 0}, UserError, "samples 0: .*; use 10"),
        ({"replicates": 0}, UserError, "replicates 0"),
        ({"batch": 0}, UserError, "batch 0"),
        ({"seeds": "9-3"}, UserError, "reversed"),
        ({"seeds": "50000-50039"}, UserError, "are not 2 replicates of 40; use 50000-50079"),
        ({"device": "tpu9"}, UserError, "device 'tpu9': not a device"),
        ({"device": "cuda:99"}, MissingError, "device 'cuda:99'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, options, error, message):
    out = tmp_path / "runs"
    with pytest.raises(error, match=message) as caught:
        runner.run(
            RunOptions(**({"solvers": "euler", "nfe": 3, "teachers": toys.teacher(), "out": out} | SMALL | options))
        )
    assert not out.exists()
    assert "\n" not in str(caught.value)


def test_levels_that_fit_only_one_budget_are_unsupported_elsewhere(tmp_path):
    result = run(tmp_path, solvers="euler:grid=80+9+1+0.002", nfe="3,4")
    assert [each.status for each in result.cells] == ["done", "unsupported"]


def test_a_grid_that_fits_no_cell_ends_no_run(tmp_path):
    """Also where every budget of a solver is one that its grid doesn't fit."""
    result = run(tmp_path, solvers="euler:grid=80+9+0.002,euler", nfe="5,6")
    assert list(statuses(result)) == [
        ("euler:grid=80+9+0.002", 5),
        ("euler:grid=80+9+0.002", 6),
        ("euler", 5),
        ("euler", 6),
    ]
    assert [each.status for each in result.cells] == ["unsupported", "unsupported", "done", "done"]


def test_levels_that_end_inside_the_schedule_are_flagged(tmp_path):
    result = run(tmp_path, solvers="euler:grid=10+1+0.1+0.002,euler,heun", nfe="3,4", **ONE)
    flagged = {
        (each.solver, each.nfe): tuple(each.flags) for each in (cell.cell for cell in result.cells) if each.flags
    }
    assert flagged == {("euler:grid=10+1+0.1+0.002", 3): ("inner-ends",), ("heun", 4): ("long-steps",)}
    assert "the grid starts at 10, inside the model's levels from 80 to 0.002" in result.summary()
    texts = set(result.frame[result.frame.nfe.eq(3) & result.frame.solver.str.contains("10\\+1")]["flags"])
    assert texts
    assert all(text.startswith("inner-ends: the grid starts at 10") for text in texts)
    shown = {table.title.split()[0]: dict(table.rows) for table in result.tables}
    assert list(shown) == list(dict.fromkeys(result.frame.metric))
    assert [table.budgets for table in result.tables] == [[3, 4]] * len(shown)
    assert shown["rmse_teacher"]["heun"][0].whole == "unsupported"
    for row in result.frame[result.frame.value.notna()].to_dict("records"):
        star, entry = "*" * bool(row["flags"]), shown[row["metric"]][row["solver"]][row["nfe"] - 3]
        places = decimals(row["value"], row["std_error"])
        assert entry.value == f"{row['value']:.{places}f}{star}"
        half = max(row["high"] - row["value"], row["value"] - row["low"])  # one end may be cut
        assert float(entry.half[1:]) == pytest.approx(half, abs=0.51 * 10**-places)
    for nfe in (3, 4):
        [best] = [solver for solver, row in shown["rmse_teacher"].items() if row[nfe - 3].best]
        values = result.frame[(result.frame.metric == "rmse_teacher") & result.frame.nfe.eq(nfe)]
        assert best == values.loc[values.value.idxmin()].solver


def test_the_tables_of_a_run_fit_a_terminal_and_are_markdown_elsewhere(tmp_path):
    result = run(tmp_path, solvers="euler,dpm:order=2,ipndm", nfe="3-10", **ONE)
    [table] = [each for each in result.tables if each.title.startswith("rmse_teacher")]
    bold = "<{}>".format
    for width, budgets in ((400, [8]), (100, [8]), (60, [6, 2]), (10, [1] * 8)):
        lines = table.plain(width, bold)[1:]
        heads = [line for line in lines if line.startswith("solver")]
        assert [len(line.split()) - 1 for line in heads] == budgets
        assert width == 10 or max(len(line.replace("<", "").replace(">", "")) for line in lines) <= width
        assert sum(line.count("<") for line in lines) == 8
        assert ("±" in lines[1]) == (width == 400)
    blank, head, rule, *rows = table.markdown()[1:]
    assert (blank, set(rule)) == ("", set("|-"))
    assert {line.count("|") for line in (head, rule, *rows)} == {10}
    assert result.numbers().startswith(result.tables[0].title)


def test_a_solver_asked_for_twice_stands_once(tmp_path):
    specs = "ddim,euler:grid=time_uniform,ddim:rho=1"
    assert list(statuses(run(tmp_path, solvers=specs, nfe="3,3", **ONE))) == [("ddim", 3)]


def test_two_teachers_of_one_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="two different ones are named 'toy'"):
        run(tmp_path, [toys.teacher(), toys.teacher(identity="other")])


def test_a_teacher_without_identity_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no identity"):
        run(tmp_path, toys.teacher(identity=sb.Teacher.identity))


def test_another_network_or_sampler_makes_other_cells(tmp_path):
    run(tmp_path, solvers="euler", nfe=3, **ONE)
    for teacher in (toys.teacher(identity="b"), toys.teacher(sampler_nfe=10)):
        assert statuses(run(tmp_path, teacher, solvers="euler", nfe=3, **ONE)) == {("euler", 3): "done"}


def test_full_pairs_every_image(tmp_path):
    options = {"samples": 4000, "replicates": 1, "batch": 500, "solvers": "euler", "nfe": 3}
    part, full = run(tmp_path, **options), run(tmp_path, **options, full=True)
    counts = [result.frame.set_index("metric").n["rmse_teacher"] for result in (part, full)]
    assert counts == [2000, 4000]
    assert full.cells[0].measures["frechet_data"].value == part.cells[0].measures["frechet_data"].value


def test_a_teacher_without_evaluation_has_the_paired_error_alone(tmp_path):
    result = run(tmp_path, toys.teacher(evaluation=None), solvers="euler", nfe=3, **ONE)
    assert result.frame.metric.tolist() == ["rmse_teacher"]
    assert result.frame.value.notna().all()
