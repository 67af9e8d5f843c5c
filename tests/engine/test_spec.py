"""Specs and selections: what they mean, how they are written back, and the one line for a mistake."""

import contextlib

import pytest

import solverbench as sb
from solverbench.errors import BudgetError, GridError, NeedsTrainingError, SpecError, UnknownNameError
from solverbench.method.spec import expand, numbers


@pytest.mark.parametrize(
    ("asked", "canonical"),
    [
        (
            "dpm",
            "dpm:afs=false:d2=half:end=sigma_min:grid=logsnr:lower_order_final=true:order=3"
            ":prediction=data:singlestep=false:threshold=false:variant=midpoint",
        ),
        (
            "dpmpp:order=2:grid=karras",
            "dpm:afs=false:d2=half:end=sigma_min:grid=polynomial:lower_order_final=true:order=2"
            ":prediction=data:rho=7:singlestep=false:threshold=false:variant=midpoint",
        ),
        (
            "unipc:threshold=true",
            "unipc:afs=false:end=sigma_min:grid=logsnr:lower_order_final=true:order=3"
            ":prediction=data:threshold=true:variant=bh2",
        ),
        ("euler", "euler:afs=false:end=sigma_min:grid=polynomial:rho=7:threshold=false"),
        ("ddim", "euler:afs=false:end=sigma_min:grid=time_uniform:rho=1:threshold=false"),
        ("ddim:grid=polynomial", "euler:afs=false:end=sigma_min:grid=polynomial:rho=7:threshold=false"),
        ("euler:grid=leading", "euler:afs=false:end=sigma_min:grid=leading:offset=1:threshold=false"),
        ("euler:grid=flow_shift:shift=3", "euler:afs=false:end=sigma_min:grid=flow_shift:shift=3:threshold=false"),
        ("euler:grid=80+9.70+.8+2e-3", "euler:afs=false:end=sigma_min:grid=80.0+9.7+0.8+0.002:threshold=false"),
        ("euler:grid=8+1+0", "euler:afs=false:end=zero:grid=8.0+1.0+0.0:threshold=false"),
        ("euler:grid=time_uniform", "euler:afs=false:end=sigma_min:grid=time_uniform:rho=1:threshold=false"),
        ("gas", "gas:authors=none:form=gs:grid=learned:lower_order_final=false:offsets=true:theory=true"),
    ],
)
def test_a_spec_is_written_back_in_full(asked, canonical):
    assert sb.make(asked).spec == canonical
    assert sb.make(canonical).spec == canonical


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        ("unpic", UnknownNameError, "not registered"),
        ("dpn", UnknownNameError, "did you mean 'dpm'"),
        ("dpm:ordr=3", SpecError, "did you mean 'order'"),
        ("dpm:order=4", SpecError, "use 1 or 2 or 3"),
        ("dpm:order=two", SpecError, "a whole number"),
        ("dpm:order", SpecError, "key=value"),
        ("dpm:order=2:order=3", SpecError, "twice"),
        ("dpm:lower_order_final=maybe", SpecError, "true or false"),
        ("dpm:grid=logsnrr", UnknownNameError, "did you mean 'logsnr'"),
        ("dpm:rho=7", SpecError, "no rho"),
        ("dpm:shift=3", SpecError, "no shift"),
        ("dpm:grid=trailing:offset=1", SpecError, "no offset"),
        ("dpm:grid=leading:offset=-1", SpecError, "above -1"),
        ("dpm:grid=flow_shift:shift=0", SpecError, "above 0"),
        ("euler:rho=-1", SpecError, "above 0"),
        ("euler:rho=nan", SpecError, "above 0"),
        ("euler:grid=8+1:end=zero", SpecError, "end them in 0"),
        ("gas:afs=true", SpecError, "no option"),
        ("gas:threshold=true", SpecError, "no option"),
        ("dpm:d2=full:order=2", SpecError, "order 2 has no second difference"),
        ("dpm:d2=full:singlestep=true", SpecError, "singlestep has no second difference"),
        ("dpm:singlestep=true:lower_order_final=false", SpecError, "leave lower_order_final out"),
        ("dpm:prediction=velocity", SpecError, "use data or noise"),
        ("unipc:variant=bh3", SpecError, "use bh1 or bh2"),
        ("unipc:singlestep=true", SpecError, "no option"),
        ("euler:grid=8+x", GridError, "not a list of numbers"),
        ("euler:grid=@/nowhere.txt", SpecError, "can't read"),
        ("", UnknownNameError, "not registered"),
    ],
)
def test_a_bad_spec_is_one_clear_line(spec, error, text):
    with pytest.raises(error, match=text) as caught:
        sb.make(spec)
    assert "\n" not in str(caught.value)


