"""The package `daam` itself, on the digits pipeline: what it computes, for comparison with ours.

    pip install --no-deps --target FOLDER daam==0.2.0
    PYTHONPATH=FOLDER python -m tests.parity.daam_peer tests/parity/daam.safetensors

It pins diffusers 0.21.2 and transformers 4.30.2, so that it cannot be among our requirements, but
runs beside today's as well, given two things. Stand-ins for matplotlib and spacy where they are
not installed: it draws and parses with them, computes nothing. And for a UNet that was not made for
512, 768 or 1,024 pixels or 77 tokens it must be told how many of both there are.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch

# Both, before stand-ins are in place: diffusers asks whether matplotlib is installed.
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline  # noqa: F401
from torch import Tensor

PROMPT = "a red seven on a blue background"
WORDS = ("a", "red", "seven", "blue background")
STRIDE = 9
"""Of large maps, every ninth row and column is kept."""


class Case(NamedTuple):
    """One run of the digits pipeline, and what `daam` is asked for."""

    side: int
    """Pixels."""
    map_side: int
    """Of the maps that `daam` makes."""
    steps: int
    guidance: float = 3.0
    asked: dict[str, Any] = {}  # noqa: RUF012
    """Arguments of `compute_global_heat_map`."""


CASES = {
    "native": Case(32, 8, 10),
    "normalized": Case(32, 8, 10, asked={"normalize": True}),
    "one-head": Case(32, 8, 10, asked={"head_idx": 2}),
    "one-layer": Case(32, 8, 10, asked={"layer_idx": 3}),
    "coarse-layers": Case(32, 8, 10, asked={"factors": [2]}),
    "unguided": Case(32, 8, 10, guidance=0.0),
    "as-512-pixels": Case(32, 64, 3),
    "as-512-pixels, larger": Case(64, 64, 3),
    "as-768-pixels": Case(192, 96, 2),
}


def import_daam() -> Any:
    """The package, with stand-ins for what it only draws and parses with."""
    missing = []
    for name in ("matplotlib", "matplotlib.pyplot", "spacy", "spacy.tokens"):
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
            sys.modules[name] = types.ModuleType(name)
    if "spacy" in missing:
        sys.modules["spacy.tokens"].Token = object  # type: ignore[attr-defined]
        sys.modules["spacy"].tokens = sys.modules["spacy.tokens"]  # type: ignore[attr-defined]
    if "matplotlib" in missing:
        sys.modules["matplotlib"].pyplot = sys.modules["matplotlib.pyplot"]  # type: ignore[attr-defined]
    try:
        return importlib.import_module("daam")
    finally:
        for name in missing:
            del sys.modules[name]


@contextmanager
def traced(pipeline: Any, *, map_side: int | None = None, num_tokens: int = 77) -> Iterator[Any]:
    """`daam.trace`, told of a map's side and of the number of text positions."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.cuda.amp.autocast", FutureWarning)
        trace = import_daam().trace(pipeline, data_dir=folder)
        if map_side is not None:
            trace.latent_hw = map_side**2
        for hooker in trace.module:
            if hasattr(hooker, "context_size"):
                hooker.context_size, hooker.latent_hw = num_tokens, trace.latent_hw
        with trace:
            yield trace


def generate(pipeline: Any, case: Case) -> Any:
    """Latents, from the same noise under every version."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(1, 4, case.side // 4, case.side // 4, generator=generator)
    noise = noise.to(pipeline.unet.dtype)
    return pipeline(
        PROMPT,
        num_inference_steps=case.steps,
        guidance_scale=case.guidance,
        latents=noise,
        height=case.side,
        width=case.side,
        output_type="latent",
    ).images


def thinned(maps: Tensor) -> Tensor:
    """Maps of more than 8×8 at some of their positions."""
    every = STRIDE if maps.shape[-1] > 8 else 1
    return maps[..., ::every, ::every].contiguous()


def peer_maps(pipeline: Any, case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    """`daam`'s maps of every token, and of `WORDS`."""
    with traced(pipeline, map_side=case.map_side, num_tokens=16) as trace:
        generate(pipeline, case)
        whole = trace.compute_global_heat_map(**case.asked)
    words = {word: whole.compute_word_heat_map(word).heatmap for word in WORDS}
    return whole.heat_maps, words


def digits_pipeline(folder: Path) -> Any:
    """The digits pipeline, where transformers 4 too finds its text encoder's weights."""
    from safetensors.torch import load_file

    pipeline = StableDiffusionPipeline.from_pretrained(str(folder)).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    weights = load_file(folder / "text_encoder" / "model.safetensors")
    known = pipeline.text_encoder.state_dict()
    if not any(name in known for name in weights):
        weights = {f"text_model.{name}": value for name, value in weights.items()}
    pipeline.text_encoder.load_state_dict({n: v.float() for n, v in weights.items()}, strict=False)
    return pipeline


def main(out: Path) -> None:
    """Write what `daam` computes, and the versions that computed it."""
    import transformers
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    weights = Path(__file__).parents[2] / "evaluator" / "demo" / "weights" / "stable-diffusion"
    pipeline = digits_pipeline(weights)
    found = {}
    for name, case in CASES.items():
        maps, words = peer_maps(pipeline, case)
        found[name] = thinned(maps)
        if name in ("native", "normalized"):
            found |= {f"{name}: {word}": heat.contiguous() for word, heat in words.items()}
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers)}
    save_file(found, out, metadata={"daam": version("daam"), **versions})
    print(versions, {name: tuple(maps.shape) for name, maps in found.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
