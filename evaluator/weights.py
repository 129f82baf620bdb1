"""Weights on disk: found by id or folder, safetensors only, and known by their hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluator.errors import InputError
from evaluator.locations import PACKAGE_SCHEME, expand

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_CODE_FREE = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


@dataclass(frozen=True, slots=True)
class Weights:
    """A folder of weights and configuration."""

    folder: Path
    origin: str
    """What the user wrote: id or path."""
    revision: str | None
    """The commit on the hub; None for a folder."""
    sha256: str
    """Hash over the names and contents of all weights and configuration files."""


def find_weights(
    location: str, *, revision: str | None = None, relative_to: Path | None = None
) -> Weights:
    """Find weights by folder, `package://`, or hub id (fetched to the Hugging Face cache).

    Only configuration, tokenizer and safetensors files are fetched, never code or pickles.
    Raises InputError when there is nothing, saying where it was looked for.
    """
    folder = expand(location, relative_to=relative_to)
    commit = None
    if not folder.is_dir():
        folder, commit = _from_hub(location, revision, folder)
    if not any(folder.rglob("*.safetensors")):
        found = sorted({p.suffix for p in folder.rglob("*") if p.is_file()}) or ["nothing"]
        raise InputError(
            f"{location}: expected weights as .safetensors, got {', '.join(found)}. Pickled "
            "weights run code when they are loaded; convert them with save_pretrained()."
        )
    return Weights(folder, location, commit, hash_folder(folder))


def _from_hub(location: str, revision: str | None, looked_at: Path) -> tuple[Path, str | None]:
    if location.startswith(PACKAGE_SCHEME) or not is_hub_id(location):
        raise InputError(
            f"{location}: expected a folder with weights or a hub id (owner/name), "
            f"got nothing at {looked_at}. Check the path."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        fetched = snapshot_download(location, revision=revision, allow_patterns=_CODE_FREE)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise InputError(
            f"{location}: expected a folder or a repository on the hub, got neither: no folder at "
            f"{looked_at}, and the hub said: {_first_line(error)}. Check the id, log in "
            "for gated weights, or fetch them ahead on a machine with a network."
        ) from error
    folder = Path(fetched)
    return folder, folder.name if _COMMIT.match(folder.name) else revision


def is_hub_id(location: str) -> bool:
    """Whether `location` has the form owner/name."""
    return _HUB_ID.match(location) is not None


def fetch_file(location: str, file: str, *, revision: str | None = None) -> Path:
    """One file of a hub repository, fetched to the Hugging Face cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(location, file, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise InputError(
            f"{location}: expected a repository on the hub with '{file}', got: "
            f"{_first_line(error)}. Check the id and `file`, log in for gated weights, or "
            "fetch them ahead on a machine with a network."
        ) from error


def _first_line(error: BaseException) -> str:
    """What an error says first, without a full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


def hash_folder(
    folder: Path, suffixes: Sequence[str] = (".json", ".model", ".safetensors", ".txt")
) -> str:
    """SHA-256 over (relative name, content hash) of the files that decide what is computed."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and path.suffix in suffixes and not hidden:
            digest.update(json.dumps([relative.as_posix(), hash_file(path)]).encode())
    return digest.hexdigest()


def stamp(location: str, *, relative_to: Path | None = None) -> str | None:
    """What tells at a glance whether a local file or folder is still the same; None elsewhere.

    Digest of names, sizes and times of change: gigabytes need not be read to answer that nothing
    happened. A new stamp says "look again", not "different".
    """
    path = expand(location, relative_to=relative_to)
    try:
        path.stat()
    except (OSError, ValueError):  # ValueError: a text that no path can be
        return None
    files = sorted(found for found in path.rglob("*") if found.is_file()) or [path]
    seen = [(file.relative_to(path).as_posix(), file.stat()) for file in files]
    record = [(name, state.st_size, state.st_mtime_ns) for name, state in seen]
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of one file, hexadecimal."""
    # The hub's cache names large files by their own SHA-256: no need to read gigabytes again.
    blob = path.resolve()
    if blob.parent.name == "blobs" and _SHA256.match(blob.name):
        return blob.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
