"""The page of a recommendation: recommend.html, one file without any request to a network.

It is made from the answer's recommendation.json, the script of each pick, and the bundle of the run on fresh seeds.
"""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from solverbench.reports import files
from solverbench.reports.bundle import Bundle, BundleError, load
from solverbench.reports.drawing import front
from solverbench.reports.drawing.front import Dot, Series
from solverbench.reports.figures.sprites import blocks, sprites
from solverbench.reports.pages import html
from solverbench.wording import BELOW_ERROR, bracketed

NAME, ANSWER, SCRIPT = "recommend.html", "recommendation.json", "use.py"
RMSE = "rmse_teacher"
WIDTHS = 760, 380
"""Widths of the figure in pixels, for a wide and a narrow window."""
SIDE = 64
"""Smallest side in pixels at which an image is shown."""
_WORDS = {"ahead": "ahead of", "level": "level with", "behind": "behind", BELOW_ERROR: f"{BELOW_ERROR} from"}

Fields = Mapping[str, Any]


def run_of(folder: Path) -> Path:
    """Return the folder of the run on fresh seeds of a recommendation, in the same results folder.

    Raises: BundleError if the folder holds no readable recommendation.
    """
    try:
        name = Path(files.parsed(folder / ANSWER)["report"]).name
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from error
    return folder.parents[1] / "reports" / name


def write(folder: Path) -> Path:
    """Write recommend.html into the folder of a recommendation; return its path.

    Args:
        folder: OUT/recommendations/NAME, absolute.

    Raises: BundleError if it isn't what `solverbench recommend` writes, its run is missing, or it is not writable.
    """
    place, bundle = folder, load(run_of(folder))
    try:
        given = files.parsed(place / ANSWER)
        scripts = {int(pick["nfe"]): _text(place / f"nfe{int(pick['nfe'])}" / SCRIPT) for pick in given["picks"]}
        text = page(given, scripts, bundle, place)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise _damaged(place, error) from error
    try:
        files.put(place / NAME, text.encode())
    except OSError as error:
        raise BundleError(
            asked=place, wrong=f"the page cannot be written ({error})", remedy="free or unlock the folder"
        ) from error
    return place / NAME


def _damaged(folder: Path, error: Exception) -> BundleError:
    wrong = f"it isn't a recommendation ({error})"
    return BundleError(asked=folder / ANSWER, wrong=wrong, remedy="run 'solverbench recommend' again")


def _text(path: Path) -> str:
    return files.content(path).decode() if path.is_file() else ""


def page(given: Fields, scripts: Mapping[int, str], bundle: Bundle, folder: Path) -> str:
    """Return the text of recommend.html.

    Args:
        given: the answer, as `Recommendation.as_dict` has it.
        scripts: the script of each pick by its number of calls; empty where there is none.
        folder: folder of the recommendation, in whose results folder the run lies.
    """
    picks: Sequence[Fields] = given["picks"]
    pick = picks[-1]
    style, script = (
        html.asset("page.css") + html.asset("recommend.css"),
        html.asset("shared.js") + html.asset("recommend.js"),
    )
    rows = [row for row in given["candidates"] if row["rmse"] is not None]
    lines = {nfe: text for nfe, text in scripts.items() if text}
    context = {
        "teacher": given["teacher"],
        "calls": ", ".join(str(each["nfe"]) for each in picks),
        "answer": _sentence(pick, given["by"]),
        "others": [_sentence(each, given["by"]) for each in picks[:-1]],
        "script": lines.get(pick["nfe"], ""),
        "place": f"nfe{pick['nfe']}",
        "quoted": shlex.quote(pick["spec"]),
        "exports": sorted(path.name for path in (folder / f"nfe{pick['nfe']}").glob("*") if path.name != SCRIPT),
        "by": given["by"],
        "table": [_row(each, given["by"]) for each in picks],
        "figures": [Markup(text) for text in _figures(given, bundle)],
        "explained": _explained(given, bundle),
        "images": list(_images(given, bundle)),
        "notes": [note.replace(NAME, "this page") for note in given["notes"]],
        "cost": given["cost"],
        "spent": _spent(given["cost"]),
        "candidates": [_candidate(row) for row in rows],
        "left_out": [row for row in given["candidates"] if row["rmse"] is None],
        "report": f"../../reports/{bundle.folder.name}/report.html",
        "version": str(bundle.record["environment"].get("solverbench", "")),
        "style": Markup(style), "script_text": Markup(script),
        "style_hash": html.digest(style), "script_hash": html.digest(script),
    }  # fmt: skip
    return str(html.template("recommend.html.j2").render(context))


def _value(pick: Fields) -> str:
    return bracketed(pick["value"], pick["low"], pick["high"])


def _sentence(pick: Fields, by: str) -> dict[str, str]:
    """Return the answer for one number of calls: its spec, and what is said of it."""
    named = f", which is the {pick['itself']}" if pick["itself"] else ""
    compared = ""
    for verdict, words in _WORDS.items():
        each = [f"{one['spec']} ({one['role']})" for one in pick["comparisons"] if one["verdict"] == verdict]
        compared += f", {words} {' and '.join(each)}" if each else ""
    what = "RMSE to the teacher's own samples" if by == RMSE else by
    return {"nfe": str(pick["nfe"]), "spec": pick["spec"], "rest": f"{named}: its {what} is {_value(pick)}{compared}."}


