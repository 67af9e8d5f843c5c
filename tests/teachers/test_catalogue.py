"""The catalogue: every published teacher described alike; fetched with resume and pinned; a user's own imported."""

import hashlib
import http.server
import io
import json
import threading
import zipfile
from typing import ClassVar

import edm_pickles
import gaussians
import pytest
import torch
from click.testing import CliRunner

import solverbench as sb
from solverbench import downloads, registries, userdata
from solverbench.cli.main import main
from solverbench.errors import MissingError, RecordError, UserError
from solverbench.teachers import catalogue

pytestmark = pytest.mark.usefixtures("unrendered", "few_compared")

ENTRY = registries.catalogue()["cifar10"]
CONTENT = bytes(range(256)) * 5000


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path):
    monkeypatch.setenv(userdata.VARIABLE, str(tmp_path / "data"))
    gaussians.register()


def invoke(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)


class Server(http.server.BaseHTTPRequestHandler):
    """Files by name, in ranges, with a tag; breaks off after `limit` bytes where told."""

    content: ClassVar[dict] = {}
    limit: int | None = None
    ranges: ClassVar[list] = []

    def do_GET(self):
        body = self.content.get(self.path)
        if body is None:
            self.send_error(404)
            return
        tag = f'"{hashlib.sha256(body).hexdigest()[:8]}"'
        asked = self.headers.get("Range")
        Server.ranges.append(asked)
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.headers["If-Range"] == tag else 0
        self.send_response(206 if begin else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body) - begin))
        self.end_headers()
        end = len(body) if self.limit is None else min(len(body), begin + self.limit)
        self.wfile.write(body[begin:end])

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Server, "content", {"/net.pkl": CONTENT})
    monkeypatch.setattr(Server, "limit", None)
    monkeypatch.setattr(Server, "ranges", [])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def publish(monkeypatch, entry):
    """Make the catalogue this one entry."""
    monkeypatch.setattr(registries, "catalogue", lambda: {"mine": ENTRY | entry})


def test_every_teacher_of_the_papers_is_described_alike():
    published = registries.catalogue()
    assert {"cifar10", "ffhq64", "afhqv2", "lsun_bedroom_ldm", "imagenet256_ldm", "sd15"} <= set(published)
    assert {"imagenet64", "ffhq_ldm", "lsun_bedroom_cm", "imagenet256_adm"} <= set(published)
    for name, entry in published.items():
        assert set(ENTRY) <= set(entry), name
        assert set(entry) - set(ENTRY) <= {"guidance", "classifier"}, name
        assert sb.make(entry["sampler"]).steps(entry["sampler_nfe"]) > 0, name
        for role in catalogue.FILES:
            if role in entry:
                assert entry[role]["url"].startswith("https://") or entry[role]["url"] == "unknown", name
        assert name not in registries.teachers


def test_the_catalogue_is_listed_and_described():
    listed = invoke("teachers", "list")
    assert listed.exit_code == 0
    assert "digits" in listed.stdout
    assert "to fetch" in next(line for line in listed.stdout.splitlines() if line.startswith("cifar10 "))
    rows = json.loads(invoke("teachers", "list", "--json").stdout)
    assert {row["name"] for row in rows} == {*registries.teachers, *registries.catalogue()}
    told = invoke("teachers", "info", "cifar10").stdout
    for part in (
        "edm-cifar10-32x32-uncond-vp.pkl",
        "CC BY-NC-SA 4.0",
        "unipc:variant=bh1",
        "20 calls",
        "seeds 50000-99999",
    ):
        assert part in told
    wrong = invoke("teachers", "info", "cifar")
    assert wrong.exit_code == 2
    assert "did you mean 'cifar10'" in wrong.stderr


def test_a_download_is_told_pinned_and_not_repeated(server, tmp_path):
    told = []
    path = tmp_path / "teachers" / "net.pkl"
    sha = downloads.fetch(f"{server}/net.pkl", path, lambda have, total: told.append((have, total)))
    assert path.read_bytes() == CONTENT
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert sha == hashlib.sha256(CONTENT).hexdigest() == downloads.read_pins(path.parent)["net.pkl"]["sha256"]
    downloads.fetch(f"{server}/net.pkl", path, lambda have, total: pytest.fail("downloaded again"))
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(RecordError, match="was pinned at its first use"):
        downloads.fetch(f"{server}/net.pkl", path, lambda have, total: None)
    assert sorted(each.name for each in path.parent.iterdir()) == ["net.pkl", "pins.json"]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    path = tmp_path / "net.pkl"
    Server.limit = 500_000
    with pytest.raises(
        MissingError,
        match=r"bytes are kept, and the next download resumes there; run this again, or download it by other means to",
    ):
        downloads.fetch(f"{server}/net.pkl", path, lambda have, total: None)
    kept = (tmp_path / ".net.pkl.part").stat().st_size
    assert 0 < kept < len(CONTENT)
    Server.limit = None
    told = []
    downloads.fetch(f"{server}/net.pkl", path, lambda have, total: told.append(have))
    assert Server.ranges == [None, f"bytes={kept}-"]
    assert told[0] == kept
    assert path.read_bytes() == CONTENT
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_a_file_that_changed_meanwhile_is_begun_anew(server, tmp_path):
    path = tmp_path / "net.pkl"
    Server.limit = 500_000
    with pytest.raises(MissingError):
        downloads.fetch(f"{server}/net.pkl", path, lambda have, total: None)
    Server.limit, Server.content["/net.pkl"] = None, CONTENT[::-1]
    downloads.fetch(f"{server}/net.pkl", path, lambda have, total: None)
    assert path.read_bytes() == CONTENT[::-1]


