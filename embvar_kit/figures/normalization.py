"""Layer normalization: its geometry, what γ and β do to slope and R², and the twins' training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from embvar_kit.errors import StatisticsError
from embvar_kit.figures import style
from embvar_kit.figures.style import COLOURS

if TYPE_CHECKING:  # importing torch takes seconds
    from embvar_kit.extraction.affine import AffineMoments

PLANE = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
"""``(2, 3)`` orthonormal axes of the plane at right angles to (1, 1, 1)."""

TWIN_FITS = {"slope": "slope of $V(X_t)$ on $M(X_t)$", "r2": "$R^2$ of $V(X_t)$ on $M(X_t)$"}
"""Columns of the twins' trade-offs that are drawn, with their titles."""


def layer_norm_geometry(
    x: np.ndarray, groups: Sequence[int], gamma: Sequence[float], beta: Sequence[float]
) -> Figure:
    """What a layer normalization does to vectors of three features.

    Left: the vectors and the all-ones direction. Middle: the vectors centred and scaled, seen
    along that direction; they lie on a circle of radius √3, with the mean of each group inside.
    Right: the circle stretched by γ and shifted by β, the arrow; the first circle is dotted.

    Args:
        x: ``(N, 3)`` vectors.
        groups: ``(N,)`` the token of each vector, 0, 1 ...
        gamma, beta: 3 numbers each.

    Raises:
        StatisticsError: if the vectors do not have three features.
    """
    x = np.asarray(x, dtype=np.float32)
    if x.ndim != 2 or x.shape[1] != 3:
        raise StatisticsError(f"The geometry is drawn for (N, 3) vectors, not for {x.shape}.")
    groups = np.asarray(groups)
    import torch

    from embvar_kit.models.normalization import standardize

    z = standardize(torch.from_numpy(x), "LayerNorm").numpy()
    figure = plt.figure(figsize=(11.5, 4.3), layout="constrained")
    whole = [figure.add_subplot(1, 3, at, projection="3d") for at in (1, 3)]
    _draw_circle(figure.add_subplot(1, 3, 2), z @ PLANE.T, groups)
    turn = np.linspace(0, 2 * np.pi, 100)
    circle = np.sqrt(3) * (np.cos(turn)[:, None] * PLANE[0] + np.sin(turn)[:, None] * PLANE[1])
    gamma, beta = np.asarray(gamma), np.asarray(beta)
    for ax, points, path, title in (
        (whole[0], x, circle, "$h$: before"),
        (whole[1], gamma * z + beta, gamma * circle + beta, r"$\gamma \odot z + \beta$"),
    ):
        for group in np.unique(groups):
            look = {"color": style.model_colour(int(group)), "s": 10, "depthshade": False}
            ax.scatter(*points[groups == group].T, **look)
        ax.plot(*path.T, color="black", linewidth=1)
        reach = float(np.abs(np.concatenate([points, path])).max())
        ax.plot(*(np.array([[-1, 1]] * 3) * reach * 0.75), color="grey", linestyle="--")
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
        ax.set(xlabel="feature 1", ylabel="feature 2", zlabel="feature 3", title=title)
        ax.view_init(elev=28, azim=12)  # from near (1, 1, 1), so that the circle is seen as one
        ax.set_box_aspect((1, 1, 1), zoom=0.82)
        for axis in (ax.xaxis, ax.yaxis, ax.zaxis):
            axis.set_major_locator(plt.MaxNLocator(4))
    whole[1].plot(*circle.T, color="grey", linestyle=":")
    whole[1].quiver(0, 0, 0, *beta, color="black", arrow_length_ratio=0.3)
    whole[1].text(*beta, r" $\beta$")
    return figure


