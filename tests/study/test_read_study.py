"""Answers read back: strangers' files are checked, and numbers are those of the rule they follow."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.errors import InputError
from evaluator.study import MadeStudy, Study, StudyRequest, make_study, read_back, read_study
from evaluator.study.answers import MAX_BYTES, read_answers
from evaluator.study.cited import cited_rows, write_cited
from evaluator.study.records import Trial
from evaluator.study.results import results_lines
from tests.study.runs import Rule, always, answers_of, make_run, prefer, put_answers

Pairs = tuple[MadeStudy, Path]


def answered(pairs: Pairs, *rules: Rule) -> Path:
    """The folder of a study that one rater after the other answered by a rule."""
    made, folder = pairs
    for number, rule in enumerate(rules):
        record = answers_of(made.study, number, rule)
        put_answers(folder, f"from-{number}", record)
    return folder


def test_a_run_that_is_always_preferred_wins_everything(pairs: Pairs) -> None:
    rule = prefer("beta", "alpha", "gamma")
    found = read_back(answered(pairs, rule, rule, rule)).results
    rates = {(pair.first, pair.second): pair.win_rate for pair in found.pairs}
    assert rates == {("alpha", "beta"): 0.0, ("alpha", "gamma"): 1.0, ("beta", "gamma"): 1.0}
    assert {run.name: run.score for run in found.runs} == {"alpha": 0.5, "beta": 1.0, "gamma": 0.0}
    assert {run.name: run.tier for run in found.runs} == {"beta": 0, "alpha": 1, "gamma": 2}
    assert all(run.strength is None and run.elo is None for run in found.runs)
    assert any("beta: never lost to alpha, gamma" in line for line in found.warnings)
    assert found.agreement.value == 1.0
    assert found.same_again is not None
    assert found.same_again.value == 1.0
    assert found.n == found.n_expected == 45
    assert not any("repeated items" in line for line in found.warnings)


def test_always_left_is_a_bias_and_no_preference(pairs: Pairs) -> None:
    found = read_back(answered(pairs, always("left"), always("left"), always("left"))).results
    for pair in found.pairs:
        assert pair.win_rate == pytest.approx(0.5, abs=1 / pair.n)
    assert found.bias is not None
    assert found.bias.value == 1.0
    assert any("position bias: left was chosen 100.0 %" in line for line in found.warnings)
    assert found.same_again is not None
    assert found.same_again.value == 0.0, "sides of a repeated item are swapped"
    assert "rater-02 answered 0.0 % of 3 repeated items alike" in found.warnings


def test_no_difference_throughout_is_even(pairs: Pairs) -> None:
    found = read_back(answered(pairs, always("tie"), always("tie"))).results
    assert {pair.win_rate for pair in found.pairs} == {0.5}
    assert [run.strength for run in found.runs] == [0.0, 0.0, 0.0]
    assert [run.elo for run in found.runs] == [1000.0] * 3
    assert found.bias is None
    assert found.agreement.value is None
    assert "nothing varies" in found.agreement.remark


def test_two_runs_have_the_log_odds_of_their_win_rate(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    request = StudyRequest(runs=[runs["alpha"], runs["beta"]], items=10, repeats=0, raters=1)
    made = make_study(request, tmp_path / "two")
    favourite = {trial.item for trial in made.study.raters[0].trials[:7]}

    def rule(study: Study, trial: Trial) -> str | None:
        return (
            prefer("alpha")(study, trial)
            if trial.item in favourite
            else prefer("beta")(study, trial)
        )

    found = read_back(answered((made, tmp_path / "two"), rule)).results
    assert found.pairs[0].win_rate == 0.7
    assert found.runs[0].strength == pytest.approx(np.log(0.7 / 0.3) / 2)
    assert found.runs[0].strength_interval is not None
    assert found.runs[0].strength_interval.method == "sandwich, clustered"


def test_repeated_questions_do_not_count_twice(pairs: Pairs) -> None:
    def fickle(study: Study, trial: Trial) -> str | None:
        return (
            prefer("gamma", "beta")(study, trial)
            if trial.repeat
            else prefer("alpha", "beta")(study, trial)
        )

    found = read_back(answered(pairs, fickle, fickle, fickle)).results
    assert {run.name: run.score for run in found.runs} == {"alpha": 1.0, "beta": 0.5, "gamma": 0.0}
    assert {pair.n for pair in found.pairs} == {12}
    assert found.same_again is not None
    assert found.same_again.value == 0.0


def test_partial_answers_are_counted_and_told(pairs: Pairs) -> None:
    made, folder = pairs
    record = answers_of(made.study, 0, prefer("alpha", "beta"))
    record["answers"] = record["answers"][:4]
    put_answers(folder, "part", record)
    found = read_back(folder).results
    assert (found.n, found.n_expected) == (4, 45)
    assert "rater-01 answered 4 of 15" in found.warnings
    assert "no answers of rater-02, rater-03" in found.warnings
    assert any(
        line.startswith("1 rater: intervals are clustered by prompt") for line in found.warnings
    )
    assert any("4/45 answers of 1/3 raters" in line for line in results_lines(found))


def test_nobody_answered_anything_is_a_result_without_numbers(pairs: Pairs) -> None:
    found = read_back(answered(pairs, lambda study, trial: None)).results
    assert found.n == 0
    assert {run.score for run in found.runs} == {None}
    assert results_lines(found)


def test_who_tells_real_from_generated_is_always_right(singles: Pairs) -> None:
    def right(study: Study, trial: Trial) -> str | None:
        real = study.sources[study.items[trial.item].images[0].source].real
        return "real" if real else "generated"

    found = read_back(answered(singles, *[right] * 6)).results
    assert found.accuracy is not None
    assert found.accuracy.value == 1.0
    assert found.accuracy.p_value is not None
    assert found.accuracy.p_value < 0.01
    assert {run.score for run in found.runs} == {0.0}
    assert found.real is not None
    assert found.real.score == 1.0
    assert found.pairs == ()


def test_whoever_says_real_to_everything_is_right_half_the_time(singles: Pairs) -> None:
    found = read_back(answered(singles, *[always("real")] * 6)).results
    assert found.accuracy is not None
    assert found.accuracy.value == 0.5
    assert found.accuracy.p_value == 1.0
    assert any("raters said real 100.0 % of the time" in line for line in found.warnings)


def test_from_five_raters_on_raters_are_part_of_intervals(singles: Pairs) -> None:
    half = lambda study, trial: "real" if trial.item % 3 else "generated"  # noqa: E731
    few = read_back(answered(singles, *[half] * 4)).results
    many = read_back(answered(singles, *[half] * 6)).results
    assert few.accuracy is not None
    assert few.accuracy.interval is not None
    assert few.accuracy.interval.covers.endswith("with these raters")
    assert many.accuracy is not None
    assert many.accuracy.interval is not None
    assert many.accuracy.interval.covers == "the share over prompts and raters drawn like these"


def test_the_table_decodes_every_answer(pairs: Pairs) -> None:
    _, folder = pairs
    rule = prefer("alpha", "gamma")
    read_back(answered(pairs, rule))
    rows = pq.read_table(folder / "answers.parquet").to_pylist()
    assert len(rows) == 15
    for row in rows:
        better = [
            name for name in ("alpha", "gamma", "beta") if name in (row["left"], row["right"])
        ]
        assert row["preferred"] == better[0]
        assert row[row["answer"]] == better[0]
    assert sum(row["repeat"] for row in rows) == 3
    assert {row["seconds"] for row in rows} == {2.5}


def test_order_and_place_of_files_do_not_matter(pairs: Pairs, tmp_path: Path) -> None:
    folder = answered(pairs, prefer("alpha"), prefer("beta"), prefer("gamma"))
    files = sorted((folder / "answers").glob("*.json"))
    once = read_back(folder).results
    assert read_back(folder, list(reversed(files))).results == once
    assert (folder / "study-results.json").is_file()


def test_results_are_json_without_infinity(pairs: Pairs) -> None:
    folder = answered(pairs, prefer("alpha", "beta"))
    read_back(folder)
    text = (folder / "study-results.json").read_text()
    record = json.loads(text, parse_constant=pytest.fail)
    assert record["format"] == 1
    assert record["runs"][0]["name"] == "alpha"


def test_the_citation_file_has_a_row_for_each_run(pairs: Pairs, tmp_path: Path) -> None:
    found = read_back(answered(pairs, prefer("alpha"), always("tie"), prefer("beta"))).results
    write_cited(found, tmp_path / "cited.yaml")
    rows = yaml.safe_load((tmp_path / "cited.yaml").read_text())["rows"]
    assert [row["name"] for row in rows] == [
        f"{n} (human study)" for n in ("alpha", "beta", "gamma")
    ]
    for row, run in zip(rows, found.runs, strict=True):
        assert row["values"]["human_win_rate"] == run.score
        low, high = row["intervals"]["human_win_rate"]
        assert low <= run.score <= high
        assert set(row) == {"name", "source", "protocol", "n", "values", "intervals", "level"}


def test_strengths_of_two_tiers_are_not_cited_in_one_column(pairs: Pairs) -> None:
    found = read_back(answered(pairs, prefer("alpha"), always("tie"), prefer("beta"))).results
    assert all("human_elo" in row["values"] for row in cited_rows(found))
    tiers = tuple(replace(run, tier=place // 2) for place, run in enumerate(found.runs))
    rows = cited_rows(replace(found, runs=tiers))
    assert all(list(row["values"]) == ["human_win_rate"] for row in rows)
    assert all(list(row["intervals"]) == ["human_win_rate"] for row in rows)


Damage = Callable[[dict[str, Any]], Any]


def changed(**parts: Any) -> Damage:
    return lambda record: record | parts


def with_answer(**parts: Any) -> Damage:
    return lambda record: (
        record | {"answers": [record["answers"][0] | parts, *record["answers"][1:]]}
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (changed(study="0" * 16), "got those of the study '0000000000000000'; read them with its own"),
        (changed(rater="rater-99"), "expected a rater from rater-01 to rater-03, got 'rater-99'"),
        (changed(rater=["rater-01"]), "expected a rater from"),
        (changed(version=2), "got 'evaluator study answers' of version 2"),
        (changed(format="\x1b[31mother"), "got 'x1b.31mother' of version 1|expected 'evaluator study"),
        (changed(name="Ann"), "expected nothing but a form's answers, got also .'name'"),
        (changed(answers={}), "answers: expected a list, got {}"),
        (changed(answers=[3]), r"answers\[0\]: expected trial, answer and seconds, got 3"),
        (with_answer(trial=99), r"answers\[0\]: expected a trial from 1 to 15, got 99"),
        (with_answer(trial=True), "expected a trial from 1 to 15, got True"),
        (with_answer(trial="1"), "expected a trial from 1 to 15, got '1'"),
        (with_answer(trial=2), r"answers\[1\]: expected each trial once, got 2 again"),
        (with_answer(answer="real"), "expected one of left, tie, right, got 'real'"),
        (with_answer(answer=[]), r"expected one of left, tie, right, got \[\]"),
        (with_answer(seconds=-1), "expected seconds from 0 to 30 days, got -1"),
        (with_answer(seconds="fast"), "expected seconds from 0 to 30 days, got 'fast'"),
        (with_answer(extra=1), r"answers\[0\]: expected trial, answer and seconds"),
        (lambda record: [], r"expected a JSON object, got \[\]"),
        (lambda record: "{", "expected JSON, got something else"),
        (lambda record: "[" * 100_000, "expected JSON, got something else"),
        (lambda record: '{"format": NaN}', "NaN is no number of JSON"),
        (lambda record: '{"study": "a", "study": "b"}', "a name stands twice"),
        (lambda record: '{"rater": ' + "1" * 5000 + "}", "expected JSON, got something else"),
        (lambda record: " " * (MAX_BYTES + 1), "expected at most 4 MiB, got more"),
    ],
)  # fmt: skip
def test_what_is_no_answer_to_this_study_is_refused(
    pairs: Pairs, damage: Damage, message: str
) -> None:
    made, folder = pairs
    put_answers(folder, "bad", damage(answers_of(made.study, 0, prefer("alpha", "beta"))))
    with pytest.raises(InputError, match=message) as refused:
        read_back(folder)
    assert f"{folder / 'answers' / 'bad.json'}: " in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert not (folder / "study-results.json").exists()


def test_all_faults_of_all_files_are_told_at_once(pairs: Pairs) -> None:
    made, folder = pairs
    good = answers_of(made.study, 0, prefer("alpha", "beta"))
    bad = copy.deepcopy(good) | {"rater": "rater-02"}
    bad["answers"][3]["answer"] = "up"
    bad["answers"][5]["trial"] = 0
    for name, record in (("a", good), ("b", bad), ("c", "nothing"), ("d", good)):
        put_answers(folder, name, record)
    with pytest.raises(InputError, match="got 4 faults; nothing was counted") as refused:
        read_back(folder)
    told = str(refused.value)
    assert "b.json: answers[3]: expected one of left, tie, right, got 'up'" in told
    assert "b.json: answers[5]: expected a trial from 1 to 15, got 0" in told
    assert "c.json: expected JSON" in told
    assert "d.json: expected one file of each rater, got rater-01 again (also " in told


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["left", "tie", "rater-01", "evaluator study answers"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["trial", "answer", "seconds", "answers", "x"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def one_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    two = [make_run(folder / name, prompts=range(4)) for name in ("alpha", "beta")]
    make_study(StudyRequest(runs=two, raters=2), folder / "study")
    return folder / "study"


@settings(max_examples=150, deadline=None)
@given(answers=ANYTHING, rater=ANYTHING | st.just("rater-01"))
def test_no_file_leads_to_anything_but_answers_or_a_refusal(
    one_study: Path, answers: Any, rater: Any
) -> None:
    study = read_study(one_study)
    record = {
        "format": "evaluator study answers",
        "version": 1,
        "study": study.id,
        "rater": rater,
        "answers": answers,
    }
    path = put_answers(one_study, "any", record)
    with suppress(InputError):
        assert all(one.answer in study.answers_allowed for one in read_answers(study, [path]))


def test_a_folder_without_answers_or_without_a_key_is_told(pairs: Pairs, tmp_path: Path) -> None:
    _, folder = pairs
    with pytest.raises(
        InputError, match="expected files of answers, got none; put what raters saved"
    ):
        read_back(folder)
    with pytest.raises(InputError, match="expected a file of answers, got No such file"):
        read_back(folder, [tmp_path / "nowhere.json"])
    with pytest.raises(InputError, match="got no study.json in it"):
        read_back(tmp_path)


@pytest.mark.parametrize("damage", ["changed", "cut", "other"])
def test_a_key_that_was_changed_decodes_nothing(pairs: Pairs, damage: str) -> None:
    _, folder = pairs
    path = folder / "study.json"
    record = json.loads(path.read_text())
    record["raters"][0]["trials"][0]["swapped"] ^= True
    text = {"changed": json.dumps(record), "cut": path.read_text()[:500], "other": "[]"}[damage]
    path.write_text(text)
    with pytest.raises(
        InputError, match="expected the key of a study, format 1, as it was written"
    ):
        read_study(folder)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("raters",), []), (("raters", 1, "name"), "rater-01"), (("raters", 0, "name"), {}),
        (("raters", 0, "trials", 0, "item"), 10**6), (("raters", 0, "trials", 0, "item"), True),
        (("raters", 0, "trials", 0, "swapped"), 1), (("items",), []), (("question",), None),
        (("items", 0, "images"), []), (("items", 0, "images", 0, "source"), -1),
        (("items", 0, "images", 0, "key"), 10**400), (("sources", 0, "path"), "\ud800"),
        (("sources", 1, "real"), float("nan")), (("side",), float("inf")),
    ],
)  # fmt: skip
def test_a_key_of_others_that_agrees_with_itself_is_looked_through(
    pairs: Pairs, place: tuple[str | int, ...], value: Any
) -> None:
    """Whoever writes such a file can compute its id as well."""
    _, folder = pairs
    path = folder / "study.json"
    record: Any = json.loads(path.read_text())
    inner = record
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    content = {name: part for name, part in record.items() if name not in ("format", "id")}
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    record["id"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match="expected the key of a study"):
        read_study(folder)


def test_the_verbs_make_and_read(call: Any, runs: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "study"
    (tmp_path / "words.txt").write_text("Thank you.\n\nYou may stop at any time & <b>ask</b>.\n")
    made = call(
        "study", "make", runs["alpha"], runs["beta"], "--output", folder, "--items", 9, "--raters", 2,
        "--no-ties", "--instructions", tmp_path / "words.txt", "--question", "Which is <b>redder</b>?",
    )  # fmt: skip
    assert made.status == 0, made.err
    assert "9 items, 9 questions for each of 2 raters" in made.out
    page = (folder / "forms" / "rater-02.html").read_text()
    assert "<p>You may stop at any time &amp; &lt;b&gt;ask&lt;/b&gt;.</p>" in page
    assert "<title>Which is &lt;b&gt;redder&lt;/b&gt;?</title>" in page
    assert "No difference" not in page
    study = read_study(folder)
    sent = put_answers(folder, "sent", answers_of(study, 1, prefer("alpha", "beta")))
    read = call("study", "read", folder, sent, "--cited", tmp_path / "cited.yaml")
    assert read.status == 0, read.err
    assert "alpha   100.0 %" in read.out
    assert "warning: alpha: never lost to beta" in read.out
    assert f"results: {folder / 'study-results.json'}" in read.out
    assert (tmp_path / "cited.yaml").is_file()


def test_mistakes_end_with_status_2(call: Any, runs: dict[str, Path], tmp_path: Path) -> None:
    once = call("study", "make", runs["alpha"], "--output", tmp_path / "study")
    assert once.status == 2
    assert "expected at least 2 runs for pairs, got 1" in once.err
    words = call(
        "study", "make", runs["alpha"], runs["beta"], "--output", tmp_path / "study", "--instructions", tmp_path,
    )  # fmt: skip
    assert words.status == 2
    assert "expected a short UTF-8 text file" in words.err
    read = call("study", "read", tmp_path)
    assert read.status == 2
    assert "made by `evaluator study make`" in read.err


def test_attention_checks_name_who_fails_and_count_for_nothing_else(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    two = [runs["alpha"], runs["beta"]]
    request = StudyRequest(runs=two, items=9, repeats=0, raters=2, checks=4)
    made = make_study(request, tmp_path / "study")

    def looks(study: Study, trial: Trial) -> str | None:
        if study.items[trial.item].check:
            return "right" if trial.swapped else "left"
        return prefer("beta", "alpha")(study, trial)

    def blind(study: Study, trial: Trial) -> str | None:
        return "tie" if study.items[trial.item].check else looks(study, trial)

    found = read_back(answered((made, tmp_path / "study"), looks, blind)).results
    assert [(rater.checks, rater.checks_failed) for rater in found.raters] == [(4, 0), (4, 4)]
    assert any("rater-02 failed 4 of 4 attention checks" in line for line in found.warnings)
    assert not any("rater-01 failed" in line for line in found.warnings)
    assert (found.n, found.n_expected) == (26, 26)
    assert [(run.score, run.n, run.n_expected) for run in found.runs] == [
        (0.0, 18, 18),
        (1.0, 18, 18),
    ]
    assert found.agreement.num_items == 9
    table = pq.read_table(tmp_path / "study" / "answers.parquet").to_pylist()
    assert sum(row["check"] for row in table) == 8
