"""The claims in a report are those of the run's tables, from a bounded part of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from evaluator.probes.claims import Claim, claims
from evaluator.report import claim_tables, survey, write_report
from evaluator.report.claim_chart import draw_claims
from evaluator.report.claim_tables import ClaimTables
from evaluator.report.claims import PAIR_KINDS, as_json, claims_found, in_words
from evaluator.store.rundir import RunDirectory

Make = Callable[..., RunDirectory]
CAPTION = "a red seven on a blue background"
WORDS = CAPTION.split()


def tables(
    num_prompts: int, *, images: int = 2, seed: int = 0, first: int = 0
) -> Mapping[str, pa.Table]:
    """Every token's entropy and overlap drawn at random, content words lower, falling with noise."""
    draw = np.random.default_rng(seed)
    attention, tokens, pairs = [], [], []
    ids = [{"key": f"k{i:04d}", "image_index": image}
           for i in range(first, first + num_prompts) for image in range(images)]  # fmt: skip
    for who in ids:
        for token, word in enumerate(WORDS):
            tokens.append({**who, "token": token, "word_text": word})
            for step in range(4):
                for layer in ("down", "up"):
                    entropy = 0.9 - 0.05 * (len(word) > 2) - 0.02 * step + draw.normal(0, 0.02)
                    unknown = draw.random() < 0.05
                    attention.append({**who, "step": step, "log_snr": 2.0 * step - 3,
                                      "layer": layer, "token": token, "word": token,
                                      "entropy": None if unknown else entropy})  # fmt: skip
            for other in range(token + 1, len(WORDS)):
                own = (token, other) in ((1, 2), (5, 6))
                value = float(np.clip(0.5 + 0.3 * own + draw.normal(0, 0.05), 0, 1))
                pairs.append({**who, "word": token, "other_word": other, "soft_iou": value,
                              "cosine": value, "js": 1 - value})  # fmt: skip
    samples = [{**who, "prompt": CAPTION} for who in ids]
    made = {"samples": samples, "attention": attention, "tokens": tokens, "pairs": pairs}
    return {name: pa.Table.from_pylist(rows) for name, rows in made.items()}


def reduced(made: Mapping[str, pa.Table], *, num_shards: int = 1, **left_out: None) -> ClaimTables:
    kept = ClaimTables(num_shards=num_shards)
    kept.add(**{**made, **left_out})
    return kept


def test_the_claims_are_those_of_the_whole_tables() -> None:
    made = tables(12)
    texts = {f"k{i:04d}": CAPTION for i in range(12)}
    whole = claims(made["attention"], made["tokens"], pairs=made["pairs"], texts=texts)
    found = claims_found(reduced(made))
    assert found is not None
    for told, expected in zip(found.claims, whole, strict=True):
        assert told.claim is not None
        assert told.claim.name == expected.name
        assert told.claim[1:] == pytest.approx(expected[1:], rel=1e-9, abs=1e-12)


def test_overlap_by_kind_is_the_mean_over_prompts_with_students_interval() -> None:
    made = tables(9)
    found = claims_found(reduced(made))
    assert found is not None
    assert [kind.kind for kind in found.kinds] == list(PAIR_KINDS)
    rows = made["pairs"].to_pylist()
    of_kind = [
        [r["soft_iou"] for r in rows if r["key"] == f"k{i:04d}"
         and (r["word"], r["other_word"]) in ((1, 2), (5, 6))]
        for i in range(9)
    ]  # fmt: skip
    means = [np.mean(values) for values in of_kind]
    moments = found.kinds[0].soft_iou
    assert moments.mean == pytest.approx(np.mean(means))
    half = stats.t.ppf(0.975, 8) * np.std(means, ddof=1) / 3
    assert moments.half_width == pytest.approx(half, rel=1e-3)
    assert found.kinds[0].js.mean == pytest.approx(1 - moments.mean)


def test_a_large_run_is_sampled_evenly_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_tables, "MAX_PROMPTS", 6)
    kept = ClaimTables(num_shards=2)
    for shard in range(2):
        kept.add(**tables(10, images=1, first=10 * shard))
    assert list(kept.texts) == ["k0000", "k0004", "k0009", "k0010", "k0014", "k0019"]
    assert kept.sampled
    assert {key for table in kept.pairs for key in table.column("key").to_pylist()} == set(
        kept.texts
    )
    found = claims_found(kept)
    assert found is not None
    assert json.loads(as_json(found, 20))["sampled"] is True


def test_rows_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_tables, "MAX_ROWS", 10)
    kept = ClaimTables(num_shards=2)
    kept.add(**tables(2, images=1))
    kept.add(**tables(2, images=1, first=2))
    assert list(kept.texts) == ["k0000", "k0001"]
    assert kept.sampled


