"""Results of `evaluator probe …` that lie in the run's folder `probes/`, fit to show.

Everything in such a folder was written by others: names in result.json choose nothing on disk.
Only plain files right inside the folder are read, and pictures are decoded and written anew under
names of the report's own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from evaluator.report.images import decode, fitted
from evaluator.report.text import plain, preformatted, redacted

RESULT = "result.json"
NEWEST_FORMAT = 2
MAX_FOLDERS = 32
MAX_PICTURES = 8
MAX_LINES = 80
MAX_SETTINGS = 8
MAX_RESULT_BYTES = 16 * 2**20
MAX_TABLE_BYTES = 64 * 2**20
MAX_PICTURE_BYTES = 32 * 2**20
SIDE = 1600
"""Longest side of a picture in the report."""


_CAPTIONS = {
    ("denoise", "x0.png"): "The image itself, then what one step predicts of it, from little noise "
    "to much.",
    ("directions", "similarity.png"): "Cosine of the prompts’ text embeddings, their mean taken "
    "away.",
    ("directions", "strip.png"): "One row a seed; to the right the embedding is moved further.",
    ("interpolate", "strip.png"): "One row a path, from one end to the other.",
    ("jacobian", "spectra.png"): "Singular values of the Jacobian along the trajectory.",
    ("jacobian", "vectors.png"): "Singular vectors as images: the directions that the denoiser "
    "lets through most.",
    ("ood", "ood.png"): "The most and the least unusual images.",
    ("roundtrip", "worst.png"): "The images that the autoencoder loses most of, and what becomes "
    "of them.",
}
"""What a picture of a verb shows, where the verb itself does not say."""
_REDRAWN = {("denoise", "errors.png"), ("jacobian", "ranks.png")}
"""Pictures of what the report draws from the table itself."""


class ProbePicture(NamedTuple):
    """A picture of a verb, copied beside the page."""

    file: str
    caption: str


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One complete folder; all text is fit to show, `result` and `table` are as they were found."""

    place: str
    """Name of the folder."""
    verb: str
    made: str
    model: str
    """Model and the beginning of its fingerprint; empty where nothing is said of them."""
    lines: Sequence[str]
    warning: str
    """Of another model than the run's; empty where it is the same, or nothing is known."""
    note: str
    pictures: Sequence[ProbePicture]
    result: Mapping[str, Any]
    arguments: Mapping[str, Any]
    table: pa.Table | None
    """`<verb>.parquet` of a verb that the report draws."""


@dataclass
class ProbeResults:
    """What was found under `probes/`."""

    complete: list[ProbeResult] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """A line for each folder that is not shown, or not entirely."""


class _Unreadable(Exception):
    """Why a folder is not shown."""


def read_probes(
    run: Path, made_from: Mapping[str, Any], folder: Path, *, drawn: Sequence[str]
) -> ProbeResults:
    """Read every folder under `run/probes`; pictures go into `folder/probes`.

    `made_from` is what `init/` says of the run: its `model` in provenance.json, its `generation` in
    config.yaml; `drawn` are the verbs whose table is wanted.
    """
    found = ProbeResults()
    if (run / "probes").is_symlink():
        found.faults.append("probes is a link: what it leads to is not read")
        return found
    places = sorted(_inside(run / "probes", directories=True))
    for number, (name, path) in enumerate(places[:MAX_FOLDERS]):
        place = plain(name, limit=80) or "?"
        try:
            record = _record(path)
        except _Unreadable as error:
            found.faults.append(f"probes/{place}: {error}")
            continue
        verb = plain(record.get("verb") or place, limit=40)
        table = None
        try:
            table = _table(path, verb) if verb in drawn else None
        except _Unreadable as error:
            found.faults.append(f"probes/{place}: {error}")
        captions = _captions(record)
        left_out = {name for of, name in _REDRAWN if of == verb and table is not None}
        files = [file for file in _picture_files(path) if file[0] not in left_out]
        copies = folder / "probes" / f"{number:02d}"
        pictures = list(_pictures(files, verb, captions, copies, place, found.faults))
        found.complete.append(_result(record, place, verb, made_from, pictures, table))
    if len(places) > MAX_FOLDERS:
        more = len(places) - MAX_FOLDERS
        found.faults.append(f"probes/: {more} further folders are not shown")
    return found


def _inside(path: Path, *, directories: bool) -> Iterator[tuple[str, Path]]:
    """Plain files, or plain folders, right inside a folder: no links, nothing hidden."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                kind = entry.is_dir if directories else entry.is_file
                if not entry.name.startswith(".") and kind(follow_symlinks=False):
                    yield entry.name, Path(entry.path)
    except OSError:  # no folder `probes`: no verb was asked
        return


def _content(path: Path, most: int) -> bytes:
    """A plain file's bytes; nothing that a link leads to, and nothing beyond `most`."""
    if path.is_symlink() or not path.is_file():
        raise _Unreadable(f"expected the file {path.name}, got none")
    try:
        size = path.stat().st_size
        if size > most:
            raise _Unreadable(f"{path.name} has {size:,} bytes, more than is read ({most:,})")
        return path.read_bytes()
    except OSError as error:
        raise _Unreadable(f"{path.name} cannot be read ({error.strerror})") from error


