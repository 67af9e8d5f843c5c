"""Leases: one run has a unit, a dead run's is taken over by one, and no clock is trusted."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from solverbench.errors import StoreError
from solverbench.store import leases, queue
from solverbench.store import runs as store_runs
from solverbench.store.leases import Leases
from solverbench.store.queue import POLL, Queue

HELD = """
import sys, time
from pathlib import Path
from solverbench.store.leases import Leases
print(Leases(Path(sys.argv[1])).attempt("cell-1"), flush=True)
time.sleep(600)
"""


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    for module in (leases, queue, store_runs):
        monkeypatch.setattr(module, "time", found)
    return found


@pytest.fixture
def elsewhere(tmp_path):
    """A run on a machine whose processes can't be seen: (store, its token, a function that beats its heart)."""
    other = Leases(tmp_path)
    assert other.attempt("cell-1")
    other._ended.set()  # the heart stands still, as in a process that was stopped
    path = tmp_path / "leases" / "runs" / other.token
    path.write_bytes(path.read_bytes().replace(store_runs._machine().encode(), b"another"))
    yield tmp_path, other.token, lambda count: path.write_bytes(b"%012d" % count + path.read_bytes()[12:])
    other.close()


@pytest.fixture
def killed(tmp_path):
    """A store in which a process that was killed has cell-1."""
    child = subprocess.Popen([sys.executable, "-c", HELD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "True\n"
    child.kill()
    child.communicate()
    return tmp_path


def test_of_many_that_try_at_once_one_has_it(tmp_path):
    runs = [Leases(tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        for unit in (f"cell-{n}" for n in range(40)):
            gate = threading.Barrier(8)
            won = list(threads.map(lambda run, gate=gate, unit=unit: (gate.wait(), run.attempt(unit))[1], runs))
            assert won.count(True) == 1
            runs[won.index(True)].release(unit)
    for run in runs:
        run.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_of_many_that_take_over_from_the_dead_one_succeeds(tmp_path):
    dead = Leases(tmp_path)
    for n in range(40):
        assert dead.attempt(f"cell-{n}")
    path = tmp_path / "leases" / "runs" / dead.token
    path.write_bytes(path.read_bytes().replace(f'"pid": {os.getpid()}'.encode(), b'"pid": 999999999'))
    dead._ended.set()
    runs = [Leases(tmp_path) for _ in range(8)]
    for run in runs:
        run._take_over("none")  # begins nothing
    with ThreadPoolExecutor(8) as threads:
        for n in range(40):
            gate = threading.Barrier(8)
            won = list(threads.map(lambda run, gate=gate, n=n: (gate.wait(), run._take_over(f"cell-{n}"))[1], runs))
            assert won.count(True) == 1


def test_a_unit_is_free_again_after_its_release(tmp_path):
    one, two = Leases(tmp_path), Leases(tmp_path)
    assert one.attempt("cell-1")
    assert not one.attempt("cell-1"), "another thread of the run that has it"
    assert not two.attempt("cell-1")
    assert two.attempt("cell-2")
    one.release("cell-1")
    assert two.attempt("cell-1")
    one.close()
    two.close()


def test_a_killed_run_of_this_machine_is_dead_at_once(killed):
    mine = Leases(killed)
    assert mine.holder("cell-1").dead
    assert mine.attempt("cell-1")
    mine.close()


def test_a_process_with_the_number_of_a_dead_one_is_another(tmp_path):
    other = Leases(tmp_path)
    assert other.attempt("cell-1")
    assert not Leases(tmp_path).holder("cell-1").dead
    path = tmp_path / "leases" / "runs" / other.token
    path.write_bytes(path.read_bytes().replace(store_runs._born(os.getpid()).encode(), b"1"))
    assert Leases(tmp_path).holder("cell-1").dead
    other.close()


def test_silence_is_death_only_after_the_patience_of_the_one_who_looks(elsewhere, clock):
    root, _, _ = elsewhere
    mine = Leases(root, every=5, patience=60)
    for _ in range(12):
        assert not mine.attempt("cell-1")
        clock.now += 5
    assert mine.attempt("cell-1")
    mine.close()


def test_a_heartbeat_begins_the_patience_again(elsewhere, clock):
    root, _, beat = elsewhere
    mine = Leases(root, every=5, patience=60)
    for count in range(100):
        beat(count)
        assert not mine.attempt("cell-1")
        clock.now += 5
    mine.close()


def test_a_pause_of_the_one_who_looks_says_nothing(elsewhere, clock):
    """A laptop that was shut, a process that was stopped: monotonic clocks may run on meanwhile."""
    root, _, _ = elsewhere
    mine = Leases(root, every=5, patience=60)
    assert not mine.attempt("cell-1")
    clock.now += 100_000
    assert not mine.attempt("cell-1")
    mine.close()


def test_one_that_was_taken_for_dead_leaves_the_lease_to_the_other(elsewhere, clock):
    root, token, _ = elsewhere
    mine = Leases(root, every=5, patience=0)
    assert mine.attempt("cell-1")
    late = Leases(root)
    late.token = token
    late.release("cell-1")
    assert mine.holder("cell-1").token == mine.token
    mine.close()


def test_the_heart_beats_while_something_is_held(tmp_path):
    mine = Leases(tmp_path, every=0.01)
    assert mine.attempt("cell-1")
    path = tmp_path / "leases" / "runs" / mine.token
    first = path.read_bytes()
    for _ in range(60_000):  # as long as a busy machine takes
        if path.read_bytes() != first:
            break
        threading.Event().wait(0.01)
    assert path.read_bytes()[12:] == first[12:]
    assert path.read_bytes() != first
    mine.close()
    assert not path.exists()
    assert threading.active_count() == 1


def test_a_run_that_cannot_be_read_is_waited_for(elsewhere, clock):
    root, token, _ = elsewhere
    (root / "leases" / "runs" / token).write_bytes(b"\0" * 30)
    mine = Leases(root, every=5, patience=60)
    assert not mine.attempt("cell-1")
    assert str(mine.holder("cell-1")) == "another host (process 0, since an unknown time)"
    mine.close()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "leases").write_text("mine")
    with pytest.raises(StoreError, match=r"can't be written .*; choose another place"):
        Leases(tmp_path).attempt("cell-1")


def test_a_claim_waits_and_gives_up_when_told(tmp_path):
    other, mine = Leases(tmp_path), Leases(tmp_path)
    assert other.attempt("cell-1")

    def stop():
        raise InterruptedError

    with pytest.raises(InterruptedError), mine.claimed("cell-1", stop):
        pass
    with mine.claimed("cell-1", lambda: other.release("cell-1")):
        assert mine.holder("cell-1").token == mine.token
    assert mine.holder("cell-1") is None
    mine.close()
    other.close()


def test_a_queue_leaves_to_others_what_they_have_and_takes_what_they_made(tmp_path, clock):
    other, mine, made = Leases(tmp_path), Leases(tmp_path), {"b"}
    assert other.attempt("c")
    queue = Queue(mine, ["ab", "cd"], list, str, made.__contains__)
    assert [queue.next(), queue.next(), queue.next()] == [("ab", ["a"]), ("cd", ["d"]), None]
    assert (queue.come(), queue.waiting) == ([("ab", "b")], True)
    assert queue.holders() == [str(other.holder("c"))]
    made.add("c")
    other.release("c")
    assert queue.next() is None, "it looks again only after a while"
    clock.now += POLL
    assert (queue.next(), queue.come(), queue.waiting) == (None, [("cd", "c")], False)
    mine.close()
    other.close()


def test_a_queue_does_what_another_run_gave_back_undone(tmp_path, clock):
    other, mine = Leases(tmp_path), Leases(tmp_path)
    assert other.attempt("a")
    queue = Queue(mine, ["a"], list, str, lambda piece: False)
    assert queue.next() is None
    other.release("a")
    clock.now += POLL
    assert queue.next() == ("a", ["a"])
    mine.close()
    other.close()


def test_what_dead_runs_left_is_told_and_forgotten(killed):
    [run] = store_runs.runs(killed)
    assert (run.units, run.state) == (["cell-1"], "dead")
    store_runs.forget(killed, run)
    assert store_runs.runs(killed) == []
    assert not [path for path in killed.rglob("*") if path.is_file()]


def test_folders_that_go_while_it_looks_are_no_error(killed, monkeypatch):
    listdir = os.listdir

    def vanishing(path):
        names = listdir(path)
        if Path(path).name == "leases":
            names.append("gone-since")
        return names

    monkeypatch.setattr(os, "listdir", vanishing)
    assert [run.units for run in store_runs.runs(killed)] == [["cell-1"]]
    mine = Leases(killed)
    assert mine.attempt("cell-2")
    mine.close()
