"""The Hugging Face Hub: what its local cache holds, and whether it has a repository."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

SECONDS = 5
"""Seconds to wait for an answer before the Hub counts as out of reach."""


class Answer(Enum):
    """What the Hub answers about a repository."""

    PRESENT = "present"
    ABSENT = "absent"  # or private to others
    GATED = "gated"  # there, and this user has not been let in
    IMPOSSIBLE = "impossible"  # not a possible name of a repository
    UNREACHABLE = "unreachable"


def cached_snapshot(name: str, revision: str | None = None) -> Path | None:
    """The folder of a model in the Hub's cache; ``None`` if the cache does not have it.

    The folder is named after the model's commit.

    Args:
        name: name of the repository.
        revision: branch, tag or commit; the main branch by default.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(path).parent if isinstance(path, str) else None


def find_file(name: str, file: str, revision: str | None = None) -> Path | None:
    """A file of a model, downloaded to the cache if it is not there.

    The cache also keeps that a model lacks the file, so that the Hub is asked once.

    Args:
        name: name of the repository.
        file: name of the file in it.
        revision: branch, tag or commit; the main branch by default.

    Returns:
        Where the file is; ``None`` if the model lacks it, or the Hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    known = try_to_load_from_cache(name, file, revision=revision)
    if known is None:
        # Without a network, the download is tried again for half a minute.
        if ask("model", name, revision)[0] is not Answer.PRESENT:
            return None
        try:
            known = hf_hub_download(name, file, revision=revision, etag_timeout=SECONDS)
        except Exception:  # each HTTP library raises errors of its own
            return None
    return Path(known) if isinstance(known, str) else None


def ask(kind: str, name: str, revision: str | None) -> tuple[Answer, Exception | None]:
    """Ask the Hub whether it has a repository, without downloading anything.

    Args:
        kind: ``"model"`` or ``"dataset"``.
        name: name of the repository.
        revision: branch, tag or commit; the main branch by default.

    Returns:
        The answer, and the error that it was derived from (``None`` if the repository exists).
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    look_up = HfApi().model_info if kind == "model" else HfApi().dataset_info
    try:
        told = look_up(name, revision=revision, timeout=SECONDS)
    except HFValidationError as error:
        return Answer.IMPOSSIBLE, error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        return Answer.ABSENT, error
    except Exception as error:  # each HTTP library raises errors of its own
        return Answer.UNREACHABLE, error
    shut = _shut(kind, name) if told.gated else None
    return (Answer.GATED, shut) if shut else (Answer.PRESENT, None)


def _shut(kind: str, name: str) -> Exception | None:
    """The Hub's error if a gated repository is shut to this user; whatever else it says is no."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    # HfApi.auth_check has no timeout, and waits for as long as a proxy says nothing.
    address = f"{HfApi().endpoint}/api/{kind}s/{name}/auth-check"
    try:
        answer = get_session().get(address, headers=build_hf_headers(), timeout=SECONDS)
        hf_raise_for_status(answer)
    except GatedRepoError as error:
        return error
    except Exception:  # a mirror need not know the question; the download will say
        return None
    return None


def how_to_be_let_in(kind: str, name: str) -> str:
    """What to do where a repository is gated.

    Args:
        kind: ``"model"`` or ``"dataset"``.
        name: name of the repository.
    """
    page = f"https://huggingface.co/{'' if kind == 'model' else 'datasets/'}{name}"
    return (
        f"The Hub has the {kind} {name!r}, but its owners let in only those who ask. Ask for "
        f"access at {page} and wait until it is granted. Then make a token that may read gated "
        "repositories (https://huggingface.co/settings/tokens), and set it as HF_TOKEN in the "
        "environment, or run `hf auth login`."
    )
