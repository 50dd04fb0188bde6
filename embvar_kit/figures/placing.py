"""Where labels go beside their points, so that each can be read and seen to belong to one.

All lengths are in points (1/72 inch), and the vertical axis points up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_DISTANCES = (6, 14, 26, 40, 58, 80, 106)  # from a point to the edge of its label
_DIRECTIONS = np.radians([0, 180, 90, 270, 45, 135, 225, 315, 22, 158, 202, 338, 67, 113, 247, 293])
_POINT = 3.0  # half the width of a labelled point
_SWEEPS = 8
_MANY = 40  # labels, whose time grows with the cube of their number

# What is wrong with a place. A label outside the plot cannot be read, nor can one under another;
# a line through a label or a point can. Near places come before far ones, and the right first.
_OUTSIDE, _COVERS, _CROSSES, _FARTHER, _TURNED = 300.0, 100.0, 20.0, 1.0, 0.05


class Placed(NamedTuple):
    """Where labels go.

    Attributes:
        centres: ``(N, 2)`` the middle of each label.
        far: ``(N,)`` whether it is so far from its point that a line has to join them.
    """

    centres: np.ndarray
    far: np.ndarray


def place(spots: np.ndarray, widths: np.ndarray, height: float, inside: np.ndarray) -> Placed:
    """Places of labels that cover neither each other nor a labelled point, if there is room.

    Each label takes in turn the best of its places beside the others' labels, the most crowded
    point first, until none moves. The same points give the same places.

    Args:
        spots: ``(N, 2)`` the labelled points.
        widths: ``(N,)`` the labels' widths.
        height: their height.
        inside: ``(4,)`` left, bottom, right and top of the plot.
    """
    number = len(spots)
    half = np.column_stack([widths, np.full(number, height)]) / 2
    apart = np.linalg.norm(spots[:, None] - spots, axis=2)
    order = np.argsort(np.sort(apart, axis=1)[:, 1 : 1 + min(5, number - 1)].sum(axis=1))
    around = np.column_stack([np.cos(_DIRECTIONS), np.sin(_DIRECTIONS)])
    rings = np.repeat(np.arange(len(_DISTANCES)), len(around))
    turns = np.tile(np.arange(len(around)), len(_DISTANCES))
    away = np.array(_DISTANCES)[rings, None]
    # (N, K, 2): the middle of each label at each of its places
    choices = spots[:, None] + around[turns] * (away + half[:, None])
    far = rings > 0
    fixed = np.tile(_FARTHER * rings + _TURNED * turns, (number, 1))
    for own in range(number):
        points = np.delete(spots, own, axis=0)
        fixed[own] += _OUTSIDE * _outside(choices[own], half[own], inside)
        fixed[own] += _COVERS * _overlaps(choices[own], half[own], points, _POINT).sum(axis=1)
        hit = _crossed(spots[own], choices[own], points, _POINT).sum(axis=1)
        fixed[own] += _CROSSES * far * hit
    at = np.full(number, -1)  # the place of each label; -1 for none as yet
    for _ in range(_SWEEPS if number <= _MANY else 1):
        before = at.copy()
        for own in order:
            others = np.flatnonzero((at >= 0) & (np.arange(number) != own))
            centres, of_others, theirs = choices[others, at[others]], half[others], far[at[others]]
            covered = _overlaps(choices[own], half[own], centres, of_others).sum(axis=1)
            crossed = far * _crossed(spots[own], choices[own], centres, of_others).sum(axis=1)
            lines = spots[others][theirs], centres[theirs]
            for start, end in zip(*lines, strict=True):
                crossed += _crossed(start, end[None], choices[own], half[own])[0]
            at[own] = int(np.argmin(fixed[own] + _COVERS * covered + _CROSSES * crossed))
        if (at == before).all():
            break
    return Placed(choices[np.arange(number), at], far[at])


def _outside(centres: np.ndarray, half: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """``(K,)`` over how many edges of the plot each box goes."""
    return (np.hstack([inside[:2] - centres + half, centres + half - inside[2:]]) > 0).sum(axis=1)


def _overlaps(
    centres: np.ndarray, half: np.ndarray, others: np.ndarray, of_others: np.ndarray | float
) -> np.ndarray:
    """``(K, B)`` whether each box overlaps each of the others."""
    return (np.abs(centres[:, None] - others) < half + of_others).all(axis=2)


def _crossed(
    start: np.ndarray, ends: np.ndarray, centres: np.ndarray, half: np.ndarray | float
) -> np.ndarray:
    """``(K, B)`` whether the lines from a point to each end run through each box."""
    along = (ends - start)[:, None]
    along = np.where(along == 0, 1e-9, along)
    edges = np.stack([centres - half - start, centres + half - start]) / along[:, None]
    enters, leaves = edges.min(axis=1).max(axis=2), edges.max(axis=1).min(axis=2)
    return (enters <= leaves) & (leaves >= 0) & (enters <= 1)
