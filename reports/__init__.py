"""Tables and figures from a bundle on disk; imports no other package of the project, and never torch."""

from reports.bundle import Bundle as Bundle
from reports.bundle import BundleError as BundleError
from reports.bundle import load as load
from reports.bundle import load_results as load_results
from reports.comparison import compare as compare
from reports.curves import training as training
from reports.plots import KINDS as KINDS
from reports.plots import draw as draw
from reports.report import write as write
