"""The command line as a person meets it: the main job in small, and one clear line for each mistake."""

import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import solverbench as sb
from solverbench.cli import progress
from solverbench.cli.main import main
from solverbench.learned import recipes, trained_files

SMALL = ["--samples", "100", "--replicates", "1", "--batch", "10"]


def invoke(*arguments, **options):
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False, **options)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "runs"
    return out, invoke("run", "--solvers", "gas,dpm,heun", "--nfe", "3-4", *SMALL, "--out", out, "--json")


def test_a_run_ends_with_its_report(ran):
    out, result = ran
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.splitlines()[-1])
    assert said["counts"]["done"] == 5
    assert said["counts"]["unsupported"] == 1
    lines = result.stdout.splitlines()  # what `run > log` keeps
    head = next(i for i, line in enumerate(lines) if line.split("|")[1:2] == [" solver "])
    rows = [[each.strip() for each in line.strip("|").split("|")] for line in lines[head : head + 5]]
    assert [row[0] for row in rows[2:]] == ["gas", "dpm", "heun"]
    assert rows[0][1:] == ["3", "4"]
    values = [entry for row in rows[2:] for entry in row[1:]]
    assert values.count("unsupported") == 1
    assert all(entry == "unsupported" or float(entry.split()[0].rstrip("*")) > 0 for entry in values)
    folder = out / "reports" / said["report"].rsplit("/", 1)[-1]
    for name in ("report.md", "figure.png", "figure.pdf", "figure.svg", "results.csv", "images-digits.png"):
        assert (folder / name).stat().st_size > 500
    assert "heun with nfe=3" in (folder / "report.md").read_text()


