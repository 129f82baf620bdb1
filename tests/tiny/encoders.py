"""Text encoders of two layers."""

from __future__ import annotations

from typing import Any

from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from tests.tiny.tokenizers import NUM_POSITIONS


def build_text_encoder(tokenizer: CLIPTokenizer, *, projects: bool = False) -> Any:
    """CLIP's, of width 32."""
    settings = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=NUM_POSITIONS,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(settings).eval()


def build_t5(tokenizer: Any, *, width: int = 32) -> T5EncoderModel:
    """T5's encoder."""
    settings = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return T5EncoderModel(settings).eval()


def build_gemma(tokenizer: Any) -> Gemma2Model:
    """Gemma 2, of width 32."""
    settings = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Gemma2Model(settings).eval()


def build_qwen(tokenizer: Any) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen 2.5 VL, of width 32, with the smallest of vision towers: no image is ever shown."""
    settings = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
            "rope_theta": 1000000.0,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 32,
        },
        hidden_size=32,
        vision_start_token_id=0,
        vision_end_token_id=0,
        vision_token_id=0,
    )
    return Qwen2_5_VLForConditionalGeneration(settings).eval()
