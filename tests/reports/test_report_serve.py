"""`solverbench serve`: the loopback address alone, nothing outside the reports, fresh while a run is going on."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from reports_large import HOSTILE, write

from solverbench.cli import server
from solverbench.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    write(root / "reports" / "a", ["dpm", HOSTILE[0]], ["digits"], (3,), ["frechet_data"])
    (root / "reports" / "a" / "report.html").write_text("<p>the page</p>")
    (root / "reports" / "damaged").mkdir()
    (root / "reports" / "damaged" / "bundle.json").write_text("{")
    (root / "store.json").write_text("secret")
    (tmp_path / "outside.html").write_text("secret")
    (root / "reports" / "a" / "link.html").symlink_to(tmp_path / "outside.html")
    (root / "reports" / "a" / ".hidden.html").write_text("secret")
    (root / "reports" / "a" / "secret.key").write_text("secret")
    return root


@pytest.fixture
def port(store: Path) -> Iterator[int]:
    pages = server.serve(store, 0)
    thread = threading.Thread(target=pages.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield pages.server_address[1]
    pages.shutdown()
    thread.join()
    pages.server_close()


def ask(port: int, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode("utf-8", "replace")
    connection.close()
    return answer.status, text, dict(answer.getheaders())


def test_it_listens_on_the_loopback_address_alone(store: Path) -> None:
    pages = server.serve(store, 0)
    assert pages.server_address[0] == "127.0.0.1"
    pages.server_close()


def test_the_list_has_every_run_and_escapes_it(port: int) -> None:
    status, text, headers = ask(port, "/")
    assert status == 200
    assert 'href="/runs/a"' in text
    assert HOSTILE[0] not in text
    assert "&lt;/script&gt;" in text
    assert "bundle.json can&#39;t be read" in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_a_report_and_its_files_are_served_with_their_kinds(port: int) -> None:
    assert ask(port, "/files/a/report.html")[1] == "<p>the page</p>"
    status, text, headers = ask(port, "/files/a/results.csv")
    assert status == 200
    assert text.startswith("teacher,")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(port, "/files/a/report.html", method="HEAD")[:2] == (200, "")
    assert "/files/a/report.html" in ask(port, "/runs/a")[1]


@pytest.mark.parametrize(
    "path",
    ["/files/a/../../store.json", "/files/a/..%2f..%2fstore.json", "/files/..%2f/store.json", "/files/../store.json",
     "/files/a%2f..%2f../store.json", "//etc/passwd", "/files/a/%2fetc%2fpasswd", "/files/a//etc/passwd",
     "/files/a/..%5c..%5cstore.json", "/files/a/%2e%2e/store.json", "/files/a/link.html", "/files/a/.hidden.html",
     "/files/a/secret.key", "/files/a/", "/files/a/report.html%00.png", "/runs/..", "/runs/b", "/files/a/.",
     "/store.json", "/files/./report.html/..", "/%66iles"],
)  # fmt: skip
def test_nothing_else_is_ever_opened(port: int, path: str) -> None:
    status, text, _ = ask(port, path)
    assert status == 404
    assert "secret" not in text
    assert "root:" not in text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_page_from_elsewhere_cannot_reach_it_by_a_name_of_its_own(port: int, host: str) -> None:
    assert ask(port, "/", host=host or " ")[0] == 403
    assert ask(port, "/", host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_only_reads(port: int, method: str) -> None:
    assert ask(port, "/files/a/report.html", method=method)[0] == 501


def test_what_is_computed_now_is_shown_and_what_ended_is_not(store: Path, port: int) -> None:
    cell = store / "cells" / "ab" / ("ab" * 32)
    (cell / "blocks").mkdir(parents=True)
    key = {"seeds": "50000-50299", "block": 100, "nfe": 4}
    names = {"solver": "gas", "teacher": HOSTILE[0]}
    (cell / "cell.json").write_text(json.dumps({"key": key, "names": names}))
    (cell / "blocks" / "50000-50099.npz").write_bytes(b"")
    text = ask(port, "/")[1]
    assert 'data-live="yes"' in text
    assert "gas NFE 4 on &lt;/script&gt;" in text
    assert '<progress max="3" value="1"' in text
    (cell / "metrics.json").write_text("{}")
    old = time.time() - 3600
    os.utime(cell / "blocks", (old, old))
    text = ask(port, "/")[1]
    assert "gas NFE 4" not in text
    assert 'data-live="no"' in text


def test_a_report_drawn_anew_has_another_tag(store: Path, port: int) -> None:
    before = ask(port, "/files/a/report.html", method="HEAD")[2]["ETag"]
    assert ask(port, "/files/a/report.html", method="HEAD")[2]["ETag"] == before
    (store / "reports" / "a" / "report.html").write_text("<p>another</p>")
    assert ask(port, "/files/a/report.html", method="HEAD")[2]["ETag"] != before


def test_a_missing_folder_a_bad_port_and_a_taken_one_are_one_line(store: Path, port: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="doesn't exist"):
        server.serve(tmp_path / "none", 0)
    with pytest.raises(UserError, match="not a port number"):
        server.serve(store, 70000)
    with pytest.raises(UserError, match=f"--port {port}: can't be opened"):
        server.serve(store, port)


COMMANDS = (["report", "a"], ["report", "b", "--width", "neurips", "--baseline", "gas"], ["compare", "a", "b"])

BLOCKED = """
import sys, traceback
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'torchdiffeq', 'safetensors'):
            raise ImportError('blocked ' + name)
