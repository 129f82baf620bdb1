"""Arguments and options that the `probe` verbs share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from evaluator.probing.inputs import ModelRequest

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="Pipeline folder, hub id, package://…; a configuration of run (YAML); or a run."
    ),
]
ImagesOption = Annotated[
    str | None,
    typer.Option(
        help="Images: folder, .zip, .npz, .parquet, .tar, pack, run, or package://…; default: those"
        " of the run's or configuration's first reference, else of its prompts."
    ),
]
LimitOption = Annotated[int, typer.Option(min=1, help="Take the first N images.")]
EachLimitOption = Annotated[
    int, typer.Option("--limit", min=1, help="Take the first N images of each set: reference, too.")
]
ExtractorOption = Annotated[str, typer.Option(help="An extractor, as `ls extractors` lists them.")]
OptionalExtractorOption = Annotated[
    str | None, typer.Option("--extractor", help="Measure in this extractor's features too.")
]
PromptOption = Annotated[str | None, typer.Option(help="Prompt of every image.")]
ClassOption = Annotated[int | None, typer.Option(help="Class of every image.")]
WeightsOption = Annotated[
    str | None,
    typer.Option(help="Weights of the extractor, if not its own or the configuration's."),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(help="Folder to fill; default: RUN/probes/<verb>, else probes/<verb>-<model>."),
]
DeviceOption = Annotated[str | None, typer.Option(help="Default: the GPU if there is one.")]
DtypeOption = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Denoising steps.")]
GuidanceOption = Annotated[float | None, typer.Option(min=0, help="Classifier-free guidance.")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Seed of every draw.")]
AttachOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=IMAGE",
        help="An image for a pipeline that wants one: control=, init= or mask=. May be repeated;"
        " default: those of the configuration's first prompt that has them.",
    ),
]


def model_request(
    model: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    seed: int | None = None,
    overrides: list[str] | None = None,
    attach: list[str] | None = None,
    allow_code: bool = False,
) -> ModelRequest:
    """What the command line asks of the model."""
    from evaluator.probing.inputs import ModelRequest

    return ModelRequest(
        model, device, dtype, steps, guidance, seed, tuple(overrides or ()), allow_code,
        _attachments(attach or []),
    )  # fmt: skip


class Pair(NamedTuple):
    """What `--pair` is given once."""

    first: str
    last: str


class TakesPairs(TyperCommand):
    """A command whose option `--pair` takes two values, and may be repeated.

    Typer lets an option do one of the two only.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            if parameter.name == "pair":
                parameter.nargs = 2


def parse_pair(values: Any) -> Pair:
    """Both values at once, as `TakesPairs` makes the option give them."""
    return Pair(*map(str, values))


def _attachments(given: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    """`control=edges.png` → (`control`, path)."""
    from evaluator.errors import ConfigError

    found: dict[str, Path] = {}
    for item in given:
        name, equals, path = item.partition("=")
        if not equals or not name or not path or name in found:
            raise ConfigError(
                f"--attach: expected NAME=IMAGE, each name once, got {item!r}; write for example "
                "--attach control=edges.png"
            )
        found[name] = Path(path)
    return tuple(found.items())
