"""Tables and figures from a bundle on disk. Imports no other package of the project, and never torch."""

if __name__ != "solverbench.reports":  # in a checkout this folder could be imported twice, under two names
    raise ImportError("reports: import it as solverbench.reports")

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solverbench.reports.bundle import Bundle as Bundle
    from solverbench.reports.bundle import BundleError as BundleError
    from solverbench.reports.bundle import load as load
    from solverbench.reports.bundle import load_results as load_results
    from solverbench.reports.comparison import compare as compare
    from solverbench.reports.figures.contents import KINDS as KINDS
    from solverbench.reports.figures.plots import draw as draw
    from solverbench.reports.figures.training import training as training
    from solverbench.reports.renewal import write as write

_home = dict.fromkeys(("Bundle", "BundleError", "load", "load_results"), "bundle")
_home |= {"compare": "comparison", "KINDS": "figures.contents", "draw": "figures.plots"}
_home |= {"training": "figures.training", "write": "renewal"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a report that did not change needs no drawing library."""
    if name not in _home:
        raise AttributeError(f"module 'solverbench.reports' has no attribute {name!r}")
    return getattr(importlib.import_module(f"solverbench.reports.{_home[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_home})
