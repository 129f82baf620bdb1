"""The page of noise schedules, its table, and what the terminal shows."""

import re
from xml.etree import ElementTree as ET

import pytest

from evaluator.cli import main
from evaluator.errors import StorageError
from evaluator.probes import compare_schedules, open_scheduler
from evaluator.report.schedules import schedules_text, short_names, write_schedules
from evaluator.store.schemas import read_table

SIX = [
    "DDPMScheduler:beta_schedule=linear",
    "DDPMScheduler:beta_schedule=scaled_linear",
    "DDPMScheduler:beta_schedule=squaredcos_cap_v2",
    "DDPMScheduler:beta_schedule=sigmoid",
    "DDPMScheduler:variance_type=learned_range",
    "FlowMatchEulerDiscreteScheduler:shift=3",
]


def compared(*models, num_steps=9):
    return compare_schedules([open_scheduler(model) for model in models], num_steps=num_steps)


def drawings(page):
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_one_page_shows_every_curve_of_six_schedules(tmp_path):
    page = write_schedules(compared(*SIX), tmp_path / "out").read_text()
    charts = drawings(page)
    names = [chart.findtext("{*}title") for chart in charts]
    assert names == ["Log-SNR", "ᾱ", "β", "σ", "Reverse variance",
                     "Log-SNR", "ᾱ", "β", "σ", "Timesteps"]  # fmt: skip
    for chart in charts:
        lines = [e for e in chart.iter() if e.tag.endswith("polyline")]
        assert len(lines) == (5 if chart.findtext("{*}title") == "Reverse variance" else 6)
    bands = [e for e in charts[4].iter() if e.tag.endswith("polygon")]
    assert len(bands) == 1, "the learned range"
    table = read_table(tmp_path / "out" / "schedule.parquet", kind="schedules")
    assert set(table["schedule"].to_pylist()) == set(SIX)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "schedule.html",
        "schedule.parquet",
    ]


@pytest.mark.parametrize(
    ("scheduler", "predicts"),
    [
        ("ScoreSdeVeScheduler", "score"),
        ("RePaintScheduler", "epsilon"),
        ("FlowMatchEulerDiscreteScheduler", "flow"),
        ("DDIMScheduler:prediction_type=v_prediction", "v_prediction"),
    ],
)
def test_what_the_model_predicts_is_that_of_its_family(scheduler, predicts):
    (one,) = compared(scheduler)
    assert one.prediction == predicts


def test_the_page_runs_nothing_and_loads_nothing(tmp_path):
    page = write_schedules(compared(SIX[0]), tmp_path).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src 'none'" in policy.replace("&#39;", "'")
    assert "script-src 'none'" in policy.replace("&#39;", "'")
    assert "<script" not in page
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}


def test_more_schedules_than_colours_get_charts_of_their_own(tmp_path):
    models = [f"DDPMScheduler:beta_end={0.01 + 0.001 * i:.3f}" for i in range(8)]
    charts = drawings(write_schedules(compared(*models), tmp_path).read_text())
    drawn = [sum(e.tag.endswith("polyline") for e in chart.iter()) for chart in charts]
    assert drawn == [6] * 5 + [2] * 5 + [6] * 5 + [2] * 5


@pytest.mark.parametrize(
    ("models", "alone"),
    [
        (["DDIMScheduler", "EDMEulerScheduler"], "DDIM"),
        ([*SIX, "HeunDiscreteScheduler", "EDMEulerScheduler"], "HeunDiscrete"),
    ],
)
def test_a_line_alone_in_its_chart_is_named(tmp_path, models, alone):
    charts = drawings(write_schedules(compared(*models), tmp_path).read_text())
    single = [c for c in charts if sum(e.tag.endswith("polyline") for e in c.iter()) == 1]
    assert len(single) >= 4, "under Training, where EDM has no grid"
    for chart in single:
        assert alone in [e.text for e in chart.iter() if e.tag.endswith("text")]


def test_models_without_a_training_grid_say_so(tmp_path):
    page = write_schedules(compared("EDMEulerScheduler"), tmp_path).read_text()
    assert "None of these models was trained on a grid" in page
    assert len(drawings(page)) == 5


def test_a_name_that_is_markup_is_shown_as_text(tmp_path):
    from dataclasses import replace

    (one,) = compared(SIX[0])
    two = replace(one, name="<img src=x>\x1b[31m", warnings=("\x1b[2J<b>",))
    page = write_schedules([one, two], tmp_path).read_text()
    assert "<img src=x>" not in page
    assert "<b>" not in page
    assert "\x1b" not in page + schedules_text([one, two])


def test_legends_are_short_and_tell_schedules_apart():
    assert short_names([*SIX, "stabilityai/sdxl", "DDIMScheduler"]) == [
        *("DDPM linear", "DDPM scaled_linear", "DDPM squaredcos_cap_v2", "DDPM sigmoid"),
        *("DDPM learned_range", "FlowMatchEulerDiscrete shift=3", "sdxl", "DDIM"),
    ]
    assert short_names(["a/pipeline", "b/pipeline", "c/other/"]) == [
        *("a/pipeline", "b/pipeline", "other"),
    ]


def test_the_terminal_shows_aligned_columns_and_warnings_beneath():
    lines = schedules_text(compared(SIX[1], "EDMEulerScheduler")).splitlines()
    assert lines[0].startswith("schedule")
    at = lines[0].index("family")
    assert [line[at : at + 4].strip() for line in lines if "Scheduler" in line] == ["vp", "edm"]
    assert any(line.startswith("  ! Note: init_noise_sigma is 80.006") for line in lines)


def test_the_initial_noise_is_that_of_the_steps():
    names = (
        "EulerDiscreteScheduler:timestep_spacing=leading",
        "EulerDiscreteScheduler:rescale_betas_zero_snr=true",
    )
    for each in compared(*names):
        first = each.sampling["sigma"][0].as_py()
        assert each.init_noise_sigma == pytest.approx(first, rel=0.01)


def test_a_page_that_cannot_be_written_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not write"):
        write_schedules(compared(SIX[0]), tmp_path / "file" / "out")


def test_the_verb_writes_and_prints(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["schedule", "package://evaluator/demo/weights/stable-diffusion", "EDMEulerScheduler",
              "--steps", "5", "--output", str(tmp_path)])  # fmt: skip
    assert not left.value.code
    shown = capsys.readouterr().out
    assert "package://evaluator/demo/weights/stable-diffusion" in shown
    assert f"page: {tmp_path / 'schedule.html'}" in shown
    table = read_table(tmp_path / "schedule.parquet", kind="schedules")
    assert table.num_rows == 1000 + 5 + 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["DDIMScheduler", "--set", "beta_strat=1"], "did you mean 'beta_start'"),
        (["DDIMScheduler", "--set", "oops"], "expected key=value"),
        (["./nowhere"], "expected a pipeline's folder"),
        (["DDIMScheduler", "DDIMScheduler"], "more than once"),
        (["DDIMScheduler", "--steps", "2000"], "--steps 2000: Expected a schedule that"),
    ],
)
def test_the_verb_refuses_with_status_2(tmp_path, capsys, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["schedule", *arguments])
    assert left.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "schedule").exists()
