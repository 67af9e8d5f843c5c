"""Make the pictures of docs/reports.md from a real run: `python docs/tools/screens.py [BROWSER]`.

It runs `COMMAND` in a temporary folder (half a minute), draws what the terminal shows, copies the report's figure, and
takes pictures of `report.html` and `images.html` with a headless Chromium, by default the one on the PATH.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

PICTURES = Path(__file__).parents[1] / "images"
COMMAND = "solverbench run --solvers gas,dpm,unipc,heun --nfe 4-6 --samples 2000 --replicates 1"
SIZE = (1200, 1500)
"""Width and height of the pictures of pages, in CSS pixels."""
FAINT, INK, GROUND, LINE, MARGIN = "#8b949e", "#e6edf3", "#0d1117", 21, 18


def run(folder: Path) -> tuple[str, Path]:
    """Run the command; return what it prints on stdout and the report's folder."""
    words = [sys.executable, "-m", *COMMAND.split()]
    done = subprocess.run(words, cwd=folder, env=os.environ | {"COLUMNS": "110"}, capture_output=True, text=True)
    if not done.stdout:
        raise SystemExit(done.stderr)
    (report,) = (folder / "runs" / "reports").glob("*/report.html")
    return done.stdout, report.parent


def terminal(text: str) -> Image.Image:
    """Return the command and its output as a terminal shows them."""
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans Mono"), 15)
    lines = [f"$ {COMMAND}"]
    for line in text.rstrip().splitlines():
        lines += textwrap.wrap(line, 108, drop_whitespace=False, break_on_hyphens=False) or [""]
    width = int(max(font.getlength(line) for line in lines)) + 2 * MARGIN
    picture = Image.new("RGB", (width, LINE * len(lines) + 2 * MARGIN), GROUND)
    pen = ImageDraw.Draw(picture)
    for n, line in enumerate(lines):
        pen.text((MARGIN, MARGIN + LINE * n), line, font=font, fill=FAINT if n == 0 else INK)
    return picture


def page(browser: str, name: str, report: Path, folder: Path) -> Image.Image:
    """Return the top of a page as a browser shows it."""
    shot = folder / "page.png"
    size = f"--window-size={SIZE[0]},{SIZE[1]}"
    flags = ["--headless=new", "--disable-gpu", "--hide-scrollbars", "--no-sandbox", size]
    subprocess.run(
        [browser, *flags, "--virtual-time-budget=5000", f"--user-data-dir={folder / 'profile'}", f"--screenshot={shot}",
         (report / name).as_uri()], check=True, capture_output=True,
    )  # fmt: skip
    return Image.open(io.BytesIO(shot.read_bytes()))


def save(picture: Image.Image, name: str) -> None:
    small = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(PICTURES / f"{name}.png", optimize=True)


def main() -> None:
    browser = sys.argv[1] if len(sys.argv) > 1 else shutil.which("chromium") or shutil.which("google-chrome") or ""
    with tempfile.TemporaryDirectory() as place:
        said, report = run(Path(place))
        save(terminal(said), "report-terminal")
        save(Image.open(report / "figure.png"), "report-figure")
        if browser:
            save(page(browser, "report.html", report, Path(place)), "report-page")
            save(page(browser, "images.html", report, Path(place)), "report-images")
        else:
            print("no Chromium: the page's picture is left as it is")


if __name__ == "__main__":
    main()
