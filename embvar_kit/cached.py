"""Statistics of the bundled models: from the cache, or as shipped, else extracted once."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from embvar_kit import files
from embvar_kit._version import __version__
from embvar_kit.corpora.load import load_corpus
from embvar_kit.errors import CheckpointError, ExtractionError, StatisticsFileError
from embvar_kit.models.bundled import BUNDLED
from embvar_kit.statistics.token_statistics import TokenStatistics

SITES = ("hidden", "unit")
"""Measured in one pass: both sites together cost hardly more than one."""

FOLDS = 20
"""Folds of the excerpt's articles, for intervals."""

FIRST, NORM = 1, 10
"""What ``high_norm=False`` leaves out: the first position of each sequence, and squared norms of so
many times the median."""


def cached_statistics(
    model: str = "minilm",
    corpus: str = "wikipedia",
    *,
    site: str = "hidden",
    high_norm: bool = True,
    progress: bool = True,
) -> TokenStatistics:
    """Statistics of a bundled model on the excerpt, from the cache if they are there.

    They are looked for in ``cache/MODEL-CORPUS/SITE`` of the kit's folder (``data/`` in a
    checkout), where an earlier call saved them, then in ``data/stats/MODEL-CORPUS/SITE``, which
    comes with the kit, in compact form (see :meth:`TokenStatistics.compact`), for the model that is
    slow on a CPU. Otherwise one pass measures both sites, with null and folds, and saves them. So
    it does if the saved ones are damaged, of an older kit or of part of the corpus. A pass that was
    killed resumes; if another process is making it, this one waits for its result. Without high
    norms the folder is ``MODEL-CORPUS-ordinary``.

    Args:
        model: alias of a bundled model.
        corpus: ``"wikipedia"``.
        site: ``"hidden"`` for the hidden states, ``"unit"`` for these scaled to norm 1.
        high_norm: take all occurrences. If false, those at the first position of a sequence are
            left out (the begin tokens), and those whose squared norm is at least ten times the
            median at some hidden state (``LeaveOut(first=1, norm=10)``). Of these, site "hidden"
            of smollm2 is shipped; site "unit" takes a pass, an hour on two cores.
        progress: print the plan and a progress bar if a pass is needed.

    Returns:
        Statistics by token; Q, M and V in squared norm of the embedding.

    Raises:
        ExtractionError: if the model is not bundled, the corpus is not ``"wikipedia"``, or the
            site is unknown.
    """
    if model not in BUNDLED or corpus != "wikipedia" or site not in SITES:
        raise ExtractionError(
            "Only statistics of a bundled model on 'wikipedia', at site 'hidden' or 'unit', are "
            "cached by name; for others, call extract() and save the result."
        )
    cache = files.home() / "cache" / f"{model}-{corpus}{'' if high_norm else '-ordinary'}"
    if (found := _saved(cache, model, site, high_norm)) is not None:
        return found
    # These import torch, which takes seconds and is not needed to load saved statistics.
    from embvar_kit.extraction.extract import extract
    from embvar_kit.extraction.leave_out import LeaveOut
    from embvar_kit.files import locked
    from embvar_kit.models.loading import load_model

    with locked(cache, wait=True):
        if (found := _saved(cache, model, site, high_norm)) is not None:
            return found
        store = cache / "pass"
        asked = {"site": SITES, "null": True, "folds": FOLDS, "store": store, "progress": progress}
        asked["leave_out"] = None if high_norm else LeaveOut(first=FIRST, norm=NORM)
        loaded, text = load_model(model), load_corpus(corpus)
        try:
            extracted = extract(loaded, text, **asked)
        except CheckpointError:  # from an older kit, or damaged: start again
            shutil.rmtree(store, ignore_errors=True)
            extracted = extract(loaded, text, **asked)
        for taken, statistics in extracted.items():
            statistics.save(cache / taken)
        shutil.rmtree(store)
    return extracted[site]


def _saved(cache: Path, model: str, site: str, high_norm: bool) -> TokenStatistics | None:
    found = _whole(cache / site, model, high_norm, same_kit=True)
    if found is None:
        shipped = files.shipped("stats", cache.name, site)
        found = _whole(shipped, model, high_norm, same_kit=False)
    return found


def _whole(folder: Path, model: str, high_norm: bool, *, same_kit: bool) -> TokenStatistics | None:
    """Saved statistics, if they are what this kit would extract from all of the corpus."""
    try:
        statistics = TokenStatistics.load(folder)
    except StatisticsFileError:
        # Another process may have replaced the files after their names were read.
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
        and _all_that_is_left_out(
            info["convention"].get("leave_out"), high_norm, info["model"]["n_states"]
        )
        and len(statistics.layers) == info["model"]["n_states"]
        and (statistics.folds is not None or not same_kit)
        and (statistics.null is not None or (high_norm and not same_kit))
    )
    return statistics if whole else None


def _all_that_is_left_out(told: dict | None, high_norm: bool, n_states: int) -> bool:
    """Whether a pass left out what ``high_norm`` says, and nothing else."""
    if high_norm or told is None:
        return high_norm and told is None
    from embvar_kit.extraction.leave_out import LeaveOut

    usual, found = LeaveOut(first=FIRST, norm=NORM), told.get("found", {})
    how = {name: found.get(name) for name in ("norm", "sample", "seed")}
    return (
        told.get("first") == usual.first
        and how == {name: getattr(usual, name) for name in how}
        and len(told.get("bounds", ())) == n_states  # compared at each hidden state
    )


if __name__ == "__main__":  # make pass
    try:
        cached_statistics()
    except KeyboardInterrupt:
        print(
            "make pass: interrupted. What was measured is kept in "
            f"{str(files.home() / 'cache')!r}; the same target resumes the pass.",
            file=sys.stderr,
        )
        sys.exit(130)
