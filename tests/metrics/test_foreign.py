"""Statistics files of other projects in their own formats, and vectors that don't belong to their moments."""

import os
import pickle

import numpy as np
import pytest

from solverbench import files
from solverbench.errors import UserError
from solverbench.evaluation import reference_build, references
from solverbench.evaluation.reference_checks import checked

TENSORFLOW, DINO = "clean-fid/legacy_tensorflow@123456789abc", "dinov2-large@123456789abc"
ROWS = np.random.default_rng(0).normal(size=(200, 4)) * [1, 2, 3, 4]


@pytest.fixture(autouse=True)
def own_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SOLVERBENCH_DATA", str(tmp_path / "data"))


def moments(rows=ROWS):
    return {"mu": rows.mean(0), "sigma": np.cov(rows, rowvar=False)}


def edm2():
    """What calculate_metrics.py of EDM2 pickles: a metric's name to mu and sigma, and the number of images."""
    return {"num_images": 50000, "fid": moments(), "fd_dinov2": moments(2 * ROWS)}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(("extractor", "scale"), [(TENSORFLOW, 1), (DINO, 2)])
def test_edm2s_pickles_come_in_by_the_extractor_that_is_asked_for(tmp_path, protocol, extractor, scale):
    (tmp_path / "img512.pkl").write_bytes(pickle.dumps(edm2(), protocol))
    found = references.load(str(tmp_path / "img512.pkl"), tmp_path, extractor)
    assert np.array_equal(found.moments.mean, scale * ROWS.mean(0))
    assert found.moments.cov == pytest.approx(scale**2 * np.cov(ROWS, rowvar=False), rel=1e-12)
    assert "50000 images" in found.name


@pytest.mark.parametrize(("kind", "made_by"), [(None, TENSORFLOW), ("edm2", TENSORFLOW), ("edm2-dinov2", DINO)])
def test_edm2s_pickles_are_stored_by_kind(tmp_path, kind, made_by):
    (tmp_path / "img512.pkl").write_bytes(pickle.dumps(edm2()))
    path = reference_build.build("r", str(tmp_path / "img512.pkl"), tmp_path, kind=kind)
    assert references.about(path)["extractor"] == made_by.partition("@")[0]
    assert references.about(path)["n"] == 50000
    with pytest.raises(UserError, match=r"--count 7: .* says 50000 images"):
        reference_build.build("s", str(tmp_path / "img512.pkl"), tmp_path, count=7)


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fid": Harm()}, r"asks for posix\.mkdir, .* nothing in it was run"),
        ({"mu": np.array([Harm()])}, r"asks for posix\.mkdir|numpy\.dtype\(O8\)"),
        ({"fid": moments(), "more": np.dtype("O")}, r"asks for"),
        ([1, 2], "without mu and sigma"),
        ({"fd_dinov2": moments(), "fid": 3}, "--kind edm2: .* holds fd_dinov2, fid, not fid"),
        ({"other": moments()}, "holds other, not mu and sigma"),
        (b"cut", "not a whole pickle"),
    ],
)
def test_a_pickle_of_anything_else_is_one_line_and_runs_nothing(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(moments())[:60] if content == b"cut" else pickle.dumps(content))
    kind = "edm2" if "kind" in message else None
    with pytest.raises(UserError, match=message) as caught:
        reference_build.build("r", str(tmp_path / "a.pkl"), tmp_path, kind=kind)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harmed").exists()


def test_a_pickle_of_mu_and_sigma_alone_comes_in(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(moments()))
    found = references.load(str(tmp_path / "a.pkl"), tmp_path, TENSORFLOW)
    assert np.array_equal(found.moments.mean, ROWS.mean(0))


def test_a_covariance_may_be_called_cov(tmp_path):
    np.savez(tmp_path / "a.npz", mu=moments()["mu"], cov=moments()["sigma"])
    found = references.load(str(tmp_path / "a.npz"), tmp_path, TENSORFLOW)
    assert np.array_equal(found.moments.cov, moments()["sigma"])


@pytest.mark.parametrize("name", ["feats", "features", "pool_3", "npy"])
def test_feature_vectors_alone_come_in(tmp_path, name):
    path = tmp_path / ("a.npy" if name == "npy" else "a.npz")
    if name == "npy":
        np.save(path, ROWS)
    else:
        np.savez(path, **{name: ROWS})
    stored = reference_build.build("r", str(path), tmp_path)
    found = references.load("r", tmp_path, TENSORFLOW)
    assert np.array_equal(found.features, ROWS)
    assert references.about(stored)["n"] == 200
    with pytest.raises(UserError, match=r"--count 300: .* says 200 images"):
        reference_build.build("s", str(path), tmp_path, count=300)


OTHERS = np.random.default_rng(5).normal(size=(200, 4)) * [1, 2, 3, 4]
MIXED = ROWS @ np.linalg.qr(np.random.default_rng(6).normal(size=(4, 4)))[0]
"""Of the same total variance, in other directions."""


@pytest.mark.parametrize("n", [None, 200, 1000])
@pytest.mark.parametrize(
    ("vectors", "what"),
    [
        (ROWS + 20, "another mean"),
        (3 * (ROWS - ROWS.mean(0)) + ROWS.mean(0), "another covariance"),
        ((MIXED - MIXED.mean(0)) * [0.1, 1, 1, 1] + ROWS.mean(0), "another covariance"),
    ],
)
def test_vectors_of_other_images_are_refused(tmp_path, n, vectors, what):
    np.savez(tmp_path / "a.npz", **moments(), features=vectors)
    with pytest.raises(UserError, match=rf"200 feature vectors don't belong to its mu and sigma \({what}\)"):
        reference_build.build("r", str(tmp_path / "a.npz"), tmp_path, count=n)


def test_vectors_that_are_all_of_them_must_agree_and_a_sample_may_differ_as_samples_do(tmp_path):
    for name, vectors in (("own", ROWS.astype(np.float32)), ("sample", OTHERS)):
        np.savez(tmp_path / f"{name}.npz", **moments(), features=vectors)
    reference_build.build("own", str(tmp_path / "own.npz"), tmp_path, count=200)
    reference_build.build("sample", str(tmp_path / "sample.npz"), tmp_path, count=50_000)
    with pytest.raises(UserError, match="don't belong"):
        reference_build.build("r", str(tmp_path / "sample.npz"), tmp_path, count=200)
    with pytest.raises(UserError, match="more than its 100 images"):
        reference_build.build("r", str(tmp_path / "own.npz"), tmp_path, count=100)


def test_vectors_of_other_images_are_refused_of_a_stored_reference_too(tmp_path):
    told = {"name": "r", "origin": "x", "kind": "edm", "extractor": TENSORFLOW, "n": 200, "split": "train"}
    about = np.frombuffer(files.canonical(told).encode(), dtype=np.uint8)
    files.write_arrays(tmp_path / "references" / "r.npz", {**moments(), "features": OTHERS, "about": about})
    with pytest.raises(UserError, match="don't belong"):
        references.load("r", tmp_path, TENSORFLOW)


def test_a_sample_of_heavy_tailed_features_belongs(tmp_path):
    """Sparse, skewed features as networks give them: 50 draws of a sample, none refused."""
    rows = np.random.default_rng(1).exponential(size=(4000, 16)) ** 2
    for draw in range(50):
        chosen = np.random.default_rng(draw).choice(4000, 200, replace=False)
        checked(tmp_path / "a.npz", {**moments(rows), "features": rows[chosen]}, 4000)
