"""Moments in files: what others publish is read, and what is none of it is refused by name."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluator.errors import EvaluatorError, InputError
from evaluator.metrics import ReferenceMoments, read_moments, write_moments


def moments(seed: int = 0, dim: int = 6) -> tuple[np.ndarray, np.ndarray]:
    values = np.random.default_rng(seed).normal(size=(50, dim))
    return values.mean(axis=0), np.cov(values, rowvar=False).reshape(dim, dim)


def header(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    """An `.npy` header that promises any array."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_2_0(
        stream, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def plain(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, ">f8"])
def test_files_of_pytorch_fid_clean_fid_and_edm_are_read(
    tmp_path: Path, compressed: bool, dtype: object
) -> None:
    mean, cov = (part.astype(dtype) for part in moments())
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "a.npz", mu=mean, sigma=np.asfortranarray(cov))
    got = read_moments(tmp_path / "a.npz")
    assert np.array_equal(got.mean, mean)
    np.testing.assert_allclose(got.covariance, cov, rtol=1e-15)
    assert (got.mean.dtype, got.covariance.dtype) == (np.float64, np.float64)
    assert (got.n, got.fingerprint, got.extractor, got.remarks) == (None, None, None, ())
    assert got.origin == str(tmp_path / "a.npz")


def test_guided_diffusions_batches_give_both_kinds_without_reading_their_images(
    tmp_path: Path,
) -> None:
    (mean, cov), (mean_s, cov_s) = moments(), moments(1, 9)
    arrays = {"mu": mean, "sigma": cov, "mu_s": mean_s, "sigma_s": cov_s}
    members = {f"{name}.npy": plain(array) for name, array in arrays.items()}
    # ten gigabytes of images are promised, and none are there
    members["arr_0.npy"] = header((50_000, 256, 256, 3), "|u1")
    path = archive(tmp_path / "batch.npz", members)
    assert np.array_equal(read_moments(path).mean, mean)
    assert np.array_equal(read_moments(path, spatial=True).mean, mean_s)
    with pytest.raises(InputError, match="expected the arrays mu_s and sigma_s, got arr_0, mu, s"):
        read_moments(
            archive(tmp_path / "b.npz", {k: v for k, v in members.items() if "_s" not in k}),
            spatial=True,
        )


def test_what_is_written_is_read_again_here_and_by_others(tmp_path: Path) -> None:
    mean, cov = moments()
    given_moments = ReferenceMoments(mean, cov, 50, "ab" * 32, "a run", "inception")
    write_moments(tmp_path / "a.npz", given_moments)
    got = read_moments(tmp_path / "a.npz")
    assert (got.n, got.fingerprint, got.extractor) == (50, "ab" * 32, "inception")
    assert np.array_equal(got.covariance, cov)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        # the two lines of pytorch-fid's and clean-fid's readers
        assert np.array_equal(file["mu"][:], mean)
        assert np.array_equal(file["sigma"][:], cov)
        assert set(file) == {"mu", "sigma", "n", "fingerprint", "extractor"}
    before = (tmp_path / "a.npz").read_bytes()
    write_moments(tmp_path / "a.npz", given_moments)
    assert (tmp_path / "a.npz").read_bytes() == before
    write_moments(tmp_path / "b.npz", ReferenceMoments(mean, cov, None, None, "unknown"))
    assert read_moments(tmp_path / "b.npz").n is None
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    with pytest.raises(EvaluatorError, match="could not write"):
        write_moments(tmp_path / "none" / "a.npz", given_moments)


