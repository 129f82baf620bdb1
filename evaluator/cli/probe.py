"""`evaluator probe …`: questions to one model that no run of many samples is needed for."""

from __future__ import annotations

from typing import Annotated

import typer

from evaluator.cli.configured import AllowCodeOption, SetOption
from evaluator.cli.printing import print_lines
from evaluator.cli.probe_options import (
    AttachOption,
    ClassOption,
    DeviceOption,
    DtypeOption,
    ExtractorOption,
    GuidanceOption,
    ImagesOption,
    LimitOption,
    ModelArgument,
    OptionalExtractorOption,
    OutputOption,
    Pair,
    PromptOption,
    SeedOption,
    StepsOption,
    TakesPairs,
    WeightsOption,
    model_request,
    parse_pair,
)
from evaluator.cli.probe_spectra import jacobian, ood

probe = typer.Typer(
    name="probe",
    help="Ask one model a question: what it is made of, what it knows, where it fails.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@probe.callback()
def _verbs() -> None:
    """Each verb below writes its tables and pictures into a folder, and prints what it found."""


probe.command()(jacobian)
probe.command()(ood)


@probe.command()
def anatomy(
    model: ModelArgument,
    prompt: Annotated[
        str | None, typer.Option(help="Prompt to follow through tokenizer and text encoder.")
    ] = None,
    guidance: GuidanceOption = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    seed: SeedOption = None,
    overrides: SetOption = None,
    attach: AttachOption = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Take a pipeline apart: components, latents, tokens, embeddings, scheduler, guidance."""
    from evaluator.probing.anatomy import probe_anatomy

    request = model_request(
        model, device=device, dtype=dtype, guidance=guidance, seed=seed, overrides=overrides,
        attach=attach, allow_code=allow_code,
    )  # fmt: skip
    print_lines(probe_anatomy(request, prompt=prompt, output=output).lines())


@probe.command()
def denoise(
    model: ModelArgument,
    images: ImagesOption = None,
    limit: LimitOption = 64,
    timesteps: Annotated[
        str, typer.Option(help="How many, spread over the run, or which: 900,500,100.")
    ] = "10",
    unconditional: Annotated[
        bool, typer.Option("--unconditional", help="Without the images' captions.")
    ] = False,
    guidance: GuidanceOption = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    seed: SeedOption = None,
    overrides: SetOption = None,
    attach: AttachOption = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Noise real images and measure how well the model predicts the noise."""
    from evaluator.probing.denoise import probe_denoise

    request = model_request(
        model, device=device, dtype=dtype, guidance=guidance, seed=seed, overrides=overrides,
        attach=attach, allow_code=allow_code,
    )  # fmt: skip
    print_lines(
        probe_denoise(
            request, images=images, limit=limit, timesteps=_timesteps(timesteps),
            unconditional=unconditional, output=output,
        ).lines()
    )  # fmt: skip


@probe.command()
def roundtrip(
    model: ModelArgument,
    images: ImagesOption = None,
    limit: LimitOption = 256,
    output: OutputOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    overrides: SetOption = None,
    attach: AttachOption = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Encode and decode real images: what the autoencoder loses, and the scale of its latents."""
    from evaluator.probing.roundtrip import probe_roundtrip

    request = model_request(
        model, device=device, dtype=dtype, overrides=overrides, attach=attach, allow_code=allow_code
    )
    print_lines(probe_roundtrip(request, images=images, limit=limit, output=output).lines())


@probe.command()
def interpolate(
    model: ModelArgument,
    images: Annotated[
        str | None, typer.Option(help="Walk between these images; default: between seeds.")
    ] = None,
    prompt: PromptOption = None,
    class_label: ClassOption = None,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of ends.")] = 4,
    frames: Annotated[int, typer.Option(help="Images along each path.")] = 9,
    strength: Annotated[
        float | None,
        typer.Option(
            help="Between images: the share of the run that is denoised again; default: 0.6."
        ),
    ] = None,
    extractor: OptionalExtractorOption = None,
    weights: WeightsOption = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    seed: SeedOption = None,
    overrides: SetOption = None,
    attach: AttachOption = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Walk between two seeds or images: a strip, and how smoothly features change along it."""
    from evaluator.probing.interpolate import probe_interpolate

    request = model_request(
        model, device=device, dtype=dtype, steps=steps, guidance=guidance, seed=seed,
        overrides=overrides, attach=attach, allow_code=allow_code,
    )  # fmt: skip
    print_lines(
        probe_interpolate(
            request, images=images, prompt=prompt, class_label=class_label, pairs=pairs,
            frames=frames, strength=strength, extractor=extractor, weights=weights, output=output,
        ).lines()
    )  # fmt: skip


@probe.command(cls=TakesPairs)
def directions(
    model: ModelArgument,
    pair: Annotated[
        list[Pair],
        typer.Option(
            parser=parse_pair,
            metavar="FROM TO",
            help="Two prompts: from the first to the second. May be repeated.",
        ),
    ],
    base: Annotated[
        str | None, typer.Option(help="Prompt that is moved; default: the pair's first.")
    ] = None,
    strengths: Annotated[
        str, typer.Option(help="How far: 1 is the whole difference; 0 and 1 are always there.")
    ] = "-0.5,0,0.5,1,1.5",
    seeds: Annotated[int, typer.Option(min=2, help="Images at each strength.")] = 8,
    prompts: Annotated[
        str | None, typer.Option(help="Prompts to map the similarity of; default: the pair.")
    ] = None,
    extractor: ExtractorOption = "clip",
    weights: WeightsOption = None,
    output: OutputOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    seed: SeedOption = None,
    overrides: SetOption = None,
    attach: AttachOption = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Move a prompt's embedding along the difference of two prompts, and see where images go."""
    from evaluator.probing.directions import probe_directions

    request = model_request(
        model, device=device, dtype=dtype, steps=steps, guidance=guidance, seed=seed,
        overrides=overrides, attach=attach, allow_code=allow_code,
    )  # fmt: skip
    print_lines(
        probe_directions(
            request, pairs=[(first, last) for first, last in pair], base=base,
            strengths=_numbers("--strengths", strengths), seeds=seeds, extractor=extractor,
            weights=weights, prompts=prompts, output=output,
        ).lines()
    )  # fmt: skip


def _numbers(option: str, text: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    import math

    from evaluator.errors import ConfigError

    try:
        numbers = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{option}: expected numbers separated by commas, got {text!r}")
    return numbers


def _timesteps(text: str) -> int | tuple[float, ...]:
    """`10` is how many, `900,500` and `900,` are which."""
    from evaluator.errors import ConfigError

    try:
        if "," not in text and int(text) > 0:
            return int(text)
        if "," in text:
            return _numbers("--timesteps", text)
    except ValueError:
        pass
    raise ConfigError(
        f"--timesteps: expected a number of timesteps (10) or a list of them (900,500,100), got "
        f"{text!r}"
    )