def _row(pick: Fields, by: str) -> dict[str, Any]:
    return {
        "nfe": pick["nfe"], "spec": pick["spec"], "itself": pick["itself"], "value": _value(pick),
        "front": pick["front"],
        "comparisons": [
            {"role": each["role"], "spec": each["spec"], "verdict": _WORDS[each["verdict"]], "note": each["note"],
             "kind": {"ahead": "better", "behind": "worse"}.get(each["verdict"], ""),
             "difference": bracketed(each["difference"], each["low"], each["high"], "+")}
            for each in pick["comparisons"]
        ],
    }  # fmt: skip


def _figures(given: Fields, bundle: Bundle) -> Iterator[str]:
    """Yield the figure for a wide and a narrow window."""
    light = [
        Dot(row["nfe"], row["rmse"], math.nan, math.nan,
            f"{row['spec']}, {row['nfe']} calls: {row['rmse']:.3g} on {row['images']} images; {row['state']}")
        for row in given["candidates"] if row["rmse"] is not None
    ]  # fmt: skip
    picks = [_dot(bundle, each["spec"], each["nfe"]) for each in given["picks"]]
    known = [dot for dot in picks if dot is not None]
    line = [dot for k, dot in enumerate(known) if all(dot.value < before.value for before in known[:k])]
    series = [Series("pick", "picks and their front", known, line)]
    for name, role, label in (
        ("euler", "plain default", "Euler (DDIM)"), ("own", "own scheduler", "the pipeline's own scheduler"),
    ):  # fmt: skip
        specs = {each["spec"] for pick in given["picks"] for each in pick["comparisons"] if role in each["role"]}
        every = [_dot(bundle, spec, pick["nfe"]) for pick in given["picks"] for spec in specs]
        series.append(Series(name, label, [dot for dot in every if dot is not None]))
    for width in WIDTHS:
        yield front.svg(light, series, "RMSE to the teacher's own sample", width)


def _dot(bundle: Bundle, spec: str, nfe: int) -> Dot | None:
    """Return the error of a cell on fresh seeds; None if it has none."""
    frame = bundle.frame
    rows = frame[(frame["solver"] == spec) & (frame["nfe"] == nfe) & (frame["metric"] == RMSE)]
    if not len(rows) or not math.isfinite(rows["value"].iloc[0]):
        return None
    value, low, high = (float(rows[name].iloc[0]) for name in ("value", "low", "high"))
    return Dot(nfe, value, low, high, f"{spec}, {nfe} calls: {bracketed(value, low, high)} on fresh seeds")


def _explained(given: Fields, bundle: Bundle) -> str:
    """Return what the figure shows."""
    count = sum(row["rmse"] is not None for row in given["candidates"])
    seeds = next(iter(bundle.frame["seeds"]), "")
    return (
        f"Root mean squared error to the teacher's own sample from the same noise. Light: {count} candidates on the "
        f"images of the race, few of them for those that dropped out early; far worse ones lie on the upper edge. "
        f"Marked: measured again on fresh seeds ({seeds}), with 95 % intervals. The solid line, the Pareto front, "
        "joins the picks that are better than every pick with fewer calls."
    )


def _images(given: Fields, bundle: Bundle) -> Iterator[dict[str, Any]]:
    """Yield the images of each pick, the two after it and the defaults, below the teacher's own from the same seeds."""
    teachers = list(dict.fromkeys(bundle.frame["teacher"]))
    keys = {(solver, nfe): key for key, solver, nfe in blocks(list(bundle.images), teachers[0])} if teachers else {}
    own = next((key for (solver, _), key in keys.items() if solver == "teacher"), None)
    for pick in given["picks"]:
        asked: dict[str, str | None] = {"the reference": own}
        asked[f"pick: {pick['spec']}"] = keys.get((pick["spec"], pick["nfe"]))
        for each in pick["comparisons"]:
            asked[f"{each['role']}: {each['spec']}"] = keys.get((each["spec"], pick["nfe"]))
        found = {name: key for name, key in asked.items() if key}
        shown = sprites({key: bundle.images[key] for key in found.values()}, _most(len(given["picks"])))
        yield {
            "nfe": pick["nfe"],
            "note": shown.note,
            "rows": [
                {"label": name, "uri": shown.uris[key], "width": _wide(shown.sides[key], shown.counts[key]),
                 "alt": f"{name}: {shown.counts[key]} images"}
                for name, key in found.items()
            ],
        }  # fmt: skip


def _most(budgets: int) -> int:
    """Return the largest size in bytes of the images of one number of calls."""
    return (5 << 20) // max(budgets, 1)


def _wide(side: tuple[int, int], count: int) -> int:
    """Return the width in pixels at which a strip is shown: small images are enlarged by a whole factor."""
    high, wide = side
    return count * wide * max(1, math.ceil(SIDE / max(high, wide)))


def _spent(cost: Fields) -> str:
    calls = f"{cost['calls']:,.0f}".replace(",", "\u202f")
    searched = (
        f" and {cost['search_calls']:,.0f} in searches of grids".replace(",", "\u202f") if cost["search_calls"] else ""
    )
    return (
        f"A call takes {1000 * cost['seconds_per_call']:.3g} ms an image here. The race spent {calls} network calls"
        f"{searched} on {cost['images']} images, in {cost['seconds']:.0f} s."
    )


def _candidate(row: Fields) -> dict[str, str]:
    return {
        "nfe": str(row["nfe"]), "spec": row["spec"], "images": str(row["images"]), "rmse": f"{row['rmse']:.4g}",
        "state": row["state"], "same_as": row["same_as"],
    }  # fmt: skip