def test_a_second_run_computes_and_draws_nothing_and_says_so(ran, tmp_path, monkeypatch):
    from solverbench.reports.drawing import base

    out, drawn = shutil.copytree(ran[0], tmp_path / "runs"), []
    monkeypatch.setattr(base, "render", lambda figure, kind: drawn.append(kind))
    blocks = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.npz")}
    result = invoke("run", "--solvers", "gas,dpm,heun", "--nfe", "3-4", *SMALL, "--out", out)
    assert result.exit_code == 0
    assert "5 cached" in result.stdout
    assert drawn == []
    assert {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.npz")} == blocks


@pytest.mark.usefixtures("unrendered", "remembered")
def test_a_lost_or_damaged_block_of_a_finished_cell_is_found_and_made_again(tmp_path):
    """A finished cell's numbers aren't read from its blocks again, so that `store verify` is what finds the damage."""
    line = ("run", "--solvers", "dpm", "--nfe", "3", *SMALL, "--out", tmp_path)
    assert invoke(*line).exit_code == 0
    block = sorted(tmp_path.glob("cells/*/*/blocks/*.npz"))[4]
    whole, metrics = block.read_bytes(), next(tmp_path.glob("cells/*/*/metrics.json")).read_bytes()
    block.write_bytes(whole[:500])
    assert "1 cached" in invoke(*line).stdout
    named = invoke("store", "verify", "--out", tmp_path)
    assert named.exit_code == 4
    assert f"{block}: damaged, its checksum doesn't match its content; use --set-aside and run again" in named.stdout
    assert invoke("store", "verify", "--set-aside", "--out", tmp_path).exit_code == 4
    assert "1 done" in invoke(*line).stdout
    assert block.read_bytes() == whole
    assert next(tmp_path.glob("cells/*/*/metrics.json")).read_bytes() == metrics
    assert invoke("store", "verify", "--out", tmp_path).exit_code == 0


@pytest.mark.usefixtures("unrendered", "remembered")
def test_the_damaged_pictures_of_a_finished_cell_are_made_again_with_a_line(tmp_path):
    line = ("run", "--solvers", "dpm", "--nfe", "3", *SMALL, "--out", tmp_path)
    assert invoke(*line).exit_code == 0
    block = sorted(tmp_path.glob("cells/*/*/blocks/*.npz"))[0]
    whole = block.read_bytes()
    block.write_bytes(whole[:500])
    mended = invoke(*line)
    assert mended.exit_code == 0
    assert f"{block}: damaged, its array 'images' can't be read; set aside as *.damaged" in mended.stderr
    assert block.read_bytes() == whole


@pytest.mark.usefixtures("unrendered", "remembered")
def test_a_training_says_what_it_replaces(tmp_path):
    small = ("train_size=40", "validation_size=20", "training_seeds=1", "batch=8")
    line = ["train", "gs", "--nfe", "1", "--out", tmp_path, *(part for each in small for part in ("--set", each))]
    first = invoke(*line, "--set", "iterations=4")
    assert first.exit_code == 0, first.output
    assert "in place of" not in first.stdout + invoke(*line, "--set", "iterations=4").stdout
    assert "replaces other parameters" in invoke(*line, "--set", "iterations=3").stdout


@pytest.mark.usefixtures("unrendered", "remembered")
def test_strict_is_exit_code_5_where_a_cell_has_no_result(tmp_path):
    line = ["run", "--solvers", "dpm,heun", "--nfe", "3", "--samples", "10", "--replicates", "1", "--out", tmp_path]
    assert invoke(*line).exit_code == 0
    assert invoke(*line, "--strict").exit_code == 5


def test_a_list_as_json_has_its_aliases_as_lists(tmp_path):
    rows = {row["name"]: row["aliases"] for row in json.loads(invoke("list", "solvers", "--json").stdout)}
    assert rows["dpm"] == ["dpmpp"]
    assert rows["gs"] == []


def test_a_range_is_trained_by_a_file_of_a_recipe_and_drawn_as_a_whole(tmp_path):
    (tmp_path / "mine.toml").write_text("""[any]
train_size = 40
validation_size = 20
training_seeds = 1
batch = 8
iterations = 4
validate_every = 2
warm_start = true
""")
    line = ("gs", "--recipe", tmp_path / "mine.toml", "--out", tmp_path)
    result = invoke("train", *line, "--nfe", "3,2")
    assert result.exit_code == 0, result.output
    said = result.stdout.splitlines()
    assert [row.partition(": ")[0].rsplit(" ", 1)[-1] for row in said if "validation RMSE" in row] == ["nfe=2", "nfe=3"]
    [place] = tmp_path.glob("trained/digits/runs/gs-nfe2-3-*")
    assert said[-1] == f"  curves in {place}"
    assert (place / "curves.svg").stat().st_size > 1000
    kept = trained_files.load(tmp_path / "trained" / "digits" / "gs-nfe3.safetensors")
    made = kept.record["recipe"]
    assert (made["iterations"], made["warm_start"], made["lr"]) == (4, True, 5e-3)  # the rate is the solver's own
    assert kept.record["warm_start"]["nfe"] == 2
    again = sb.train("gs", [3, 2], recipe=tmp_path / "mine.toml", out=tmp_path, progress=False)
    assert [each.nfe for each in again] == [2, 3]
    assert again[1].identity == kept.identity
    faster = sb.train(
        "gs", 2, recipe=tmp_path / "mine.toml", settings={"warm_start": False, "iterations": 1}, out=tmp_path
    )
    assert faster[0].record["recipe"]["iterations"] == 1


def test_a_recipe_is_shown_as_a_file_and_the_earlier_flag_still_does_it(tmp_path):
    shown = invoke("train", "gs", "--nfe", "4", "--show-recipe", "--set", "lr=0.5")
    assert shown.stdout.startswith("# gs on digits\n[any]\n")
    assert "\nlr = 0.5\n" in shown.stdout
    (tmp_path / "mine.toml").write_text(shown.stdout)
    wanted = recipes.load("gs", "digits").override(["lr=0.5"])
    assert recipes.load("gas", "digits", file=tmp_path / "mine.toml") == wanted
    before = invoke("train", "gs", "--nfe", "4", "--recipe", "--set", "lr=0.5")
    assert before.stdout == shown.stdout
    assert "--recipe without a file shows the recipe; use --show-recipe" in before.stderr
    wrong = invoke("train", "gs", "--recipe", tmp_path / "none.toml")
    assert wrong.exit_code == 3
    assert "none.toml: there is no such file; give a TOML file of a recipe" in wrong.stderr


def test_a_training_is_drawn_at_its_end_and_again_when_asked(tmp_path):
    small = ("train_size=40", "validation_size=20", "training_seeds=2", "batch=8", "iterations=4")
    line = ["train", "gs", "--nfe", "1", "--out", tmp_path, *(part for each in small for part in ("--set", each))]
    said = invoke(*line).stdout.splitlines()[-1]
    assert said.startswith("  curves in ")
    folder = tmp_path / "trained" / "digits" / "runs" / said.rsplit("/", 1)[-1]
    assert len(list(tmp_path.glob("**/curves.png"))) == 2  # of every seed
    drawn = (folder / "curves.svg").read_bytes()
    (folder / "curves.svg").unlink()
    result = invoke("report", "--training", folder)
    assert result.exit_code == 0, result.output
    assert (folder / "curves.svg").read_bytes() == drawn
    assert str(folder / "curves.pdf") in result.stdout
    assert "curves in" not in invoke(*line).stdout
    assert invoke("report", "--training", folder.name, "--out", tmp_path).exit_code == 0


def test_the_training_command_keeps_the_options(tmp_path):
    result = invoke("plan", "--solvers", "gas:t_eps=0.001", "--nfe", "3", "--out", tmp_path / "o")
    assert "solverbench train gas:t_eps=0.001 --nfe 3" in result.stdout


def test_the_report_says_whose_parameters_were_measured(ran):
    text = next((ran[0] / "reports").glob("*/report.md")).read_text()
    assert "| parameters of gas for digits | NFE 3 packaged " in text
    assert "Reference values" in text  # at another n than the 100 images here


def test_a_plan_writes_nothing(tmp_path):
    result = invoke("plan", "--solvers", "dpm,heun", "--nfe", "3,4", *SMALL, "--out", tmp_path / "none", "--json")
    assert result.exit_code == 0
    cells = json.loads(result.stdout.splitlines()[-1])["cells"]
    assert [cell["status"] for cell in cells] == ["new", "new", "unsupported", "new"]
    assert not (tmp_path / "none").exists()


def test_a_report_is_drawn_again_without_torch(ran):
    out, _ = ran
    # PNG alone: which modules are imported doesn't depend on the other two formats.
    code = (
        "from solverbench.reports.drawing import base; base.FORMATS = ('png',);"
        "import sys; from click.testing import CliRunner; from solverbench.cli.main import main;"
        f"r = CliRunner().invoke(main, ['report', '--out', {str(out)!r}]); print(r.output);"
        "sys.exit(r.exit_code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("unrendered", "remembered", "loose")
def test_the_exact_solution_is_on_for_the_mixture_and_asked_for_elsewhere(tmp_path):
    out, small = tmp_path / "runs", ["--samples", "10", "--replicates", "1"]
    for teacher, flags, metrics in (
        ("mixture", [], 4),
        ("mixture", ["--no-exact"], 3),
        ("digits", [], 3),
        ("digits", ["--exact"], 4),
    ):
        result = invoke(
            "run", "--solvers", "dpm", "--nfe", 3, "--teachers", teacher, *flags, *small, "--out", out, "--json"
        )
        assert result.exit_code == 0, result.output
        report = json.loads(result.stdout.splitlines()[-1])["report"].rsplit("/", 1)[-1]
        rows = (out / "reports" / report / "results.csv").read_text().splitlines()
        assert len(rows) == 1 + metrics
        assert any(",rmse_exact," in row for row in rows) is (metrics == 4)


def test_config_gives_flags_and_the_command_line_wins(tmp_path):
    (tmp_path / "c.toml").write_text('solvers = ["dpm", "euler"]\nnfe = "9"\nsamples = 100\nout = "elsewhere"\n')
    result = invoke("plan", "--config", tmp_path / "c.toml", "--nfe", "3", "--out", tmp_path / "o", "--json")
    cells = json.loads(result.stdout.splitlines()[-1])["cells"]
    assert [(cell["solver"], cell["nfe"]) for cell in cells] == [("dpm", 3), ("euler", 3)]


def test_long_samplings_exports_and_merges_tell_their_progress(tmp_path, monkeypatch, ran):
    monkeypatch.setattr(progress, "EVERY_VERBOSE", 0.0)  # each batch, file and cell, however short it takes
    out, _ = ran
    sampled = invoke("sample", "dpm", "--nfe", 3, "--seeds", "7-9", "--batch", 1, "--to", tmp_path / "p", "-v")
    exported = invoke("store", "export", "--to", tmp_path / "e.zip", "--out", out, "-v")
    merged = invoke("store", "merge", tmp_path / "e.zip", "--out", tmp_path / "m", "-v")
    for done, unit in ((sampled, "images"), (exported, "files"), (merged, "cells copied")):
        told = [line.split("] ")[1] for line in done.stderr.splitlines() if unit in line]
        total = int(told[0].split()[0].partition("/")[2])
        assert [line.partition("/")[0] for line in told] == [str(k + 1) for k in range(total)]
        assert told[-1] == f"{total}/{total} {unit}"
    assert "3/3 images" in sampled.stderr


def test_samples_are_written_as_png_and_npz(tmp_path):
    assert invoke("sample", "dpm", "--nfe", 3, "--seeds", "7-9", "--to", tmp_path / "p").exit_code == 0
    kinds = ("--format", "npz", "--batch", 2)
    assert invoke("sample", "dpm", "--nfe", 3, "--seeds", "7-9", "--to", tmp_path / "n", *kinds).exit_code == 0
    with np.load(tmp_path / "n" / "7-9.npz") as made:
        assert made["seeds"].tolist() == [7, 8, 9]
        assert made["images"].shape == (3, 8, 8, 1)
        png = np.asarray(Image.open(tmp_path / "p" / "000000008.png"))
        assert np.abs(png.astype(int) - made["images"][1, :, :, 0]).max() <= 1


def test_samples_of_two_selections_never_lie_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["--seeds", "7-8"], ["--seeds", "7-9"], ["--seeds", "7-8", "--teacher", "mixture"]):
        assert invoke("sample", "dpm:order=2", "--nfe", 3, *words).exit_code == 0
        assert invoke("sample", "dpm:order=2", "--nfe", 3, *words).exit_code == 0, "the same again is no other one"
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "digits-dpm-order=2-nfe3-7-8",
        "digits-dpm-order=2-nfe3-7-9",
        "mixture-dpm-order=2-nfe3-7-8",
    ]
    given = invoke(
        "sample", "dpm", "--nfe", 3, "--seeds", "8-9", "--to", tmp_path / "samples/digits-dpm-order=2-nfe3-7-8"
    )
    assert given.exit_code == 2
    assert "holds other files (1, such as 000000007.png); give --to an empty folder" in given.stderr


