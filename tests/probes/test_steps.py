import pytest
from diffusers import (
    DDIMScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)

from evaluator.errors import ConfigError, ProbeError
from evaluator.probes.steps import StepChoice, num_steps_of, place_of_call


@pytest.mark.parametrize(
    ("value", "num_steps", "expected"),
    [
        ("all", 4, (0, 1, 2, 3)),
        (10, 4, (0, 1, 2, 3)),
        (3, 7, (0, 3, 6)),
        (10, 20, (0, 2, 4, 6, 8, 11, 13, 15, 17, 19)),
        (2, 50, (0, 49)),
        (1, 50, (0,)),
        ([5, 0], 6, (0, 5)),
    ],
)
def test_a_choice_selects_steps_of_a_run(value, num_steps, expected):
    assert StepChoice.parse(value).select(num_steps) == expected


@pytest.mark.parametrize("count", [2, 3, 7, 10, 19])
@pytest.mark.parametrize("num_steps", [20, 25, 50])
def test_evenly_chosen_steps_are_distinct_and_hold_both_ends(count, num_steps):
    steps = StepChoice.parse(count).select(num_steps)
    assert len(set(steps)) == count
    assert (steps[0], steps[-1]) == (0, num_steps - 1)


@pytest.mark.parametrize("value", ["some", 0, -1, True, 1.5, [], [-1], [1, 1], ["0"], None])
def test_anything_else_is_refused(value):
    with pytest.raises(ConfigError, match="steps: expected"):
        StepChoice.parse(value)


def test_a_listed_step_beyond_the_run_is_refused():
    with pytest.raises(ProbeError, match="indices below 20"):
        StepChoice.parse([0, 20]).select(20)


@pytest.mark.parametrize(
    ("scheduler", "firsts"),
    [
        (DDIMScheduler(), [0, 1, 2, 3, 4, 5]),
        (HeunDiscreteScheduler(), [0, 2, 4, 6, 8, 10]),
        (FlowMatchHeunDiscreteScheduler(), [0, 2, 4, 6, 8, 10]),
        (PNDMScheduler(skip_prk_steps=True), [0, 2, 3, 4, 5, 6]),
        (PNDMScheduler(), [0, 4, 8, 12, 13, 14]),
    ],
)
def test_calls_are_counted_as_the_steps_they_belong_to(scheduler, firsts):
    scheduler.set_timesteps(6)
    num_calls = len(scheduler.timesteps)
    places = [place_of_call(scheduler, call) for call in range(num_calls)]
    assert [call for call, place in enumerate(places) if place.first] == firsts
    assert [places[call].step for call in firsts] == list(range(6))
    assert [place.step for place in places] == sorted(place.step for place in places)
    assert num_steps_of(scheduler, num_calls) == 6
