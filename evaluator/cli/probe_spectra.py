"""`probe jacobian` and `probe ood`: they parse, call one function, and print what it returns."""

from __future__ import annotations

from typing import Annotated

import typer

from evaluator.cli.configured import AllowCodeOption, SetOption
from evaluator.cli.printing import print_lines
from evaluator.cli.probe_options import (
    AttachOption,
    DeviceOption,
    DtypeOption,
    EachLimitOption,
    ModelArgument,
    OutputOption,
    SeedOption,
    StepsOption,
    WeightsOption,
    model_request,
)


def jacobian(
    model: ModelArgument,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Text of the samples; may be repeated.")
    ] = None,
    class_label: Annotated[int | None, typer.Option(help="Class of the samples.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Trajectories.")] = 4,
    at: Annotated[
        str | None,
        typer.Option(
            help="Steps of the trajectory: all, how many, or 0,5,19; default: 6, or all of fewer."
        ),
    ] = None,
    values: Annotated[
        int | None,
        typer.Option(
            min=1, help="Find this many singular values by products; default: all where few."
        ),
    ] = None,
    eta: Annotated[float, typer.Option(help="Share of the root of the energy.")] = 0.99,
    vectors: Annotated[int, typer.Option(min=1, max=16, help="Singular vectors drawn.")] = 5,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Copies differentiated at once; fewer need less room.")
    ] = None,
    steps: StepsOption = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            min=0, help="Of the guided denoiser; default: 1, the conditional denoiser alone."
        ),
    ] = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    seed: SeedOption = None,
    overrides: SetOption = None,
    attach: AttachOption = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Numerical rank of the denoiser's Jacobian along its trajectories, and its directions."""
    from evaluator.probing.jacobian import JacobianRequest, probe_jacobian

    request = JacobianRequest(
        model=model_request(
            model, device=device, dtype=dtype, steps=steps, guidance=guidance, seed=seed,
            overrides=overrides, attach=attach, allow_code=allow_code,
        ),
        prompts=tuple(prompt or ()),
        class_label=class_label,
        samples=samples,
        steps=None if at is None else _steps(at),
        values=values,
        eta=eta,
        vectors=vectors,
        batch=batch,
    )  # fmt: skip
    print_lines(probe_jacobian(request, output).lines())


def ood(
    model: ModelArgument,
    reference: Annotated[
        str | None, typer.Option(help="Images that are usual; default: the run's first reference.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Images to score; default: those that the run kept.")
    ] = None,
    outliers: Annotated[
        str | None, typer.Option(help="Images known to be unusual: how well scores tell them.")
    ] = None,
    limit: EachLimitOption = 2000,
    extractor: Annotated[
        str | None,
        typer.Option(
            help="Score in this extractor's features instead of the model's latents. The result"
            " takes the place of an earlier one in the same folder: keep both with --output."
        ),
    ] = None,
    weights: WeightsOption = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    seed: SeedOption = None,
    overrides: SetOption = None,
    attach: AttachOption = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """How unusual images are among a reference set: in the model's latents, or in features."""
    from evaluator.probing.ood import probe_ood

    request = model_request(
        model,
        device=device,
        dtype=dtype,
        seed=seed,
        overrides=overrides,
        attach=attach,
        allow_code=allow_code,
    )
    print_lines(
        probe_ood(
            request, reference=reference, images=images, outliers=outliers, limit=limit,
            extractor=extractor, weights=weights, output=output,
        ).lines()
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