def _draw_circle(ax: Axes, points: np.ndarray, groups: np.ndarray) -> None:
    ax.add_patch(Circle((0, 0), np.sqrt(3), fill=False, color="black"))
    ax.plot(0, 0, "+", color="black", markersize=9)
    for group in np.unique(groups):
        own = points[groups == group]
        colour, mean = style.model_colour(int(group)), own.mean(axis=0)
        M, V = float(mean @ mean), float(((own - mean) ** 2).sum(axis=1).mean())
        ax.scatter(*own.T, s=12, color=colour, alpha=0.6, linewidths=0)
        ax.annotate("", xy=tuple(mean), xytext=(0, 0), arrowprops={"color": colour, "width": 1.5})
        text = f"token {group + 1}: $M$ = {M:.2f}, $V$ = {V:.2f}"
        ax.plot([], [], "o", color=colour, markersize=4, label=text)
    ax.set(xlim=(-2.1, 2.1), ylim=(-2.1, 2.6), aspect="equal", title="$z$: centred and scaled")
    ax.set(xlabel="along (1, -1, 0)", ylabel="along (1, 1, -2)")
    ax.legend(loc="upper center", fontsize=8, frameon=False)


def affine_mixture(parts: Mapping[int, AffineMoments] | AffineMoments) -> Figure:
    """Slope and R² of V on M while γ alone, β alone, or both are mixed in, from none to all.

    Args:
        parts: moments of one layer or of several, from :func:`embvar_kit.affine_moments`.

    Returns:
        The Figure, with a column for each layer: the slope above, R² below.
    """
    found = list(parts.values()) if isinstance(parts, Mapping) else [parts]
    shares = np.linspace(0, 1, 21)
    ways = (("γ and β", 1, 1, "-"), ("γ alone", 1, 0, "--"), ("β alone", 0, 1, ":"))
    figure, axes = plt.subplots(
        2,
        len(found),
        figsize=(1 + 2.5 * len(found), 4.6),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for part, (above, below) in zip(found, axes.T, strict=True):
        for at, (name, gamma, beta, dashes) in enumerate(ways):
            lines = [part.tradeoff(gamma * share, beta * share) for share in shares]
            look = {"color": style.model_colour(at), "linestyle": dashes, "label": name}
            look |= (
                {"linewidth": 5, "alpha": 0.45} if dashes == "-" else {}
            )  # seen under the others
            above.plot(shares, [line.slope for line in lines], **look)
            below.plot(shares, [line.r2 for line in lines], **look)
        above.axhline(-1, color="black", linestyle=(0, (1, 3)), linewidth=1)
        above.set_title(f"layer {part.layer}", fontsize=10)
        below.set(xlabel="share mixed in", ylim=(-0.02, 1.02))
    slopes = [np.asarray(line.get_ydata()) for ax in axes[0] for line in ax.lines]  # and -1
    style.hide_rounding(axes[0, 0], "y", np.concatenate(slopes))
    axes[0, 0].set_ylabel("slope of $V$ on $M$")
    axes[1, 0].set_ylabel("$R^2$")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def bends(part: AffineMoments, *, top: int = 12) -> Figure:
    """Which dimensions turn the line away from slope -1, and how few bring it back.

    Left: the ``top`` dimensions with the largest bend (see :meth:`AffineMoments.by_dimension`),
    with their γ and β. Right: the slope after the first dimensions, in order of their bend, are
    given the median ``|γ|`` and no β (:meth:`AffineMoments.without`), against their number.

    Args:
        part: moments of one layer, from :func:`embvar_kit.affine_moments`.
        top: how many dimensions to name.
    """
    table = part.by_dimension()
    named, d = table.head(top), len(table)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10.5, 4.2), width_ratios=(1.25, 1), layout="constrained"
    )
    left.barh(range(len(named)), named["bend"], color=style.model_colour(0))
    texts = [
        rf"{row.dimension}: γ {row.gamma:.2f}, β {row.beta:+.2f}" for row in named.itertuples()
    ]
    left.set_yticks(range(len(named)), texts, fontsize=8)
    left.invert_yaxis()
    left.axvline(0, color="black", linewidth=0.8)
    left.set(xlabel="bend: part of (slope + 1)", ylabel="dimension")
    left.set_title(f"layer {part.layer}: all {d} bends add up to {table['bend'].sum():.2f}")
    least = [0, *np.unique(np.geomspace(1, d, 24).round().astype(int))]
    slopes = [part.without(table["dimension"].head(k)).slope for k in least]
    right.plot(least, slopes, "o-", color=style.model_colour(0), markersize=4)
    right.axhline(-1, color="black", linestyle=":", linewidth=1)
    style.hide_rounding(left, "x", np.append(named["bend"], 0), scale=1.0)  # a part of a slope
    style.hide_rounding(right, "y", np.append(slopes, -1))
    right.set_xscale("symlog", linthresh=1)
    right.set_xticks([0, 1, 10, 100, d], ["0", "1", "10", "100", str(d)])
    right.set(xlabel=f"dimensions set to γ = {part.common:.2f}, β = 0", xlim=(-0.1, 1.3 * d))
    right.set_ylabel("slope of $V$ on $M$")
    right.xaxis.set_minor_locator(plt.NullLocator())
    return figure


