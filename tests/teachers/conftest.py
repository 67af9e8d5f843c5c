"""What the tests of teachers share."""

import json
from functools import cache

import pytest


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory):
    """The folder of a tiny diffusers pipeline by its name in `tiny_pipelines`, made once; nobody may change it."""
    tiny_pipelines = pytest.importorskip("tiny_pipelines")
    root = tmp_path_factory.mktemp("pipelines")
    return cache(lambda name: tiny_pipelines.make(name, root / name))


@pytest.fixture(scope="session")
def pipeline_teacher(tmp_path_factory, pipeline_folder):
    """The teacher of a tiny pipeline by its name, fields of its description and arguments of its call.

    It is loaded once, unless it is read from a folder of the test's own.
    """
    import pipeline_teachers

    import solverbench as sb

    kept = {}
    few = {"sampler": "euler:grid=time_uniform", "sampler_nfe": 6}

    def found(name, *, fields=None, where=None, **call):
        key = (name, json.dumps([fields, call]))
        if where is None and key in kept:
            return kept[key]
        folder, place = where or pipeline_folder(name), tmp_path_factory.mktemp("described")
        teacher = sb.load_teacher(pipeline_teachers.described(place, name, folder, few | (fields or {}), call))
        if where is None:
            kept[key] = teacher
        return teacher

    return found