def test_an_option_that_may_be_left_out_may_be_none():
    assert sb.make("adams:corrector=none") == sb.make("adams")
    with pytest.raises(sb.SpecError, match="'none' isn't a whole number"):
        sb.make("adams:predictor=none")


def test_levels_come_from_a_file(tmp_path):
    (tmp_path / "g:1.txt").write_text("80, 9.7\n0.8 0.002\n")
    assert ":grid=80.0+9.7+0.8+0.002:" in sb.make(f"euler:grid=@{tmp_path}/g:1.txt").spec


def test_explicit_levels_fix_the_number_of_steps():
    with pytest.raises(GridError, match="4 levels make 3 steps, but 5"):
        sb.tableau("euler:grid=80+9.7+0.8+0.002", nfe=5)


def test_lists_and_alternatives_expand_in_order():
    assert expand("gas,dpm:order=2|3,gas") == ["gas", "dpm:order=2", "dpm:order=3"]


@pytest.mark.parametrize(
    ("text", "expected"), [("3-10", list(range(3, 11))), ("8,3,5,3", [3, 5, 8]), ("4-10:2", [4, 6, 8, 10])]
)
def test_budgets_are_sorted_and_unique(text, expected):
    assert numbers(text) == expected


@pytest.mark.parametrize("text", ["", "10-3", "0-4", "3-", "a", "3;4", "4-10:0", "5000", "-3"])
def test_a_bad_budget_is_refused(text):
    with pytest.raises(SpecError, match="nfe"):
        numbers(text)


@pytest.mark.parametrize("text", ["", "gas,,dpm", ",gas"])
def test_an_empty_name_is_refused(text):
    with pytest.raises(SpecError, match="empty name"):
        expand(text)


@pytest.mark.parametrize(
    ("spec", "nfe", "nearest"),
    [
        ("heun", 5, "nfe=4 or nfe=6 or heun:end=zero"),
        ("heun", 1, "nfe=2"),
        ("heun:end=zero", 4, "nfe=3 or nfe=5"),
        ("heun:afs=true", 4, "nfe=3 or nfe=5"),
    ],
)
def test_a_budget_that_is_not_spent_exactly_names_the_nearest(spec, nfe, nearest):
    with pytest.raises(BudgetError, match=nearest):
        sb.tableau(spec, nfe=nfe)


@pytest.mark.parametrize("afs", ["true", "false"])
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize(
    "name", ["euler", "heun", "dpm", "dpm:singlestep=true", "dpm:singlestep=true:order=2", "unipc"]
)
def test_the_calls_that_are_asked_for_are_the_calls_that_are_made(name, end, afs):
    solver = sb.make(f"{name}:end={end}:afs={afs}")
    spent = 0
    for nfe in range(1, 13):
        with contextlib.suppress(BudgetError):
            spent += sb.tableau(solver, nfe=nfe).nfe == nfe
    assert spent >= 5


def test_a_learned_solver_without_parameters_says_how_to_train_it():
    with pytest.raises(NeedsTrainingError, match="give the argument teacher"):
        sb.tableau("gas", nfe=4)


def test_a_plugin_comes_in_by_the_same_door():
    class Mine(sb.Solver):
        """Half-hearted Euler."""

        name = "mine_for_this_test"
        damp: float = sb.option(1.0, above=0.0)

        def integrate(self, denoise, x, grid):
            return denoise(x, grid.sigmas[0]) * self.damp

    sb.register(Mine)
    assert sb.make("mine_for_this_test:damp=0.5").damp == 0.5
    assert sb.tableau("mine_for_this_test", nfe=1).nfe == 1

    class Euler(Mine):
        """Takes a name that is taken."""

        name = "euler"

    with pytest.raises(SpecError, match="already registered"):
        sb.register(Euler)
