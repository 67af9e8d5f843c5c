"""images.html: one file without any address, lossless, whatever is in it escaped; in a browser, any two cells."""

import base64
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reports_large import HOSTILE, write

from solverbench import reports
from solverbench.reports.figures.sprites import LOSSLESS, MOST_ALONE, sprites
from solverbench.reports.pages import sections, viewer

NFE = (3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = write(tmp_path_factory.mktemp("images") / "a", ["dpm", "heun", HOSTILE[0]], ["digits", HOSTILE[1]], NFE)
    add(place, conditions={"digits": [HOSTILE[0], *["class 1"] * 7], HOSTILE[1]: ["too short"]})
    return place


def add(folder: Path, **record: Any) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | record))


def page(folder: Path) -> str:
    text = viewer.page(sections.of(reports.load(folder)))
    assert text is not None
    return text


def embedded(text: str) -> list[dict[str, Any]]:
    found = re.search('<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return list(json.loads(found[1]))


def test_it_asks_nothing_of_a_network_and_leads_to_the_report_alone(folder: Path) -> None:
    text = page(folder)
    links = set(re.findall(r'(?:src|href)="([^"]*?)[,"]', text))
    assert {link for link in links if not link.startswith(("data:image/png;base64", "#"))} == {"report.html"}
    policy = re.search('Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(|WebSocket|innerHTML|insertAdjacent|eval\(", text)


def test_hostile_names_and_prompts_are_text(folder: Path) -> None:
    text = page(folder)
    for name in HOSTILE[:2]:
        assert name not in text
    first, second = embedded(text)
    assert first["solvers"] == ["dpm", "heun", HOSTILE[0]]
    assert first["conditions"][0] == HOSTILE[0]
    assert (second["name"], second["conditions"]) == (HOSTILE[1], [])  # not one text for each image


def test_every_image_is_there_to_the_bit_with_its_error(folder: Path) -> None:
    text, stored = page(folder), np.load(folder / "images.npz")
    uris = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]*)"', text)
    assert len(uris) == 2 * (1 + 2 + 1 + 2)  # heun has no odd budget
    assert uris[1][1] == "dpm, NFE 3: 8 images, seed 50000 to seed 50007"
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(uris[1][0]))))
    images = strip.reshape(16, 8, 16, 3).transpose(1, 3, 0, 2)
    assert np.array_equal(images, stored["digits|dpm|3"])
    apart = (images / 127.5 - stored["digits|teacher|64"] / 127.5).reshape(8, -1)
    block = embedded(text)[0]["blocks"][1]
    assert block["rmse"] == pytest.approx(np.sqrt((apart**2).mean(1)), rel=1e-3)  # four digits
    assert f"<small>RMSE {math.sqrt((apart**2).mean()):.3g}</small>" in text
    assert "<small>unsupported</small>" in text


def test_without_a_teachers_own_images_there_are_no_errors_and_without_images_no_page(folder: Path) -> None:
    bundle = reports.load(folder)
    bundle.__dict__["images"] = {key: batch for key, batch in bundle.images.items() if "|teacher|" not in key}
    text = viewer.page(sections.of(bundle))
    assert text is not None
    assert all(block["rmse"] == [] for each in embedded(text) for block in each["blocks"])
    bundle.__dict__["images"] = {}
    assert viewer.page(sections.of(bundle)) is None


def test_many_large_images_are_fewer_and_smaller_but_never_blurred_by_compression() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64)).astype(np.uint8)
    images = {f"digits|dpm|{nfe}": noise for nfe in (1, 2)}
    whole = sum(map(len, sprites(images, MOST_ALONE, LOSSLESS).uris.values()))
    fewer = sprites(images, whole - 1, LOSSLESS)
    assert set(fewer.counts.values()) == {2}
    assert fewer.note.startswith("The first 2 seeds")
    assert "JPEG" not in fewer.note
    least = sprites(images, 1, LOSSLESS)
    assert set(least.sides.values()) == {(32, 32)}
    assert all(uri.startswith("data:image/png") for uri in least.uris.values())
