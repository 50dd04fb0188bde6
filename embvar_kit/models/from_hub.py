"""Models on the Hub: whether the cache or the Hub has one, and that it is a model of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from embvar_kit import hub
from embvar_kit.errors import ModelError, first_line
from embvar_kit.models.bundled import BUNDLED
from embvar_kit.models.weight_files import ADAPTER, check_files, refuse_adapter
from embvar_kit.wording import did_you_mean

T = TypeVar("T")


def load_from_hub(
    name: str, revision: str | None, load: Callable[[str, dict[str, str | bool]], T]
) -> T:
    """Load a model from the Hub's cache if it is there, else from the network.

    Args:
        name: the model's name on the Hub.
        revision: branch, tag or commit; the main branch by default.
        load: loads a model from a folder or by name, with further options.

    Raises:
        ModelError: if neither has it, or it is an adapter or damaged.
    """
    incomplete = None
    if folder := hub.cached_snapshot(name, revision):
        # Asked by its commit, so that the cache's idea of the branch stays what it is.
        _refuse_adapter_on_hub(name, folder.name)
        refuse_adapter(folder, name)
        # Pass the folder, not the name: given a name, transformers asks the Hub about every file
        # and, without a network, retries each for half a minute.
        try:
            check_files(folder, None, name)
            return load(str(folder), {"local_files_only": True})
        except ModelError as error:
            incomplete = error
    try:
        _check_hub(name, revision)
    except ModelError as unreachable:
        raise (incomplete or unreachable) from unreachable.__cause__
    _refuse_adapter_on_hub(name, revision)
    return load(name, {"revision": revision} if revision else {})


def commit(name: str, revision: str | None) -> str | None:
    """The commit of a model in the Hub's cache, which holds a fresh download, too."""
    folder = hub.cached_snapshot(name, revision)
    return folder.name if folder else None


def check_available(*names: str) -> str:
    """Which of a model's names on the Hub to load it by, found out without loading anything.

    Args:
        names: the model's present name on the Hub, then older names that the Hub's cache may hold
            it under.

    Raises:
        ModelError: if the cache holds it under none of the names and the Hub does not have it or
            cannot be reached.
    """
    for name in names:
        if hub.cached_snapshot(name, None):
            return name
    _check_hub(names[0], None)
    return names[0]


def _check_hub(name: str, revision: str | None) -> None:
    """Raise at once, with advice, unless the Hub can be reached and has the model."""
    answer, error = hub.ask("model", name, revision)
    if answer is hub.Answer.PRESENT:
        return
    near = did_you_mean(name, BUNDLED)
    offline = f"Available offline: {', '.join(BUNDLED)}, or a folder with a saved model."
    at = f" at revision {revision!r}" if revision else ""
    problem = {
        hub.Answer.IMPOSSIBLE: f"{name!r} is no alias, no folder and no possible name on the Hub.",
        hub.Answer.ABSENT: f"The Hub has no model {name!r}{at} that you can read.",
        hub.Answer.GATED: hub.how_to_be_let_in("model", name),
        hub.Answer.UNREACHABLE: f"{name!r}{at} is not here, and the Hub cannot be reached "
        f"({first_line(error)}).",
    }[answer]
    raise ModelError(f"{problem}{near} {offline}") from error


def _refuse_adapter_on_hub(name: str, revision: str | None) -> None:
    """Refuse an adapter before it is downloaded; what the cache cannot tell is asked the Hub."""
    if found := hub.find_file(name, ADAPTER, revision):
        refuse_adapter(Path(found).parent, name)
