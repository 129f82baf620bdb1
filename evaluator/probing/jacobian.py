"""`probe jacobian`: how many directions a denoiser lets through, along the way of its samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.errors import ConfigError, ProbeError
from evaluator.pipelines import denoiser_of
from evaluator.probes.jacobian import (
    BATCH,
    ETA,
    Spectrum,
    exact_spectrum,
    numerical_rank,
    randomised_spectrum,
)
from evaluator.probes.latent_space import LatentSpace, unpack
from evaluator.probes.steps import StepChoice
from evaluator.probes.trajectory import TrajectoryPoint, frozen, recorded_trajectory
from evaluator.probing.ignored import guidance_notes, guided_by, require_asked_for
from evaluator.probing.images import images_size
from evaluator.probing.inputs import (
    ModelRequest,
    ProbedModel,
    first_prompts,
    load_model,
    prompts_note,
)
from evaluator.probing.jacobian_pictures import (
    PointSpectrum,
    rank_chart,
    spectrum_chart,
    vector_grid,
)
from evaluator.probing.jacobian_result import JacobianResult, precision_notes, ranks_by_step
from evaluator.probing.named import open_named, output_place
from evaluator.probing.outputs import open_folder, provenance
from evaluator.probing.progress import Progress
from evaluator.records import Prompt
from evaluator.seeds import hashed_seed, stream_seed

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import Tensor

    from evaluator.probing.outputs import ProbeFolder

WHOLE_UP_TO = 4096
"""Dimensions up to which the whole Jacobian is computed: 128 MiB in float64."""
LARGE_BATCH = 4
"""Copies of a larger one: the second derivative of attention keeps the whole matrix of each."""
NUM_VALUES = 64
"""Singular values of a larger one."""
USUAL_STEPS = 6
"""Steps of each trajectory, where it has as many."""
ROUNDING = 32
"""Singular values below this many units of rounding count as nothing: x0 is a difference."""


@dataclass(frozen=True, slots=True)
class JacobianRequest:
    """What the command line asks for."""

    model: ModelRequest
    prompts: tuple[str, ...] = ()
    """Texts; samples take them in turn. None: those of the configuration's first prompts."""
    class_label: int | None = None
    """Class, for a class-conditional model."""
    samples: int = 4
    """Trajectories."""
    steps: str | int | Sequence[int] | None = None
    """Which steps of each trajectory: `all`, how many, or a list; None: 6, or all of fewer."""
    values: int | None = None
    """Singular values found by products with vectors; None: the whole Jacobian where it is small,
    else 64."""
    eta: float = ETA
    """Share of the root of the energy that the rank stands for."""
    vectors: int = 5
    """Singular vectors drawn."""
    batch: int | None = None
    """Copies of x_t that are differentiated at once; None: 32, and 4 of a large one."""


def probe_jacobian(request: JacobianRequest, output: Path | None = None) -> JacobianResult:
    """Ranks and spectra as a table, singular vectors as a picture.

    The Jacobian is that of the denoiser on a trajectory that it makes itself, with respect to
    x_t/a: the clean image plus noise. So it compares between schedules, and is the posterior
    covariance over σ² for an optimal denoiser. Unless a guidance scale is asked for it is 1: the
    conditional denoiser alone. With another, the denoiser is the guided one, (1 − g)·u + g·c.
    """
    place = output_place("jacobian", request.model, output)
    if not 0 < request.eta < 1:
        raise ConfigError(
            f"--eta: expected a number between 0 and 1, got {request.eta:g}; the paper's is 0.99"
        )
    choice = _choice(request)  # before anything is loaded
    _require_weights_in_place(request)
    guided = request.model.guidance_scale
    guidance = 1.0 if guided is None else guided
    probed = load_model(dataclasses.replace(request.model, guidance_scale=guidance))
    prompts = _prompts(request, probed)
    found = _spectra(request, probed, prompts, choice)
    if not found:
        raise ProbeError(
            f"--at: expected steps with some signal, got pure noise at {request.steps}; ask for "
            "later steps, such as --at all"
        )
    folder = open_folder("jacobian", probed.name, place)
    folder.table("jacobian.parquet", _table(found, prompts))
    folder.picture("ranks.png", rank_chart(found, probed.name))
    folder.picture("spectra.png", spectrum_chart(found))
    _draw_vectors(folder, found, probed, request.vectors)
    notes = [*probed.notes, *guidance_notes(probed, given=guided)]
    notes += () if request.prompts else prompts_note(prompts)
    result = JacobianResult(
        path=folder.path,
        dim=found[0].point.latents.numel(),
        values=len(found[0].spectrum.values),
        eta=request.eta,
        guidance=guidance if guided_by(probed) else None,
        steps=ranks_by_step(found),
        notes=(*precision_notes(found), *notes),
    )
    arguments = {name: getattr(request, name) for name in request.__slots__ if name != "model"}
    arguments |= {"model": request.model.model, "prompts": [prompt.text for prompt in prompts]}
    folder.finish(result, arguments=arguments, provenance=provenance(probed))
    return result


