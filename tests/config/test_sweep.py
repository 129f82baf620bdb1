"""The section `sweep`: which points it makes, what they are called, and what is refused."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.config import load_config
from evaluator.config.point_names import LONGEST_SUFFIX, suffix_of
from evaluator.config.points import Sweep, expand, load_runs
from evaluator.config.schema import RunConfig
from evaluator.errors import ConfigError

SHIPPED = Path(__file__).parents[2] / "configs" / "digits-sweep.yaml"

BASE: dict[str, Any] = {
    "name": "base",
    "model": {"kind": "diffusers", "id": "some/model"},
    "prompts": {"source": "prompts.txt"},
    "features": ["digits", {"name": "clip", "id": "some/clip"}],
    "metrics": ["fd_digits"],
}


def points_of(sweep: dict[str, Any], *overrides: str, **changes: Any) -> Sweep:
    return expand({**BASE, **changes, "sweep": sweep}, overrides, where="x.yaml")


def faults_of(sweep: Any, *overrides: str, **changes: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError, match=r"x\.yaml: the configuration has") as caught:
        points_of(sweep, *overrides, **changes)
    return caught.value.faults


def test_settings_beside_the_forms_are_told_where_they_belong() -> None:
    (fault,) = faults_of({"generation.steps": [1, 2]})
    assert fault.startswith("sweep.generation.steps: unknown key; write settings under grid: ")
    assert "sweep: {grid: {" in fault


NUMBERS = st.lists(
    st.one_of(st.integers(1, 500), st.floats(0.25, 500, allow_nan=False)),
    min_size=1, max_size=6, unique_by=float,
)  # fmt: skip
STEPS = st.lists(st.integers(1, 1000), min_size=1, max_size=5, unique=True)


@settings(max_examples=30, deadline=None)
@given(guidance=NUMBERS, steps=STEPS)
def test_a_grid_has_every_combination_once_in_order(
    guidance: list[float], steps: list[int]
) -> None:
    sweep = points_of({"grid": {"generation.guidance_scale": guidance, "generation.steps": steps}})
    made = [(p.config.generation.guidance_scale, p.config.generation.steps) for p in sweep.points]
    assert made == [(float(g), s) for g, s in itertools.product(guidance, steps)]
    assert len({point.suffix for point in sweep.points}) == len(made)
    assert len({point.config.name for point in sweep.points}) == len(made)
    assert sweep.paths == ("generation.guidance_scale", "generation.steps")


@settings(max_examples=30, deadline=None)
@given(steps=STEPS, more=STEPS)
def test_a_value_that_is_added_renames_no_point(steps: list[int], more: list[int]) -> None:
    before = points_of({"grid": {"generation.steps": steps}})
    longer = list(dict.fromkeys([*more, *steps]))
    after = {p.suffix: p.config for p in points_of({"grid": {"generation.steps": longer}}).points}
    for point in before.points:
        assert after[point.suffix] == point.config


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
PATHS = st.from_regex(r"[a-z]{1,6}(\.[a-z_0-9]{1,8}){0,3}", fullmatch=True) | st.text(min_size=1)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(PATHS, JSON, min_size=1, max_size=4))
def test_any_value_gives_a_safe_and_stable_name(values: dict[str, Any]) -> None:
    suffix = suffix_of(values)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", suffix)
    assert Path(suffix).name == suffix
    assert len(suffix) <= LONGEST_SUFFIX
    assert suffix == suffix_of(copy.deepcopy(values))


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, min_size=2, max_size=2))
def test_values_that_differ_have_names_that_differ(pair: list[Any]) -> None:
    a, b = pair
    same = repr(a) == repr(b) or (a == b and {type(a), type(b)} == {int, float})
    assert (suffix_of({"a.b": a}) == suffix_of({"a.b": b})) == same or a == b


def test_names_read_as_their_values() -> None:
    assert suffix_of({"generation.guidance_scale": 7.5, "generation.steps": 10.0}) == (
        "guidance_scale-7.5_steps-10"
    )
    named = suffix_of({"model.scheduler": {"name": "DDIMScheduler", "eta": 1}})
    assert re.fullmatch(r"model\.scheduler-DDIMScheduler-[0-9a-f]{8}", named)
    escape = suffix_of({"model.id": "../../etc/passwd\x1b[31m"})
    assert re.fullmatch(r"model\.id-passwd-31m-[0-9a-f]{8}", escape)


def test_values_that_yaml_tells_apart_are_told_apart() -> None:
    values = [3, "3", True, "true", None, "none", 0.5, "0.5", [1], "[1]", {"a": 1}]
    names = {suffix_of({"model.arguments.x": value}) for value in values}
    assert len(names) == len(values)
    assert suffix_of({"x": 3}) == suffix_of({"x": 3.0})


def test_zipped_lists_go_together_and_forms_are_combined() -> None:
    sweep = points_of({
        "grid": {"generation.guidance_scale": [1, 3]},
        "zip": {"generation.steps": [10, 20], "generation.seed": [1, 2]},
        "list": [{"model.scheduler": None}, {"model.dtype": "float16"}],
    })  # fmt: skip
    made = [
        (g.guidance_scale, g.steps, g.seed, p.config.model.dtype)  # type: ignore[union-attr]
        for p in sweep.points
        for g in [p.config.generation]
    ]
    assert made == [
        (g, steps, seed, dtype)
        for g in (1, 3)
        for steps, seed in ((10, 1), (20, 2))
        for dtype in ("float32", "float16")
    ]


def test_a_point_is_the_configuration_with_its_values_and_nothing_else() -> None:
    (point,) = points_of({"grid": {"features.clip.id": ["other/clip"]}}).points
    record = copy.deepcopy(BASE)
    record["features"][1]["id"] = "other/clip"
    record["name"] = f"base-{point.suffix}"
    assert point.config == RunConfig.model_validate(record)
    assert point.config.sweep is None


def test_the_record_given_is_not_changed() -> None:
    record = {**copy.deepcopy(BASE), "sweep": {"grid": {"features.digits.dtype": ["float16"]}}}
    before = copy.deepcopy(record)
    expand(record, ["generation.seed=3"], where="x")
    assert record == before


def test_all_faults_of_all_points_are_told_at_once() -> None:
    told = faults_of({
        "grid": {"generation.stepz": [1, 2], "generation.guidance_scale": [3, -1, "x"]}
    })  # fmt: skip
    assert len(told) == 3
    assert told[0] == "generation.stepz: unknown key; did you mean 'steps'?"
    assert "greater than or equal to 0, got -1 (at stepz-1_guidance_scale--1 and 1 more)" in told[1]
    assert "generation.guidance_scale: input should be a valid number" in told[2]


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ({"grid": {"name": ["a"]}}, "sweep.grid.name: 'name' cannot be swept"),
        ({"zip": {"output": ["a"]}}, "sweep.zip.output: 'output' cannot be swept"),
        ({"list": [{"sweep.grid": {}}]}, "sweep.list.sweep.grid: 'sweep' cannot be swept"),
        ({"grid": {"generation.steps": []}}, "expected at least one value, got none"),
        ({"grid": {"generation.steps": 5}}, "sweep.grid.generation.steps: expected a list in"),
        ({"grd": {}}, "sweep.grd: unknown key; did you mean 'grid'?"),
        ({}, "sweep: expected settings under grid, zip or list, got none"),
        ({"list": [{}]}, "sweep.list.0: expected settings"),
        ({"grid": {"generation..steps": [1]}}, "expected a path such as generation.steps"),
        (
            {"zip": {"generation.steps": [1, 2], "generation.seed": [1]}},
            "sweep.zip: expected lists of one length, got generation.steps: 2, generation.seed: 1",
        ),
        (
            {"grid": {"generation.steps": [1]}, "zip": {"generation.steps": [2]}},
            "sweep: 'generation.steps' in both grid and zip; leave one out",
        ),
        (
            {"grid": {"model.scheduler": [None], "model.scheduler.name": ["DDIMScheduler"]}},
            "sweep.grid: 'model.scheduler.name' lies inside 'model.scheduler'",
        ),
        (
            {"grid": {"generation.seed": [*range(20)], "generation.steps": [*range(1, 15)]}},
            "sweep: expected at most 256 points, got 280",
        ),
        (
            {"grid": {"generation.steps": [10, 10.0]}},
            "sweep: expected points that differ, got steps-10 and steps-10",
        ),
        (
            {"grid": {"features.klip.id": ["x"]}},
            "sweep of features.klip.id: expected a number below 2 after 'features', or one of "
            "digits, clip, got 'klip'.",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(sweep: Any, says: str) -> None:
    assert any(says in fault for fault in faults_of(sweep))


def test_more_points_can_be_allowed() -> None:
    grid = {"generation.seed": [*range(20)], "generation.steps": [*range(1, 15)]}
    assert len(points_of({"grid": grid, "max_points": 280}).points) == 280


def test_the_command_line_may_set_what_is_not_swept_and_the_sweep_itself() -> None:
    grid = {"grid": {"generation.steps": [10, 20]}}
    sweep = points_of(grid, "generation.seed=5", "sweep.grid={generation.steps: [30]}")
    assert [(p.config.generation.seed, p.suffix) for p in sweep.points] == [(5, "steps-30")]
    (fault,) = faults_of(grid, "generation.steps=5")
    assert fault.startswith("sweep.grid.generation.steps: --set generation.steps sets what the")


def test_a_setting_that_only_the_points_give_may_be_missing_elsewhere() -> None:
    record = {key: value for key, value in BASE.items() if key != "prompts"}
    record["sweep"] = {"grid": {"prompts.source": ["a.txt", "b.txt"]}}
    assert [p.config.prompts.source for p in expand(record, where="x").points] == ["a.txt", "b.txt"]


def test_a_file_is_one_run_or_a_sweep(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**BASE, "sweep": {"grid": {"generation.steps": [1, 2]}}}))
    loaded = load_runs(path)
    assert isinstance(loaded, Sweep)
    assert [point.config.name for point in loaded.points] == ["base-steps-1", "base-steps-2"]
    assert isinstance(load_runs(path, ["sweep=null"]), RunConfig)


def test_a_long_name_stays_a_valid_one() -> None:
    sweep = points_of({"list": [{f"model.arguments.{'x' * 40}": "y" * 40}]}, name="n" * 100)
    name = sweep.points[0].config.name
    assert len(name) <= 100
    RunConfig.model_validate({**BASE, "name": name})


@pytest.mark.parametrize(
    "words",
    [
        ["probe", "anatomy", SHIPPED],
        ["probe", "interpolate", SHIPPED],
        ["probe", "jacobian", SHIPPED],
        ["schedule", SHIPPED],
        [
            "score",
            ".",
            "--metrics",
            "inception_score",
            "--set",
            "sweep.list=[{generation.seed: 1}]",
        ],
    ],
    ids=lambda words: " ".join(words[:2]) if words[0] == "probe" else words[0],
)
def test_a_verb_about_one_run_refuses_a_sweep_by_name(
    call: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[object],
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = call(*words)
    assert ended.status == 2
    assert "expected the settings of one run, got those of a sweep (section sweep)" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_is_set_aside_by_name() -> None:
    assert load_config(SHIPPED, ["sweep=null"]).sweep is None
    with pytest.raises(ConfigError, match="Name the run of one of its points"):
        load_config(SHIPPED)


@pytest.mark.parametrize("verb", ["moments", "push", "report", "aggregate", "status", "export"])
def test_a_verb_about_runs_says_that_it_was_given_a_configuration(
    call: Callable[..., Any], tmp_path: Path, verb: str
) -> None:
    more = {"moments": [tmp_path / "m.npz"], "push": ["s3://a/b"], "export": ["--to", "csv"]}
    ended = call(verb, SHIPPED, *more.get(verb, []))
    assert ended.status == 2
    assert "expected a run directory (made by `evaluator run`), got a configuration" in ended.err
