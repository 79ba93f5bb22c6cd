"""Tiny random models of every encoder–decoder that transformers lists, made by its own classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

SIZE, WIDTH, MELS = 96, 32, 8
WORDS = 20  # of the small task, for sources and for targets
PAD, EOS, START = 0, 1, 2
IDS = {"pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": START, "decoder_start_token_id": START}
BART = {
    "vocab_size": SIZE,
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "dropout": 0.0,
    "init_std": 0.1,
    **IDS,
}
T5 = {"vocab_size": SIZE, "d_model": WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, **IDS}
T5 = {**T5, "num_decoder_layers": 2, "decoder_start_token_id": PAD}
BERT = {
    "vocab_size": SIZE,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
GEMMA = {
    "vocab_size": SIZE,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 16,
    "query_pre_attn_scalar": 8,
    "layer_types": ["full_attention", "sliding_attention"],
    **IDS,
}
WAV = {
    "vocab_size": SIZE,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [16, 16],
    "conv_stride": [4, 2],
    "conv_kernel": [8, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "apply_spec_augment": False,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
SEAMLESS = {
    **BART,
    "hidden_size": WIDTH,
    "encoder_layerdrop": 0.0,
    "speech_encoder_layers": 1,
    "speech_encoder_attention_heads": 4,
    "speech_encoder_intermediate_size": 48,
    "feature_projection_input_dim": MELS,
    "adaptor_kernel_size": 4,
    "adaptor_stride": 4,
    "num_adapter_layers": 1,
    "max_source_positions": 64,
    "initializer_range": 0.1,
    "left_max_position_embeddings": 8,
    "right_max_position_embeddings": 4,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "t2u_encoder_layers": 1,
    "t2u_decoder_layers": 1,
}


@dataclass(frozen=True)
class Kind:
    """How a tiny model of a type is made."""

    make: Callable[[], Any]
    reads: str = "text"  # text, or "sounds"
    native: bool = False  # of a family of ours


def _of(name: str, model: str = "", **shape: Any) -> Callable[[], Any]:
    """A model of the configuration `{name}Config` and the class `model`, with this shape."""
    kind = model or f"{name}ForConditionalGeneration"
    return lambda: getattr(transformers, kind)(getattr(transformers, f"{name}Config")(**shape))


def _pair(encoder: Any, decoder: Any, kind: str = "EncoderDecoder") -> Callable[[], Any]:
    """An encoder and a decoder of two models."""

    def make() -> Any:
        config = getattr(transformers, f"{kind}Config").from_encoder_decoder_configs(encoder(), decoder())
        for key, value in IDS.items():
            setattr(config, key, value)
        return getattr(transformers, f"{kind}Model")(config=config)

    return make


def bert(**more: Any) -> Any:
    """The configuration of a tiny BERT."""
    return transformers.BertConfig(**BERT, **more)


def bert_decoder() -> Any:
    """The configuration of a tiny BERT as a decoder."""
    return bert(is_decoder=True, add_cross_attention=True)


def wav2vec2() -> Any:
    """The configuration of a tiny wav2vec2."""
    return transformers.Wav2Vec2Config(**WAV)


def gpt2() -> Any:
    """The configuration of a tiny GPT-2 as a decoder."""
    shape = {"vocab_size": SIZE, "n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return transformers.GPT2Config(**shape, bos_token_id=START, eos_token_id=EOS)


def _t5gemma() -> Any:
    part = transformers.T5GemmaModuleConfig(**{k: v for k, v in GEMMA.items() if k != "decoder_start_token_id"})
    config = transformers.T5GemmaConfig(encoder=part, decoder=part, vocab_size=SIZE, **IDS)
    return transformers.T5GemmaForConditionalGeneration(config)


def _t5gemma2() -> Any:
    from transformers.models.t5gemma2 import configuration_t5gemma2 as t5gemma2

    part = {k: v for k, v in GEMMA.items() if k != "decoder_start_token_id"}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**vision, "image_size": 28, "patch_size": 14}
    encoder = t5gemma2.T5Gemma2EncoderConfig(text_config=part, vision_config=vision, image_token_index=SIZE - 1)
    decoder, images = (
        t5gemma2.T5Gemma2DecoderConfig(**part),
        {"image_token_index": SIZE - 1, "eoi_token_index": SIZE - 2},
    )
    config = transformers.T5Gemma2Config(encoder=encoder, decoder=decoder, **images, **IDS)
    return transformers.T5Gemma2ForConditionalGeneration(config)


EXPERTS = {"num_experts": 2, "expert_capacity": 64, "router_jitter_noise": 0.0}
PROPHET = {
    "vocab_size": SIZE,
    "hidden_size": WIDTH,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "disable_ngram_loss": True,
    "dropout": 0.0,
    "init_std": 0.1,
    **IDS,
}
PARAKEET = {
    "model_type": "parakeet_encoder",
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_mel_bins": MELS,
    "subsampling_factor": 4,
    "subsampling_conv_channels": 8,
    "layerdrop": 0.0,
}
CANARY = {
    "vocab_size": SIZE,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "pad_token_id": PAD,
    "eos_token_id": EOS,
    "bos_token_id": START,
    "initializer_range": 0.1,
}
STREAMING = {**CANARY, "encoder_config": {**CANARY, "sliding_windows": [[16, 4], [16, 4]]}}
MOONSHINE = {
    **IDS,
    "vocab_size": SIZE,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "encoder_num_hidden_layers": 2,
    "decoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": 4,
    "decoder_num_attention_heads": 4,
    "max_position_embeddings": 64,
}
WHISPER = {k: v for k, v in BART.items() if k != "max_position_embeddings"}
WHISPER = {**WHISPER, "num_mel_bins": MELS, "max_source_positions": 20, "max_target_positions": 64}
WHISPER = {**WHISPER, "suppress_tokens": None, "begin_suppress_tokens": None}
LED = {**BART, "attention_window": 8, "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64}
SPEECH = {**WHISPER, "input_feat_per_channel": MELS, "conv_channels": 16, "max_source_positions": 64}
SPEECH = {**SPEECH, "num_conv_layers": 2}
SPEECHT5 = {
    **IDS,
    **WAV,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    **dict.fromkeys(("positional_dropout", "hidden_dropout", "attention_dropout", "activation_dropout"), 0.0),
    **dict.fromkeys(("encoder_layerdrop", "decoder_layerdrop"), 0.0),
    "max_speech_positions": 64,
    "max_text_positions": 64,
}
SPARSE = {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
KINDS = {
    "bart": Kind(_of("Bart", **BART), native=True),
    "bigbird_pegasus": Kind(_of("BigBirdPegasus", **BART, attention_type="original_full")),
    "blenderbot": Kind(_of("Blenderbot", **BART)),
    "blenderbot-small": Kind(_of("BlenderbotSmall", **BART)),
    "encoder-decoder": Kind(_pair(bert, bert_decoder)),
    "encoder-decoder (BERT2GPT)": Kind(_pair(bert, gpt2)),
    "fsmt": Kind(_of("FSMT", **BART, langs=["en", "de"], src_vocab_size=SIZE, tgt_vocab_size=SIZE)),
    "led": Kind(_of("LED", **LED)),
    "longt5": Kind(_of("LongT5", **T5, local_radius=8)),
    "m2m_100": Kind(_of("M2M100", **BART)),
    "marian": Kind(_of("Marian", "MarianMTModel", **BART), native=True),
    "mbart": Kind(_of("MBart", **BART), native=True),
    "mt5": Kind(_of("MT5", **T5), native=True),
    "mvp": Kind(_of("Mvp", **BART)),
    "nllb-moe": Kind(_of("NllbMoe", **BART, **EXPERTS, encoder_sparse_step=2, decoder_sparse_step=2)),
    "pegasus": Kind(_of("Pegasus", **BART)),
    "pegasus_x": Kind(_of("PegasusX", **BART, block_size=8, num_global_tokens=2)),
    "plbart": Kind(_of("PLBart", **BART)),
    "prophetnet": Kind(_of("ProphetNet", **PROPHET)),
    "seamless_m4t": Kind(_of("SeamlessM4T", "SeamlessM4TForTextToText", **SEAMLESS)),
    "seamless_m4t_v2": Kind(_of("SeamlessM4Tv2", "SeamlessM4Tv2ForTextToText", **SEAMLESS)),
    "switch_transformers": Kind(_of("SwitchTransformers", **T5, **EXPERTS, **SPARSE)),
    "t5": Kind(_of("T5", **T5), native=True),
    "t5gemma": Kind(_t5gemma),
    "t5gemma2": Kind(_t5gemma2),
    "umt5": Kind(_of("UMT5", **T5)),
    "canary": Kind(_of("Canary", encoder_config=PARAKEET, decoder_config=CANARY, vocab_size=SIZE, **IDS), "sounds"),
    "cohere_asr": Kind(_of("CohereAsr", **CANARY, encoder_config=PARAKEET, decoder_start_token_id=START), "sounds"),
    "moonshine": Kind(_of("Moonshine", **MOONSHINE), "sounds"),
    "moonshine_streaming": Kind(_of("MoonshineStreaming", **STREAMING, decoder_start_token_id=START), "sounds"),
    "seamless_m4t (speech)": Kind(_of("SeamlessM4T", "SeamlessM4TForSpeechToText", **SEAMLESS), "sounds"),
    "seamless_m4t_v2 (speech)": Kind(_of("SeamlessM4Tv2", "SeamlessM4Tv2ForSpeechToText", **SEAMLESS), "sounds"),
    "speech-encoder-decoder": Kind(_pair(wav2vec2, bert_decoder, "SpeechEncoderDecoder"), "sounds"),
    "speech_to_text": Kind(_of("Speech2Text", **SPEECH), "sounds"),
    "speecht5": Kind(_of("SpeechT5", "SpeechT5ForSpeechToText", **SPEECHT5), "sounds"),
    "whisper": Kind(_of("Whisper", **WHISPER), "sounds"),
}


def tiny(name: str) -> Any:
    """A random model of a type, in evaluation mode."""
    torch.manual_seed(0)
    model = KINDS[name].make().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0, 0.25)
    model.tie_weights()
    return model


def folder_of(name: str, folder: Path) -> Path:
    """The same, saved."""
    tiny(name).save_pretrained(folder)
    return folder


def tokenizer(folder: Path) -> None:
    """A tokenizer of WORDS source words and as many target words, with the ids of the models here."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    names = ["<pad>", "</s>", "<s>", "<unk>", *(f"{side}{i}" for side in "st" for i in range(WORDS))]
    engine = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    engine.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", EOS)])
    marks = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=engine, **marks).save_pretrained(folder)


def task(folder: Path, reads: str, dims: int = MELS) -> dict[str, Any]:
    """A small task as a set of a recipe: each source word, or sound, has two target words of its own."""
    targets = [f"t{i} t{(3 * i + 1) % WORDS}" for i in range(WORDS)]
    if reads == "text":
        lines = ["source\ttarget", *(f"s{i} s{(i * i) % WORDS}\t{target}" for i, target in enumerate(targets))]
        (folder / "pairs.tsv").write_text("\n".join(lines) + "\n")
        return {"pairs": str(folder / "pairs.tsv")}
    (folder / "features").mkdir(exist_ok=True)
    draw, frames = np.random.default_rng(0), 32 if dims > 1 else 1200
    lines = ["id\tn_frames\ttext"]
    for i, target in enumerate(targets):
        np.save(folder / "features" / f"{i}.npy", draw.standard_normal((frames, dims)).astype("float32"))
        lines.append(f"{i}\t{frames}\t{target}")
    (folder / "sounds.tsv").write_text("\n".join(lines) + "\n")
    return {"manifest": str(folder / "sounds.tsv"), "features": str(folder / "features")}
