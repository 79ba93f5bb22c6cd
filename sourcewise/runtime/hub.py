"""Errors of the Hugging Face hub in a few words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_REASONS = {  # by the name of the error's class, the narrowest first; the library has renamed their modules before
    "HFValidationError": "nor is it a hub name",
    "GatedRepoError": "on the hub it is gated: accept its terms there, and log in with `hf auth login`",
    "RepositoryNotFoundError": "the hub has nothing of this name that you may read",
    "OfflineModeIsEnabled": "the hub is switched off (HF_HUB_OFFLINE) and its cache does not hold it",
    "LocalEntryNotFoundError": "the hub cannot be reached and its cache does not hold it",
    "ConnectionError": "the hub cannot be reached and its cache does not hold it",
}
TIMEOUT = 10  # seconds


def reason(error: Exception) -> str:
    """The reason of a hub error: known errors in our words, others by their first line."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    for kind, text in _REASONS.items():
        if kind in kinds:
            return text
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


@contextlib.contextmanager
def patient_no_longer(name: str) -> Iterator[None]:
    """Within: if the hub is unreachable, `datasets` uses its cache at once instead of trying for a minute."""
    import datasets

    kept = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = kept or not _answers(name)
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = kept


def _answers(name: str) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().dataset_info(name, timeout=TIMEOUT)
    except (HfHubHTTPError, HFValidationError):
        return True  # an error status: `datasets` will report it
    except Exception:  # of any HTTP library
        return False
    return True