@pytest.mark.parametrize("name", ["dpm", "ddim", "gas:t_eps=0.001", "digits", "mixture"])
def test_info_describes_it(name):
    result = invoke("info", name)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5


def test_info_shows_what_the_literature_runs_a_solver_with_and_where_it_says_so():
    shown = invoke("info", "ipndm").stdout
    assert "pixel             ipndm:order=4:grid=polynomial:rho=7" in shown
    assert "stable_diffusion  ipndm:order=2:grid=gits_ipndm" in shown
    assert "GAS (arXiv:2510.17699), its teacher on MS-COCO" in shown


def test_doctor_finds_a_working_installation_well(tmp_path):
    result = invoke("doctor", "--out", tmp_path / "runs")
    assert result.exit_code == 0, result.output
    assert "FAIL" not in result.stdout
    assert result.stdout.splitlines()[-1].startswith(
        "everything needed is there; optional extras that aren't installed: "
    )


@pytest.mark.parametrize("command", ["run", "plan", "train", "sample", "report", "list", "info", "doctor"])
def test_every_command_explains_itself(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


SEE = "ee 'solverbench {} --help'"


@pytest.mark.parametrize(
    ("words", "said", "remedy"),
    [
        ("run --bogus 3", "run: no such option --bogus", SEE.format("run")),
        ("train --nfee 3", "train: no such option --nfee", f"did you mean --nfe? S{SEE.format('train')}"),
        ("runn", "no such command 'runn'", "did you mean 'run'? See 'solverbench --help'"),
        ("store stat", "store: no such command 'stat'", f"did you mean 'status'? S{SEE.format('store')}"),
        ("run --nfe", "run: option '--nfe' requires an argument", SEE.format("run")),
        ("sample dpm", "sample: missing option '--nfe'", SEE.format("sample")),
        (
            "recommend digits --nfe 4",
            "recommend: got unexpected extra argument (digits)",
            f"did you mean --teacher digits? S{SEE.format('recommend')}",
        ),
    ],
)
def test_a_wrong_word_is_one_line(words, said, remedy):
    result = invoke(*words.split(), prog_name="solverbench")
    assert result.exit_code == 2
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith(f"Error: solverbench{':' * said.startswith('no')} {said}; ")
    assert line.endswith(remedy)


def test_a_grid_given_as_a_solver_is_told_its_place():
    told = invoke("sample", "gits", "--nfe", "3").stderr
    assert told == "Error: solver 'gits': a grid, not a solver; name a solver that takes it, as in unipc:grid=gits\n"


def test_without_a_command_the_help_is_shown():
    assert "Commands:" in invoke().output
    assert "Commands:" in invoke("store").output


def _commands(group, path=()):
    for name, command in group.commands.items():
        yield " ".join((*path, name)), command, len(max(group.commands, key=len))
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))


