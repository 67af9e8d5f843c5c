"""Options of teachers as axes of a run: how specs expand, and what a report's record and table say of them."""

import dataclasses

import pandas as pd
import pytest
import toys

from solverbench.bench import resolve
from solverbench.bench import run as runner
from solverbench.bench.bundle import axes
from solverbench.bench.cells import teachers_of
from solverbench.bench.protocol import Protocol
from solverbench.bench.run_options import RunOptions
from solverbench.errors import SpecError
from solverbench.reports import load
from solverbench.teachers.conditions import Condition
from solverbench.teachers.loading import load_teacher
from solverbench.teachers.teacher import alternatives


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("shapes", ["shapes"]),
        ("shapes:guidance=1|2", ["shapes:guidance=1", "shapes:guidance=2"]),
        ("a:x=1|2:y=3|4", ["a:x=1:y=3", "a:x=1:y=4", "a:x=2:y=3", "a:x=2:y=4"]),
        ("shapes:classes=seed|fixed:3", ["shapes:classes=seed", "shapes:classes=fixed:3"]),
        ("hf:me/net@abc:guidance=3|5", ["hf:me/net@abc:guidance=3", "hf:me/net@abc:guidance=5"]),
        ("sd15.toml:prompts=a/b.txt|c.txt", ["sd15.toml:prompts=a/b.txt", "sd15.toml:prompts=c.txt"]),
    ],
)
def test_alternatives_of_a_teachers_options_are_specs(text, expanded):
    assert alternatives(text) == expanded


@pytest.mark.parametrize("text", ["shapes:guidance=1|", "shapes:guidance=|2", "shapes:guidance=1|2:guidance=3"])
def test_an_empty_or_repeated_alternative_is_refused(text):
    with pytest.raises(SpecError):
        alternatives(text)


def resolved(teachers):
    options = RunOptions(solvers="euler", nfe="4", teachers=teachers, samples=20, replicates=1)
    return resolve.resolve(options, Protocol.of(options), keep=False)


def test_a_run_over_a_teachers_option_has_the_cells_of_single_runs():
    """Their addresses do not know of the list that they stood in."""
    both = resolved("shapes:guidance=1|2")
    alone = [*resolved("shapes:guidance=1"), *resolved("shapes:guidance=2")]
    assert [cell.address for cell in both] == [cell.address for cell in alone]
    assert both[0].address == resolved("shapes")[0].address
    found = axes.of(teachers_of(both))
    assert found.as_dict() == {
        "axes": {
            "options": ["guidance"],
            "teachers": {
                "shapes-guidance=1": {"model": "shapes", "values": {"guidance": "1"}},
                "shapes-guidance=2": {"model": "shapes", "values": {"guidance": "2"}},
            },
        }
    }


def varied(spec, guidance=1.0):
    """The toy teacher under a spec, with a condition."""
    from solverbench.teachers.teacher import _labelled, _parts

    head, given = _parts(spec)
    condition = Condition(classes="seed", count=3, guidance=guidance)
    return dataclasses.replace(
        toys.teacher(), name=_labelled(head, given), spec=spec, condition=condition, identity=f"toy {guidance}"
    )


def test_only_what_differs_between_teachers_of_one_network_is_an_axis():
    """An option that is not given has the value of the condition; one that all have is in the model's name."""
    teachers = [varied("a:dtype=fp32"), varied("a:dtype=fp32:guidance=3", 3.0), varied("b:classes=seed")]
    found = axes.of(teachers)
    assert found.options == ("guidance",)
    assert list(found.models.values()) == ["a-dtype=fp32", "a-dtype=fp32", "b-classes=seed"]
    assert list(found.values.values()) == [{"guidance": "1"}, {"guidance": "3"}, {}]
    assert axes.of(teachers[:1]).as_dict() == {}
    assert axes.of([load_teacher("digits"), load_teacher("mixture")]).as_dict() == {}
    assert axes.of([varied("a:prompts=x/one.txt"), varied("a:prompts=two.txt")]).values == {
        "a-prompts=one": {"prompts": "one"}, "a-prompts=two.txt": {"prompts": "two.txt"},
    }  # fmt: skip


def test_a_column_is_named_after_the_option():
    assert axes.column("guidance", ("teacher", "metric")) == "guidance"
    assert axes.column("metric", ("teacher", "metric")) == "teacher_metric"


def test_a_run_writes_the_option_to_its_table_and_record_and_judges_each_value_alone(tmp_path):
    options = RunOptions(
        solvers="euler,dpm", nfe="3", teachers=[varied("toy:guidance=1"), varied("toy:guidance=2", 2.0)], samples=20,
        replicates=1, out=tmp_path, workers=1,
    )  # fmt: skip
    done = runner.run(options)
    table = pd.read_csv(done.folder / "results.csv", dtype=str)
    assert set(zip(table["teacher"], table["guidance"], strict=True)) == {
        ("toy-guidance=1", "1"), ("toy-guidance=2", "2"),
    }  # fmt: skip
    record = load(done.folder).record
    assert record["axes"]["options"] == ["guidance"]
    assert done.frame["guidance"].tolist() == table["guidance"].tolist()
