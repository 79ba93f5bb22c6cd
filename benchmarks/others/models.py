"""Small models of transformers' own classes, from their configurations, with weights drawn anew."""

from __future__ import annotations

from typing import Any

import torch

from others.tasks import BOS, EOS, PAD

IDS = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": BOS}


def t5(size: int, seed: int = 0, **more: Any) -> Any:
    """A T5 of 90,000 weights."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    shape = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 4}
    options = {**IDS, "decoder_start_token_id": PAD, "dropout_rate": 0.0, **shape, **more}
    return T5ForConditionalGeneration(T5Config(vocab_size=size, **options))


def stacks(layers: int = 1) -> dict[str, int]:
    """What BART and its kin say twice."""
    each = {"layers": layers, "attention_heads": 4, "ffn_dim": 128}
    return {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in each.items()}


def bart(size: int, seed: int = 0, layers: int = 1, **more: Any) -> Any:
    """A BART of the same size; its weights are drawn for its width."""
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(seed)
    options = {"d_model": 64, "max_position_embeddings": 96, "dropout": 0.0, "init_std": 0.1, **stacks(layers), **IDS}
    options |= {"decoder_start_token_id": EOS, "forced_eos_token_id": None, **more}
    return BartForConditionalGeneration(BartConfig(vocab_size=size, **options))


def m2m100(size: int, seed: int = 0, **more: Any) -> Any:
    """What NLLB is: an M2M100."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    torch.manual_seed(seed)
    options = {"d_model": 64, "max_position_embeddings": 96, "dropout": 0.0, "init_std": 0.1, **stacks(), **IDS}
    options |= {"decoder_start_token_id": EOS, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, **more}
    return M2M100ForConditionalGeneration(M2M100Config(vocab_size=size, **options))


def t5gemma(size: int, seed: int = 0) -> Any:
    """A T5Gemma of two layers."""
    from transformers import T5GemmaConfig, T5GemmaForConditionalGeneration, T5GemmaModuleConfig

    torch.manual_seed(seed)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "head_dim": 16, "vocab_size": size, "sliding_window": 64, **IDS}
    sides = {side: T5GemmaModuleConfig(**shape) for side in ("encoder", "decoder")}
    config = T5GemmaConfig(**sides, vocab_size=size, dropout_rate=0.0, initializer_range=0.1, **IDS)
    return T5GemmaForConditionalGeneration(config)


def whisper(size: int, seed: int = 0, mels: int = 16, frames: int = 64) -> Any:
    """A Whisper of one layer a side that hears `frames` frames of `mels` bands."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(seed)
    options = {"d_model": 64, "num_mel_bins": mels, "max_source_positions": frames // 2, "max_target_positions": 32}
    options |= {**stacks(), **IDS, "decoder_start_token_id": BOS, "dropout": 0.0, "init_std": 0.1}
    options |= {"suppress_tokens": None, "begin_suppress_tokens": None, "use_cache": True}
    return WhisperForConditionalGeneration(WhisperConfig(vocab_size=size, **options))


def marian(size: int, seed: int = 0) -> Any:
    """A Marian of one layer a side."""
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(seed)
    options = {"d_model": 64, "max_position_embeddings": 96, "dropout": 0.0, "init_std": 0.1, **stacks(), **IDS}
    options |= {"decoder_start_token_id": PAD, "decoder_vocab_size": size, "forced_eos_token_id": None}
    return MarianMTModel(MarianConfig(vocab_size=size, **options))