@pytest.mark.parametrize(("command", "widest"), [pytest.param(c, w, id=n) for n, c, w in _commands(main)])
def test_every_command_begins_its_help_with_a_sentence_that_fits(command, widest):
    said = command.get_short_help_str(limit=78 - 6 - widest)  # as the list of commands shows it in 80 columns
    assert said[0].isupper()
    assert not said.endswith("...")


MISTAKES = [
    ("run --solvers unpic", 2, "did you mean|not registered"),
    ("run --solvers dpm:ordr=2", 2, "did you mean 'order'"),
    ("run --solvers dpm:order=9", 2, "use 1 or 2 or 3"),
    ("run --solvers gas,,dpm", 2, "empty name"),
    ("run --solvers euler:grid=80+90+0.1 --nfe 2", 2, "strictly decrease"),
    ("run --teachers digitz", 2, "did you mean 'digits'"),
    ("run --nfe 10-3", 2, "backwards"),
    ("run --nfe 0", 2, "below 1"),
    ("run --nfe x", 2, "isn't a number"),
    ("run --samples 7", 2, "multiple of 10"),
    ("run --samples 0", 2, "samples"),
    ("run --samples 99999999999999999990", 2, "more than"),
    ("run --replicates 10000000", 2, "more than"),
    ("run --out " + "a" * 300, 3, "too long"),
    ("run --config {tmp}/half.toml", 2, "1.5"),
    ("train gs --nfe 3 --out {tmp}/typo.toml", 3, "a file"),
    ("run --replicates 0", 2, "replicates"),
    ("run --seeds 9-3", 2, "reversed"),
    ("run --seeds 50000-50005", 2, "seeds"),
    ("run --batch 0", 2, "batch"),
    ("run --device tpu", 2, "device"),
    ("run --device cuda:77", 3, "CUDA"),
    ("run --config {tmp}/none.toml", 2, "can't be read"),
    ("run --config {tmp}/typo.toml", 2, "did you mean 'solvers'"),
    ("run --out {tmp}/typo.toml", 3, "not a folder|a file"),
    ("run --out /proc/nowhere", 3, "can't be written"),
    ("run --nosuchflag", 2, "no such option --nosuchflag"),
    ("train dpm --nfe 4", 2, "nothing to train"),
    ("train gs --nfe 4 --set lrr=1", 2, "did you mean 'lr'"),
    ("train gs --nfe 4 --set lr=fast", 2, "lr"),
    ("sample gas --nfe 400", 2, "not trained|train"),
    ("sample heun --nfe 3", 2, "nfe=2 or nfe=4"),
    ("info nothing", 2, "not registered"),
    ("info dpm --teacher nothing", 2, "teacher 'nothing': not registered"),
    ("run --train all", 2, "is not 'missing'"),
    ("report nothing --out {tmp}", 2, "no report"),
    ("report --training {tmp}", 2, "history.csv: it is not there"),
    ("report some --training {tmp}", 2, "only one of them can be drawn"),
]


