"""What every test shares: one thread, so that they don't fight for cores; nobody's own zoo; no other's plugins."""

import gc
import inspect
import itertools
import logging
import os
import shutil
import subprocess
import sys
import types

import forks
import forms
import pytest

from solverbench import plugins, registries

MEMORY = "/dev/shm"
"""Linux's folder in memory: there the tests' folders are removed in microseconds, on some disks in milliseconds."""


def _is_roomy(folder):
    """Whether a folder has 4 GiB for the tests' one, and may hold programs."""
    if not os.access(folder, os.W_OK) or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(folder).free > 4 << 30


def pytest_configure(config):
    """Nothing imports torch before; the process that hands the tests to xdist's workers doesn't need it.

    The processes that it starts, workers as well, keep what they compile: else each compiles all modules again.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if _is_roomy(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        gc.disable()  # until all tests are collected
        import torch

        torch.set_num_threads(1)


def pytest_collection_finish(session):
    """The garbage collector begins here, leaves out what has been imported, and looks for cycles less often.

    It would walk the million objects of torch, pandas and matplotlib again and again: a tenth of the tests' time.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def _no_folder_after(request, tmp_path_factory):
    """The tests' folders go with them, unless one failed: they may lie in memory."""
    yield
    if not request.session.testsfailed:
        shutil.rmtree(tmp_path_factory.getbasetemp(), ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def own_data(_no_folder_after, tmp_path_factory):
    """An empty folder: the teachers and trained solvers that a developer keeps in theirs never matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOLVERBENCH_DATA", str(tmp_path_factory.mktemp("own") / "data"))
        yield


@pytest.fixture(autouse=True, scope="session")
def unsynced():
    """Files are not forced to the disk, which takes milliseconds for each: no test pulls the plug."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_process_after():
    """The process that `forks` forks others from ends with the tests."""
    yield
    forks.end()


@pytest.fixture
def logged():
    """The texts of what is logged in the test, in order; pytest's `caplog` is left out, as it costs every test time."""
    texts, handler = [], logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    yield texts
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def forked_checks(monkeypatch):
    """The process that a check of conformance asks is forked from one with torch; its hash() is another one as well."""
    fork_checks(monkeypatch)


def fork_checks(patch):
    from solverbench.conformance import processes

    def run(command, *, input, capture_output, text, env, timeout):
        return forks.run(command[1:], input=input, env=env)

    forked = types.SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired)
    patch.setattr(processes, "subprocess", forked)


@pytest.fixture
def unrendered(monkeypatch):
    """For tests of runs whose figures nobody looks at: a report is made as ever, but its PNG, PDF and SVG hold a word.

    Rendering and composing take most of a small run's time. Of a report's figures of one form, the first in this
    process is composed; all have their tables and scripts. It is so in this process alone, and a report of any size is
    drawn in it. What `sb.plot` draws is composed as ever.
    """
    from solverbench.reports.drawing import base
    from solverbench.reports.figures import contents, gallery, training

    for module in (base, training):
        monkeypatch.setattr(module, "render", lambda figure, kind: b"not rendered in this test")
    monkeypatch.setattr(gallery, "_ALONE", 1000)
    draw, compose = gallery.draw, contents.Content.draw

    def drawn(*report):
        with monkeypatch.context() as patch:
            patch.setattr(contents.Content, "draw", lambda content: forms.once(content, compose))
            draw(*report)

    monkeypatch.setattr(gallery, "draw", drawn)


@pytest.fixture
def few_compared(monkeypatch):
    """For tests of runs whose reference's error nobody looks at: it is measured as ever, on 2 images in place of 64."""
    from solverbench.sampling import convergence

    for name in ("IMAGES", "FEW"):
        monkeypatch.setattr(convergence, name, 2)


@pytest.fixture
def loose(monkeypatch):
    """For tests of what runs do with exact solutions: they have four digits, for a sixth of the calls."""
    from solverbench.sampling import exact

    monkeypatch.setattr(exact, "TOLERANCE", 1e-4)


_made = {}


@pytest.fixture
def remembered(monkeypatch):
    """For tests in which nobody counts a teacher's calls: a built-in one's own samples are computed once.

    So are its exact solutions. Both are stored as ever, in each test's store; what was computed for one is taken for
    the next in this process, by its name in the store, which says what it depends on. A test's own teachers are left
    out, as several share an identity. They are four fifths of the time of a run of digits with 20 images.
    """
    from solverbench.sampling import endpoints, exact
    from solverbench.store.shared import made_once

    def shared(path, out, make, **more):
        name, teacher = path.relative_to(out), inspect.getclosurevars(make).nonlocals["teacher"]

        def known():
            if name not in _made:
                arrays, cost = make(), endpoints.timing(path)
                _made[name] = arrays, cost.read_bytes() if cost.exists() else None
            arrays, cost = _made[name]
            if cost is not None:
                endpoints.timing(path).parent.mkdir(parents=True, exist_ok=True)
                endpoints.timing(path).write_bytes(cost)
            return arrays

        known_by_name = teacher.spec and teacher.base in registries.teachers.builtin
        return made_once(path, out, known if known_by_name else make, **more)

    for module in (endpoints, exact):
        monkeypatch.setattr(module, "made_once", shared)


@pytest.fixture(autouse=True)
def _no_plugins_after():
    """What a test registers, and the modules behind it, are gone after it."""
    tables = {kind: dict(registry._registered) for kind, registry in registries.extensible.items()}
    held, registered, path = dict(plugins._held), list(plugins._registered), list(sys.path)
    newest = next(reversed(sys.modules))  # a set of the thousands there are, twice in every test, takes seconds in all
    yield
    for kind, registry in registries.extensible.items():
        registry._registered = tables[kind]
    plugins._held, plugins._registered, sys.path[:] = held, registered, path
    for name in list(itertools.takewhile(lambda name: name != newest, reversed(sys.modules))):
        if name.startswith(("solverbench_plugin_", "offered")):
            del sys.modules[name]
