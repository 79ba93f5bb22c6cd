"""Puts an exported folder, with its model card, on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sourcewise.errors import RequestError
from sourcewise.runtime import hub

HUB = "hub:"


def named(where: str) -> str:
    """The name of a hub model in `hub:NAME`. Raises RequestError for any other word."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = where.removeprefix(HUB)
    if not where.startswith(HUB) or not name:
        raise RequestError(f"--push {where}: should be hub:NAME, such as hub:someone/german")
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise RequestError(f"--push {where}: no name of a hub model; such as hub:someone/german") from None
    return name


def check_hub(where: str) -> None:
    """Raises RequestError unless the hub answers and knows who you are: asked before long work."""
    from huggingface_hub import get_token

    named(where)
    if not get_token():
        raise RequestError(f"--push {where}: nobody is logged in; `hf auth login`, or set HF_TOKEN")
    _asked(where, _api().whoami)


def push(folder: Path, where: str, message: str = "Written by sourcewise export") -> str:
    """Upload a folder to `hub:NAME`, and return its address. A model that is new there is private.

    Raises RequestError if the hub cannot be reached or refuses.
    """
    name, api = named(where), _api()
    _asked(where, api.create_repo, repo_id=name, private=True, exist_ok=True)
    _asked(where, api.upload_folder, repo_id=name, folder_path=folder, commit_message=message)
    return f"https://huggingface.co/{name}"


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(library_name="sourcewise")


def _asked(where: str, call: Any, **arguments: Any) -> Any:
    """What a call of the hub returns. Raises RequestError with the hub's reason in one line."""
    try:
        return call(**arguments)
    except Exception as error:  # of any HTTP library
        reason = hub.reason(error).partition(" and its cache")[0]  # which is for what is fetched
        raise RequestError(f"--push {where}: not uploaded: {reason}") from None