sys.meta_path.insert(0, Block())
from solverbench.reports.drawing import base
base.FORMATS = ("png",)
from solverbench.cli.main import main
def code(words):
    try:
        main(words)
    except SystemExit as ended:
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
    return 1
sys.exit(repr([code([*words, '--out', sys.argv[1]]) for words in {commands}]))
"""
"""All commands in one process: most of the time goes to its start. It ends with their exit codes on stderr.

PNG alone is drawn, a third of the work: what is imported doesn't depend on the other formats.
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int], str]:
    """A store of old reports after every command of `COMMANDS`, their exit codes, and what they said on stderr."""
    runs = tmp_path_factory.mktemp("old") / "runs"
    for name in ("a", "b"):
        write(runs / "reports" / name, ["dpm", "gas"], ["gone-teacher"], (3, 4), ["rmse_teacher"])
    line = [sys.executable, "-c", BLOCKED.format(commands=COMMANDS), str(runs)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)
    return runs, json.loads(done.stderr.splitlines()[-1]), done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_an_old_stores_reports_need_neither_torch_nor_a_teacher(
    old: tuple[Path, list[int], str], command: list[str]
) -> None:
    runs, codes, said = old
    assert codes[COMMANDS.index(command)] == 0, said[-1500:]
    if command[0] == "report":
        assert (runs / "reports" / command[1] / "report.html").stat().st_size > 50_000


def test_a_reports_page_has_an_origin_of_its_own_and_reaches_no_server(port: int) -> None:
    policy = ask(port, "/files/a/report.html")[2]["Content-Security-Policy"]
    assert policy.startswith("sandbox allow-scripts allow-popups;")
    assert "allow-same-origin" not in policy
    assert "connect-src 'none'" in policy
    assert "sandbox" in ask(port, "/files/a/results.csv")[2]["Content-Security-Policy"]
    assert "sandbox" not in ask(port, "/runs/a")[2]["Content-Security-Policy"]


def test_500_requests_at_once_are_all_answered_by_few_threads(port: int) -> None:
    answers, most = list[int](), 0
    gate = threading.Event()

    def one() -> None:
        gate.wait()
        answers.append(ask(port, "/files/a/results.csv")[0])

    clients = [threading.Thread(target=one) for _ in range(500)]
    for client in clients:
        client.start()
    gate.set()
    while any(client.is_alive() for client in clients):
        most = max(most, sum(thread.name.startswith("serve_") for thread in threading.enumerate()))
        clients[-1].join(0.01)
    assert answers == [200] * 500
    assert 1 < most <= server.WORKERS


def test_folders_of_any_name_and_odd_files_leave_the_list_whole(store: Path, port: int) -> None:
    odd = os.fsencode(store / "reports") + b"/caf\xe9"
    os.mkdir(odd)
    with open(odd + b"/bundle.json", "wb") as file:
        file.write(b"{}")
    (store / "reports" / "pipe").mkdir()
    os.mkfifo(store / "reports" / "pipe" / "bundle.json")
    (store / "reports" / "deep").mkdir()
    (store / "reports" / "deep" / "bundle.json").write_text("[" * 100_000)
    cell = store / "cells" / "ab" / ("ab" * 32)
    cell.mkdir(parents=True)
    os.mkfifo(cell / "cell.json")
    status, text, _ = ask(port, "/")
    assert status == 200
    assert 'href="/runs/a"' in text
    assert "caf\\udce9" in text
    assert ask(port, "/runs/caf%E9")[0] == 200
