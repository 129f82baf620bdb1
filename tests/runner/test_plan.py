"""The plan: one row a sample, the same however much of it is computed or read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from evaluator.config import RunConfig, parse_record
from evaluator.errors import ConfigError
from evaluator.runner.plan import make_plan, plan_of, prompts_per_shard
from evaluator.seeds import prompt_seeds
from evaluator.store import rundir, schemas
from evaluator.store.rundir import RunDirectory


def config(**generation: object) -> RunConfig:
    record = {
        "name": "plan",
        "model": {"kind": "diffusers", "id": "x/y"},
        "prompts": {"source": "prompts.txt"},
        "generation": generation,
        "runtime": {"shard_size": 10},
    }
    return parse_record(record, (), where="test")


@pytest.mark.parametrize("per_prompt", [1, 3, 4, 12])
def test_the_plan_is_what_it_says_row_by_row(per_prompt: int) -> None:
    ours = config(images_per_prompt=per_prompt, seed=5)
    keys = [f"k{i}" for i in range(23)]
    plan = make_plan(ours, keys, [f"hash of {key}" for key in keys])
    per_shard = max(1, 10 // per_prompt)
    assert prompts_per_shard(ours) == per_shard
    expected = [
        {"shard": i // per_shard, "key": key, "image_index": index, "seed": seed, "content": f"hash of {key}"}
        for i, key in enumerate(keys)
        for index, seed in enumerate(prompt_seeds(5, key, per_prompt))
    ]  # fmt: skip
    assert plan.schema == schemas.PLAN
    assert plan.to_pylist() == expected
    part = plan_of(ours, keys, range(7, 15))
    assert part.equals(plan.drop_columns(["content"]).slice(7 * per_prompt, 8 * per_prompt))


def test_a_part_of_a_range_of_seeds_is_that_of_the_whole() -> None:
    ours = config(images_per_prompt=2, seeds={"range": "100-119"})
    keys = [f"k{i}" for i in range(10)]
    assert plan_of(ours, keys, range(3, 5)).column("seed").to_pylist() == [106, 107, 108, 109]
    with pytest.raises(ConfigError, match="expected 18 seeds for 9 prompts x 2 images, got 20"):
        plan_of(ours, keys[:9], range(1))


@pytest.mark.parametrize("rows_in_group", [1, 7, 10, 64, 1000])
def test_a_shard_is_read_from_any_row_groups(
    rows_in_group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "PLAN_ROWS_IN_GROUP", rows_in_group)
    keys = [f"k{i}" for i in range(53)]
    plan = make_plan(config(images_per_prompt=3), keys, keys)
    run = RunDirectory.create(tmp_path / "run", {}, plan)
    assert run.num_samples == 159
    assert run.num_shards == 18
    read = [run.plan_rows(shard, columns=plan.column_names) for shard in range(run.num_shards)]
    assert [table.num_rows for table in read] == [9] * 17 + [6]
    whole = pa.concat_tables(read).replace_schema_metadata(None).combine_chunks()
    assert whole.equals(plan.combine_chunks())
    assert run.shard(17).samples[0].position == 153
