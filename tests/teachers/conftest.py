"""What the tests of teachers share."""

from functools import cache

import pytest


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory):
    """The folder of a tiny diffusers pipeline by its name in `tiny_pipelines`, made once; nobody may change it."""
    tiny_pipelines = pytest.importorskip("tiny_pipelines")
    root = tmp_path_factory.mktemp("pipelines")
    return cache(lambda name: tiny_pipelines.make(name, root / name))
