"""The page of a recommendation: the answer, its script, the front and the images, in one file."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reports_large import HOSTILE
from reports_recommended import SCRIPT, recommended

from solverbench import reports
from solverbench.reports.drawing import front
from solverbench.reports.drawing.front import Dot, Series
from solverbench.reports.pages import recommendation

NAN = float("nan")


class Read(HTMLParser):
    """The texts of a page by the element they stand in, and its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = recommended(tmp_path_factory.mktemp("out"))
    recommendation.write(made)
    return made


@pytest.fixture
def text(folder: Path) -> str:
    return (folder / "recommend.html").read_text()


def plain(text: str) -> str:
    return " ".join(html.unescape(re.sub(r"<(script|style)>.*?</\1>|<[^>]+>", " ", text, flags=re.DOTALL)).split())


def test_it_says_the_answer_in_one_sentence_and_has_the_script(text: str) -> None:
    said = plain(text)
    assert (
        "With 6 calls, use dpm : its RMSE to the teacher's own samples is 0.0167 [0.0150, 0.0183], ahead of euler "
        "(third, plain default), level with unipc (second), behind heun (the pipeline's own scheduler)." in said
    )
    assert "With 4 calls: dpm : its RMSE to the teacher's own samples is 0.0250" in said
    assert "".join(Read(text).of("pre")) == SCRIPT
    assert "solverbench sample dpm --nfe 6" in said
    assert "nfe6 beside this page has use.py , solver.py" in said
    assert "A call takes 0.55 ms an image here. The race spent 32 520 network calls" in said


def test_a_difference_below_the_error_of_the_reference_is_neither_level_nor_behind(tmp_path: Path) -> None:
    made = recommended(tmp_path, (4,), below=True)
    said = plain(recommendation.write(made).read_text())
    assert "behind heun (the pipeline's own scheduler), below the reference's error from deis (third)." in said
    assert "the reference's error is 0.2" in said


def test_every_candidate_is_there_and_who_took_no_part_with_the_reason(text: str) -> None:
    said = plain(text)
    assert "10 that were measured" in said
    assert "1 that took no part, with the reason" in said
    assert "4 heunpp2 not possible: <three> a step" in said
    assert said.count("beaten after 8 images") >= 10
    assert HOSTILE[0] in html.unescape(text)
    assert "look at the images" in said


def test_it_is_one_file_whose_policy_allows_no_request_and_no_strangers_script(text: str) -> None:
    found = Read(text)
    assert "default-src 'none'; img-src data:" in text
    assert [name for name, _ in found.elements].count("script") == 1
    links = [attributes.get("src") or attributes.get("href") for _, attributes in found.elements]
    assert all(link.startswith(("data:", "#", "../../reports/run/")) for link in links if link)
    assert not any("style" in attributes or "onclick" in attributes for _, attributes in found.elements)


def test_the_images_of_pick_second_third_default_and_reference_stand_below_one_another(text: str) -> None:
    labels = [row.strip() for row in re.findall(r'<tr><th scope="row">(.*?)</th><td><img', text)]
    own = ["the reference", "pick: dpm", "second: unipc", "third, plain default: euler"]
    assert [html.unescape(label) for label in labels] == 2 * [*own, "the pipeline's own scheduler: heun"]
    assert text.count('<img src="data:image/png;base64,') == 10


def test_the_front_joins_the_picks_that_are_better_than_all_before_and_marks_the_defaults(text: str) -> None:
    wide, narrow = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert 'class="wide"' in wide
    assert 'class="narrow"' in narrow
    for figure in (wide, narrow):
        assert figure.count('class="light"') == 10
        assert figure.count('class="mark pick"') >= 2
        assert figure.count('class="mark euler"') >= 2
        assert "dpm, 6 calls" in figure


def test_a_pick_that_is_no_better_than_one_with_fewer_calls_is_not_on_the_front() -> None:
    def dots(*values: float) -> list[Dot]:
        return [Dot(nfe, value, value * 0.9, value * 1.1, f"{value}") for nfe, value in enumerate(values, 4)]

    found = dots(0.3, 0.4, 0.1)
    far = Dot(5, 900.0, NAN, NAN, "far")
    drawn = front.svg([far], [Series("pick", "picks", found, [found[0], found[2]])], "RMSE", 760)
    [path] = re.findall(r'<path class="line pick" d="M([^"]*)"', drawn)
    places = [tuple(map(float, place.split())) for place in path.split("L")]
    marks = [tuple(map(float, each)) for each in re.findall(r'class="mark pick" cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    assert places == [marks[0], marks[2]]
    assert marks[2][1] > marks[0][1] > marks[1][1]  # downwards on the screen
    [edge] = re.findall(r'class="light" cx="[\d.]+" cy="([\d.]+)"', drawn)
    assert float(edge) == front._TOP


@pytest.mark.parametrize("values", [[0.5], [1.0, 1.0]])
def test_one_budget_or_equal_values_are_drawn_too(values: list[float]) -> None:
    dots = [Dot(4 + k, value, NAN, NAN, "") for k, value in enumerate(values)]
    drawn = front.svg([], [Series("pick", "picks", dots, dots)], "RMSE", 380)
    assert drawn.count('class="mark pick"') == len(values) + 1  # with the legend
    assert "nan" not in drawn


def test_writing_a_recommendation_again_draws_its_page_and_its_runs_report(tmp_path: Path) -> None:
    folder = recommended(tmp_path)
    written = reports.write(folder)
    assert written[-1] == folder / "recommend.html"
    assert (tmp_path / "reports" / "run" / "report.html") in written


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "recommendation.json").write_text("{"),
        lambda folder: (folder / "recommendation.json").write_text('{"report": "reports/run", "picks": []}'),
        lambda folder: (folder / "recommendation.json").write_text('{"report": "reports/gone"}'),
    ],
)
def test_a_damaged_recommendation_is_refused_in_one_line(tmp_path: Path, spoil: object) -> None:
    folder = recommended(tmp_path)
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(reports.BundleError) as caught:
        reports.write(folder)
    assert "\n" not in str(caught.value)


def test_another_metric_decides_and_the_figure_still_has_the_rmse(tmp_path: Path) -> None:
    folder = recommended(tmp_path)
    given = json.loads((folder / "recommendation.json").read_text())
    (folder / "recommendation.json").write_text(json.dumps(given | {"by": "frechet_data"}))
    text = recommendation.write(folder).read_text()
    assert "its frechet_data is 0.0167" in plain(text)
    assert text.count('aria-label="RMSE to the teacher') == 2
