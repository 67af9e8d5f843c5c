"""Fuzz of strangers' stores, reports and trained solvers: a documented exit code, clear lines, nothing outside touched.

SOLVERBENCH_FUZZ=20 makes twenty times as many cases; `benchmarks/foreign.py` also measures time and memory of each.
"""

import os
import shutil
from random import Random

import hostile
import pytest
import reports_large
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from solverbench import reports
from solverbench.bench import run as runner
from solverbench.bench.run_options import RunOptions
from solverbench.cli import server
from solverbench.cli.main import main
from solverbench.learned import zoo
from solverbench.reports.drawing import base
from solverbench.reports.figures import gallery

MANY = int(os.environ.get("SOLVERBENCH_FUZZ", "1"))
COMMANDS = [
    *(["store", "status"], ["store", "gc", "--cells"], ["store", "merge", "CASE"], ["store", "export", "--to", "TO"]),
    *(["refs", "verify"], ["refs", "list"], ["report"]),
]
SEEDS = st.integers(0, 2**32)


def examples(count):
    return settings(
        max_examples=count * MANY, deadline=None, derandomize=MANY == 1, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate],  # a smaller seed is no smaller case
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A whole store and a whole report in one folder, with the sentinel beside."""
    return make(tmp_path_factory.mktemp("foreign"))


def make(place):
    out = place / "whole"
    options = {"samples": 10, "replicates": 1, "batch": 4, "exact": False}
    runner.run(RunOptions(solvers="euler", nfe="3", teachers="mixture", out=out, **options))
    (out / "trained" / "digits").mkdir(parents=True)
    shutil.copy(sorted(zoo.packaged().glob("digits/g*-nfe3.safetensors"))[0], out / "trained" / "digits")
    reports_large.write(place / "report-whole", ("euler", "gas"), ("digits",), (3, 4), ("rmse_teacher",), side=4)
    hostile.elsewhere(place)
    return place


def changed(place, whole, seed):
    """A copy of the folder with one to three changes."""
    case, chance = place / "case", Random(seed)
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(place / whole, case)
    what = [hostile.change(case, chance) for _ in range(chance.choice([1, 1, 1, 3]))]
    return case, what


def invoke(*words):
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 1, 2, 3, 4)
    assert all(char.isprintable() or char == "\n" for char in result.output)
    return result


def check_store(place, seed):
    case, what = changed(place, "whole", seed)
    before, chance = hostile.seen(place / "elsewhere"), Random(seed)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(gallery, "write", lambda *_: [])
    try:
        invoke("store", "verify", "--out", case)
        for command in chance.sample(COMMANDS, 2):
            shutil.rmtree(place / "into", ignore_errors=True)
            words = [{"CASE": case, "TO": case / "x"}.get(word, word) for word in command]
            invoke(*words, "--out", place / "into" if "merge" in command else case)
        server.index(case)
    except BaseException as error:
        error.add_note(f"seed {seed}: {what}")
        raise
    finally:
        monkeypatch.undo()
    assert hostile.seen(place / "elsewhere") == before, what


def check_report(place, seed):
    case, what = changed(place, "report-whole", seed)
    before = hostile.seen(place / "elsewhere")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "render", lambda figure, kind: b"a picture")
        if seed % 4:
            patch.setattr(gallery, "write", lambda *_: [])  # three of four without the figures, which take seconds
        try:
            reports.write(case)
        except reports.BundleError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
        except BaseException as error:
            error.add_note(f"seed {seed}: {what}")
            raise
    assert hostile.seen(place / "elsewhere") == before, what


@examples(25)
@given(seed=SEEDS)
def test_any_store_is_read_merged_and_shown_or_refused(place, seed):
    check_store(place, seed)


@examples(15)
@given(seed=SEEDS)
def test_any_report_is_drawn_or_refused(place, seed):
    check_report(place, seed)
