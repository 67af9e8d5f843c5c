"""A results folder from a stranger: nothing outside it is touched, nothing hangs, and one bad file stops no command."""

import io
import json
import os
import shutil
import sys
import zipfile

import numpy as np
import pytest
import toys
from click.testing import CliRunner

from solverbench import files
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions
from solverbench.cli import terminal
from solverbench.cli.main import main
from solverbench.cli.progress import Lines
from solverbench.errors import RecordError, StoreError
from solverbench.store.folder import Store


def invoke(*arguments):
    return CliRunner().invoke(main, ["store", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "runs"
    options = {"samples": 40, "replicates": 1, "batch": 4}
    runner.run(RunOptions(solvers="euler", nfe="3,4", teachers=toys.teacher(), out=out, **options))
    return out


@pytest.fixture
def runs(made, tmp_path):
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def elsewhere(tmp_path):
    """A folder outside the store that a test compares before and after."""
    folder = tmp_path / "elsewhere"
    (folder / "deep").mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    (folder / "deep" / f".{'x' * 8}.part").write_text("mine, too")
    yield folder
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == {
        *("mine.txt", "deep", f"deep/.{'x' * 8}.part")
    }
    assert (folder / "mine.txt").read_text() == "mine"


def cells(out):
    return sorted(path.parent for path in out.glob("cells/*/*/cell.json"))


@pytest.mark.parametrize(
    "place", ["cells", "cells/zz", "cells/ab", "targets/new", "reports", "trained/toy", "references"]
)
def test_no_command_deletes_or_writes_through_a_link(runs, elsewhere, tmp_path, place):
    if (runs / place).exists():
        shutil.move(runs / place, tmp_path / "moved")
    (runs / place).parent.mkdir(exist_ok=True)
    (runs / place).symlink_to(elsewhere, target_is_directory=True)
    assert invoke("gc", "--cells", "--out", runs).exit_code == 0
    assert invoke("status", "--out", runs).exit_code == 0
    result = invoke("verify", "--out", runs)
    assert result.exit_code == 4
    assert f"{place}: a link or another special file, which is never followed; delete it" in result.stdout
    with pytest.raises(StoreError, match="a link inside a results folder, which is never followed; delete it"):
        Store.open(runs)
    assert runs.is_dir()


def test_gc_deletes_nothing_behind_a_cells_link(runs, elsewhere):
    """Cells that no report shows, and one whose folder is a link."""
    shutil.rmtree(runs / "reports")
    shutil.rmtree(cells(runs)[0])
    link = runs / "cells" / "ab" / ("ab" + 62 * "0")
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere, target_is_directory=True)
    assert invoke("gc", "--cells", "--out", runs).exit_code == 0
    assert not cells(runs)
    with pytest.raises(StoreError, match="a link inside a results folder"):
        Store(runs).at(link.name)


@pytest.mark.parametrize("where", ["source", "target"])
def test_merge_follows_no_link(runs, elsewhere, tmp_path, where):
    other = tmp_path / "other"
    shutil.copytree(runs, other)
    for path in other.glob("cells/*/*/blocks/50000-*"):
        path.unlink()
    place = runs if where == "source" else other
    link = next(place.glob("cells/*/*/blocks")) if where == "target" else next(place.glob("cells/*/*/blocks/50000-*"))
    shutil.rmtree(link) if link.is_dir() else link.unlink()
    link.symlink_to(elsewhere if where == "target" else elsewhere / "mine.txt")
    result = invoke("merge", runs, "--out", other)
    if where == "target":
        assert result.exit_code == 3
        assert "a link inside a results folder" in result.stderr
    else:
        assert result.exit_code == 4
        assert "never followed; delete it; not copied" in result.stdout
        assert not list(other.glob(f"cells/*/*/blocks/{link.name}"))[1:]


def test_pipes_and_devices_are_named_and_do_not_hang(runs, tmp_path):
    block = next(runs.glob("cells/*/*/blocks/*.npz"))
    block.unlink()
    os.mkfifo(block)
    metrics = cells(runs)[0] / "metrics.json"
    metrics.unlink()
    metrics.symlink_to("/dev/zero")
    result = invoke("verify", "--out", runs)
    assert result.exit_code == 4
    assert result.stdout.count("never followed; delete it") == 2
    assert invoke("merge", runs, "--out", tmp_path / "into").exit_code == 4
    with pytest.raises(RecordError, match="a link or another special file"):
        files.read_arrays(block)
    with pytest.raises(RecordError, match="a link or another special file"):
        files.read_json(metrics)


def forged(path, **changes):
    """Write a JSON file again, with its checksum."""
    body = json.loads(path.read_text())
    del body["checksum"]
    body |= changes
    path.write_text(json.dumps({**body, "checksum": files.digest(body)}))


def packed(path, entries, kind=zipfile.ZIP_STORED):
    """An npz with a right checksum, of any content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        archive.comment = b"0" * files.HEX
        for name, content in entries:
            archive.writestr(name, content)
    content = buffer.getvalue()[: -files.HEX]
    path.write_bytes(content + files.hashlib.sha256(content).hexdigest().encode())


def array(values, claimed=None):
    """The bytes of a .npy, with another shape in its header if claimed."""
    buffer = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(values) | ({"shape": claimed} if claimed else {})
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + values.tobytes()


BAD_BLOCKS = {
    "no arrays": [],
    "only text": [("readme.txt", b"x")],
    "a compressed bomb": [("images.npy", array(np.zeros(1 << 24, np.uint8)))],
    "a header of a terabyte": [("images.npy", array(np.zeros(4, np.uint8), (1 << 20, 1 << 20)))],
    "objects": [("images.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n")],
    "no images": [("nfe.npy", array(np.array([3]))), ("errors.npy", array(np.zeros(4)))],
    "text for numbers": [("images.npy", array(np.zeros((1, 1, 4, 4), np.uint8))), ("nfe.npy", array(np.array(["3"])))],
    "one name twice": [("nfe.npy", array(np.array(3))), ("nfe.npy", array(np.array(4)))],
    "nested header": [("images.npy", b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10000)],
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", BAD_BLOCKS)
def test_a_whole_file_of_nonsense_is_damaged_and_the_command_goes_on(runs, what):
    path = next(runs.glob("cells/*/*/blocks/*.npz"))
    packed(path, BAD_BLOCKS[what], zipfile.ZIP_DEFLATED if "bomb" in what else zipfile.ZIP_STORED)
    result = invoke("verify", "--out", runs)
    assert result.exit_code == 4
    assert f"DAMAGED  {path}: damaged" in result.stdout
    assert "1 damaged files" in result.stdout


BAD_METRICS = {
    "no measures": '{"nfe": 3}',
    "not a number": '{"nfe": 3, "measures": {"rmse_teacher": NaN}}',
    "too large": '{"nfe": 3, "measures": {}, "x": 1e400}',
    "a name twice": '{"nfe": 3, "nfe": 4, "measures": {}}',
    "text": '{"nfe": "<b>3</b>", "measures": {}}',
    "deep": '{"nfe": 3, "measures": ' + "[" * 50_000 + "]" * 50_000 + "}",
    "long digits": '{"nfe": ' + "9" * 5000 + ', "measures": {}}',
}


@pytest.mark.parametrize("what", BAD_METRICS)
def test_metrics_of_nonsense_are_damaged_and_the_command_goes_on(runs, what):
    path = cells(runs)[0] / "metrics.json"
    address = path.parent.name
    text = BAD_METRICS[what]
    try:
        body = {**json.loads(text, parse_constant=lambda name: 0), "cell": address}
        text = json.dumps({**body, "checksum": files.digest(body)}) if "twice" not in what else text
    except (ValueError, RecursionError):
        pass
    path.write_text(text)
    result = invoke("verify", "--out", runs)
    assert result.exit_code == 4
    assert f"DAMAGED  {path}: damaged" in result.stdout


@pytest.mark.parametrize("value", [-0.5, "<script>", None, True, 1e308])
def test_a_value_that_is_not_the_mean_of_its_replicates_is_damaged(runs, value):
    path = cells(runs)[0] / "metrics.json"
    body = json.loads(path.read_text())
    body["measures"]["rmse_teacher"]["value"] = value
    forged(path, measures=body["measures"])
    result = invoke("verify", "--out", runs)
    assert result.exit_code == 4
    assert "DAMAGED" in result.stdout


FORGED_STATISTICS = [
    lambda told: told.pop("images"),
    lambda told: told.update(images=[1]),
    lambda told: told["images"].pop("outside"),
    lambda told: told["teacher"].update(mean="0"),
    lambda told: told["differences"].pop("constant"),
    lambda told: told["differences"].update(mean=[0.0, 1.0]),
    lambda told: told.update(square=0.5),
    lambda told: told.update(differences=3),
]


@pytest.mark.parametrize("change", FORGED_STATISTICS, ids=range(len(FORGED_STATISTICS)))
def test_statistics_that_no_run_writes_are_damaged_and_never_a_traceback(runs, change):
    path = cells(runs)[0] / "metrics.json"
    told = json.loads(path.read_text())["statistics"]
    change(told)
    forged(path, statistics=told)
    result = invoke("verify", "--out", runs)
    assert result.exit_code == 4
    assert f"DAMAGED  {path}: damaged" in result.stdout


def test_a_zip_that_unpacks_to_much_more_than_its_size_is_refused(runs, tmp_path):
    export = tmp_path / "export.zip"
    assert invoke("export", "--to", export, "--out", runs).exit_code == 0
    with zipfile.ZipFile(export, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"cells/ab/ab{62 * '0'}/blocks/0-1.npz", bytes(300 * export.stat().st_size))
    result = invoke("merge", export, "--out", tmp_path / "into")
    assert result.exit_code == 2
    assert "more than 100 times as many; unpack it yourself and give the folder" in result.stderr


ODD = "\x1b]0;owned\x07\x1b[2Jno damaged files\r\n\u202egnp"
"""A name that sets a terminal's title, clears it, forges a line and turns the direction of writing."""


def unobeyed(result):
    """Check that a terminal obeys nothing of a command's output but line breaks."""
    assert ODD not in result.output
    assert all(char.isprintable() or char == "\n" for char in result.output)
    return result


def test_no_control_character_of_a_name_or_a_text_is_printed(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))
    (runs / "trained" / ODD).mkdir(parents=True)
    (runs / "trained" / ODD / f"{ODD}-nfe3.safetensors").write_bytes(b"x")
    (runs / "references" / f"{ODD}.npz").parent.mkdir(exist_ok=True)
    (runs / "references" / f"{ODD}.npz").write_bytes(b"x")
    (runs / "cells" / ODD).symlink_to("nowhere")
    (runs / "targets" / f".{ODD}.part").write_bytes(b"x")
    (runs / "reports" / ODD).mkdir()
    (runs / "reports" / ODD / "bundle.json").write_text("{}")
    (runs / "leases" / "runs").mkdir(parents=True, exist_ok=True)
    told = {"host": ODD, "pid": 1, "since": ODD, "machine": ODD, "born": ODD}
    (runs / "leases" / "runs" / "0").write_text(f"0\n{json.dumps(told)}\n")
    (runs / "leases" / "unit").mkdir()
    (runs / "leases" / "unit" / "0").touch()
    monkeypatch.setattr("solverbench.store.leases.PATIENCE", 0)
    for command in (["status"], ["verify"], ["gc", "--dry-run"]):
        unobeyed(invoke(*command, "--out", runs))
    lines = unobeyed(invoke("verify", "--out", runs)).stdout.splitlines()
    assert [line.split()[0] for line in lines] == [*3 * ["DAMAGED"], "taken", "0", "3"]
    other = shutil.copytree(runs, tmp_path / "other", symlinks=True)
    unobeyed(invoke("merge", other, "--out", tmp_path / "into"))
    commands = (["zoo", "list"], ["refs", "list"], ["refs", "verify"], ["report", ODD], ["report", "nix"])
    for command in (
        *commands,
        ["compare", ODD, "nix"],
        ["info", ODD],
        ["plan", "--solvers", ODD],
        ["list", ODD],
        [ODD],
    ):
        place = [] if command[0] in ("list", ODD) else ["--out", str(runs)]
        unobeyed(CliRunner().invoke(main, [*command, *place]))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["sample", "euler", "--nfe", "3", "--seeds", "0-9999999999"],
            "--seeds 0-9999999999: more than 10000000 images",
        ),
        (["sample", "euler", "--nfe", "3", "--batch", "99999999999"], "--batch 99999999999: more than 10000000 images"),
        (["plan", "--solvers", "euler", "--nfe", "3", "--batch", "99999999999"], "batch 99999999999: more than"),
        (["plan", "--solvers", "euler:grid=@levels.txt", "--nfe", "3"], "'levels.txt' has more than 131072 bytes"),
        (["plan", "--solvers", 100_000 * "nix", "--nfe", "3"], "(300009 characters)"),
    ],
)
def test_what_is_too_large_is_one_short_line_before_any_work(tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "levels.txt").write_text("\n".join(map(str, range(1_000_000, 0, -1))))
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert line in result.stderr
    assert (result.stderr.count("\n"), result.stdout) == (1, "")
    assert len(result.stderr) < 4000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["levels.txt"]


def test_an_npz_of_images_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("solverbench.bench.images.NPZ_BYTES", 200)
    words = ["sample", "euler", "--nfe", "3", "--teacher", "mixture", "--batch", "2", "--to", str(tmp_path)]
    result = CliRunner().invoke(main, [*words, "--seeds", "7-20", "--format", "npz"])
    assert result.exit_code == 2
    assert "bytes of images, but an .npz holds at most 200; give fewer, or --format png" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_lines_of_progress_and_of_other_libraries_are_escaped(capsys):
    shown = Lines(sys.stderr)
    shown.settle(ODD, "done", ODD)
    shown.note(ODD)
    with terminal.escaped():
        print(ODD, file=sys.stderr)  # as logging and other libraries do
    said = capsys.readouterr().err
    assert "owned" in said
    assert all(char.isprintable() or char == "\n" for char in said)
    assert len(said.splitlines()) == 4  # only who formats a line can escape a line break in it
