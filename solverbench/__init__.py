"""SolverBench: every few-step diffusion solver behind one interface. Names are imported when they are first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports import BundleError as BundleError
    from reports import compare as compare
    from reports import draw as plot  # noqa: F401
    from reports import load_results as load_results
    from reports import write as report  # noqa: F401
    from solverbench.adaptors import Adapted as Adapted
    from solverbench.adaptors import fingerprint as fingerprint
    from solverbench.adaptors import per_image as per_image
    from solverbench.coefficients import ADAMS_BASHFORTH as ADAMS_BASHFORTH
    from solverbench.conditions import Condition as Condition
    from solverbench.conditions import Guided as Guided
    from solverbench.errors import BudgetError as BudgetError
    from solverbench.errors import GridError as GridError
    from solverbench.errors import MissingError as MissingError
    from solverbench.errors import PluginError as PluginError
    from solverbench.errors import SpecError as SpecError
    from solverbench.errors import UserError as UserError
    from solverbench.execution import execute as execute
    from solverbench.exponential import ExponentialIntegrator as ExponentialIntegrator
    from solverbench.exponential import block_orders as block_orders
    from solverbench.exponential import differences as differences
    from solverbench.exponential import phis as phis
    from solverbench.exponential import unified as unified
    from solverbench.export import diffusers_scheduler as diffusers_scheduler
    from solverbench.export import k_diffusion_sampler as k_diffusion_sampler
    from solverbench.grids import Grid as Grid
    from solverbench.plugins import load as load_plugin  # noqa: F401
    from solverbench.plugins import register as register
    from solverbench.runner import table as run  # noqa: F401
    from solverbench.schedules import EDM as EDM
    from solverbench.schedules import NoiseSchedule as NoiseSchedule
    from solverbench.schedules import RectifiedFlow as RectifiedFlow
    from solverbench.schedules import VPDiscrete as VPDiscrete
    from solverbench.schedules import VPLinear as VPLinear
    from solverbench.scores import Metric as Metric
    from solverbench.solver import Classical as Classical
    from solverbench.solver import Denoise as Denoise
    from solverbench.solver import LearnedSolver as LearnedSolver
    from solverbench.solver import Solver as Solver
    from solverbench.solver import option as option
    from solverbench.solver import refuse_budget as refuse_budget
    from solverbench.spec import make as make
    from solverbench.tableaux import Tableau as Tableau
    from solverbench.teachers import Evaluation as Evaluation
    from solverbench.teachers import Reference as Reference
    from solverbench.teachers import Teacher as Teacher
    from solverbench.teachers import load_teacher as load_teacher
    from solverbench.tracing import tableau as tableau
    from solverbench.tracing import trace as trace

__version__ = "0.1.0"

_homes = {
    "solverbench.coefficients": ["ADAMS_BASHFORTH"],
    "solverbench.adaptors": ["Adapted", "fingerprint", "per_image"],
    "solverbench.conditions": ["Condition", "Guided"],
    "solverbench.errors": ["BudgetError", "GridError", "MissingError", "PluginError", "SpecError", "UserError"],
    "solverbench.execution": ["execute"],
    "solverbench.export": ["diffusers_scheduler", "k_diffusion_sampler"],
    "solverbench.exponential": ["ExponentialIntegrator", "block_orders", "differences", "phis", "unified"],
    "solverbench.grids": ["Grid"],
    "solverbench.schedules": ["EDM", "NoiseSchedule", "RectifiedFlow", "VPDiscrete", "VPLinear"],
    "solverbench.scores": ["Metric"],
    "solverbench.solver": ["Classical", "Denoise", "LearnedSolver", "Solver", "option", "refuse_budget"],
    "solverbench.plugins": ["register"],
    "solverbench.spec": ["make"],
    "solverbench.tableaux": ["Tableau"],
    "solverbench.teachers": ["Evaluation", "Reference", "Teacher", "load_teacher"],
    "solverbench.tracing": ["tableau", "trace"],
}
_home = {name: (module, name) for module, names in _homes.items() for name in names}
_home |= {"load_plugin": ("solverbench.plugins", "load"), "run": ("solverbench.runner", "table")}
_home |= {"plot": ("reports", "draw"), "report": ("reports", "write")}
_home |= {name: ("reports", name) for name in ("BundleError", "compare", "load_results")}


def __getattr__(name: str) -> Any:
    if name not in _home:
        raise AttributeError(f"module 'solverbench' has no attribute {name!r}")
    module, attribute = _home[name]
    value = globals()[name] = getattr(importlib.import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return ["__version__", *sorted(_home)]
