"""A run whose prompts and references lie in a remote store is the run that it would be here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluator.config import RunConfig, parse_record
from evaluator.data import PackOptions, pack
from evaluator.errors import InputError, RunDirectoryError
from evaluator.runner.identity import provenance
from evaluator.runner.score import ScoreRequest, prepare_score
from evaluator.runner.session import run_session
from evaluator.store.rundir import RunDirectory
from tests.runner.conftest import bytes_of, run_here
from tests.stores import SECRET

DATA = Path(__file__).parents[2] / "evaluator" / "demo" / "data"
PROMPTS = "a red seven\na green two\na blue five\na yellow zero\na red one\na white six\n"


def noise(prompts: object, real: dict[str, object]) -> RunConfig:
    """A run of a model that needs no weights."""
    record = {
        "name": "test",
        "model": {"kind": "custom", "target": "tests.runner.custom_models:Noise"},
        "prompts": {"source": str(prompts)},
        "references": {"real": real},
        "features": ["digits"],
        "metrics": ["fd_digits"],
        "runtime": {"threads": 1, "batch_size": 4, "shard_size": 6},
    }
    return parse_record(record, where="test")


def values(outcome) -> list[float | None]:
    return [metric.value for metric in outcome.summary.metrics]


def test_a_run_from_a_store_is_the_run_from_the_disk(bucket, upload, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(PROMPTS)
    (bucket / "prompts.txt").write_bytes(PROMPTS.encode())
    pack(DATA / "test.parquet", tmp_path / "pack", options=PackOptions(samples_per_tar=50))
    upload(tmp_path / "pack", bucket / "real")
    here = noise(tmp_path / "prompts.txt", {"source": str(DATA / "test.parquet"), "limit": 90})
    there = noise(bucket / "prompts.txt", {"source": f"{bucket}/real", "limit": 90})
    local = run_here(here, tmp_path / "here", allow_code=True)
    remote = run_here(there, tmp_path / "there", allow_code=True)
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")
    assert values(remote) == values(local)
    runs = [RunDirectory.open(tmp_path / name) for name in ("here", "there")]
    fingerprints = {provenance(run)["prompts"]["fingerprint"] for run in runs}
    assert len(fingerprints) == 1
    assert f"source: {bucket}/prompts.txt" in runs[1].init_file("config.yaml").decode()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 20
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    # The same run, wherever its prompts lie; another one once they changed there.
    run_here(there, tmp_path / "here", allow_code=True)
    (bucket / "prompts.txt").write_bytes(PROMPTS.replace("red", "odd").encode())
    with pytest.raises(RunDirectoryError, match="prompts: the run was planned from other content"):
        run_here(there, tmp_path / "there", allow_code=True)


def test_moments_may_lie_in_a_store(memory, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(PROMPTS * 3)
    rng = np.random.default_rng(0)
    covariance = np.cov(rng.normal(size=(300, 64)), rowvar=False)
    np.savez(tmp_path / "m.npz", mu=rng.normal(size=64), sigma=covariance)
    (memory / "m.npz").put(tmp_path / "m.npz")
    outcomes = [
        run_here(noise(tmp_path / "prompts.txt", {"moments": str(place)}), tmp_path / name,
                 allow_code=True)
        for name, place in (("here", tmp_path / "m.npz"), ("there", memory / "m.npz"))
    ]  # fmt: skip
    assert values(outcomes[0]) == values(outcomes[1])
    assert values(outcomes[0])[0] is not None
    lost = noise(tmp_path / "prompts.txt", {"moments": f"{memory}/n.npz"})
    with pytest.raises(InputError, match=r"n\.npz: expected a file, got nothing there"):
        run_here(lost, tmp_path / "lost", allow_code=True)


def test_images_in_a_store_are_scored(call, memory, tmp_path: Path) -> None:
    for name in ("made", "real"):
        (memory / f"{name}.parquet").put(DATA / "test.parquet")
    request = ScoreRequest(
        f"{memory}/made.parquet", f"{memory}/real.parquet", ("fd_digits",), limit=40
    )
    score = prepare_score(request, output=None, allow_code=False)
    assert score.config.prompts.source == f"{memory}/made.parquet"
    assert score.config.references["real"].source == f"{memory}/real.parquet"
    assert "40 of 40 images are among those of --against" in score.warnings[0]
    missing = call("score", memory / "mad.parquet", "--metrics", "is_digits")
    assert missing.status == 2
    assert f"IMAGES: {memory}/mad.parquet: expected a file or folder, got nothing" in missing.err


def test_a_run_directory_must_be_on_a_file_system(call, tmp_path: Path) -> None:
    said = r"POSIX file system, got an address \(s3://…\).*renames.*evaluator push RUN URL"
    config = noise("prompts.txt", {"moments": "m.npz"})
    for path in (Path("s3://bucket/run"), Path("s3:/bucket/run")):
        with pytest.raises(InputError, match=f"the run directory: .*{said}"):
            run_session(config, path, allow_code=True, relative_to=tmp_path)
    (tmp_path / "c.yaml").write_text(
        "name: x\nmodel: {kind: images}\nprompts: {source: prompts.txt}\n"
        f"output: s3://key:{SECRET}@bucket/runs\n"
    )
    refused = call("run", tmp_path / "c.yaml")
    assert refused.status == 2
    assert "output: expected a folder on a POSIX file system" in refused.err
    assert "evaluator push RUN URL" in refused.err
    assert SECRET not in refused.err
    with pytest.raises(InputError, match=r"got an address.*evaluator pull URL RUN"):
        run_here(
            noise(DATA / "test.parquet", {"run": "s3://b/run"}), tmp_path / "r", allow_code=True
        )
    with pytest.raises(InputError, match=r"the pack: expected a folder on a POSIX file system"):
        pack(DATA / "test.parquet", Path("s3://bucket/pack"))
    cached = call(
        "run", tmp_path / "c.yaml", "--set", "output=runs", "--set", "runtime.cache=s3://b/c"
    )
    assert cached.status == 2
    assert "the cache: expected a folder on a POSIX file system" in cached.err


def test_a_credential_in_a_source_is_never_repeated(call, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "name: x\nmodel: {kind: images}\n"
        f"prompts: {{source: 's3://key:{SECRET}@bucket/x.txt'}}\n"
        f"references: {{real: {{source: 's3://bucket/x.zip?X-Amz-Signature={SECRET}'}}}}\n"
        f"output: {tmp_path}/runs\n"
    )
    for verb in ("run", "validate"):
        refused = call(verb, tmp_path / "c.yaml")
        assert refused.status == 2
        assert "without credentials" in refused.err
        assert SECRET not in refused.err + refused.out
    scored = call("score", f"s3://key:{SECRET}@bucket/x.zip", "--metrics", "is_digits")
    assert scored.status == 2
    assert SECRET not in scored.err + scored.out
    assert not list(tmp_path.rglob("init"))
