"""Train the models of the digits world: `python -m evaluator.demo.train`.

Interrupted, it goes on where it was when started again. The weights are overwritten; the
released ones were trained by this script (`weights/training.json` says how it went).
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from evaluator.demo import architecture, recipes
from evaluator.demo.fitting import Progress

OUTPUT = Path(__file__).parent / "weights"
"""Where the package looks for the models."""

_PACKAGES = ("torch", "diffusers", "transformers", "scikit-learn", "numpy")


def train_classifier(output: Path, work: Path, device: torch.device) -> Progress:
    """Train and save the judge."""
    model, progress = recipes.classifier(work=work, device=device)
    directory = output / "classifier"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(model.config, indent=2) + "\n")
    save_file(model.cpu().state_dict(), directory / "model.safetensors")
    architecture.shrink(directory)
    return progress


def train_clip(output: Path, work: Path, device: torch.device) -> Progress:
    """Train and save the CLIP with its processor."""
    model, progress = recipes.clip(work=work, device=device)
    model.cpu().save_pretrained(output / "clip")
    architecture.save_clip_processor(output / "clip")
    architecture.shrink(output / "clip")
    return progress


def train_vae(output: Path, work: Path, device: torch.device) -> Progress:
    """Train and save the autoencoder that the diffusion model works in."""
    model, progress = recipes.vae(work=work, device=device)
    model.cpu().save_pretrained(output / "stable-diffusion" / "vae")
    architecture.shrink(output / "stable-diffusion" / "vae")
    return progress


def train_unet(output: Path, work: Path, device: torch.device) -> Progress:
    """Train UNet and text encoder on the saved autoencoder, and save the whole pipeline."""
    directory = output / "stable-diffusion"
    if not (directory / "vae").is_dir():
        raise SystemExit(f"expected an autoencoder in {directory / 'vae'}; run --only vae first")
    autoencoder = AutoencoderKL.from_pretrained(directory / "vae", local_files_only=True)
    model, progress = recipes.diffusion(autoencoder, work=work, device=device)
    model.cpu()
    parts = architecture.pipeline(autoencoder.cpu(), model["text_encoder"], model["unet"])
    parts.save_pretrained(directory)
    architecture.save_vocabulary(directory / "tokenizer")
    architecture.shrink(directory)
    return progress


TRAININGS: dict[str, Callable[[Path, Path, torch.device], Progress]] = {
    "classifier": train_classifier,
    "clip": train_clip,
    "vae": train_vae,
    "unet": train_unet,
}
"""Part → its training, the quick ones first; the UNet needs the VAE."""


def record(output: Path, part: str, progress: Progress, device: torch.device) -> None:
    """Add what a training took to `training.json`."""
    path = output / "training.json"
    records = json.loads(path.read_text()) if path.exists() else {}
    records[part] = {name: round(value, 5) for name, value in asdict(progress).items()} | {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in _PACKAGES},
    }
    path.write_text(json.dumps(records, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m evaluator.demo.train", description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the models go")
    parser.add_argument("--work", type=Path, help="checkpoints (default: OUTPUT/.checkpoints)")
    parser.add_argument("--only", choices=tuple(TRAININGS), help="train this part alone")
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's choice)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for part in [options.only] if options.only else TRAININGS:
        work = options.work or options.output / ".checkpoints"
        progress = TRAININGS[part](options.output, work, device)
        record(options.output, part, progress, device)


if __name__ == "__main__":
    main()
