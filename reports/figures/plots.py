"""One figure of a bundle by its kind, for use in a notebook."""

import pandas as pd

from solverbench.reports.bundle import Bundle, BundleError, load, tidy
from solverbench.reports.drawing.base import Drawing
from solverbench.reports.figures import widths
from solverbench.reports.figures.contents import KINDS, Source
from solverbench.reports.figures.widths import Width
from solverbench.reports.parts import parts


def draw(
    source: Bundle | pd.DataFrame | str, metric: str | None = None, teacher: str | None = None, *, kind: str = "nfe",
    nfe: int | None = None, width: str | Width | None = None,
) -> Drawing:  # fmt: skip
    """Return a figure; without `kind`, one metric against NFE with a row per teacher, or every metric side by side.

    Args:
        source: a loaded bundle, the folder of one, or the frame that a run returns (labels and lines then come from
            `frame.attrs["record"]`, if present).
        metric: such as "frechet_data".
        teacher: one teacher's name; None for all of them.
        kind: nfe, grid (teachers side by side), speed (images per second), training (its cost), serial (calls that
            wait for one another), latency (milliseconds per image), trajectory (errors to the teacher's images and to
            exact solutions), levels, weights, images, differences. The last four show one teacher (the first one if
            none is named) and need a bundle.
        nfe: the budget whose weights are shown; if None, the smallest one that a learned solver has.
        width: a venue whose columns the figure fits: icml, cvpr, neurips, iclr.
    Raises: BundleError for a frame without the required columns, or a request for data that the results do not hold.
    """
    if kind not in KINDS:
        raise BundleError(asked=f"kind {kind!r}", wrong="it is not known", remedy=f"choose from {', '.join(KINDS)}")
    source = load(source) if isinstance(source, str) else source
    if isinstance(source, Bundle):
        found = parts(source.frame, source.record)
    else:
        found = parts(tidy(source), source.attrs.get("record", {}))
    for key, wanted in (("metric", metric), ("teacher", teacher)):
        there = list(dict.fromkeys(getattr(part, key) for part in found))
        if wanted is not None and wanted not in there:
            raise BundleError(
                asked=f"{key} {wanted!r}", wrong="the results do not hold it", remedy=f"choose from {', '.join(there)}"
            )
    chosen = [p for p in found if metric in (None, p.metric) and teacher in (None, p.teacher)]
    asked, bundle = KINDS[kind], source if isinstance(source, Bundle) else None
    if asked.of_teacher and bundle is None:
        raise BundleError(
            asked=f"kind {kind!r}", wrong="a frame does not hold it", remedy="give a bundle, as from load_results"
        )
    content = asked.make(Source(bundle, chosen, widths.width(width), teacher or chosen[0].teacher, nfe))
    if content is None:
        wrong = f"the bundle has none of {teacher or chosen[0].teacher}" if asked.of_teacher else asked.lacking
        raise BundleError(asked=f"kind {kind!r}", wrong=wrong, remedy="run the selection again to write it")
    return content.draw()
