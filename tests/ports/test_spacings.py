"""The recorded spacings of diffusers' schedulers are those of the installed version."""

import json
from pathlib import Path

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from data.make_spacings import spacings


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_recorded_spacings_are_those_of_diffusers():
    recorded = json.loads((Path(__file__).parent.parent / "data" / "spacings.json").read_text())
    made = spacings()
    assert made["steps"] == recorded["steps"]
    assert made["times"].keys() == recorded["times"].keys()
    for case, times in recorded["times"].items():
        assert made["times"][case] == pytest.approx(times, abs=1e-6)