MEAN, COV = moments()
CROOKED = COV + np.triu(np.full((6, 6), 0.01), 1)
INDEFINITE = COV - 2 * np.linalg.eigvalsh(COV)[0] * np.eye(6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": MEAN, "cov": COV}, "expected the arrays mu and sigma, got cov, mean; give"),
        ({"mu": MEAN}, "expected the arrays mu and sigma, got mu; give"),
        ({"mu": MEAN[None], "sigma": COV}, r"mu: expected shape \(D,\) .* of shape \(1, 6\)"),
        ({"mu": MEAN, "sigma": COV[:5]}, r"sigma: expected shape \(D, D\) .* of shape \(5, 6\)"),
        ({"mu": MEAN[:5], "sigma": COV}, "mu and sigma of one dimension, got 5 and 6"),
        ({"mu": MEAN * np.nan, "sigma": COV}, "mu: expected finite numbers, got 6 that are not"),
        ({"mu": MEAN, "sigma": COV * np.inf}, "sigma: expected finite numbers, got 36 that are"),
        ({"mu": MEAN, "sigma": CROOKED}, "sigma: expected a symmetric matrix, .* differ by 0.01"),
        ({"mu": MEAN, "sigma": INDEFINITE}, "sigma: expected a positive semidefinite matrix, got"),
        ({"mu": MEAN + 1j, "sigma": COV}, "mu: expected numbers, got complex128"),
        ({"mu": MEAN, "sigma": COV, "n": [5, 6]}, "n: expected one number, got int64 of shape"),
        ({"mu": MEAN, "sigma": COV, "n": 1}, "n: expected at least 2 samples, got 1; remove it"),
        ({"mu": MEAN, "sigma": COV, "fingerprint": 7}, "fingerprint: expected one text, got int64"),
    ],
)  # fmt: skip
def test_moments_that_are_none_are_refused(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message) as raised:
        read_moments(tmp_path / "a.npz")
    assert str(tmp_path / "a.npz") in str(raised.value)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "went off",))

    (tmp_path / "edm2.pkl").write_bytes(pickle.dumps({"fid": {"mu": Bomb(), "sigma": 0}}))
    (tmp_path / "renamed.npz").write_bytes(pickle.dumps(Bomb()))
    for name in ("edm2.pkl", "renamed.npz"):
        with pytest.raises(InputError, match="got a pickle, which can run any code .* numpy.savez"):
            read_moments(tmp_path / name)
    np.savez(tmp_path / "objects.npz", mu=np.array([Bomb()]), sigma=COV)
    with pytest.raises(InputError, match="mu: expected numbers, got object"):
        read_moments(tmp_path / "objects.npz")
    assert not (tmp_path / "went off").exists()


def member(header: str) -> bytes:
    """A member of an .npz with this header and no data."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


@pytest.mark.parametrize("header", ["{'descr': '<f8', 'shape': (3,", "'''", "{[]: 1}", "(" * 3000])
def test_a_header_that_is_no_python_is_an_error_of_the_file(tmp_path: Path, header: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("mu.npy", member(header))
        archive.writestr("sigma.npy", member(header))
    with pytest.raises(InputError, match="mu: expected a whole array, got a header that is none"):
        read_moments(tmp_path / "a.npz")


def test_arrays_that_python_2_wrote_are_read_in_silence(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, array, shape in (("mu", MEAN, "(6L,)"), ("sigma", COV, "(6L, 6L)")):
            header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n"
            archive.writestr(f"{name}.npy", member(header) + array.tobytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_moments(tmp_path / "a.npz")
    assert np.array_equal(found.mean, MEAN)
    assert np.allclose(found.covariance, COV)


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MEAN)
    with pytest.raises(InputError, match="got a single .npy array"):
        read_moments(tmp_path / "a.npy")
    (tmp_path / "text.npz").write_text("not found")
    with pytest.raises(InputError, match="expected a whole .npz file, got a damaged one"):
        read_moments(tmp_path / "text.npz")
    with pytest.raises(InputError, match="expected a readable .npz file, got No such file"):
        read_moments(tmp_path / "missing.npz")
    with pytest.raises(InputError, match="expected a readable .npz file, got Is a directory"):
        read_moments(tmp_path)


@pytest.mark.parametrize("shape", [(16_385, 16_385), (2**40, 2**40), (0, 0)])
def test_no_array_is_read_before_its_size_was_looked_at(tmp_path: Path, shape: tuple) -> None:
    members = {"mu.npy": plain(MEAN), "sigma.npy": header(shape)}
    with pytest.raises(InputError, match=r"sigma: expected shape \(D, D\) with D from 1 to 16384"):
        read_moments(archive(tmp_path / "a.npz", members))
    longer = {"mu.npy": plain(MEAN) + b"x", "sigma.npy": plain(COV)}
    with pytest.raises(InputError, match="expected 48 bytes as its header says, got more"):
        read_moments(archive(tmp_path / "a.npz", longer))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_damage_is_an_error_or_changes_nothing(tmp_path: Path, data: st.DataObject) -> None:
    stream = io.BytesIO()
    np.savez(stream, mu=MEAN, sigma=COV, n=50, fingerprint="abc")
    content = bytearray(stream.getvalue())
    where = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:where]
    else:
        content[where] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    try:
        got = read_moments(path)
    except InputError:
        return
    assert np.array_equal(got.mean, MEAN)
    assert np.array_equal(got.covariance, COV)


def test_eigenvalues_that_rounding_put_below_zero_are_accepted_with_a_remark(
    tmp_path: Path,
) -> None:
    values = np.random.default_rng(3).normal(size=(10, 40))
    cov = np.cov(values, rowvar=False).astype(np.float32)
    np.savez(tmp_path / "a.npz", mu=values.mean(axis=0), sigma=cov)
    got = read_moments(tmp_path / "a.npz")
    assert len(got.remarks) == 1
    assert "eigenvalues down to -" in got.remarks[0]
    assert "rounding to float32" in got.remarks[0]
