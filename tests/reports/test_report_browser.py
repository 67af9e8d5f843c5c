"""The page in a real Chromium without a screen; skipped where there is no chromium, chromedriver or selenium."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reports_large import HOSTILE, write
from reports_recommended import SCRIPT, recommended

from solverbench import reports
from solverbench.reports.pages import contrast as contrasts
from solverbench.reports.pages import html, recommendation, sections, viewer

webdriver = pytest.importorskip("selenium.webdriver")
WebDriverException = pytest.importorskip("selenium.common.exceptions").WebDriverException
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver")


REFERENCE = "teacher, unipc:order=3:grid=logsnr 100 calls, its own"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    wanted = ["--headless=new", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,900"]
    wanted += ["--no-sandbox"] if os.getuid() == 0 else []
    for argument in wanted:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        driver.get("data:text/html,<p>here</p>")
        assert ask(driver, "document.querySelector('p').textContent") == "here"
    except (AssertionError, WebDriverException) as error:
        pytest.skip(f"Chromium or its driver can't show a page here: {str(error).strip().splitlines()[0]}")
    driver.set_page_load_timeout(600)
    driver.set_script_timeout(600)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    solvers = ["euler", "dpm", "heun", "gs", "gas", HOSTILE[0]]
    folder = write(tmp_path_factory.mktemp("page") / "a", solvers, ["digits", "shapes"], (3, 4, 5))
    record = json.loads((folder / "bundle.json").read_text())
    record["lines"][0]["label"] = REFERENCE
    record["metrics"]["frechet_teacher"]["short"] = "Fréchet to teacher"  # as every metric of a run has one
    record["conditions"] = {"digits": [f"class {k % 2}" for k in range(7)] + [HOSTILE[0]]}
    (folder / "bundle.json").write_text(json.dumps(record))
    report = sections.of(reports.load(folder))
    (folder / "report.html").write_text(html.page(report), encoding="utf-8")
    (folder / "images.html").write_text(viewer.page(report) or "", encoding="utf-8")
    return folder / "report.html"


@pytest.fixture
def shown(browser: Any, file: Path) -> Any:
    """The page at desktop width, as at the first visit."""
    resize(browser, 1280)
    scheme(browser, "light")
    browser.get("about:blank")
    browser.get(file.as_uri())
    browser.execute_script("try { sessionStorage.clear(); } catch {}")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get("about:blank")
    browser.get(file.as_uri())
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
    return browser


def resize(browser: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def scheme(browser: Any, name: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": name}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def ask(browser: Any, script: str, *given: Any) -> Any:
    return browser.execute_script(f"return {script}", *given)


def until(browser: Any, condition: str) -> None:
    """Wait until it holds, however long a busy machine takes for it."""
    for _ in range(6000):
        if ask(browser, condition):
            return
        time.sleep(0.1)
    raise AssertionError(f"never: {condition}")


def click(browser: Any, selector: str) -> None:
    assert ask(browser, "document.querySelectorAll(arguments[0]).length", selector) >= 1, selector
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def press(browser: Any, key: str, text: str = "") -> None:
    """A key as a person presses it, to whatever has the focus."""
    about = {"key": key, "code": key, **({"text": text} if text else {})}
    about["windowsVirtualKeyCode"] = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38,
                                      "ArrowRight": 39, "ArrowDown": 40, " ": 32, "+": 187}[key]  # fmt: skip
    browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", **about})
    browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp", **about})


def clean(browser: Any, file: Path) -> None:
    """No line in the console, no request but the page itself and data in it."""
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("data:", "about:")) and url != file.as_uri()] == []


def test_no_console_line_and_no_network_request_while_everything_is_used(shown: Any, file: Path) -> None:
    for selector in ("#theme", "#theme", "#across button:last-child", "#scale button:last-child",
                     "#legend button", "#strip-view button:last-child", "#plan-nfe button:last-child",
                     "#every summary", ".number", "dialog button", "#strip-solver button:last-child"):  # fmt: skip
        click(shown, selector)
    ask(shown, "new Promise((done) => setTimeout(done, 300))")
    clean(shown, file)
    assert ask(shown, "document.querySelectorAll('#every td').length") > 0
    assert ask(shown, "typeof window.alerted") == "undefined"


def test_the_policy_stops_a_script_that_got_in(shown: Any) -> None:
    shown.execute_script("const s = document.createElement('script'); s.textContent = 'window.got_in = 1';"
                         "document.body.append(s)")  # fmt: skip
    assert ask(shown, "window.got_in") is None
    assert any("Content Security Policy" in entry["message"] for entry in shown.get_log("browser"))


def test_a_solver_is_toggled_and_its_line_goes(shown: Any) -> None:
    count = "document.querySelectorAll('#chart .series').length"
    before = ask(shown, count)
    click(shown, "#legend button:nth-child(2)")
    assert ask(shown, count) == before - 1
    assert ask(shown, "document.querySelector('#legend button:nth-child(2)').getAttribute('aria-pressed')") == "false"
    assert not ask(shown, "document.querySelector('#chart .series[data-solver=\"1\"]')")
    click(shown, "#legend button:nth-child(2)")
    assert ask(shown, count) == before


def test_no_two_numbers_at_points_overlap_and_tables_have_the_charts_markers(shown: Any) -> None:
    click(shown, "#across button:nth-child(2)")
    boxes = "[...svg.querySelectorAll('.nfe')].map((e) => e.getBoundingClientRect())"
    corners = f"{boxes}.map((b) => [b.left, b.top, b.right, b.bottom])"
    numbers = ask(shown, f"[...document.querySelectorAll('#chart svg')].map((svg) => {corners})")
    assert min(map(len, numbers)) > 8
    for each in numbers:  # two pixels of a text's box are empty
        pairs = [(a, b) for k, a in enumerate(each) for b in each[:k]]
        assert not [1 for a, b in pairs if a[0] < b[2] - 1 and b[0] < a[2] - 1 and a[1] < b[3] - 4 and b[1] < a[3] - 4]
    outlines = (
        "[...document.querySelectorAll(arguments[0])].map((each) => each.getAttribute('d').match(/[ML]/g).length)"
    )
    swatches = ask(shown, outlines, ".by-part:not([hidden]) table.numbers .swatch path")
    assert swatches[: len(ask(shown, outlines, "#legend path"))] == ask(shown, outlines, "#legend path")


def test_linear_and_logarithmic_place_points_differently(shown: Any) -> None:
    spots = "[...document.querySelectorAll('#chart .mark')].map((m) => m.getAttribute('transform'))"
    click(shown, "#scale button:nth-child(2)")
    log = ask(shown, spots)
    click(shown, "#scale button:nth-child(3)")
    linear = ask(shown, spots)
    assert len(log) == len(linear) > 10
    assert log != linear


def test_hovering_a_point_shows_its_value_and_cell(shown: Any) -> None:
    place = ask(shown, "(() => { document.querySelector('#chart').scrollIntoView();"
                       "const b = document.querySelector('#chart .mark').getBoundingClientRect();"
                       "return [b.x + b.width / 2, b.y + b.height / 2]; })()")  # fmt: skip
    where = {"type": "mouseMoved", "x": place[0], "y": place[1]}
    shown.execute_cdp_cmd("Input.dispatchMouseEvent", where)
    tip = ask(shown, "document.querySelector('#tip').hidden ? '' : document.querySelector('#tip').textContent")
    assert tip.startswith("euler, NFE 3\n10.00 (9.80 to 10.20)\n")
    assert "cell 0000000000000003" in tip
    assert "n = 10 000" in tip


def test_arrow_keys_go_through_the_points_and_enter_tells_the_protocol(shown: Any) -> None:
    shown.execute_script("document.querySelector('#chart svg').focus()")
    for _ in range(2):
        press(shown, "ArrowRight")
    assert ask(shown, "document.querySelector('#said').textContent").count("NFE 3") == 1
    press(shown, "Enter")
    assert ask(shown, "document.querySelector('#detail').open")
    said = ask(shown, "document.querySelector('#detail-list').textContent")
    assert "50000-79999" in said
    assert "edm-round" in said
    press(shown, "Escape")
    assert not ask(shown, "document.querySelector('#detail').open")


def test_a_column_sorts_both_ways_with_what_has_no_number_last(shown: Any) -> None:
    names = (
        "[...document.querySelectorAll('.by-part:not([hidden]) table.numbers tbody th')].map((th) => th.textContent)"
    )
    rows = "[...document.querySelectorAll('.by-part:not([hidden]) table.numbers tbody tr')]"
    values = f"{rows}.map((r) => r.cells[1].dataset.value ?? null)"
    head = ".by-part:not([hidden]) table.numbers thead th:nth-child(2)"
    before = ask(shown, names)
    click(shown, f"{head} button")
    rising = ask(shown, values)
    assert rising[-1] is None  # heun can't spend 3 calls
    assert [float(v) for v in rising[:-1]] == sorted(float(v) for v in rising[:-1])
    assert ask(shown, f"document.querySelector('{head}').getAttribute('aria-sort')") == "ascending"
    click(shown, f"{head} button")
    falling = ask(shown, values)
    assert falling[-1] is None
    assert falling[:-1] == rising[:-1][::-1]
    assert sorted(ask(shown, names)) == sorted(before)


def test_a_metric_and_a_teacher_are_chosen_and_outlive_a_reload(shown: Any, file: Path) -> None:
    pick = ("const s = document.querySelector('#' + arguments[0]); s.value = arguments[1];"
            "s.dispatchEvent(new Event('change'))")  # fmt: skip
    shown.execute_script(pick, "metric", "precision")
    shown.execute_script(pick, "teacher", "*")
    assert ask(shown, "document.querySelectorAll('#chart svg').length") == 2
    parts = "[...document.querySelectorAll('.by-part:not([hidden])')].map((p) => p.dataset.metric + p.dataset.teacher)"
    assert set(ask(shown, parts)) == {"precisiondigits", "precisionshapes"}
    shown.refresh()
    assert ask(shown, "document.querySelector('#metric').value") == "precision"


def test_images_flip_by_keyboard_and_differences_are_of_the_teachers(shown: Any) -> None:
    pixels = ("(() => { const c = document.querySelector('#strip'); return [...c.getContext('2d')"
              ".getImageData(0, 0, c.width, c.height).data.slice(0, 4000)]; })()")  # fmt: skip
    told = "document.querySelector('#strip-note').textContent.includes('{}')"  # said once the images are drawn
    until(shown, told.format(": euler, NFE"))
    first = ask(shown, pixels)
    shown.execute_script("document.querySelector('#strip-solver [aria-checked=true]').focus()")
    press(shown, "ArrowRight")
    until(shown, told.format(": dpm, NFE"))
    assert ask(shown, "document.activeElement.textContent") == "dpm"
    assert ask(shown, pixels) != first
    click(shown, "#strip-view button:nth-child(2)")
    until(shown, told.format("black where"))
    difference = ask(shown, pixels)
    click(shown, "#strip-view button:nth-child(1)")
    until(shown, "!" + told.format("black where"))
    dpm = ask(shown, pixels)
    click(shown, "#strip-solver button:nth-child(1)")
    until(shown, told.format("own sampler"))
    teacher = ask(shown, pixels)
    expected = [min(255, 4 * abs(a - b)) if i % 4 < 3 else a for i, (a, b) in enumerate(zip(dpm, teacher, strict=True))]
    assert difference == expected


def test_the_focus_is_seen_wherever_the_tab_key_leads(shown: Any) -> None:
    look = ("(() => { const e = document.activeElement, s = getComputedStyle(e);"
            "return [e.tagName, e.id || e.className?.baseVal || e.textContent.slice(0, 12), s.outlineStyle,"
            "parseFloat(s.outlineWidth)]; })()")  # fmt: skip
    seen = []
    for _ in range(60):
        press(shown, "Tab")
        seen.append(ask(shown, look))
    assert {"A", "BUTTON", "SELECT", "svg"} <= {tag for tag, *_ in seen}
    assert [each for each in seen if each[0] != "BODY" and (each[2] == "none" or each[3] < 1)] == []


@pytest.mark.parametrize("chosen", ["light", "dark"])
def test_text_stands_out_in_both_themes(shown: Any, chosen: str) -> None:
    scheme(shown, chosen)
    until(shown, f"matchMedia('(prefers-color-scheme: {chosen})').matches")
    ask(shown, "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    script = (
        "(() => { const s = getComputedStyle(document.body), f = getComputedStyle(document.querySelector('.fine'));"
    )
    colours = ask(shown, script + "return [s.color, s.backgroundColor, f.color]; })()")
    ink, back, soft = ([int(part) for part in text[4:-1].split(",")] for text in colours)
    dark = sum(back) < 150
    assert dark == (chosen == "dark")

    def contrast(a: list[int], b: list[int]) -> float:
        return contrasts.contrast(*("#" + "".join(f"{part:02x}" for part in colour) for colour in (a, b)))

    assert contrast(ink, back) > 12
    assert contrast(soft, back) > 4.5


def test_a_chosen_theme_wins_over_the_systems(shown: Any) -> None:
    dark = "getComputedStyle(document.body).backgroundColor"
    before = ask(shown, dark)
    click(shown, "#theme")
    assert ask(shown, dark) == before
    click(shown, "#theme")
    assert ask(shown, dark) != before


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_sticks_out_of_the_window(shown: Any, width: int) -> None:
    resize(shown, width)
    shown.refresh()
    assert ask(shown, "document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [400, 800, 1400])
def test_no_chosen_metric_is_cut(shown: Any, width: int) -> None:
    resize(shown, width)
    for chosen in ask(shown, "[...document.querySelectorAll('#metric option')].map((each) => each.value)"):
        shown.execute_script("const s = document.getElementById('metric'); s.value = arguments[0];"
                             "s.dispatchEvent(new Event('change'))", chosen)  # fmt: skip
        cut = "[...document.querySelectorAll('.bar select')].filter((s) => s.scrollWidth > s.clientWidth + 1).length"
        assert ask(shown, cut) == 0


def test_the_name_of_a_reference_is_whole_on_a_wide_page(shown: Any) -> None:
    resize(shown, 1400)
    until(shown, "document.querySelector('#chart svg').getBoundingClientRect().width > 1000")
    names = ask(shown, "[...document.querySelectorAll('#chart text.tag')].map((each) => each.firstChild.textContent)")
    assert REFERENCE in names
    inside = (
        "[...document.querySelectorAll('#chart text.tag')].every((each) => each.getBoundingClientRect().right <= "
        "each.ownerSVGElement.getBoundingClientRect().right + 1)"
    )
    assert ask(shown, inside)


def test_names_are_shown_as_they_are(shown: Any) -> None:
    labels = ask(shown, "[...document.querySelectorAll('#legend button')].map((b) => b.textContent)")
    assert labels[-1] == HOSTILE[0]


@pytest.fixture
def album(browser: Any, file: Path) -> Any:
    """The page of images at desktop width, as at the first visit."""
    resize(browser, 1280)
    scheme(browser, "light")
    for _ in range(2):
        browser.get("about:blank")
        browser.get(file.with_name("images.html").as_uri())
        until(browser, "document.documentElement.dataset.ready === 'yes'")
        browser.execute_script("try { sessionStorage.clear(); } catch {}")
    browser.get_log("browser")
    browser.get_log("performance")
    return browser


def pick(browser: Any, name: str, text: str) -> None:
    """Choose the option with this text."""
    browser.execute_script(
        "const s = document.getElementById(arguments[0]);"
        "s.selectedIndex = [...s.options].findIndex((o) => o.text === arguments[1]);"
        "s.dispatchEvent(new Event('change'))", name, text
    )  # fmt: skip


PIXELS = (
    "((c) => [...c.getContext('2d').getImageData(0, 0, 16, 16).data])(document.querySelectorAll('#pairs canvas')[{}])"
)


def test_the_images_page_is_quiet_while_everything_is_used(album: Any, file: Path) -> None:
    for selector in ("#theme", "#view button:last-child", "#solvers button", "#budgets .all", "#budgets .all",
                     "#seeds .all", "#mode button:nth-child(2)", "#mode button:nth-child(3)", "#flip", "#play", "#play",
                     "#swap", "#mode button:nth-child(4)", "#worst button", "#best button"):  # fmt: skip
        click(album, selector)
    pick(album, "teacher", "shapes")
    clean(album, file.with_name("images.html"))
    assert ask(album, "document.querySelectorAll('.by-teacher:not([hidden])').length") == 1


def test_two_cells_are_compared_pixel_by_pixel(album: Any) -> None:
    click(album, "tr[data-solver='1'] td[data-nfe='4'] button")
    click(album, "tr[data-solver='0'] td[data-nfe='3'] button")
    assert ask(album, "document.querySelector('#pair-said').textContent").startswith("A: dpm, NFE 4. B: euler, NFE 3.")
    a, b = ask(album, PIXELS.format(0)), ask(album, PIXELS.format(1))
    assert a != b
    click(album, "#mode button:nth-child(4)")
    expected = [min(255, 4 * abs(x - y)) if i % 4 < 3 else x for i, (x, y) in enumerate(zip(a, b, strict=True))]
    assert ask(album, PIXELS.format(0)) == expected
    click(album, "#mode button:nth-child(2)")
    for place, whole in ((0, b), (100, a)):
        album.execute_script("const s = document.querySelector('#split'); s.value = arguments[0];"
                             "s.dispatchEvent(new Event('input'))", place)  # fmt: skip
        assert ask(album, PIXELS.format(0)) == whole
    click(album, "#mode button:nth-child(3)")
    click(album, "#flip")
    first = ask(album, PIXELS.format(0))
    click(album, "#flip")
    assert sorted([first, ask(album, PIXELS.format(0))]) == sorted([a, b])


def test_solvers_calls_seeds_and_classes_are_filtered(album: Any) -> None:
    shown = "[...document.querySelectorAll('.by-teacher:not([hidden]) td[data-nfe] button')]"
    shown += ".filter((b) => b.checkVisibility()).length"
    before = ask(album, shown)
    assert before == 16  # six solvers, three budgets; heun has no odd one
    click(album, "#solvers button")
    assert ask(album, shown) == before - 3
    click(album, "#budgets button")
    assert ask(album, shown) == 9
    assert ask(album, "document.querySelector('.own td').colSpan") == 2
    pick(album, "condition", "class 1")
    names = "[...document.querySelectorAll('#pairs figcaption')].map((each) => each.firstChild.textContent)"
    assert ask(album, names) == [f"seed {seed}, class 1" for seed in (50001, 50003, 50005)]
    pick(album, "condition", HOSTILE[0])
    assert ask(album, names) == [f"seed 50007, {HOSTILE[0]}"]


def test_the_worst_images_come_first_and_lead_to_the_pair(album: Any) -> None:
    said = "[...document.querySelectorAll(arguments[0] + ' strong')].map((each) => Number(each.textContent.slice(5)))"
    worst, best = ask(album, said, "#worst"), ask(album, said, "#best")
    assert worst == sorted(worst, reverse=True)
    assert best == sorted(best)
    assert best[-1] < worst[-1]
    click(album, "#worst button")
    assert "NFE 3. B: teacher, 64 calls." in ask(album, "document.querySelector('#pair-said').textContent")


def test_plus_and_minus_change_the_size_and_flicker_waits_for_who_wants_calm(album: Any) -> None:
    size = "document.querySelector('#zoom-said').textContent"
    assert ask(album, size) == "48 pixels, × 3"
    press(album, "+", "+")
    assert ask(album, size) == "64 pixels, × 4"
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    album.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    click(album, "#mode button:nth-child(3)")
    assert ask(album, "document.querySelector('#play').textContent") == "Start"


@pytest.mark.parametrize("width", [320, 800])
def test_the_images_page_does_not_stick_out(album: Any, width: int) -> None:
    resize(album, width)
    assert ask(album, "document.documentElement.scrollWidth") <= width


def test_an_option_of_the_teachers_filters_figures_and_tables(browser: Any, tmp_path: Path) -> None:
    names = ["net-guidance=1", "net-guidance=2", "other"]
    folder = write(tmp_path / "a", ["euler", "dpm"], names, (3, 4), ["rmse_teacher"], side=8)
    record = json.loads((folder / "bundle.json").read_text())
    told = {name: {"model": "net", "values": {"guidance": name[-1]}} for name in names[:2]}
    record["axes"] = {"options": ["guidance"], "teachers": told | {"other": {"model": "other", "values": {}}}}
    (folder / "bundle.json").write_text(json.dumps(record))
    page = folder / "report.html"
    page.write_text(html.page(sections.of(reports.load(folder))), encoding="utf-8")
    resize(browser, 1280)
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get(page.as_uri())
    shown = "'#chart figcaption, #tables .by-part:not([hidden]) h3'"
    heads = f"[...document.querySelectorAll({shown})].map((x) => x.textContent)"
    both = ask(browser, heads)
    assert [text for text in both if "guidance" in text] == both
    assert len([text for text in both if text.startswith("net, guidance")]) == 2
    change = (
        "const s = document.querySelector(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))"
    )
    browser.execute_script(change, "select.axis", "=2")
    assert [text.partition("guidance ")[2] for text in ask(browser, heads)] == ["2"]
    browser.execute_script(change, "#teacher", "other")
    assert ask(browser, heads) == []
    assert ask(browser, "document.getElementById('chart-note').textContent").startswith("No teacher of this run has")
    browser.execute_script(change, "select.axis", "*")
    assert [text.endswith("other") for text in ask(browser, heads)] == [True]
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_of_a_recommendation_fits_every_window_in_both_themes(
    browser: Any, tmp_path: Path, theme: str
) -> None:
    """Its one file asks for nothing; one of the two figures is seen; its texts stand out from the background."""
    page = recommendation.write(recommended(tmp_path, (3, 4, 5, 6)))
    scheme(browser, theme)
    browser.get(page.as_uri())
    browser.execute_script("try { sessionStorage.clear(); } catch {}")
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    for width in (400, 800, 1400):
        resize(browser, width)
        assert ask(browser, "document.documentElement.scrollWidth") <= width
        figures = "[...document.querySelectorAll('.front svg')].filter((each) => each.checkVisibility())"
        assert ask(browser, f"{figures}.map((each) => each.getAttribute('class'))") == [
            "narrow" if width == 400 else "wide"
        ]
        labels = f"{figures}[0].querySelectorAll('text')"
        assert ask(browser, f"[...{labels}].every((each) => each.getBoundingClientRect().right <= innerWidth)")
        sizes = ask(browser, f"[...{labels}].map((each) => each.getBoundingClientRect().height)")
        assert min(sizes) > 10
    back = "getComputedStyle(document.body).backgroundColor"
    assert ask(browser, back) == ("rgb(22, 23, 26)" if theme == "dark" else "rgb(255, 255, 255)")
    for kind in ("pick", "euler", "own"):
        ink = ask(browser, f"getComputedStyle(document.querySelector('.wide .line.{kind}')).stroke")
        assert contrasts.contrast(hexadecimal(ink), hexadecimal(ask(browser, back))) >= 3
    assert ask(browser, "document.querySelector('#script').textContent") == SCRIPT
    click(browser, "[data-copy]")
    click(browser, "#theme")
    clean(browser, page)


def hexadecimal(colour: str) -> str:
    """A computed colour as #rrggbb."""
    return "#" + "".join(f"{int(part):02x}" for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
