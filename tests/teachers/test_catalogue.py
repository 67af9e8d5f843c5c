"""The catalogue: every published teacher described alike; fetched with resume and pinned; a user's own imported."""

import hashlib
import http.server
import io
import json
import os
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
from solverbench.teachers.families import edm
from solverbench.teachers.teacher import SAMPLER_NFE

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
    shift = 0

    @staticmethod
    def tag(body):
        return f'"{hashlib.sha256(body).hexdigest()[:8]}"'

    def do_GET(self):
        body = self.content.get(self.path)
        if body is None:
            self.send_error(404)
            return
        tag = self.tag(body)
        asked = self.headers.get("Range")
        Server.ranges.append(asked)
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.headers["If-Range"] == tag else 0
        if body.startswith(b"to "):
            self.send_response(302)
            self.send_header("Location", body.removeprefix(b"to ").decode())
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin + self.shift}-{len(body) - 1}/{len(body)}")
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
    monkeypatch.setattr(downloads, "SCHEMES", ("https", "http"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
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


def interrupted(server, path):
    """Leave half of a download."""
    Server.limit = 500_000
    with pytest.raises(MissingError):
        downloads.fetch(f"{server}/net.pkl", path)
    Server.limit = None
    return path.with_name(f".{path.name}.part")


@pytest.mark.parametrize("scheme", ["file", "http", "ftp", "data"])
def test_only_https_is_downloaded_and_redirected_to(server, tmp_path, monkeypatch, scheme):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    url = f"{scheme}://{secret}" if scheme != "data" else "data:,secret"
    Server.content["/away"] = f"to {url}".encode()
    path = tmp_path / "folder" / "net.pkl"
    refused = f"scheme isn't https{' or http' * (scheme != 'http')}"
    if scheme != "http":  # the server of this test is no https
        with pytest.raises(MissingError, match=rf"is not allowed|the server redirects to .*, whose {refused}"):
            downloads.fetch(f"{server}/away", path)
    else:
        monkeypatch.setattr(downloads, "SCHEMES", ("https",))
        url = f"{server}/net.pkl"
    with pytest.raises(MissingError, match=f"an address whose {refused}"):
        downloads.fetch(url, path)
    assert list(path.parent.iterdir()) == []


def test_a_redirect_stays_on_the_site_or_its_own_network_unless_the_checksum_is_known(server, tmp_path):
    Server.content["/away"] = f"to {server.replace('127.0.0.1', 'localhost')}/net.pkl".encode()
    path = tmp_path / "net.pkl"
    with pytest.raises(MissingError, match=r"the server redirects to http://localhost:\d+/net.pkl, another site"):
        downloads.fetch(f"{server}/away", path)
    Server.content["/here"] = f"to {server}/net.pkl".encode()
    downloads.fetch(f"{server}/here", tmp_path / "here.pkl")
    downloads.download(f"{server}/away", path, sha256=hashlib.sha256(CONTENT).hexdigest())
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("home", "to", "right"),
    [
        ("https://huggingface.co/a", "https://cdn-lfs-us-1.hf.co/a", True),
        ("https://huggingface.co/a", "https://cdn-lfs.huggingface.co/a", True),
        ("https://huggingface.co/a", "https://huggingface.co.evil.org/a", False),
        ("https://huggingface.co/a", "https://huggingface.co@evil.org/a", False),
        ("https://huggingface.co/a", "https://evilhf.co/a", False),
        ("https://github.com/a", "https://release-assets.githubusercontent.com/a", True),
        ("https://objects.githubusercontent.com/a", "https://release-assets.githubusercontent.com/a", True),
        ("https://zenodo.org/a", "https://zenodo.org/b", True),
        ("https://openaipublic.blob.core.windows.net/a", "https://evil.blob.core.windows.net/a", False),
        ("https://ommer-lab.com/a", "https://github.com/a", False),
    ],
)
def test_the_hosts_that_a_site_may_redirect_to(home, to, right):
    assert (downloads.refused(to, home) == "") is right


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe", "folder"])
def test_what_stands_where_a_download_is_written_is_never_followed(server, tmp_path, kind):
    path, mine = tmp_path / "folder" / "net.pkl", tmp_path / "mine"
    path.parent.mkdir()
    mine.write_bytes(b"mine")
    part = path.with_name(".net.pkl.part")
    if kind == "pipe":
        os.mkfifo(part)
    elif kind == "folder":
        part.mkdir()
    elif kind == "hard link":
        part.hardlink_to(mine)
    else:
        part.symlink_to(mine if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(RecordError, match="a link, a special file or another user's; delete it"):
        downloads.fetch(f"{server}/net.pkl", path)
    assert mine.read_bytes() == b"mine"
    assert not (tmp_path / "nowhere").exists()
    assert os.path.lexists(part)


def test_a_planted_partial_file_is_not_continued(server, tmp_path):
    path = tmp_path / "net.pkl"
    part = interrupted(server, path)
    told = json.loads(part.with_suffix(".tag").read_text())
    assert told == {"url": f"{server}/net.pkl", "tag": Server.tag(CONTENT), "size": len(CONTENT)}
    plants = {
        "no record": None,
        "text": b'"tag"',
        "another address": json.dumps({**told, "url": "https://example.org/net.pkl"}).encode(),
        "a smaller file": json.dumps({**told, "size": 3}).encode(),
        "a tag of two lines": json.dumps({**told, "tag": "a\r\nHost: b"}).encode(),
    }
    for what, record in plants.items():
        part.write_bytes(b"planted")
        part.with_suffix(".tag").unlink(missing_ok=True)
        if record is not None:
            part.with_suffix(".tag").write_bytes(record)
        Server.ranges.clear()
        downloads.download(f"{server}/net.pkl", path)
        assert (path.read_bytes(), Server.ranges) == (CONTENT, [None]), what
        path.unlink()


def test_a_partial_file_of_another_user_is_refused(server, tmp_path, monkeypatch):
    part = interrupted(server, tmp_path / "net.pkl")
    monkeypatch.setattr(os, "geteuid", lambda: part.stat().st_uid + 1)
    with pytest.raises(RecordError, match="another user's"):
        downloads.fetch(f"{server}/net.pkl", tmp_path / "net.pkl")


def test_a_reply_with_another_part_is_refused_and_the_next_download_begins_anew(server, tmp_path, monkeypatch):
    path = tmp_path / "net.pkl"
    interrupted(server, path)
    monkeypatch.setattr(Server, "shift", 1)
    with pytest.raises(MissingError, match="the server sent another part than the one from byte"):
        downloads.fetch(f"{server}/net.pkl", path)
    downloads.fetch(f"{server}/net.pkl", path)
    assert path.read_bytes() == CONTENT


def test_offline_it_says_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "SCHEMES", ("https", "http"))
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
    assert (teacher.sampler, teacher.sampler_nfe) == (edm.SAMPLER, SAMPLER_NFE)  # a paper's own isn't converged
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
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.ckpt", bytes(1_000_000))
    with pytest.raises(RecordError, match="more than 100 times as many as the archive"):
        downloads.member(path, "model.ckpt", tmp_path / "y")
    assert not (tmp_path / "y").exists()


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
    with pytest.raises(RecordError, match="not an EDM network as this version converts it"):
        sb.load_teacher(f"{path}:family=edm")
