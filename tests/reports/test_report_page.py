"""The page: one file without any address, whatever is in it escaped, every number with its protocol and cell."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reports_large import HOSTILE, SOLVERS, write

from solverbench import reports
from solverbench.reports.figures.sprites import sprites
from solverbench.reports.pages import html, sections


class Outline(HTMLParser):
    """The elements of a page, and the texts of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": [], "title": []}
        self.texts: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open in self.inside:
            self.inside[self._open][-1] += data
        else:
            self.texts.append(data)


def outline(folder: Path) -> Outline:
    return Outline(html.page(sections.of(reports.load(folder))))


def embedded(seen: Outline) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(seen.inside["script"][0], parse_constant=lambda name: pytest.fail(name))
    return found


def test_the_page_asks_nothing_of_a_network(folder: Path) -> None:
    seen = outline(folder)
    allowed = {"data:", "#", "images.html", "ahead.csv"}  # the last two lie beside it
    for tag, attributes in seen.tags:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name)
            assert value is None or any(value.startswith(start) for start in allowed), (tag, value)
        assert tag not in ("link", "iframe", "object", "embed", "base")
    assert not re.search(r"url\(|@import", seen.inside["style"][0])
    assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(|WebSocket|innerHTML|eval\(", seen.inside["script"][1])


def test_a_spec_breaks_between_its_options_and_a_file_that_is_named_is_a_link(folder: Path) -> None:
    text = html.page(sections.of(reports.load(folder)))
    specs = re.findall(r"<td><code>(.*?)</code></td>", text)
    assert sum(spec.count(":<wbr>") for spec in specs) == sum(spec.count(":") for spec in specs) > 1
    assert text.count("ahead.csv has each") == 0 < text.count('<a href="ahead.csv">ahead.csv</a> has each')


def test_the_policy_allows_the_pages_own_script_and_style_alone(folder: Path) -> None:
    seen = outline(folder)
    policy = next(a["content"] for t, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for kind, text in (("script", seen.inside["script"][1]), ("style", seen.inside["style"][0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not [a for _, a in seen.tags if "style" in a or any(name.startswith("on") for name in a)]


def test_every_number_has_its_protocol_and_cell_key(folder: Path) -> None:
    data = embedded(outline(folder))
    cells = {(data["solvers"][p["solver"]]["label"], p["nfe"]): p["cell"] for p in data["parts"][0]["points"]}
    assert cells["gs", 4] == "gs-4"
    assert len(cells) == 42
    for part in data["parts"]:
        assert part["seeds"] == "50000-79999"
        assert part["count"] == "n = 10 000 × 3"
        assert part["reference"]


def test_a_tables_button_opens_the_point_that_it_shows(folder: Path) -> None:
    seen, row = outline(folder), 0
    data = embedded(seen)
    buttons = [a for t, a in seen.tags if t == "button" and "data-point" in a]
    assert buttons
    part = data["parts"][0]
    own = [b for b in buttons if b["data-part"] == "0"]
    for label in dict.fromkeys(data["solvers"][p["solver"]]["label"] for p in part["points"]):
        for nfe in (3, 4, 5, 6, 8, 10):
            point = part["points"][int(str(own[row]["data-point"]))]
            assert (data["solvers"][point["solver"]]["label"], point["nfe"]) == (label, nfe)
            row += 1


def test_failed_cells_command_environment_and_protocol_are_there(folder: Path) -> None:
    text = " ".join(outline(folder).texts)
    assert "FloatingPointError: NaN in call 5 | image_17" in text
    assert "run: solverbench train gas --nfe 3 --teacher digits" in text
    assert "solverbench run --solvers euler,dpm,unipc,ipndm,heun,gs,gas --nfe 3-6,8,10 --teachers digits" in text
    assert "2.13.0+cpu" in text
    assert "delete-a-group jackknife over 30 seed blocks" in text


@pytest.mark.parametrize("what", ["solvers", "teachers", "words"])
def test_names_with_special_letters_are_shown_and_never_obeyed(tmp_path: Path, what: str) -> None:
    plain = {"solvers": ["dpm", "gas"], "teachers": ["digits"], "budgets": (3, 4), "metrics": ["frechet_data"]}
    folder = write(tmp_path / "a", **(plain | ({what: HOSTILE} if what != "words" else {})))
    if what == "words":
        record = json.loads((folder / "bundle.json").read_text())
        record |= {"notes": list(HOSTILE), "tags": list(HOSTILE), "command": HOSTILE[0], "bibtex": HOSTILE[0]}
        record["protocol"] = dict(zip(HOSTILE, HOSTILE, strict=True))
        record["metrics"]["frechet_data"] = {"label": HOSTILE[0], "short": HOSTILE[1]}
        record["lines"][0]["label"] = HOSTILE[1]
        record["verdicts"][0]["claim"] = HOSTILE[0]
        (folder / "bundle.json").write_text(json.dumps(record))
    text = html.page(sections.of(reports.load(folder)))
    seen = Outline(text)
    assert sum(tag == "script" for tag, _ in seen.tags) == 2
    assert not [tag for tag, _ in seen.tags if tag in ("img", "b")]
    assert "alert(1)" in text  # it is shown, as text
    assert "</script><script>" not in text
    if what == "solvers":
        assert [solver["label"] for solver in embedded(seen)["solvers"]] == list(HOSTILE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, 1e-300, 0.0, -5.0])
def test_a_strange_number_breaks_nothing(tmp_path: Path, value: float) -> None:
    folder = write(tmp_path / "a", ["dpm", "gas"], ["digits"], (3, 4), ["frechet_data"], values={1: value})
    data = embedded(outline(folder))
    point = next(p for p in data["parts"][0]["points"] if (p["solver"], p["nfe"]) == (0, 4))
    assert point["value"] == (value if math.isfinite(value) else None)


def test_a_run_with_only_failures_still_has_a_page(tmp_path: Path) -> None:
    seen = outline(write(tmp_path / "a", ["dpm", "gas"], ["digits"], (3, 4), failed=True))
    assert " ".join(seen.texts).count("FloatingPointError: NaN in call 2") >= 4
    assert [p["value"] for p in embedded(seen)["parts"][0]["points"]] == [None] * 4


def test_one_cell_is_alone_and_no_winner(tmp_path: Path) -> None:
    seen = outline(write(tmp_path / "a", ["dpm"], ["digits"], (4,), ["frechet_data"]))
    assert any("dpm alone" in text for text in seen.texts)
    assert not [a for t, a in seen.tags if t == "td" and a.get("class") == "won"]


def test_a_winner_needs_an_interval_that_excludes_zero(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", ["dpm", "gas"], ["digits"], (4,), ["frechet_data"])

    def winners() -> list[str]:
        return [a["class"] or "" for t, a in outline(folder).tags if t == "td" and a.get("class") in ("won", "level")]

    assert winners() == ["won"]
    cells = json.loads((folder / "cells.json").read_text())
    apart = np.random.default_rng(0).standard_normal((3, 10))
    for i, cell in enumerate(cells.values()):
        cell["measures"]["frechet_data"]["leave_one_out"] = (7 + 3 * i * apart).tolist()
    (folder / "cells.json").write_text(json.dumps(cells))
    assert winners() == ["level"]


def test_the_largest_page_stays_below_ten_megabytes(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    text = html.page(sections.of(reports.load(folder)))
    data = embedded(Outline(text))
    assert len(text.encode()) < 10e6
    assert len(data["parts"]) == 20
    assert sum(len(part["points"]) for part in data["parts"]) == len(SOLVERS) * 8 * 20


def test_images_that_are_too_many_are_made_smaller_and_it_is_said() -> None:
    dice = np.random.default_rng(0)
    images = {f"t|s{i}|4": dice.integers(0, 256, (8, 3, 64, 64), dtype=np.uint8) for i in range(30)}
    whole = sprites(images)
    assert whole.note == "The first 8 seeds, the same for every solver."
    less = sprites(images, most=300_000)
    assert sum(map(len, less.uris.values())) <= 300_000
    assert "JPEG" in less.note


def test_a_sprite_is_the_images_side_by_side_pixel_for_pixel() -> None:
    import io

    from PIL import Image

    batch = np.random.default_rng(0).integers(0, 256, (3, 3, 5, 4), dtype=np.uint8)
    uri = sprites({"t|s|4": batch}).uris["t|s|4"]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))
    np.testing.assert_array_equal(shown, np.concatenate([image.transpose(1, 2, 0) for image in batch], axis=1))


def test_metric_names_of_other_versions_and_unknown_published_solvers_do(
    frame: pd.DataFrame, record: dict[str, Any], write: Callable[..., Path]
) -> None:
    record["published"] = [
        {"teacher": "digits", "metric": "frechet_data", "solver": "other", "label": "", "nfe": 4, "value": 3.2,
         "digits": 1, "row": "p/t/o/4", "paper": "P", "place": "T1", "differences": []},
        {"teacher": "digits", "metric": "frechet_data", "solver": "broken", "nfe": None, "value": "x"},
    ]  # fmt: skip
    data = embedded(outline(write(frame, record)))
    assert [(p["solver"], p["printed"], p["value"]) for p in data["parts"][0]["published"]] == [(-1, "other", 3.2)]


def test_the_page_says_what_a_claim_is_and_where_the_list_stands(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", ["dpm", "gas"], ["digits"], (4,), ["frechet_data"])
    text = html.page(sections.of(reports.load(folder)))
    [said] = [piece for piece in text.split("<p>") if "A claim is what" in piece]
    assert "ahead of" in said
    assert '<a href="#verdicts">The list of claims' in said
    assert '<section id="verdicts">' in text


def test_the_page_begins_with_a_metric_that_has_a_value(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", ["dpm", "gas"], ["digits"], (4,), ["frechet_data", "rmse_teacher"])
    frame = pd.read_csv(folder / "results.csv", dtype={"cell": str})
    frame.loc[frame["metric"] == "frechet_data", ["value", "low", "high"]] = np.nan
    frame.to_csv(folder / "results.csv", index=False)
    found = Outline(html.page(sections.of(reports.load(folder))))
    offered = [a["value"] for t, a in found.tags if t == "option" and a["value"] in ("frechet_data", "rmse_teacher")]
    assert offered == ["rmse_teacher", "frechet_data"]
