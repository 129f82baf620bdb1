"""`probe jacobian` and `probe ood`: they parse, call one function, and print what it returns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from evaluator.probing.inputs import ModelRequest

ModelArgument = Annotated[
    str, typer.Argument(help="Pipeline folder, hub id, or configuration (YAML).")
]
OutputOption = Annotated[
    Path | None, typer.Option(help="Folder for tables and pictures; default: probes/VERB-NAME.")
]
DeviceOption = Annotated[str | None, typer.Option(help="Such as cuda:1; default: the GPU.")]
DtypeOption = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Seed of every draw.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a.b=value of the configuration.")
]
AllowCodeOption = Annotated[
    bool, typer.Option("--allow-code", help="Import code that the configuration names.")
]


def jacobian(
    model: ModelArgument,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Text of the samples; may be repeated.")
    ] = None,
    class_label: Annotated[int | None, typer.Option(help="Class of the samples.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Trajectories.")] = 4,
    at: Annotated[
        str, typer.Option(help="Steps of the trajectory: all, how many, or 0,5,19.")
    ] = "6",
    values: Annotated[
        int | None,
        typer.Option(
            min=1, help="Find this many singular values by products; default: all where few."
        ),
    ] = None,
    eta: Annotated[float, typer.Option(help="Share of the root of the energy.")] = 0.99,
    vectors: Annotated[int, typer.Option(min=1, max=16, help="Singular vectors drawn.")] = 5,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    seed: SeedOption = None,
    overrides: SetOption = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Numerical rank of the denoiser's Jacobian along its trajectories, and its directions."""
    from evaluator.probing.jacobian import JacobianRequest, probe_jacobian

    request = JacobianRequest(
        model=_model(
            model, device=device, dtype=dtype, steps=steps, seed=seed, overrides=overrides,
            allow_code=allow_code,
        ),
        prompts=tuple(prompt or ()),
        class_label=class_label,
        samples=samples,
        steps=_steps(at),
        values=values,
        eta=eta,
        vectors=vectors,
    )  # fmt: skip
    for line in probe_jacobian(request, output).lines():
        typer.echo(line)


def _model(
    model: str,
    *,
    device: str | None,
    dtype: str | None,
    steps: int | None,
    seed: int | None,
    overrides: list[str] | None,
    allow_code: bool,
) -> ModelRequest:
    from evaluator.probing.inputs import ModelRequest

    return ModelRequest(
        model, device=device, dtype=dtype, steps=steps, seed=seed,
        overrides=tuple(overrides or ()), allow_code=allow_code,
    )  # fmt: skip


def _steps(text: str) -> str | int | list[int]:
    """`all`, a number, or a list of numbers."""
    from evaluator.errors import ConfigError

    if text == "all":
        return text
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--at: expected all, a number of steps, or a list such as 0,5,19, got {text!r}"
        ) from None
    return numbers if "," in text else numbers[0]