def _choice(request: JacobianRequest) -> StepChoice:
    """The chosen steps; ConfigError where the trajectory has no such steps, or fewer."""
    wanted, count = request.steps, open_named(request.model).config.generation.steps
    if wanted is None:
        return StepChoice(count=USUAL_STEPS)
    beyond = wanted > count if isinstance(wanted, int) else (
        not isinstance(wanted, str) and max(wanted, default=0) >= count
    )  # fmt: skip
    if beyond:
        what = f"at most {count}" if isinstance(wanted, int) else f"steps from 0 to {count - 1}"
        got = wanted if isinstance(wanted, int) else ",".join(map(str, wanted))
        raise ConfigError(
            f"--at: expected {what}, as a trajectory has {count} steps, got {got}; choose among "
            "them, or take more with --steps"
        )
    try:
        return StepChoice.parse(wanted)
    except ConfigError as error:
        raise ConfigError(
            "--at: expected all, how many steps (at least 1), or distinct steps counted from 0, "
            f"got {wanted!r}; write for example --at 10 or --at 0,5,19"
        ) from error


def _require_weights_in_place(request: JacobianRequest) -> None:
    """ConfigError where weights come and go layer by layer, before they could be differentiated."""
    model = open_named(request.model).config.model
    if getattr(model, "cpu_offload", None) == "sequential":
        raise ConfigError(
            "model.cpu_offload: expected weights that stay for the derivative, got 'sequential'; "
            "take 'model', or leave it out: --set model.cpu_offload=null"
        )


def _spectra(
    request: JacobianRequest, probed: ProbedModel, prompts: Sequence[Prompt], choice: StepChoice
) -> list[PointSpectrum]:
    """Every sample's spectra, at the chosen steps that are not of pure noise."""
    import torch

    found: list[PointSpectrum] = []
    progress: Progress | None = None
    for number in range(request.samples):
        points = _trajectory(probed, prompts[number], choice)
        _require_values(request.values, points)
        progress = progress or Progress("jacobian", request.samples * len(points))
        with frozen(denoiser_of(probed.pipeline)):
            for point in points:
                if point.level.alpha == 0:
                    progress.advance()
                    continue  # pure noise: no clean image to differentiate with respect to
                seed = stream_seed(probed.seed, "jacobian", number, point.step)
                generator = torch.Generator().manual_seed(seed)
                spectrum = spectrum_at(
                    point, values=request.values, batch=request.batch, generator=generator
                )
                floor = ROUNDING * torch.finfo(point.dtype).eps
                rank = numerical_rank(spectrum, eta=request.eta, floor=floor)
                found.append(PointSpectrum(number, point, spectrum, rank))
                progress.advance()
    return found


def _require_values(values: int | None, points: Sequence[TrajectoryPoint]) -> None:
    """ConfigError for more singular values than there are dimensions."""
    size = points[0].latents.numel()
    if values is not None and values > size:
        raise ConfigError(
            f"--values: expected at most {size}, the dimensions of the latents, got {values}; "
            + ("leave it out for all of them" if size <= WHOLE_UP_TO else "ask for fewer")
        )


