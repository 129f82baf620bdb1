"""How good the digits world is: what its judge reads in generated and in held-out images.

`python -m evaluator.demo.quality` prints the table.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPProcessor

from evaluator.demo.classifier import DigitsExtractor
from evaluator.demo.digits import BACKGROUNDS, COLOURS, TEST_PARQUET, WORDS
from evaluator.seeds import hashed_seed

WEIGHTS = Path(__file__).parent / "weights"
PIPELINE = WEIGHTS / "stable-diffusion"
CLIP = WEIGHTS / "clip"
STEPS = 20
GUIDANCE_SCALE = 3.0


class HeldOut(NamedTuple):
    """The shipped test split, in the order of the file."""

    keys: tuple[str, ...]
    captions: tuple[str, ...]
    images: Tensor
    """(N, 3, 32, 32) uint8."""


class Accuracy(NamedTuple):
    """Shares of images, from 0 to 1, on which the judge reads what the caption says."""

    digit: float
    colour: float
    background: float
    every: float
    """All three right in the same image."""


def held_out(path: Path = TEST_PARQUET) -> HeldOut:
    """Read the shipped test split; needs no scikit-learn."""
    table = pq.read_table(path).to_pydict()
    pixels = [np.asarray(Image.open(io.BytesIO(content))) for content in table["image"]]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return HeldOut(tuple(table["key"]), tuple(table["text"]), images)


def sample(
    captions: Sequence[str],
    keys: Sequence[str],
    *,
    pipeline: DiffusionPipeline | None = None,
    batch_size: int = 60,
    steps: int = STEPS,
    guidance_scale: float = GUIDANCE_SCALE,
) -> Tensor:
    """One image of each caption at the demo's settings => (N, 3, 32, 32) uint8."""
    pipe = pipeline or load_pipeline()
    images = []
    for start in range(0, len(captions), batch_size):
        span = slice(start, start + batch_size)
        seeds = [hashed_seed(0, key, 0) for key in keys[span]]
        output = pipe(
            list(captions[span]),
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="pt",
        )
        images.append((output.images * 255).round().to(torch.uint8).cpu())
    return torch.cat(images)


def load_pipeline(directory: Path = PIPELINE) -> DiffusionPipeline:
    """The shipped pipeline in float32, without a progress bar."""
    pipe = DiffusionPipeline.from_pretrained(directory, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def read(images: Tensor, extractor: DigitsExtractor) -> list[tuple[str, str, str]]:
    """(N, 3, H, W) uint8 => (digit, colour, background) as the judge names them."""
    outputs = extractor.embed(torch.stack([extractor.preprocess(image) for image in images]))
    names = {"digit_logits": WORDS, "colour_logits": COLOURS, "background_logits": BACKGROUNDS}
    columns = [[words[i] for i in outputs[name].argmax(1)] for name, words in names.items()]
    return list(zip(*columns, strict=True))


def accuracy(
    images: Tensor, captions: Sequence[str], extractor: DigitsExtractor | None = None
) -> Accuracy:
    """How often the judge reads in (N, 3, H, W) uint8 images what their captions say."""
    found = np.array(read(images, extractor or DigitsExtractor()))
    asked = np.array([_asked(caption) for caption in captions])
    right = found == asked  # (N, 3): digit, colour, background
    digit, colour, background = map(float, right.mean(0))
    return Accuracy(digit, colour, background, every=float(right.all(1).mean()))


@torch.inference_mode()
def clip_cosines(images: Tensor, captions: Sequence[str], directory: Path = CLIP) -> Tensor:
    """Cosine of every image with its caption under the shipped CLIP => (N,) float32."""
    model = CLIPModel.from_pretrained(directory, local_files_only=True).eval()
    processor = CLIPProcessor.from_pretrained(directory, local_files_only=True)
    inputs = processor(
        text=list(captions), images=list(images), return_tensors="pt", padding="max_length"
    )
    outputs = model(**inputs)
    return torch.cosine_similarity(outputs.image_embeds, outputs.text_embeds)


def _asked(caption: str) -> tuple[str, str, str]:
    """`a red seven on a blue background` => (seven, red, blue)."""
    words = caption.split()
    return words[2], words[1], words[5]


def main() -> None:
    """Print the accuracies on held-out images and on samples of their captions."""
    parser = argparse.ArgumentParser(prog="python -m evaluator.demo.quality", description=__doc__)
    parser.add_argument("--limit", type=int, help="use the first so many captions")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance-scale", type=float, default=GUIDANCE_SCALE)
    options = parser.parse_args()
    split = held_out()
    keys, captions = split.keys[: options.limit], split.captions[: options.limit]
    real = split.images[: options.limit]
    made = sample(captions, keys, steps=options.steps, guidance_scale=options.guidance_scale)
    print(f"{'images':10} {'digit':>8} {'colour':>8} {'ground':>8} {'all':>8} {'CLIP':>8}")
    for name, images in (("held out", real), ("generated", made)):
        shares = " ".join(f"{share:8.3f}" for share in accuracy(images, captions))
        print(f"{name:10} {shares} {float(clip_cosines(images, captions).mean()):8.3f}")


if __name__ == "__main__":
    main()