def test_without_pairs_it_says_how_to_have_them() -> None:
    found = claims_found(reduced(tables(3), pairs=None))
    assert found is not None
    bound = found.claims[1]
    assert bound.claim is None
    assert bound.words == (
        "Cannot be told: no attention_pairs.parquet could be read: a run with "
        "probes.attention.pairs: true has it."
    )
    assert found.kinds == ()
    assert "cannot be told" in [t.text for t in draw_claims(found).iter("text")]


def test_prompts_that_a_claim_is_not_about_are_named_as_the_reason() -> None:
    made = dict(tables(3))
    plain = pa.array(["a seven on the left"] * 6)
    made["samples"] = made["samples"].set_column(2, "prompt", plain)
    found = claims_found(reduced(made))
    assert found is not None
    assert found.claims[1].words == "Cannot be told: no prompt names two coloured objects."
    one_step = dict(tables(3))
    level = one_step["attention"].column_names.index("log_snr")
    still = pa.array([0.0] * one_step["attention"].num_rows)
    one_step["attention"] = one_step["attention"].set_column(level, "log_snr", still)
    found = claims_found(reduced(one_step))
    assert found is not None
    assert "two known noise levels" in found.claims[2].words


def test_a_truncated_prompt_counts_as_far_as_it_was_read() -> None:
    """Words without maps made the whole run's effect undefined."""
    made = dict(tables(4))
    known = made["pairs"].filter(pa.compute.less(made["pairs"].column("other_word"), 6))
    short = pa.compute.equal(made["pairs"].column("key"), "k0001")
    rest = made["pairs"].filter(pa.compute.invert(short))
    cut = known.filter(pa.compute.equal(known.column("key"), "k0001"))
    found = claims_found(reduced({**made, "pairs": pa.concat_tables([rest, cut])}))
    assert found is not None
    claim = found.claims[1].claim
    assert claim is not None
    assert claim.num_prompts == 3
    assert 0.2 < claim.low < claim.effect < claim.high < 0.4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Holds."),
        ({"p_value": 0.4}, "shuffled tokens show as much (p = 0.4)"),
        ({"low": -0.3, "high": -0.1}, "The opposite holds."),
        ({"low": -0.3}, "Does not hold here: the interval reaches over zero."),
        ({"num_prompts": 4}, "Holds. 4 prompts are few."),
        ({"num_prompts": 1}, "Cannot be told: one prompt has no interval."),
    ],
)
def test_each_outcome_has_its_words(changes: dict[str, Any], said: str) -> None:
    claim = Claim("bound", 0.2, 0.1, 0.3, 1.5, 40, 0.0, 0.001)
    assert said in in_words(claim._replace(**changes))


def test_numbers_on_the_page_are_those_of_the_file(make_run: Make) -> None:
    folder = write_report(make_run(pairs=True)).parent
    page = (folder / "index.html").read_text(encoding="utf-8")
    record = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    assert record["num_prompts"] == 20
    assert [claim["name"] for claim in record["claims"]] == ["localised", "bound", "sharpening"]
    for claim in record["claims"]:
        assert claim["low"] <= claim["effect"] <= claim["high"]
        assert f"{claim['num_prompts']}</td>" in page
        assert claim["found"] in page
    bound = record["claims"][1]
    assert bound["effect"] > 0, "overlap falls with distance in this run"
    assert f"{bound['effect']:.5f}" in page
    assert f"{record['pair_kinds'][0]['soft_iou']['mean']:.3f} ±" in page
    assert '<a href="claims.json">' in page
    assert (folder / "claims.svg").is_file()


def test_a_run_without_attention_says_why_there_is_nothing(make_run: Make) -> None:
    folder = write_report(make_run(num_samples=3, probes=False)).parent
    assert "the claims are about what the attention probe records" in (
        folder / "index.html"
    ).read_text(encoding="utf-8")
    assert not (folder / "claims.json").exists()


def test_pairs_beyond_what_fits_are_left_out_and_named(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "MAX_PAIR_ROWS", 10)
    folder = write_report(make_run(num_samples=6, pairs=True)).parent
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "attention_pairs.parquet of shard 00000 has" in page
    assert "more than a report reads (10): pairs of it are left out" in page
    claims_here = json.loads((folder / "claims.json").read_text(encoding="utf-8"))["claims"]
    assert "effect" in claims_here[0]
    assert "effect" not in claims_here[1]


def test_a_run_of_many_shards_is_read_at_a_few_of_them(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "MAX_SHARDS", 2)
    folder = write_report(make_run(num_samples=20, shard_size=4, pairs=True)).parent
    record = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    assert (record["num_shards"], record["num_prompts"]) == (2, 8)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "8 prompts of 2 shards, evenly spaced over the run" in page
