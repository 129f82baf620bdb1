"""What a verb leaves behind: tables, pictures, and result.json with what they were made from."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.durable import explained, write_atomically
from evaluator.runner.identity import versions

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from evaluator.probing.inputs import ProbedImages, ProbedModel
    from evaluator.protocols import FeatureExtractor

RESULT = "result.json"
FORMAT = 2
"""Version of what result.json holds; 2 adds `made`, `lines` and `pictures`."""


class ProbeFolder:
    """A folder that fills, file by file; result.json comes last and says that all is there."""

    def __init__(self, path: Path, *, verb: str) -> None:
        self.path = path
        self._verb = verb
        self._files: list[str] = []
        self._captions: dict[str, str] = {}
        with explained("make", path):
            path.mkdir(parents=True, exist_ok=True)
            (path / RESULT).unlink(missing_ok=True)

    def write(self, name: str, content: bytes) -> Path:
        """One file, there entirely or not at all."""
        path = self.path / name
        write_atomically(path, content)
        self._files.append(name)
        return path

    def holds(self, name: str) -> Path:
        """A file that was written into the folder already."""
        self._files.append(name)
        return self.path / name

    def table(self, name: str, table: pa.Table) -> Path:
        """A table as Parquet."""
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        return self.write(name, buffer.getvalue())

    def picture(self, name: str, picture: Image.Image, *, caption: str = "") -> Path:
        """A picture as PNG, with a sentence that says what it shows."""
        self._captions[name] = caption
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return self.write(name, buffer.getvalue())

    def finish(
        self,
        result: Any,
        *,
        arguments: Mapping[str, Any],
        provenance: Mapping[str, Any],
        lines: Sequence[str] | None = None,
    ) -> Path:
        """Write result.json: what was found, what was asked, and what it was made from.

        `lines` are those that the command line prints; default: the result's own, if it has any.
        """
        spoken = getattr(result, "lines", None)
        if lines is None and callable(spoken):
            lines = spoken()
        record = {
            "format": FORMAT,
            "verb": self._verb,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "lines": list(lines or ()),
            "pictures": [{"file": name, "caption": says} for name, says in self._captions.items()],
            "result": plain(result),
            "arguments": plain(arguments),
            "provenance": plain(provenance),
            "files": self._files,
        }
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(self.path / RESULT, text.encode())
        return self.path / RESULT


def open_folder(verb: str, name: str, output: Path | None) -> ProbeFolder:
    """The folder that was asked for, else `probes/<verb>-<model name>`."""
    return ProbeFolder(output or Path("probes") / f"{verb}-{name}", verb=verb)


def provenance(
    probed: ProbedModel,
    *,
    images: ProbedImages | None = None,
    extractor: FeatureExtractor | None = None,
) -> dict[str, Any]:
    """What a result was made with: versions, model, generation, images, extractor."""
    import torch

    record: dict[str, Any] = {
        "versions": versions(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "model": {"fingerprint": probed.model.fingerprint, **probed.model.describe()},
        "generation": probed.config.generation.model_dump(mode="json"),
    }
    if images is not None:
        record["images"] = {
            "fingerprint": images.fingerprint,
            "n": len(images.images),
            "refused": list(images.refused),
        }
    if extractor is not None:
        record["extractor"] = {"name": extractor.name, "fingerprint": extractor.fingerprint}
    return record


def plain(value: Any) -> Any:
    """Records, arrays and paths as JSON takes them; null for a number that is not finite."""
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)
