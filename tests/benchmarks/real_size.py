"""What observing attention costs on UNets of real size, with random weights.

    python -m tests.benchmarks.real_size sd15 [--device cuda] [--dtype float16] [--batch 4]
    python -m tests.benchmarks.real_size sdxl --side 1024
    python -m tests.benchmarks.real_size sd15 --device cpu --side 256 --steps 10 --observed 2

Denoiser and text width have the dimensions that Stable Diffusion 1.5 and XL publish; the text
encoders have two layers, and the latents are not decoded, so that the ratio is the denoiser's own:
a whole pipeline's is smaller. Bare and observed runs alternate, and must give the same latents.
On a GPU the clock is the wall's, around a synchronization; on a CPU it is the processor's.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from evaluator.probes import AttentionProbe
from tests.benchmarks.attention_overhead import Case, case_of
from tests.tiny.tokenizers import build_tokenizer
from tests.tiny.unets import SD_BETAS, build_vae

POSITIONS = 77
TEXT = "a red dog and a blue fox on a red seven"


def text_encoder(tokenizer: Any, width: int, *, projects: bool = False) -> Any:
    """Two layers of the given width; tokens as the tokenizer numbers them."""
    settings = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2,
        num_attention_heads=width // 64,
        max_position_embeddings=POSITIONS,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(settings).eval()


def tokenizer_of_77() -> Any:
    """The tests' tokenizer, with CLIP's number of positions."""
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = POSITIONS
    return tokenizer


def sd15() -> Any:
    """859.5 million parameters in the UNet."""
    tokenizer = tokenizer_of_77()
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    return StableDiffusionPipeline(
        vae=build_vae(num_halvings=3),
        text_encoder=text_encoder(tokenizer, 768),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler(**SD_BETAS, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl() -> Any:
    """2.57 billion parameters in the UNet."""
    tokenizer = tokenizer_of_77()
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=6 * 256 + 1280,
    )
    return StableDiffusionXLPipeline(
        vae=build_vae(num_halvings=3),
        text_encoder=text_encoder(tokenizer, 768),
        text_encoder_2=text_encoder(tokenizer, 1280, projects=True),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_of_77(),
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(**SD_BETAS, steps_offset=1),
        add_watermarker=False,
    )


def timed(case: Case, probe: AttentionProbe | None, device: str) -> tuple[float, torch.Tensor]:
    """Seconds of one run, tables included, and its latents."""
    cuda = device.startswith("cuda")
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        torch.cuda.synchronize()
    start = clock()
    if probe is None:
        latents = case.generate().images
    else:
        with probe.attach(case, case.prompts, range(len(case.prompts))) as observation:
            latents = case.generate().images
        observation.tables()
    if cuda:
        torch.cuda.synchronize()
    return clock() - start, latents


def measure(case: Case, observed: int, pairs: int, device: str) -> None:
    """Print the medians of the ratios to the bare run before."""
    labels = {
        f"{observed} of {case.steps} steps": AttentionProbe(steps=observed),
        "every step": AttentionProbe(),
    }
    ratios: dict[str, list[float]] = {label: [] for label in labels}
    bares = []
    for turn in range(pairs + 1):
        for label, probe in labels.items():
            bare, plain = timed(case, None, device)
            seen, latents = timed(case, probe, device)
            assert torch.equal(plain, latents), "the probe changed the images"
            if turn:  # the first round warms up
                bares.append(bare)
                ratios[label].append(seen / bare)
    print(f"bare {statistics.median(bares):.2f} s")
    for label, found in ratios.items():
        spread = f"{min(found):.3f} to {max(found):.3f}"
        print(f"  {label}: {statistics.median(found):.3f} ({spread})", flush=True)
    if device.startswith("cuda"):
        print(f"  peak memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")


def main() -> None:
    """Print the ratios."""
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["sd15", "sdxl"])
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--dtype", default="float16" if on_gpu else "float32")
    parser.add_argument("--side", type=int, default=None, help="pixels; default: the model's own")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--observed", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4 if on_gpu else 1)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument(
        "--backend", default=None, help="attention backend, as set_attention_backend"
    )
    arguments = parser.parse_args()
    torch.manual_seed(0)
    pipeline = sd15() if arguments.model == "sd15" else sdxl()
    pipeline.to(arguments.device, getattr(torch, arguments.dtype))
    if arguments.backend is not None:
        pipeline.unet.set_attention_backend(arguments.backend)
    side = arguments.side or pipeline.unet.config.sample_size * 8
    size = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    name = torch.cuda.get_device_name() if on_gpu else platform.machine()
    print(
        f"{arguments.model}: {size / 1e6:,.1f} M parameters, {arguments.dtype}, {side} pixels, "
        f"batch {arguments.batch}, guidance 7.5, on {name}, torch {torch.__version__}"
    )
    case = case_of(
        pipeline, [TEXT] * arguments.batch, steps=arguments.steps, guidance_scale=7.5,
        height=side, width=side, output_type="latent",
    )  # fmt: skip
    measure(case, arguments.observed, arguments.pairs, arguments.device)


if __name__ == "__main__":
    main()