def test_offline_it_says_what_to_put_where(monkeypatch, tmp_path):
    publish(monkeypatch, {"checkpoint": {"url": "http://127.0.0.1:9/net.pkl"}, "reference": {"url": "unknown"}})
    told = invoke("teachers", "fetch", "mine")
    assert told.exit_code == 3
    place = userdata.teachers() / "mine" / "net.pkl"
    assert "http://127.0.0.1:9/net.pkl: can't be downloaded" in told.stderr
    assert f"by other means to {place}" in told.stderr.replace("\n", "")
    place.parent.mkdir(parents=True, exist_ok=True)
    edm_pickles.golden(tmp_path, "ddpmpp_uncond").rename(place)
    done = invoke("teachers", "fetch", "mine")
    assert done.exit_code == 0, done.stderr
    assert sb.load_teacher("mine").shape == (3, 16, 16)


def test_what_is_fetched_is_a_teacher_by_its_name_and_verified(server, monkeypatch, tmp_path):
    Server.content["/net.pkl"] = edm_pickles.golden(tmp_path, "ddpmpp_cond").read_bytes()
    Server.content["/ref.npz"] = b"statistics"
    publish(monkeypatch, {"checkpoint": {"url": f"{server}/net.pkl"}, "reference": {"url": f"{server}/ref.npz"}})
    absent = invoke("teachers", "verify", "mine")
    assert absent.exit_code == 4
    assert "run: solverbench teachers fetch mine" in absent.stdout
    assert [line.split("  ")[0].strip() for line in absent.stdout.splitlines()] == ["FAIL", "missing, optional"]
    done = invoke("teachers", "fetch", "mine")
    assert done.exit_code == 0, done.stderr
    assert "run: solverbench run --teachers mine" in done.stdout
    teacher = sb.load_teacher("mine")
    assert (teacher.sampler, teacher.sampler_nfe) == (ENTRY["sampler"], ENTRY["sampler_nfe"])
    assert (userdata.teachers() / "mine" / "ref.npz").read_bytes() == b"statistics"
    good = invoke("teachers", "verify", "mine")
    assert good.exit_code == 0
    assert "a call is finite" in good.stdout
    assert good.stdout.count("ok  ") == 3
    (userdata.teachers() / "mine" / "ref.npz").unlink()
    without = invoke("teachers", "verify", "mine")
    assert without.exit_code == 0
    assert "missing, optional  reference: " in without.stdout
    (userdata.teachers() / "mine" / "net.pkl").write_bytes(b"something else")
    bad = invoke("teachers", "verify", "mine")
    assert bad.exit_code == 4
    assert "was pinned at its first use" in bad.stdout


def test_the_one_wanted_file_is_taken_from_an_archive(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../model.ckpt", b"weights")
        archive.writestr("notes.txt", b"")
    path = tmp_path / "a" / "model.zip"
    path.parent.mkdir()
    path.write_bytes(buffer.getvalue())
    assert downloads.member(path, "model.ckpt", path.parent / "checkpoint.ckpt").read_bytes() == b"weights"
    assert not (tmp_path.parent / "model.ckpt").exists()
    with pytest.raises(RecordError, match=r"holds 0 files named other\.ckpt"):
        downloads.member(path, "other.ckpt", tmp_path / "x")
    path.write_bytes(b"no archive")
    with pytest.raises(RecordError, match="not a whole zip archive"):
        downloads.member(path, "model.ckpt", tmp_path / "y")


def test_a_users_own_checkpoint_is_imported_and_runs_by_its_name(tmp_path):
    path = edm_pickles.golden(tmp_path, "ddpmpp_cond")
    done = invoke("teachers", "import", path, "--name", "own", "--set", "classes=fixed:3", "--set", "frame=vp")
    assert done.exit_code == 0, done.stderr
    teacher = sb.load_teacher("own")
    assert (teacher.condition.classes, type(teacher.schedule).__name__) == ("fixed:3", "VPLinear")
    assert "imported" in next(row for row in invoke("teachers", "list").stdout.splitlines() if row.startswith("own "))
    assert "classes" in invoke("teachers", "info", "own").stdout
    assert invoke("teachers", "verify", "own").exit_code == 0
    for name, line in (
        ("own", "already used by"),
        ("digits", "already used by the catalogue"),
        ("a b", "not one word"),
    ):
        refused = invoke("teachers", "import", path, "--name", name)
        assert refused.exit_code == 2
        assert line in refused.stderr


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: path, "there is no such file or folder"),
        (lambda path: path.with_suffix(".txt"), "there is no such file or folder"),
    ],
)
def test_an_import_of_nothing_is_one_line(tmp_path, make, line):
    told = invoke("teachers", "import", make(tmp_path / "none.pkl"), "--name", "own")
    assert told.exit_code == 3
    assert line in told.stderr
    assert told.stderr.count("\n") == 1


def test_an_import_that_fails_leaves_nothing(tmp_path):
    path = tmp_path / "bad.pkl"
    path.write_bytes(b"bad")
    with pytest.raises(RecordError):
        catalogue.take(path, "own", {})
    with pytest.raises(UserError, match="no classes"):
        catalogue.take(edm_pickles.golden(tmp_path, "ddpmpp_uncond"), "own", {"classes": "seed"})
    assert not list(userdata.teachers().glob("*.toml"))


def test_a_checkpoint_of_another_family_is_named(tmp_path):
    path = gaussians.write(tmp_path / "g.safetensors", torch.zeros(2, 1, 4, 4))
    with pytest.raises(RecordError, match="isn't an EDM network converted by this version"):
        sb.load_teacher(f"{path}:family=edm")