@pytest.mark.parametrize(("line", "code", "text"), MISTAKES, ids=[line for line, _, _ in MISTAKES])
def test_a_mistake_is_one_clear_line(tmp_path, monkeypatch, line, code, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "typo.toml").write_text('solver = "dpm"\n')
    (tmp_path / "half.toml").write_text("replicates = 1.5\n")
    result = invoke(*line.format(tmp=tmp_path).split())
    assert result.exit_code == code, result.output
    errors = [row for row in result.stderr.splitlines() if row.startswith("Error")]
    assert len(errors) == 1, result.stderr
    assert any(part in errors[0] for part in text.split("|")), errors
    assert "Traceback" not in result.output
    assert not (tmp_path / "runs" / "cells").exists()


def test_a_store_of_another_version_is_refused(ran, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "store.json").write_text(
        (ran[0] / "store.json").read_text().replace('"version": 1', '"version": 0')
    )
    result = invoke("run", "--solvers", "dpm", "--nfe", "3", *SMALL, "--out", tmp_path / "runs")
    assert result.exit_code in (2, 3)
    assert "store.json" in result.stderr


@pytest.mark.usefixtures("unrendered", "remembered")
def test_plan_takes_the_flags_of_run_and_both_name_what_is_one_method(tmp_path):
    same = ("--solvers", "dpm:order=2:grid=polynomial,dpm:order=3:grid=polynomial", "--nfe", "4", *SMALL)
    working = ("--workers", "1", "--timeout-cell", "100000", "--engine", "local", "--strict")
    line = "are one method at NFE 4 on digits: computed once"
    planned = invoke("plan", *same, *working, "--out", tmp_path)
    assert (planned.exit_code, line in planned.stdout) == (0, True)
    assert "per image: 4, as solvers share equal first calls; 8 if each cell ran alone" in planned.stdout
    made = invoke("run", *same, *working, "--out", tmp_path)
    assert (made.exit_code, line in made.stdout) == (0, True)


