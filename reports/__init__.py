"""Tables and figures from a bundle on disk. Imports no other package of the project, and never torch."""

if __name__ != "solverbench.reports":  # in a checkout this folder could be imported twice, under two names
    raise ImportError("reports: import it as solverbench.reports")

from solverbench.reports.bundle import Bundle as Bundle
from solverbench.reports.bundle import BundleError as BundleError
from solverbench.reports.bundle import load as load
from solverbench.reports.bundle import load_results as load_results
from solverbench.reports.comparison import compare as compare
from solverbench.reports.figures.contents import KINDS as KINDS
from solverbench.reports.figures.plots import draw as draw
from solverbench.reports.figures.training import training as training
from solverbench.reports.report import write as write
