"""Arguments and options that the `probe` verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from evaluator.probing.inputs import ModelRequest

ModelArgument = Annotated[
    str,
    typer.Argument(help="Pipeline folder, hub id, package://…; or a configuration of run (YAML)."),
]
ImagesOption = Annotated[
    str, typer.Option(help="Images: folder, .zip, .npz, .parquet, .tar, pack, or package://….")
]
LimitOption = Annotated[int, typer.Option(min=1, help="Take the first N images.")]
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
    Path | None, typer.Option(help="Folder to fill; default: probes/<verb>-<model>.")
]
DeviceOption = Annotated[str | None, typer.Option(help="Default: the GPU if there is one.")]
DtypeOption = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Denoising steps.")]
GuidanceOption = Annotated[float | None, typer.Option(min=0, help="Classifier-free guidance.")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Seed of every draw.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a.b=value; the value is YAML. May be repeated."),
]
AllowCodeOption = Annotated[
    bool, typer.Option("--allow-code", help="Import code that the configuration names.")
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
    allow_code: bool = False,
) -> ModelRequest:
    """What the command line asks of the model."""
    from evaluator.probing.inputs import ModelRequest

    return ModelRequest(
        model, device, dtype, steps, guidance, seed, tuple(overrides or ()), allow_code
    )
