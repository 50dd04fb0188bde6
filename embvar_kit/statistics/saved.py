"""Statistics as the tables, tensors and description of a folder, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from embvar_kit.statistics.compaction import STORED
from embvar_kit.statistics.folds import LEAST, OF_ALL_LAYERS, Folds

if TYPE_CHECKING:
    from embvar_kit.statistics.token_statistics import TokenStatistics

_COUNT = "count_"  # before the names of columns of counts
_TABLES = (*STORED, "isotropies")
"""Attributes that are tables as they stand."""


def parts_of(
    statistics: TokenStatistics,
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, np.ndarray]]]:
    """The tables and the tensors that :func:`embvar_kit.statistics.storage.write` takes."""
    tables, tensors = {"table": _table(statistics)}, {}
    if statistics.mean is not None:
        tensors["mean"] = _means(statistics)
    if statistics.covariance is not None:
        tensors["covariance"] = {"covariance": statistics.covariance}
    for name in _TABLES:
        if (stored := getattr(statistics, name)) is not None:
            tables[name] = stored
    if statistics.folds is not None:
        tensors["folds"] = statistics.folds.arrays()
    if (null := statistics.null) is not None:
        tables["null"] = _table(null)
        if null.mean is not None:
            tensors["null_mean"] = _means(null)
        if null.decompositions is not None:
            tables["null_decompositions"] = null.decompositions
    return tables, tensors


def from_parts(
    cls: type[TokenStatistics],
    tables: Mapping[str, pd.DataFrame],
    tensors: Mapping[str, Mapping[str, np.ndarray]],
    info: Mapping,
) -> TokenStatistics:
    """The statistics that files hold together.

    Raises:
        LookupError, TypeError, ValueError: if a part lacks or does not fit the others.
    """
    more = {name: tables[name] for name in _TABLES if name in tables}
    more |= tensors.get("covariance", {})
    if "null" in tables:
        more["null"] = _of_table(
            cls,
            tables["null"],
            tensors.get("null_mean", {}),
            {**info, "permuted": True},
            decompositions=tables.get("null_decompositions"),
        )
    found = _of_table(cls, tables["table"], tensors.get("mean", {}), info, **more)
    if "folds" not in tensors:
        return found
    frequent = found.tokens[found.n >= LEAST]
    folds = Folds(tokens=frequent, **tensors["folds"])
    for name, array in folds.arrays().items():
        of_layers = () if name in OF_ALL_LAYERS else found.layers.shape
        n_parts = 2 if name.startswith("half") else len(folds)
        _check_shape(f"folds, {name}", array, (n_parts, *of_layers, *frequent.shape))
    return replace(found, folds=folds)


def _table(statistics: TokenStatistics) -> pd.DataFrame:
    """One row for each layer and token."""
    columns = {"token": statistics.tokens, "special": statistics.special, "n": statistics.n}
    if statistics.subwords is not None:
        columns["subwords"] = statistics.subwords
    columns |= {f"{_COUNT}{name}": count for name, count in statistics.counts.items()}
    n_layers = len(statistics.layers)
    return pd.DataFrame(
        {
            "layer": np.repeat(statistics.layers, len(statistics)),
            **{name: np.tile(column, n_layers) for name, column in columns.items()},
            **{name: getattr(statistics, name).ravel() for name in "QMV"},
        }
    )


def _means(statistics: TokenStatistics) -> dict[str, np.ndarray]:
    means = {"mean": statistics.mean, "extra": statistics.extra}
    return {name: tensor for name, tensor in means.items() if tensor is not None}


def _of_table(
    cls: type[TokenStatistics],
    table: pd.DataFrame,
    means: Mapping[str, np.ndarray],
    info: Mapping,
    **more: Any,
) -> TokenStatistics:
    layers = table["layer"].unique()
    first = table[table["layer"] == layers[0]]
    Q, M, V = (table[name].to_numpy(dtype=float).reshape(len(layers), len(first)) for name in "QMV")
    for name, tensor in means.items():
        _check_shape(name, tensor, (*Q.shape, *means["mean"].shape[2:]))
    return cls(
        tokens=first["token"].to_numpy(dtype=object),
        special=first["special"].to_numpy(),
        layers=layers,
        n=first["n"].to_numpy(),
        Q=Q,
        M=M,
        V=V,
        mean=means.get("mean"),
        extra=means.get("extra"),
        info=info,
        subwords=first["subwords"].to_numpy() if "subwords" in first else None,
        counts={
            name.removeprefix(_COUNT): first[name].to_numpy()
            for name in first
            if name.startswith(_COUNT)
        },
        **more,
    )


def _check_shape(name: str, array: np.ndarray, wanted: tuple[int, ...]) -> None:
    if array.shape != wanted:
        raise ValueError(f"{name} of shape {array.shape}, not {wanted}")
