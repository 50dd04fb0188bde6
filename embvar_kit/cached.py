"""Statistics of the bundled models that need no new pass: saved before, or shipped with the kit."""

from __future__ import annotations

from pathlib import Path

from embvar_kit import files
from embvar_kit._version import __version__
from embvar_kit.corpora.corpus import load_corpus
from embvar_kit.errors import CheckpointError, ExtractionError, StatisticsFileError
from embvar_kit.models.bundled import BUNDLED
from embvar_kit.statistics.token_statistics import TokenStatistics

SITES = ("hidden", "unit")
"""What one pass takes, since the two together cost hardly more than one."""


def cached_statistics(
    model: str = "minilm",
    corpus: str = "wikipedia",
    *,
    site: str = "hidden",
    progress: bool = True,
) -> TokenStatistics:
    """Statistics of a bundled model on the excerpt: those at hand, or a new pass over both sites.

    Looked for: ``cache/MODEL-CORPUS/SITE`` in the kit's folder (``data/`` in a checkout), which an
    earlier call saved; then ``data/stats/MODEL-CORPUS/SITE`` of the checkout, which comes with the
    kit for the model that is slow on a CPU, in compact form (see
    :meth:`TokenStatistics.compact`). A saved result of an older kit, of part of the corpus, or a
    damaged one is replaced by a new pass. A pass that was killed goes on where it was; where
    another process is at it, its result is waited for.

    Raises:
        ExtractionError: for anything but a bundled model on ``"wikipedia"``, or an unknown site.
    """
    if model not in BUNDLED or corpus != "wikipedia" or site not in SITES:
        raise ExtractionError(
            "Only a bundled model on 'wikipedia', at site 'hidden' or 'unit', is cached by name; "
            "extract and save others."
        )
    cache = files.home() / "cache" / f"{model}-{corpus}"
    if (found := _at_hand(cache, model, site)) is not None:
        return found
    # All import torch, which takes seconds; what is at hand needs none of them.
    from embvar_kit.extraction import checkpoint
    from embvar_kit.extraction.extract import extract
    from embvar_kit.files import locked
    from embvar_kit.models.loading import load_model

    with locked(cache, wait=True):
        if (found := _at_hand(cache, model, site)) is not None:
            return found
        kept = cache / "checkpoint"
        loaded, text = load_model(model), load_corpus(corpus)
        try:
            extracted = extract(loaded, text, site=SITES, checkpoint=kept, progress=progress)
        except CheckpointError:  # of an older kit, or damaged: begin again
            checkpoint.remove(kept)
            extracted = extract(loaded, text, site=SITES, checkpoint=kept, progress=progress)
        for taken, statistics in extracted.items():
            statistics.save(cache / taken)
        checkpoint.remove(kept)
    return extracted[site]


def _at_hand(cache: Path, model: str, site: str) -> TokenStatistics | None:
    found = _whole(cache / site, model, same_kit=True)
    shipped = files.in_checkout("data", "stats", cache.name, site)
    if found is None and shipped:
        found = _whole(shipped, model, same_kit=False)
    return found


def _whole(folder: Path, model: str, *, same_kit: bool) -> TokenStatistics | None:
    """Saved statistics, if they are what this kit would extract from all of the corpus."""
    try:
        statistics = TokenStatistics.load(folder)
    except StatisticsFileError:
        return None
    info = statistics.info
    whole = (
        (info["kit_version"] == __version__ or not same_kit)
        and info["model"]["revision"] == f"sha256:{BUNDLED[model].weights_sha256[:12]}"
        and info["corpora"][0]["settings"] == {}
        and (info["convention"]["by"], info["convention"]["long"]) == ("token", "split")
        and "partial" not in info
        and info["convention"].get("min_count", 1) == 1
        and len(statistics.layers) == info["model"]["n_states"]
    )
    return statistics if whole else None