def training_curves(losses: pd.DataFrame, references: Mapping[str, float] | None = None) -> Axes:
    """Losses of the twins against the tokens they have seen.

    Args:
        losses: a table with columns ``twin, tokens, train, held_out`` (nats per token), from
            :func:`embvar_kit.twin_losses`.
        references: losses to compare with, by name, drawn as horizontal lines.
    """
    ax = style.new_axes(None, 7.5, 4.2)
    groups = losses.groupby("twin", sort=False)
    for look, (name, own) in zip(style.looks(groups.ngroups), groups, strict=True):
        train = own.dropna(subset=["train"])
        asked = own.dropna(subset=["held_out"])
        ax.plot(train["tokens"] / 1e6, train["train"], color=look["color"], linewidth=1, alpha=0.5)
        ax.plot(asked["tokens"] / 1e6, asked["held_out"], label=str(name), **look)
    for name, value in (references or {}).items():
        ax.axhline(value, color=COLOURS["Q"], linestyle=":", linewidth=1)
        end = ax.get_xlim()[1]
        ax.text(end, value, f"{name} ", ha="right", va="bottom", fontsize=8, color=COLOURS["Q"])
    ax.set(xlabel="million tokens seen", ylabel="loss in nats a token")
    ax.legend(framealpha=1, edgecolor="none", title="held out (train: pale)")  # over the lines
    return ax


def twins_by_layer(tradeoffs: pd.DataFrame, *, site: str = "hidden", tokens: str = "all") -> Figure:
    """Slope and R² of V on M in the twins, layer by layer, over their seeds.

    Above, the trained twins; below, the same before training. A line joins the means over the
    seeds, and a bar reaches from the smallest to the largest of them. Panels that stand one above
    the other have the same axis, so that trained and untrained twins can be compared.

    Args:
        tradeoffs: a table from :func:`embvar_kit.twin_tradeoffs`.
        site: its rows of this site; twins without a normalization have ``"hidden"`` alone.
        tokens: ``"all"``, or ``"single entry"`` for those of a single vocabulary entry.

    Raises:
        StatisticsError: if the table has no row of this site and choice of tokens.
    """
    table = tradeoffs[(tradeoffs["site"] == site) & (tradeoffs["tokens"] == tokens)]
    if table.empty:
        raise StatisticsError(f"The table has no rows of site {site!r} and tokens {tokens!r}.")
    names = table["twin"].unique()
    figure, axes = style.panels(4, 2, 4.4, 3.0)
    choices = [(weights, column) for weights in ("trained", "untrained") for column in TWIN_FITS]
    for ax, (weights, column) in zip(axes, choices, strict=True):
        own = table[table["weights"] == weights]
        for name, look in zip(names, style.looks(len(names)), strict=True):
            seeds = own[own["twin"] == name].groupby("layer")[column]
            low, mean, high = seeds.min(), seeds.mean(), seeds.max()
            # The mean of equal numbers may lie a rounding away from them.
            ends = (mean - low).clip(lower=0), (high - mean).clip(lower=0)
            ax.errorbar(mean.index, mean, ends, label=name, capsize=2, **look)
        ax.set_title(f"{TWIN_FITS[column]}, {weights}", fontsize=10)
        style.depth_axis(ax, "layer")
        if column == "slope":
            ax.axhline(-1, color="black", linestyle=":", linewidth=1)
        else:
            ax.set_ylim(-0.02, 1.02)
    ends = [end for ax in axes[::2] for end in ax.get_ylim()]
    for ax in axes[::2]:
        ax.set_ylim(min(ends), max(ends))
        style.hide_rounding(ax, "y", np.append(table["slope"], -1))
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
    )
    return figure
