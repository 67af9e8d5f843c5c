"""SolverBench: every few-step diffusion solver behind one interface. Names are imported when they are first used."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from solverbench.api import noise as noise
    from solverbench.api import plan as plan
    from solverbench.api import recommend as recommend
    from solverbench.api import run as run
    from solverbench.api import train as train
    from solverbench.errors import BudgetError as BudgetError
    from solverbench.errors import GridError as GridError
    from solverbench.errors import MissingError as MissingError
    from solverbench.errors import PluginError as PluginError
    from solverbench.errors import SpecError as SpecError
    from solverbench.errors import UserError as UserError
    from solverbench.evaluation.own_data import Evaluation as Evaluation
    from solverbench.export.export import diffusers_scheduler as diffusers_scheduler
    from solverbench.export.export import k_diffusion_sampler as k_diffusion_sampler
    from solverbench.learned.equip import tableau as tableau
    from solverbench.method import ADAMS_BASHFORTH as ADAMS_BASHFORTH
    from solverbench.method import EDM as EDM
    from solverbench.method import Classical as Classical
    from solverbench.method import Denoise as Denoise
    from solverbench.method import ExponentialIntegrator as ExponentialIntegrator
    from solverbench.method import Grid as Grid
    from solverbench.method import LearnedSolver as LearnedSolver
    from solverbench.method import NoiseSchedule as NoiseSchedule
    from solverbench.method import RectifiedFlow as RectifiedFlow
    from solverbench.method import Solver as Solver
    from solverbench.method import Tableau as Tableau
    from solverbench.method import VPDiscrete as VPDiscrete
    from solverbench.method import VPLinear as VPLinear
    from solverbench.method import block_orders as block_orders
    from solverbench.method import differences as differences
    from solverbench.method import execute as execute
    from solverbench.method import make as make
    from solverbench.method import option as option
    from solverbench.method import phis as phis
    from solverbench.method import refuse_budget as refuse_budget
    from solverbench.method import trace as trace
    from solverbench.method import unified as unified
    from solverbench.metrics.evaluation import Reference as Reference
    from solverbench.metrics.extractors.plugin import Extractor as Extractor
    from solverbench.metrics.plugin import Metric as Metric
    from solverbench.plugins import load as load_plugin  # noqa: F401
    from solverbench.plugins import register as register
    from solverbench.reports import BundleError as BundleError
    from solverbench.reports import compare as compare
    from solverbench.reports import draw as plot  # noqa: F401
    from solverbench.reports import load_results as load_results
    from solverbench.reports import write as report  # noqa: F401
    from solverbench.teachers.adaptors import Adapted as Adapted
    from solverbench.teachers.adaptors import Clipped as Clipped
    from solverbench.teachers.adaptors import fingerprint as fingerprint
    from solverbench.teachers.adaptors import per_image as per_image
    from solverbench.teachers.conditions import Condition as Condition
    from solverbench.teachers.conditions import Guided as Guided
    from solverbench.teachers.loading import load_teacher as load_teacher
    from solverbench.teachers.teacher import Teacher as Teacher

from solverbench._version import __version__ as __version__

_checkout = Path(__file__).parents[1]
if (_checkout / "pyproject.toml").is_file():  # baselines, registries and reports lie beside this folder there
    __path__.append(str(_checkout))

_homes = {
    "solverbench.api": ["noise", "plan", "recommend", "run", "train"],
    "solverbench.errors": ["BudgetError", "GridError", "MissingError", "PluginError", "SpecError", "UserError"],
    "solverbench.evaluation.own_data": ["Evaluation"],
    "solverbench.export.export": ["diffusers_scheduler", "k_diffusion_sampler"],
    "solverbench.learned.equip": ["tableau"],
    "solverbench.method": [
        *("ADAMS_BASHFORTH", "Classical", "Denoise", "EDM", "ExponentialIntegrator", "Grid", "LearnedSolver"),
        *("NoiseSchedule", "RectifiedFlow", "Solver", "Tableau", "VPDiscrete", "VPLinear", "block_orders"),
        *("differences", "execute", "make", "option", "phis", "refuse_budget", "trace", "unified"),
    ],
    "solverbench.metrics.evaluation": ["Reference"],
    "solverbench.metrics.extractors.plugin": ["Extractor"],
    "solverbench.metrics.plugin": ["Metric"],
    "solverbench.plugins": ["register"],
    "solverbench.teachers.adaptors": ["Adapted", "Clipped", "fingerprint", "per_image"],
    "solverbench.teachers.conditions": ["Condition", "Guided"],
    "solverbench.teachers.loading": ["load_teacher"],
    "solverbench.teachers.teacher": ["Teacher"],
}
_home = {name: (module, name) for module, names in _homes.items() for name in names}
_home |= {"load_plugin": ("solverbench.plugins", "load")}
_home |= {"plot": ("solverbench.reports", "draw"), "report": ("solverbench.reports", "write")}
_home |= {name: ("solverbench.reports", name) for name in ("BundleError", "compare", "load_results")}


def __getattr__(name: str) -> Any:
    if name not in _home:
        raise AttributeError(f"module 'solverbench' has no attribute {name!r}")
    module, attribute = _home[name]
    value = globals()[name] = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return ["__version__", *sorted(_home)]
