"""Conformance checks of solvers and teachers, as plain functions: call them from your own test, or use `run_all`.

@pytest.mark.parametrize("check", conformance.checks(Mine()), ids=str)
def test_mine(check):
    check()
"""

from solverbench.conformance.orders import TOLERANCE as TOLERANCE
from solverbench.conformance.suite import FAIL as FAIL
from solverbench.conformance.suite import PASS as PASS
from solverbench.conformance.suite import UNDECLARED as UNDECLARED
from solverbench.conformance.suite import Check as Check
from solverbench.conformance.suite import ConformanceError as ConformanceError
from solverbench.conformance.suite import Outcome as Outcome
from solverbench.conformance.suite import assert_conforms as assert_conforms
from solverbench.conformance.suite import checks as checks
from solverbench.conformance.suite import run_all as run_all
from solverbench.conformance.trials import BUDGETS as BUDGETS
