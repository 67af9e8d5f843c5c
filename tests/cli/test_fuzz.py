"""Whatever is typed, configured or stored: a documented exit code and clear lines, never a traceback.

SOLVERBENCH_FUZZ=20 makes twenty times as many examples as CI does.
"""

import os
import shutil
import warnings
from functools import cache

import pytest
import toys
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import solverbench as sb
from solverbench import files, registries
from solverbench.bench import cells, run
from solverbench.bench.run_options import RunOptions
from solverbench.cli.main import main
from solverbench.errors import UserError

pytestmark = pytest.mark.usefixtures("unrendered", "remembered")

DOCUMENTED = {0, 1, 2, 3, 4, 5, 130}
MANY = int(os.environ.get("SOLVERBENCH_FUZZ", "1"))
SMALL = {"samples": 10, "replicates": 1, "batch": 5}


def examples(count):
    return settings(
        max_examples=count * MANY, deadline=None, derandomize=MANY == 1, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def invoke(*arguments, folder):
    """Run in `folder`, and check what every run must do."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = CliRunner().invoke(main, list(arguments))
    finally:
        os.chdir(before)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"{arguments}: not an exit code but {result.exception!r}") from result.exception
    assert result.exit_code in DOCUMENTED, (arguments, result.output)
    assert "Traceback" not in result.output
    if result.exit_code == 2:
        assert "Error: " in result.stderr or "Usage: " in result.output, (arguments, result.output)
    return result


# No slash: nothing outside the test's own folder is ever named.
RUBBISH = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\"), max_size=12).filter(
    lambda text: ".." not in text
)
NUMBERS = st.one_of(
    st.integers(-5, 40).map(str), st.sampled_from(["1e3", "nan", "inf", "-0", "1_0", "٣", "999999999999"])
)
NAMES = st.sampled_from([*registries.solvers, "ddim", "dpmpp", "nix", "", "@", "@nix.json"])
KEYS = st.sampled_from(
    ["order", "grid", "rho", "prediction", "lower_order_final", "variant", "afs", "end", "threshold", "d2", "form", "r",
     "quadrature", "compat", "singlestep", "base", "mode", "t_eps", "nix", ""]
)  # fmt: skip
VALUES = st.one_of(
    NUMBERS,
    st.sampled_from(
        ["polynomial", "logsnr", "time_uniform", "time_quadratic", "data", "noise", "true", "false", "bh1", "zero",
         "full", "sigma_min", "80+9.7+0.8+0.002", "80+80", "1+0", "0+1", "1e400+1", "+", "2|3", "learned", "rho"]
    ),
    RUBBISH,
)  # fmt: skip
SPECS = st.one_of(
    st.builds(
        lambda name, options: ":".join([name, *(f"{key}={value}" for key, value in options)]),
        NAMES,
        st.lists(st.tuples(KEYS, VALUES), max_size=4),
    ),
    RUBBISH,
)
BUDGETS = st.one_of(
    st.sampled_from(["3", "3-5", "4-10:2", "5-3", "0", "3,,4", "1-", "-1", "3-5:0", "2:3"]), NUMBERS, RUBBISH
)
TEACHERS = st.one_of(
    st.sampled_from(
        ["digits", "mixture", "mixture,digits", "shapes", "shapes:guidance=2", "digitz", "teacher.toml", ""]
    ),
    RUBBISH,
)
SEEDS = st.one_of(st.sampled_from(["50000-50009", "0-9", "9-0", "50000", "5-", "50000-50019"]), NUMBERS, RUBBISH)


def flags(**kinds):
    """Some flags of a command with values, each perhaps given."""
    return st.fixed_dictionaries({}, optional=kinds).map(
        lambda chosen: [
            part for name, value in chosen.items() for part in ((f"--{name}", value) if value else (f"--{name}",))
        ]
    )


PLAN = flags(
    solvers=SPECS, nfe=BUDGETS, teachers=TEACHERS, samples=NUMBERS, replicates=NUMBERS, seeds=SEEDS, batch=NUMBERS,
    metrics=st.one_of(st.sampled_from(["fid", "psnr_teacher", "kid,fid", "nix"]), RUBBISH),
    reference=RUBBISH, extractor=RUBBISH, quantiser=st.sampled_from(["edm-round", "adm-floor", "nix", ""]),
    protocol=st.sampled_from(["smoke", "quick", "nix", ""]), device=st.sampled_from(["cpu", "cuda:9", "tpu", ""]),
    full=st.none(), exact=st.none(), json=st.none(), train=st.sampled_from(["missing", "all"]),
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@examples(60)
@given(options=PLAN)
@example(options=["--solvers", "euler:rho=1e400"])
def test_any_selection_is_planned_or_refused(place, options):
    invoke("plan", "--samples", "10", "--nfe", "3", *options, folder=place)
    assert not (place / "runs").exists()


@examples(4)
@given(specs=st.lists(SPECS, min_size=1, max_size=2), nfe=st.sampled_from(["3", "1", "5", "2-3"]))
def test_any_solvers_are_run_or_refused(place, specs, nfe):
    out = place / "out"
    shutil.rmtree(out, ignore_errors=True)
    small = ["--samples", "10", "--replicates", "1", "--no-exact", "--teachers", "mixture", "--out", "out"]
    invoke("run", "--solvers", ",".join(specs), "--nfe", nfe, *small, folder=place)


COMMANDS = st.sampled_from(
    [["list"], ["info"], ["report"], ["store", "status"], ["store", "verify"], ["store", "gc"], ["store", "merge"],
     ["store", "export"], ["zoo", "list"], ["zoo", "show"], ["zoo", "export"], ["zoo", "add"], ["zoo", "import"],
     ["refs", "list"], ["refs", "verify"], ["refs", "build"], ["teachers", "list"], ["teachers", "info"],
     ["teachers", "add"], ["reproduce", "--list"], ["nix"], []]
)  # fmt: skip


@examples(60)
@given(
    command=COMMANDS,
    words=st.lists(st.one_of(SPECS, TEACHERS, BUDGETS), max_size=2),
    options=flags(
        nfe=BUDGETS, out=RUBBISH, to=RUBBISH, teacher=TEACHERS, format=RUBBISH, json=st.none(), cell=RUBBISH,
        report=RUBBISH, training=RUBBISH, kind=RUBBISH, name=RUBBISH, cells=st.none(), help=st.none(),
    ),
)  # fmt: skip
def test_any_command_line_ends_with_a_documented_code(place, command, words, options):
    invoke(*command, *words, *options, folder=place)


@examples(150)
@given(spec=SPECS, nfe=st.integers(-2, 12))
def test_any_spec_is_a_solver_or_one_line(spec, nfe):
    try:
        solver = sb.make(spec)
        assert sb.make(solver.spec).spec == solver.spec
        sb.tableau(solver, nfe=nfe, teacher=toys.teacher())
    except UserError as error:
        said = str(error)
    else:
        said = "none"
    assert len(said.splitlines()) == 1


TOML_VALUES = st.one_of(
    st.integers(), st.floats(), st.booleans(), RUBBISH, st.lists(st.integers(-3, 30), max_size=3),
    st.dictionaries(st.sampled_from(["a", "b"]), st.integers(), max_size=1),
)  # fmt: skip


def toml(value):
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() or c in " -_.,:=" else f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {toml(each)}' for key, each in value.items())}}}"
    return repr(value)


CONFIGS = st.one_of(
    st.binary(max_size=60),
    st.dictionaries(
        st.sampled_from(
            ["solvers", "nfe", "teachers", "samples", "replicates", "batch", "seeds", "full", "exact", "json", "out",
             "device", "config", "metrics", "nix"]
        ),
        st.one_of(TOML_VALUES, SPECS, BUDGETS),
        max_size=5,
    ).map(lambda body: "".join(f"{key} = {toml(value)}\n" for key, value in body.items()).encode()),
)  # fmt: skip


@examples(60)
@given(config=CONFIGS)
def test_any_config_is_taken_or_refused(place, config):
    (place / "config.toml").write_bytes(config)
    invoke("plan", "--samples", "10", "--config", "config.toml", folder=place)


DESCRIPTIONS = st.one_of(
    st.binary(max_size=60),
    st.dictionaries(
        st.sampled_from(
            ["name", "family", "checkpoint", "classes", "prompts", "prompt_count", "negative", "guidance", "dtype",
             "compile", "channels_last", "sigma_min", "sigma_max", "sampler", "sampler_nfe", "files", "options", "nix"]
        ),
        st.one_of(TOML_VALUES, st.sampled_from(["edm", "diffusers", "compvis", "weights.pkl", "fp16", "heun"])),
        max_size=6,
    ).map(lambda body: "".join(f"{key} = {toml(value)}\n" for key, value in body.items()).encode()),
)  # fmt: skip


@examples(60)
@given(description=DESCRIPTIONS, weights=st.binary(max_size=40))
def test_any_description_of_a_teacher_is_taken_or_refused(place, description, weights):
    (place / "teacher.toml").write_bytes(description)
    (place / "weights.pkl").write_bytes(weights)
    result = invoke("plan", "--samples", "10", "--nfe", "3", "--teachers", "teacher.toml", folder=place)
    assert result.exit_code in (2, 3)


@examples(30)
@given(
    solver=st.sampled_from(["gas", "gs", "ld3", "s4s", "euler", "nix"]),
    changes=st.lists(
        st.tuples(
            st.sampled_from(
                ["iterations", "lr", "batch", "stages", "widths", "loss", "train_size", "train_first", "patience",
                 "radius", "validation_size", "training_seeds", "optimiser", "choose", "nix", ""]
            ),
            st.one_of(VALUES, st.sampled_from(["all:1", "times:2,all:3", "3+4", "adam", "last"])),
        ).map("=".join),
        max_size=3,
    ),
)  # fmt: skip
def test_any_change_of_a_recipe_is_shown_or_refused(place, solver, changes):
    told = [part for change in changes for part in ("--set", change)]
    invoke("train", solver, "--nfe", "4", "--show-recipe", *told, folder=place)


@cache
def whole(place):
    """A finished store: its folder, and the numbers of it."""
    out = place / "whole"
    found = run.run(RunOptions(solvers="euler,dpm", nfe="3", teachers="mixture", exact=False, out=out, **SMALL))
    return out, found.frame.value.tolist()


@st.composite
def damages(draw):
    """Which file, and what becomes of it."""
    return draw(st.integers(0, 10**6)), draw(
        st.one_of(
            st.just(None),
            st.binary(max_size=200),
            st.tuples(st.integers(0, 10**6), st.integers(0, 255)),
            st.integers(0, 10**6),
            st.just("folder"),
        )
    )


def damage(paths, which, how):
    """Remove a file, write another content, change a byte, cut it short, or put a folder in its place."""
    path = paths[which % len(paths)]
    if not path.is_file():
        return
    content = bytearray(path.read_bytes())
    if how is None or how == "folder":
        path.unlink()
        if how == "folder":
            path.mkdir()
    elif isinstance(how, bytes):
        path.write_bytes(how)
    elif isinstance(how, tuple):
        if content:
            content[how[0] % len(content)] = how[1]
        path.write_bytes(content)
    else:
        path.write_bytes(content[: how % (len(content) + 1)])


@examples(12)
@given(many=st.lists(damages(), min_size=1, max_size=4), unfinished=st.booleans())
def test_any_damage_of_a_store_gives_clear_lines_and_never_a_wrong_number(place, many, unfinished):
    out, numbers = whole(place)
    store = place / "damaged"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(out, store)
    if unfinished:
        for path in [*store.glob("cells/*/*/metrics.json"), *sorted(store.glob("cells/*/*/blocks/*"))[::3]]:
            path.unlink()
    paths = sorted(path for path in store.rglob("*") if path.is_file())
    for which, how in many:
        damage(paths, which, how)
    for command in (["status"], ["verify"], ["gc", "--dry-run"], ["export", "--to", "packed"]):
        shutil.rmtree(place / "packed", ignore_errors=True)
        invoke("store", *command, "--out", "damaged", folder=place)
    shutil.rmtree(place / "merged", ignore_errors=True)
    invoke("store", "merge", "damaged", "--out", "merged", folder=place)
    try:
        found = run.run(RunOptions(solvers="euler,dpm", nfe="3", teachers="mixture", exact=False, out=store, **SMALL))
    except (UserError, OSError):  # the command line shows both as one line
        return
    for value, right, status in zip(found.frame.value, numbers, found.frame.status, strict=True):
        assert value == right or status == cells.FAILED


def test_the_fuzz_finds_what_is_planted(place, monkeypatch):
    """A checksum that is no longer tested: damage changes numbers, and the test above says so."""
    monkeypatch.setattr(files, "_damage", lambda path, what: ValueError("planted"))
    with pytest.raises((AssertionError, ValueError, BaseExceptionGroup)):
        test_any_damage_of_a_store_gives_clear_lines_and_never_a_wrong_number.hypothesis.inner_test(
            place, [(40, b"x"), (3, b"y"), (60, b"z")], True
        )