def test_a_reference_of_images_of_another_shape_is_one_line(tmp_path):
    shot = invoke("sample", "euler", "--nfe", "1", "--seeds", "50000-50029", "--to", tmp_path / "grey")
    assert shot.exit_code == 0, shot.output
    build = ("refs", "build", "mine", tmp_path / "grey", "--out", tmp_path)
    refused = invoke(*build, "--extractor", "shapes")
    assert refused.exit_code == 2, refused.output
    assert "images are 3x8x8, but this extractor takes only 3x16x16" in refused.stderr
    assert invoke(*build, "--extractor", "digits").exit_code == 0
    assert "no reference in" in invoke("refs", "verify", "--out", tmp_path / "none").stdout


@pytest.mark.parametrize("computing", [False, True])
def test_an_interrupt_ends_with_130_while_workers_compute_or_not(monkeypatch, computing):
    """A second Ctrl-C comes while the pool waits for its threads: a normal exit would be aborted by torch."""
    left = []

    def leave(code):
        left.append(code)
        sys.exit(code)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr("solverbench.store.maintenance.status", interrupted)
    done = threading.Event()
    worker = threading.Thread(target=done.wait, name="solverbench_0" if computing else "another")
    worker.start()
    try:
        result = CliRunner().invoke(main, ["store", "status"])
    finally:
        done.set()
        worker.join()
    assert result.exit_code == 130
    assert result.stderr == "Error: interrupted: finished results are kept; run the same command to resume\n"
    assert left == [130] * computing


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("plan --solvers dmp", "did you mean 'dpm'?"),
        ("plan --solvers dpm,order=2", "'order=2' is an option, not a solver; write it after its solver and a colon"),
        ("run --solvers dpm unipc --nfe 3", "unipc: belongs to no flag; join names with commas: --solvers dpm,unipc"),
        ("run --nfe 3 4 5", "4 5: belongs to no flag; join names with commas: --nfe 3,4,5"),
        ("plan dpm", "dpm: belongs to no flag; see --help"),
        ("plan --metrics rmse", "metric 'rmse': not known; did you mean 'rmse_teacher'?"),
        ("plan --solvers euler --nfe 3 --out {file}/x", "can't be written (Not a directory)"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(tmp_path, words, said):
    (tmp_path / "file").touch()
    result = invoke(*words.format(file=tmp_path / "file").split())
    assert result.exit_code in (2, 3)
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "index", "found"),
    [
        ("run --solvers gas,uni", 3, ["gas,unipc"]),
        ("train --teacher mix", 3, ["mixture"]),
        ("plan --metrics rmse_teacher,ki", 3, ["rmse_teacher,kid"]),
    ],
)
def test_the_shell_completes_names(words, index, found):
    asked = {"_SOLVERBENCH_COMPLETE": "bash_complete", "COMP_WORDS": f"solverbench {words}", "COMP_CWORD": str(index)}
    result = CliRunner(env=asked).invoke(main, prog_name="solverbench")
    assert [line.split(",", 1)[1] for line in result.stdout.splitlines()] == found
