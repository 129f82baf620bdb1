"""What goes wrong with a remote store, said as everything else is: expected, got, remedy."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from evaluator.errors import EvaluatorError, InputError, StorageError


class Scheme(NamedTuple):
    """What a kind of address needs."""

    package: str
    """The package that knows it."""
    install: str
    """How to install that."""
    credentials: str
    """Where its client looks for credentials."""
    hides: bool = False
    """Whether it says of what is not allowed that it is not there."""


SCHEMES = {
    "s3": Scheme(
        "s3fs", "pip install 'diffusion-evaluator[s3]'",
        "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's role;"
        " FSSPEC_S3_ANON=true for a public bucket",
    ),
    "gs": Scheme(
        "gcsfs", "pip install 'diffusion-evaluator[gs]'",
        "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    ),
    "hf": Scheme(
        "huggingface_hub", "pip install huggingface_hub", "HF_TOKEN, or `hf auth login`", hides=True
    ),
    "memory": Scheme("fsspec", "pip install fsspec", "none are needed"),
}  # fmt: skip
"""Kinds of addresses, by the scheme before `://`."""

_LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_MISSING = {
    "FileNotFoundError", "RepositoryNotFoundError", "RevisionNotFoundError", "EntryNotFoundError",
    "BucketNotFoundError",
}  # fmt: skip
_REFUSED = {
    "PermissionError", "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
    "TokenRetrievalError", "ProfileNotFound", "DefaultCredentialsError", "RefreshError",
    "GatedRepoError",
}  # fmt: skip


@contextmanager
def explained(doing: str, address: str) -> Iterator[None]:
    """Turn what a store's client raises into an error of ours.

    InputError for what is not there or not allowed, StorageError for a store that does not answer
    and for a full disk here. What the client says is repeated by its kind, never by its text,
    which may hold signed addresses.
    """
    try:
        yield
    except EvaluatorError:
        raise
    except ImportError as error:
        scheme = SCHEMES[address.partition("://")[0]]
        raise InputError(
            f"{address}: expected the package {scheme.package}, which reads such addresses, got"
            f" none; {scheme.install}"
        ) from error
    except Exception as error:
        raise _translated(error, doing, address) from error


def _translated(error: Exception, doing: str, address: str) -> EvaluatorError:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    number = error.errno if isinstance(error, OSError) else None
    scheme = SCHEMES[address.partition("://")[0]]
    status = _status(error)
    if number in _LOCAL:
        return StorageError(f"could not {doing} {address}: {error}. Free space, or name another"
                            " place")  # fmt: skip
    if kinds & _REFUSED or status in (401, 403):
        return InputError(
            f"{address}: expected permission to {doing} it, got refused"
            f" ({type(error).__name__}); credentials are taken from the environment"
            f" ({scheme.credentials})"
        )
    if kinds & _MISSING or status == 404:
        text = str(error).lower()
        what = "no such bucket" if "bucket" in text and "exist" in text else "nothing there"
        private = f"; what is private needs {scheme.credentials}" if scheme.hides else ""
        return InputError(
            f"{address}: expected something to {doing}, got {what}; check the address{private}"
        )
    return StorageError(
        f"could not {doing} {address}: the store did not answer as it should"
        f" ({_kind(error)}). Check the network, the endpoint (AWS_ENDPOINT_URL for s3) and its"
        " time limits, then run the same command again"
    )


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error carries, if any."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
    return None


def _kind(error: BaseException) -> str:
    """The error's class, and the system's or the service's short code for it."""
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno:
        return f"{name}, {errno.errorcode.get(error.errno, error.errno)}"
    found = re.match(r"An error occurred \((\w+)\)", str(error))
    return f"{name}, {found[1]}" if found else name
