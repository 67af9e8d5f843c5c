"""The definition and execution of solvers: schedules, grids, loops, tableaux, the executor.

The names exported here are the ones needed to write a solver.
"""

from solverbench.method.classical import Classical as Classical
from solverbench.method.declarations import option as option
from solverbench.method.execution import execute as execute
from solverbench.method.exponential import ADAMS_BASHFORTH as ADAMS_BASHFORTH
from solverbench.method.exponential import ExponentialIntegrator as ExponentialIntegrator
from solverbench.method.exponential import adams as adams
from solverbench.method.exponential import block_orders as block_orders
from solverbench.method.exponential import differences as differences
from solverbench.method.exponential import lagrange as lagrange
from solverbench.method.exponential import order_at as order_at
from solverbench.method.exponential import phis as phis
from solverbench.method.exponential import unified as unified
from solverbench.method.grids import Grid as Grid
from solverbench.method.rectified_flow import RectifiedFlow as RectifiedFlow
from solverbench.method.schedules import EDM as EDM
from solverbench.method.schedules import NoiseSchedule as NoiseSchedule
from solverbench.method.schedules import VPLinear as VPLinear
from solverbench.method.solver import Denoise as Denoise
from solverbench.method.solver import LearnedSolver as LearnedSolver
from solverbench.method.solver import Solver as Solver
from solverbench.method.solver import refuse_budget as refuse_budget
from solverbench.method.spec import make as make
from solverbench.method.tableau import Plan as Plan
from solverbench.method.tableau import Tableau as Tableau
from solverbench.method.tracing import trace as trace
from solverbench.method.vp_discrete import VPDiscrete as VPDiscrete
