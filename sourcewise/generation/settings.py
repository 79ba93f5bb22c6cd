"""The settings of a folder's generation_config.json as our options, with notes on settings that are not followed.

Options of the user take precedence; missing settings have our defaults. Two of these differ from transformers'
`generate`: 4 beams instead of 1, and 128 new tokens instead of 20.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from sourcewise.config import GenerationConfig
from sourcewise.model.generation_defaults import KEYS
from sourcewise.model.weights.generation_config import IDS, NEUTRAL, OPTIONS, SAMPLED, Told, shown

LENGTHS = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}  # these lengths include the start token
READ = {**OPTIONS, **LENGTHS, "stop_strings": "stop"}  # a setting of `generate` → our option
REASONS = {  # why settings that change outputs are not followed
    "num_return_sequences": "one output per source, unless n_best asks for more",
    "num_beam_groups": "beams are one group",
    "diversity_penalty": "beams are one group",
    "remove_invalid_values": "what is not finite is an error here",
    "max_time": "an output does not depend on the time it takes",
}
INERT = (  # settings without influence on outputs: how to compute, what else to return, who wrote it
    *("use_cache", "use_mtp", "low_memory", "is_assistant", "speculation_type", "return_legacy_cache"),
    *("return_dict_in_generate", "prefill_chunk_size", "max_matching_ngram_size", "target_lookbehind"),
    *("transformers_version", "_from_model_config", "_commit_hash"),
)
WHISPERS = (  # Whisper's words, which its tokenizer's prompt follows
    *("lang_to_id", "task_to_id", "is_multilingual", "no_timestamps_token_id", "prev_sot_token_id"),
    *("alignment_heads", "language", "task", "forced_decoder_ids", "return_timestamps", "max_initial_timestamp_index"),
)
INERT_FIRST = (  # beginnings of the names of such settings
    *("output_", "cache_", "max_cache_", "assistant_", "num_assistant_", "prompt_lookup_"),
    *("compile_", "disable_compile", "continuous_batching_"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """A folder's settings as our options; `followed` are the file's settings in force, `notes` name the others."""

    options: dict[str, Any] = field(default_factory=dict)
    followed: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    file: str = ""


def read_settings(told: Told) -> Settings:
    """The settings of a folder; one that cannot be followed becomes a note, never an error."""
    options: dict[str, Any] = {}
    followed: dict[str, Any] = {key: told.settings[key] for key in KEYS if _is_set(told, key)}
    notes = [*told.notes]

    def refuse(key: str, why: str) -> None:
        notes.append(f"{told.file}: {key} = {shown(told.settings[key])} is not followed: {why}")

    of_whisper = told.settings.keys() & {"is_multilingual", "no_timestamps_token_id"}
    inert = (*KEYS, *IDS, *INERT, *(WHISPERS if of_whisper else ()))
    for key in told.settings:
        name, value = READ.get(key), told.settings[key]
        value = [value] if name == "stop" and isinstance(value, str) else value
        if name:
            value = value - 1 if key in LENGTHS and type(value) is int else value
            value = max(value, 0) if key == "min_length" and type(value) is int else value
            if LENGTHS.get(key) and told.settings.get(name) is not None:
                continue  # as in `generate`: the number of new tokens takes precedence
            why = _wrong(name, value)
            if why:
                refuse(key, why)
            else:
                options[name] = value
                if value != GenerationConfig.model_fields[name].get_default(call_default_factory=True):
                    followed[key] = told.settings[key]
        elif _is_set(told, key) and key not in inert and not key.startswith(INERT_FIRST):
            refuse(key, REASONS.get(key, "it is not among our settings"))
    _settle(options, followed, refuse)
    return Settings(options, followed, tuple(notes), told.file)


def _is_set(told: Told, key: str) -> bool:
    value = told.settings.get(key)
    return value not in (None, [], {}) and value != NEUTRAL.get(key)


def _settle(options: dict[str, Any], followed: dict[str, Any], refuse: Any) -> None:
    """Resolve settings that depend on each other, in place."""
    if options.get("sample"):
        options.setdefault("top_k", NEUTRAL["top_k"])  # as `generate` does
        if options.get("beams", 1) > 1:
            refuse("num_beams", "do_sample is set, and what is drawn is drawn without beams")
            del options["beams"]
            followed.pop("num_beams", None)
    else:  # no sampling, but if the user asks for it the folder's settings of it hold
        for key in SAMPLED:
            followed.pop(key, None)
    most = options.get("max_new_tokens", GenerationConfig.model_fields["max_new_tokens"].default)
    if options.get("min_new_tokens", 0) > most:
        options["min_new_tokens"] = most  # the same: no end before the last token


def _wrong(name: str, value: Any) -> str:
    """The error of an option's value in words; empty if it is valid."""
    longest = {"max_new_tokens": value} if name == "min_new_tokens" and type(value) is int and value > 0 else {}
    try:
        GenerationConfig.model_validate({**longest, name: value}, strict=isinstance(value, bool | str))
    except ValidationError as error:
        return error.errors()[0]["msg"].replace("Input should", "it should").removeprefix("Value error, ")
    return ""