def spectrum_at(
    point: TrajectoryPoint,
    *,
    values: int | None,
    batch: int | None = None,
    generator: torch.Generator,
) -> Spectrum:
    """The spectrum of ∂x0/∂(x_t/a) at a point: whole if it is small and nothing else is asked."""
    x = point.latents.float()
    size = x.numel()
    batch = batch or (BATCH if size <= WHOLE_UP_TO else LARGE_BATCH)
    if values is None and size <= WHOLE_UP_TO:
        raw = exact_spectrum(point.denoise, x, batch=batch)
    else:
        count = values or min(NUM_VALUES, size)
        raw = randomised_spectrum(
            point.denoise, x, num_values=count, generator=generator, batch=batch
        )
    a = point.level.alpha
    return raw._replace(
        values=a * raw.values,
        energy=a**2 * raw.energy,
        energy_error=a**2 * raw.energy_error,
        bound=a * raw.bound,
    )


def _prompts(request: JacobianRequest, probed: ProbedModel) -> list[Prompt]:
    """One for each sample; ConfigError where the model takes a text and none was given."""
    asked = bool(request.prompts), request.class_label is not None
    require_asked_for(
        probed, prompt=asked[0], class_label=asked[1], guidance=request.model.guidance_scale
    )
    own = () if any(asked) else first_prompts(probed, request.samples)
    told: list[str | None] = [*request.prompts] or [prompt.text for prompt in own]
    texts = told or [None]
    labels = [prompt.class_label for prompt in own] or [request.class_label]
    if probed.takes_text and any(text is None for text in texts):
        raise ConfigError(
            f"--prompt: expected a text for {type(probed.pipeline).__name__}, got none; add "
            '--prompt "…", which may be repeated'
        )
    if probed.takes_class and any(label is None for label in labels):
        raise ConfigError("--class-label: expected a class for this model, got none")
    return [
        Prompt(f"sample-{i}", texts[i % len(texts)], class_label=labels[i % len(labels)])
        for i in range(request.samples)
    ]


def _trajectory(probed: ProbedModel, prompt: Prompt, steps: StepChoice) -> list[TrajectoryPoint]:
    """The points of one sample, made as `run` makes it."""
    seed = hashed_seed(probed.seed, prompt.key, 0)
    guidance = probed.config.generation.guidance_scale
    with recorded_trajectory(probed.pipeline, steps, guidance=guidance) as points:
        probed.sample([prompt], [seed])
    return points


def _table(found: Sequence[PointSpectrum], prompts: Sequence[Prompt]) -> pa.Table:
    """One row for each sample and step."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {
        "sample": [item.sample for item in found],
        "prompt": [prompts[item.sample].text for item in found],
        "step": [item.point.step for item in found],
        "timestep": [item.point.timestep for item in found],
        "alpha": [item.point.level.alpha for item in found],
        "sigma": [item.point.level.sigma for item in found],
        "log_snr": [item.point.level.log_snr for item in found],
        "rank": [item.rank.rank for item in found],
        "rank_low": [item.rank.low for item in found],
        "rank_high": [item.rank.high for item in found],
        "energy": [item.spectrum.energy for item in found],
        "energy_error": [item.spectrum.energy_error for item in found],
        "value_bound": [item.spectrum.bound for item in found],
        "singular_values": [item.spectrum.values.tolist() for item in found],
    }
    return pa.table(columns)


def _draw_vectors(
    folder: ProbeFolder, found: Sequence[PointSpectrum], probed: ProbedModel, count: int
) -> None:
    """The directions of the first sample, as what they change in its image."""
    own = [item for item in found if item.sample == 0]
    height, width = images_size(probed)
    space = LatentSpace(probed.pipeline)

    def decode(latents: Tensor) -> Tensor:
        plain = unpack(probed.pipeline, latents, height=height, width=width)
        return space.decode(space.unscale(plain))

    picture = vector_grid(own, decode, count, is_pixels=space.is_pixels)
    folder.picture("vectors.png", picture)