def _record(path: Path) -> Mapping[str, Any]:
    result = path / RESULT
    if not os.path.lexists(result):
        raise _Unreadable(f"no {RESULT}: the verb is at work, or was interrupted")
    try:
        record = json.loads(_content(result, MAX_RESULT_BYTES))
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"{RESULT} is damaged: ask the verb again") from error
    if not isinstance(record, Mapping) or not isinstance(record.get("verb"), str):
        raise _Unreadable(f"{RESULT} names no verb: ask the verb again")
    version = record.get("format")
    if not isinstance(version, int) or not 1 <= version <= NEWEST_FORMAT:
        raise _Unreadable(
            f"{RESULT} has format {plain(version, limit=20)}, expected 1 to {NEWEST_FORMAT}: a "
            "newer evaluator may have written it"
        )
    return record


def _table(path: Path, verb: str) -> pa.Table | None:
    """`<verb>.parquet`, for a verb that the report knows by name."""
    file = path / f"{verb}.parquet"
    if not os.path.lexists(file):
        raise _Unreadable(f"no {file.name}: its chart is left out")
    try:
        return pq.read_table(pa.BufferReader(_content(file, MAX_TABLE_BYTES)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _Unreadable(f"{file.name} is damaged: its chart is left out") from error


def _captions(record: Mapping[str, Any]) -> dict[str, str]:
    """Picture's name → its sentence, as far as result.json has them in the right shape."""
    listed = record.get("pictures")
    found = {}
    for item in listed if isinstance(listed, list) else ():
        if isinstance(item, Mapping) and isinstance(item.get("file"), str):
            found[item["file"]] = plain(item.get("caption") or "", limit=400)
    return found


def _picture_files(path: Path) -> list[tuple[str, Path]]:
    files = _inside(path, directories=False)
    return sorted(file for file in files if file[0].lower().endswith(".png"))


def _pictures(
    files: Sequence[tuple[str, Path]],
    verb: str,
    captions: Mapping[str, str],
    copies: Path,
    place: str,
    faults: list[str],
) -> Iterator[ProbePicture]:
    """Copies of the folder's pictures, named by number alone."""
    place = f"probes/{place}"
    for i, (name, file) in enumerate(files[:MAX_PICTURES]):
        try:
            image = decode(_content(file, MAX_PICTURE_BYTES))
        except _Unreadable as error:
            faults.append(f"{place}: {error}")
            continue
        if image is None:
            faults.append(f"{place}: {plain(name, limit=80)} is no picture that can be shown")
            continue
        copies.mkdir(parents=True, exist_ok=True)
        copy = copies / f"{i:02d}.png"
        fitted(image, SIDE).save(copy)
        # Several of a kind are numbered: strip-1.png, strip-2.png.
        known = _CAPTIONS.get((verb, re.sub(r"-\d+\.png$", ".png", name)))
        said = captions.get(name) or known or plain(name, limit=80)
        yield ProbePicture(f"{copies.parent.name}/{copies.name}/{copy.name}", said)
    if len(files) > MAX_PICTURES:
        faults.append(f"{place}: {len(files) - MAX_PICTURES} further pictures are not shown")


def _result(
    record: Mapping[str, Any],
    place: str,
    verb: str,
    made_from: Mapping[str, Any],
    pictures: Sequence[ProbePicture],
    table: pa.Table | None,
) -> ProbeResult:
    provenance = _mapping(record.get("provenance"))
    model = _mapping(provenance.get("model"))
    lines = record.get("lines")
    told = [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
    # Where it was written says where somebody keeps their files.
    told = [redacted(preformatted(line)) for line in told if not line.startswith("written")][
        :MAX_LINES
    ]
    while told and not told[-1]:
        told.pop()
    warning, note = _compared(provenance, made_from)
    name = redacted(plain(model.get("id") or "", limit=200))
    fingerprint = plain(model.get("fingerprint") or "")[:8]
    return ProbeResult(
        place=place,
        verb=verb,
        made=plain(record.get("made") or "", limit=40).replace("T", " ").replace("+00:00", " UTC"),
        model=f"{name} {fingerprint}".strip(),
        lines=told,
        warning=warning,
        note=note,
        pictures=pictures,
        result=_mapping(record.get("result")),
        arguments=_mapping(record.get("arguments")),
        table=table,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _compared(provenance: Mapping[str, Any], made_from: Mapping[str, Any]) -> tuple[str, str]:
    """Warning and note on whether what was probed is what the run's images are from."""
    model, of_run = _mapping(provenance.get("model")), _mapping(made_from.get("model"))
    fingerprints = model.get("fingerprint"), of_run.get("fingerprint")
    if None in fingerprints or fingerprints[0] == fingerprints[1]:
        return "", ""
    weights = [(of.get("weights_sha256"), of.get("added_weights_sha256")) for of in (model, of_run)]
    if weights[0][0] is not None and weights[0] == weights[1]:
        said = "the weights of this run, under other settings than its images"
        named = _differing(provenance, made_from)
        return "", f"{said}: {'; '.join(named)}" if named else said
    return "Made with other weights than this run’s images: probe the run itself to compare.", ""


def _differing(provenance: Mapping[str, Any], made_from: Mapping[str, Any]) -> list[str]:
    """The settings that both name with another value each, in words."""
    found = []
    for part in ("model", "generation"):
        probed, of_run = _mapping(provenance.get(part)), _mapping(made_from.get(part))
        for name in sorted({*probed} & {*of_run} - {"fingerprint", "id", "revision"}):
            if probed[name] != of_run[name]:
                here, there = (
                    "none" if value is None else redacted(plain(value, limit=40))
                    for value in (probed[name], of_run[name])
                )
                found.append(f"{plain(name, limit=40)} {here} instead of {there}")
    return found[:MAX_SETTINGS]
