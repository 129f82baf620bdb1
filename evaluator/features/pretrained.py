"""Models of transformers: loaded from safetensors without code, and their text side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ConfigError, InputError
from evaluator.features.resize import pillow_image
from evaluator.features.settings import brief

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from evaluator.weights import Weights

_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class Pretrained(NamedTuple):
    """A network, ready to be called."""

    model: Any
    missing: frozenset[str]
    """Parameters that the weights do not hold: the library drew them at random."""


def load_pretrained(
    weights: Weights, *, what: str, model_types: Sequence[str], dtype: torch.dtype, device: str
) -> Pretrained:
    """The model of a folder, in evaluation mode; `what` says what was expected there.

    With `model_types`, a model of another type is refused by name before it is loaded. Raises
    InputError when the folder holds no such model.
    """
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel

    try:
        config = AutoConfig.from_pretrained(weights.folder, **_LOCAL)
        if model_types and config.model_type not in model_types:
            named = " or ".join(f"'{kind}'" for kind in model_types)
            raise ConfigError(
                f"{weights.origin}: expected a model of type {named}, got '{config.model_type}'."
            )
        model, report = AutoModel.from_pretrained(
            weights.folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **_LOCAL
        )
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise _unfit(weights, what, error) from error
    return Pretrained(model.to(device).eval(), frozenset(report["missing_keys"]))


def expect_complete(weights: Weights, missing: frozenset[str]) -> None:
    """Raise InputError when parameters are missing: random ones would give random features."""
    if missing:
        names = ", ".join(sorted(missing)[:3])
        raise InputError(
            f"{weights.origin}: expected weights for every parameter, got none for {len(missing)} "
            f"of them ({names}). Name the weights of the whole model."
        )


class ImageSide:
    """The image processor that comes with a model, with Pillow's resampling where it has that."""

    described = "transformers image processor, Pillow backend where there is one"

    def __init__(self, weights: Weights, what: str) -> None:
        from transformers import AutoImageProcessor

        try:
            self._processor = AutoImageProcessor.from_pretrained(
                weights.folder, backend="pil", **_LOCAL
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise _unfit(weights, what, error) from error

    def inputs(self, image: Tensor) -> dict[str, Tensor]:
        """(3, H, W) uint8 → what the model takes for this image, by name."""
        prepared = self._processor(pillow_image(image), return_tensors="pt")
        return {name: values[0] for name, values in prepared.items()}

    def pixels(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 → `pixel_values`, float32."""
        return self.inputs(image)["pixel_values"]


class TextSide:
    """The text encoder of a model that embeds images and texts in one space."""

    def __init__(self, model: Any, weights: Weights, *, what: str, device: str) -> None:
        from transformers import AutoTokenizer

        if not (weights.folder / "tokenizer_config.json").is_file():
            # Without this file the library looks through all its models before it gives up.
            raise _unfit(weights, what, FileNotFoundError("no tokenizer_config.json"))
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(weights.folder, **_LOCAL)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise _unfit(weights, what, error) from error
        self._model = model
        self._device = device
        self._max_tokens = int(model.config.text_config.max_position_embeddings)

    def embed(self, texts: Sequence[str]) -> tuple[Tensor, list[bool]]:
        """(N, D) float32, and whether each text was longer than the encoder takes.

        Every text is padded to the full length: the bits of a row then do not depend on the
        longest text of its batch.
        """
        import torch

        full = self._tokenizer(list(texts), truncation=False, verbose=False).input_ids
        tokens = self._tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        ).to(self._device)
        with torch.inference_mode():
            features = embedding(self._model.get_text_features(**tokens))
        return features.float().cpu(), [len(ids) > self._max_tokens for ids in full]


def embedding(output: Any) -> Tensor:
    """The (N, D) features: transformers 5 returns an output object where 4 returned them."""
    features: Tensor = getattr(output, "pooler_output", output)
    return features


def _unfit(weights: Weights, what: str, error: Exception) -> InputError:
    reason = brief(error)
    if "trust_remote_code" in str(error):
        reason = "a model with code of its own, which is not run"
    return InputError(
        f"{weights.origin}: expected {what}, got: {reason}. Check that the folder is as "
        "save_pretrained() wrote it."
    )
