"""The quizzes of the notebooks: their form, and every number that a question rests on.

A quiz is a Markdown cell with the tag ``quiz``. A question is a line of bold text, and each of its
choices is a ``<details>`` element: the summary is the choice, and the answer opens below it. There
is no script in it, so that it works in JupyterLab, on a static page and in print.

A question that gives or asks for numbers has a check, a function that computes them anew: from the
definitions, with the kit, or from what a cell of the notebook prints. It says which numbers the
right choice and the wrong ones have to name, and which others may stand in the answers. At the end
each of these numbers is changed, to see that the check notices.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from brute_force import SequentialLoop, two_pass
from paths import ROOT
from scipy.stats import ncx2

import embvar_kit as ek
from embvar_kit.errors import EmbvarError
from embvar_kit.statistics.evidence import jackknife

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))

QUESTION = re.compile(r"^\*\*(\d)\. (?P<text>.+)\*\*$", re.M)
CHOICE = re.compile(  # the empty lines are what lets Markdown and formulas in an answer be rendered
    r"^<details>\n<summary>(?P<letter>[A-D])\. (?P<text>.+)</summary>\n"
    r"\n\*\*(?P<verdict>Right|No)\.\*\* (?P<answer>.+)\n\n</details>$",
    re.M,
)
SECTIONS = re.compile(r"[Ss]ections? (\d+\.\d+(?:(?:, | and )\d+\.\d+)*)")
NO_NUMBERS = re.compile(  # names, subscripts, exponents of symbols, tags
    SECTIONS.pattern
    + r"|layers? \d+(?!\.?\d)(?: (?:and|to) \d+(?!\.?\d))*"
    + r"|notebook \d+|_\{[^}]*\}|(?<=\w)\^\d|<[^>]+>"
)
NUMBER = re.compile(
    r"(?<![\w.^])(?:(?<![\w)}])[-−])?(?:\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?(?:/\d+)?)"
    r"|(?<=\^\{)[-−]?\d+"
)
# Such a number, unless it is that of a section, comes from a measurement or a computation.
MEASURED = re.compile(r"\d\.\d|\d,\d{3}|\d ?%")


@dataclass(frozen=True)
class Choice:
    """What can be chosen, whether it is right, and the answer to it."""

    letter: str
    text: str
    right: bool
    answer: str


@dataclass(frozen=True)
class Question:
    """A question of the quiz of a notebook, with its choices in order."""

    notebook: str
    number: int
    text: str
    choices: tuple[Choice, ...]

    @property
    def given(self) -> list[float]:
        return values(self.text)

    @property
    def right(self) -> Choice:
        (choice,) = (choice for choice in self.choices if choice.right)
        return choice


@dataclass(frozen=True)
class Expected:
    """The numbers of the right choice, of the wrong ones in order, and others in the answers."""

    right: Sequence[float]
    wrong: Sequence[Sequence[float]]
    others: Sequence[float] = ()


CHECKS: dict[tuple[str, int], Callable[[Question], Expected]] = {}


def check(notebook: str, number: int):
    """Register the function that computes the numbers of this question."""

    def register(function: Callable[[Question], Expected]) -> Callable[[Question], Expected]:
        assert (notebook, number) not in CHECKS
        CHECKS[notebook, number] = function
        return function

    return register


# --- reading the notebooks -----------------------------------------------------------------------


@cache
def cells(notebook: str) -> list[dict]:
    (path,) = (path for path in NOTEBOOKS if path.stem.startswith(f"{notebook}_"))
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def names() -> list[str]:
    """The numbers of the notebooks, as their files' names begin: "01", "05b"."""
    return [path.stem.partition("_")[0] for path in NOTEBOOKS]


@cache
def sections() -> set[str]:
    """The numbers of all sections of all notebooks: "2.4"."""
    return {
        number
        for notebook in names()
        for cell in cells(notebook)
        if cell["cell_type"] == "markdown"
        for number in re.findall(r"^## (\d+\.\d+) ", "".join(cell["source"]), re.M)
    }


def quiz_cells(notebook: str) -> list[dict]:
    return [cell for cell in cells(notebook) if "quiz" in cell["metadata"].get("tags", [])]


@cache
def questions(notebook: str) -> list[Question]:
    (cell,) = quiz_cells(notebook)
    source = "".join(cell["source"])
    starts = list(QUESTION.finditer(source))
    ends = [start.start() for start in starts[1:]] + [len(source)]
    return [
        Question(
            notebook,
            int(start[1]),
            start["text"],
            tuple(
                Choice(found["letter"], found["text"], found["verdict"] == "Right", found["answer"])
                for found in CHOICE.finditer(source, start.end(), end)
            ),
        )
        for start, end in zip(starts, ends, strict=True)
    ]


def output(notebook: str, cell_id: str) -> str:
    """What the cell with this id has printed."""
    (cell,) = (cell for cell in cells(notebook) if cell["id"] == cell_id)
    return "\n".join(
        "".join(shown.get("text", "")) + "".join(shown.get("data", {}).get("text/plain", ""))
        for shown in cell["outputs"]
    )


def row(text: str, start: str) -> list[float]:
    """The numbers behind ``start``, a pattern, in the first printed line that begins with it."""
    found = re.search(rf"^{start}((?:[ :]+-?\d[\d.,]*)+)", text, re.M)
    assert found, f"no line {start!r} in\n{text}"
    return [float(number.replace(",", "")) for number in re.findall(r"-?\d[\d.,]*", found[1])]


def numbers(text: str) -> Iterator[re.Match[str]]:
    """The numbers of a text, without those that are part of a name, as section 2.4 or layer 3."""
    yield from NUMBER.finditer(NO_NUMBERS.sub(lambda name: " " * len(name[0]), text))


def value(number: str) -> float:
    numerator, _, denominator = number.replace("−", "-").replace(",", "").partition("/")
    return float(numerator) / float(denominator or 1)


def values(text: str) -> list[float]:
    return [value(number[0]) for number in numbers(text)]


def agrees(number: str, wanted: float) -> bool:
    """Whether a number is this one: a decimal if it rounds to it, any other exactly."""
    decimals = len(number.partition(".")[2])
    half = 0.5 * 10.0**-decimals if decimals else 1e-6
    return abs(value(number) - wanted) <= half * (1 + 1e-9)


def verify(question: Question) -> None:
    """Fail if a number of the question is not the one that its check computes."""
    expected = CHECKS[question.notebook, question.number](question)
    wrong = [choice for choice in question.choices if not choice.right]
    named = [(question.right, expected.right), *zip(wrong, expected.wrong, strict=True)]
    for choice, wanted in named:
        found = [number[0] for number in numbers(choice.text)]
        assert len(found) == len(wanted) and all(map(agrees, found, wanted)), (choice, wanted)
    known = [*question.given, *expected.others]
    known += [number for _, wanted in named for number in wanted]
    for choice in question.choices:
        for number in numbers(choice.answer):
            assert any(agrees(number[0], one) for one in known), (number[0], choice.answer, known)


def same(given: Sequence[float], printed: Sequence[float]) -> None:
    """The numbers that a question quotes are those that a cell has printed, as it rounds them."""
    np.testing.assert_allclose(given, printed, rtol=0, atol=1e-9)


# --- notebook 1 ----------------------------------------------------------------------------------


@check("01", 1)
def moments_of_two_vectors(question: Question) -> Expected:
    x = np.reshape(question.given, (2, 2))
    Q, M, V = two_pass(x)
    others = [*x.mean(axis=0), math.sqrt(V), *x.var(axis=0), len(x) - 1]
    return Expected((Q, M, V), [(Q, Q, 0), (Q, M, len(x) * V), (Q, M, V / 2)], others)


@check("01", 2)
def a_cloud_moved_to_the_origin(question: Question) -> Expected:
    square = np.array([[3, 1], [3, -1], [5, 1], [5, -1]])  # the one of section 1.2
    Q, M, V = two_pass(square)
    same(question.given, (Q, M, V))
    return Expected((two_pass(square - square.mean(axis=0))[0],), [(0,), (M,), (Q,)])


@check("01", 5)
def width_beside_the_scale_of_a_layer(question: Question) -> Expected:
    shown = re.findall(r"layer \d:  Q +(\S+) +M +(\S+) +V +(\S+)", output("01", "835266bf"))
    Q, _, V = np.array(shown, dtype=float).T
    asked = [1, 4, 6]
    same(question.given, V[asked])
    share = V / Q
    assert f"At layer {asked[np.argmax(share[asked])]}," in question.right.text
    assert Q[asked].argmin() == share[asked].argmax() and V[asked].argmax() == 1
    return Expected((), [(), ()], [*Q[asked], *share[asked]])


# --- notebook 2 ----------------------------------------------------------------------------------


@check("02", 1)
def one_step_of_the_recurrence(question: Question) -> Expected:
    k, Q, new = question.given
    squares = [Q] * int(k)  # any that have this mean
    return Expected((np.mean([*squares, new]),), [((Q + new) / 2,), (Q + new,), ()], [k + 1])


@check("02", 2)
def a_merge_of_two_parts(question: Question) -> Expected:
    n_a, *mean_a, V_a, n_b, x, y, V_b = question.given
    n, means, V = np.array([n_a, n_b]), np.array([mean_a, [x, y]]), np.array([V_a, V_b])
    Q = V + (means**2).sum(axis=1)
    merged = ek.analysis.decompose(n, Q, V, means)
    pooled = n @ V / n.sum()
    apart = ((means[1] - means[0]) ** 2).sum()
    wrong = [(pooled,), (pooled + apart / 4,), (pooled + apart,)]
    half = math.sqrt(apart) / 2
    others = [n.sum(), apart, half, half**2, n_a * n_b / n.sum() ** 2, merged.V_B]
    return Expected((merged.V,), wrong, others)


@check("02", 3)
def digits_that_are_left(question: Question) -> Expected:
    known, base, exponent = question.given
    assert known == round(-math.log10(np.finfo(np.float32).eps)) and base == 10
    rng, errors = np.random.default_rng(0), []
    for _ in range(20):
        y = rng.normal(size=64) + 10 ** (exponent / 2) * rng.normal(size=(50, 64))
        y = y.astype(np.float32)
        loop = SequentialLoop(np.float32)
        loop.update(y, np.zeros(len(y), dtype=int))
        errors.append(abs(loop.V(0) / two_pass(y)[2] - 1))
    left = known + exponent
    assert abs(-math.log10(np.median(errors)) - left) < 0.5
    return Expected((left,), [(known,), (-exponent,), ()], [-known])


@check("02", 4)
def moments_of_few_occurrences(question: Question) -> Expected:
    M, V, n = question.given
    population = math.sqrt(M) + math.sqrt(V) * np.array([-1, 1])
    samples = itertools.product(population, repeat=int(n))  # all of them, equally likely
    _, M_hat, V_hat = np.mean([two_pass(np.array(x)[:, None]) for x in samples], axis=0)
    wrong = [(M, V), (M, V_hat), (M - V / n, V + V / n)]
    return Expected((M_hat, V_hat), wrong, [V / n, M + V])


@check("02", 5)
def an_unbiased_M(question: Question) -> Expected:
    x = np.reshape(question.given, (2, 2))
    Q, M, V = two_pass(x)
    M_tilde, _ = ek.analysis.unbiased(np.array([2]), np.array([M]), np.array([V]))
    assert M_tilde[0] == pytest.approx(x[0] @ x[1])  # the only pair
    return Expected(M_tilde, [(M,), (0,), (Q,)], [V, len(x) - 1])


# --- notebook 3 ----------------------------------------------------------------------------------


@check("03", 1)
def a_string_of_two_entries(question: Question) -> Expected:
    (apart,) = question.given
    V = two_pass(np.array([[0.0], [apart]]))[2]
    return Expected((V,), [(0,), (apart**2,), (apart**2 / 2,)], [apart / 2])


@check("03", 2)
def weights_of_two_tokens(question: Question) -> Expected:
    n = np.array(question.given)
    Q, mean = np.array([1.0, 1.0]), np.zeros((2, 1))
    of_a, of_b = (ek.analysis.decompose(n, Q, V, mean).V_W for V in np.eye(2))
    ratio = (of_a / of_b, 1)
    return Expected(ratio, [ratio, (), ratio], [1])


@check("03", 3)
def labels_permuted(question: Question) -> Expected:
    _, of_layer_2 = re.split(r"^(?=2 +as they are)", output("03", "b6f20d93"), flags=re.M)
    slope, r2, _ = row(of_layer_2, "2 +as they are as measured")
    null_slope, null_r2, _ = row(of_layer_2, " +permuted +as measured")
    unbiased = re.findall(r"^ +unbiased +(\S+) +\S+ +(\S+)$", of_layer_2, re.M)[:2]
    sds = [float(sd) for _, sd in unbiased]
    same(question.given, (slope, null_slope))
    return Expected((), [(), (0,)], [float(unbiased[1][0]), r2, null_r2, *sds])


@check("03", 4)
def without_shared_strings(question: Question) -> Expected:
    _, of_layer_2 = re.split(r"^(?=2 +all tokens)", output("03", "9fcb1536"), flags=re.M)
    _, _, *with_them = row(of_layer_2, "2 +all tokens")
    _, _, *without = row(of_layer_2, " +single entries")
    same(question.given, (with_them[0], without[0]))
    assert with_them[-1] > without[-1]
    return Expected((), [(), (), ()], [*with_them, *without])


@check("03", 5)
def memory_of_a_longer_corpus(question: Question) -> Expected:
    (longer,) = question.given
    assert longer == 10
    shown = re.findall(r"all embeddings (\S+) GB, means (\S+) GB", output("03", "75d01641"))
    embeddings, means = map(float, shown[0])
    return Expected((longer,), [(longer, longer), (), (longer,)], [embeddings, means])


# --- notebook 4 ----------------------------------------------------------------------------------


@check("04", 1)
def a_slope_from_unrelated_Q_and_M(question: Question) -> Expected:
    sd_Q, sd_M, rho = question.given
    one, other = np.array([1, 1, -1, -1]), np.array([1, -1, 1, -1])
    Q = 20 + sd_Q * (rho * one + math.sqrt(1 - rho**2) * other)
    M = 10 + sd_M * one
    fit = ek.analysis.tradeoff(Q, M, Q - M)
    return Expected((fit.slope, fit.r2), [(0, 0), (-1, 1), (-fit.r, fit.r**2)], [fit.r])


@check("04", 2)
def a_line_and_a_far_point(question: Question) -> Expected:
    *first, last, height, far_M, far_V = question.given
    assert first == [0, 1, 2] and height == last and far_M == far_V
    M = np.append(np.arange(last + 1), far_M)
    V = np.append(height - M[:-1], far_V)
    fit = ek.analysis.tradeoff(M + V, M, V, robust=True)
    assert len(M) == 11 and fit.theil_sen == -1
    slopes = (round(fit.slope), fit.theil_sen)
    return Expected(slopes, [(-1,), (1,), slopes[::-1]], [math.comb(11, 2), math.comb(10, 2)])


@check("04", 4)
def a_reliability(question: Question) -> Expected:
    shown = output("04", "d5e17a30")
    of_layer_2 = {name: row(shown, name)[2] for name in ("reliability", "r2")}
    same(question.given, [of_layer_2["reliability"]])
    ends = [row(shown, name)[2] for name in ("slope_low", "slope_high")]
    return Expected((), [(), (), ()], [of_layer_2["r2"], *ends])


@check("04", 5)
def a_slope_that_is_small_and_sure(question: Question) -> Expected:
    shown = output("04", "46c0f2b8")
    slope, low, high, r2 = (row(shown, name) for name in ("slope", "slope_low", "slope_high", "r2"))
    same(question.given, (slope[0], low[0], high[0]))
    assert -1 < min(low)
    return Expected((0,), [(), (-1,), (0,)], [slope[2], r2[2], r2[0]])


# --- notebook 5 ----------------------------------------------------------------------------------


@check("05", 1)
def V_of_standardized_vectors(question: Question) -> Expected:
    d, M = question.given
    h = torch.from_numpy(np.random.default_rng(0).normal(size=(3, int(d))))
    squares = ek.normalization.standardize(h, "LayerNorm").double().square().sum(dim=1)
    Q = round(float(squares.mean()), 2)
    assert output("01", "325a5b5c").endswith(f"{Q:.0f})\n")  # the width of minilm
    return Expected((Q - M,), [(0,), (1,), ()], [Q])


@check("05", 3)
def a_gain_that_all_features_share(question: Question) -> Expected:
    gamma, beta, d = question.given
    assert beta == 0
    M = gamma**2 * np.array([50.0, 100.0, 200.0, 300.0])
    Q = np.full(len(M), gamma**2 * d)
    fit = ek.analysis.tradeoff(Q, M, Q - M)
    wrong = [(-gamma, gamma * d), (-(gamma**2), gamma**2 * d), (1,)]
    return Expected((fit.slope, Q[0]), wrong)


@check("05", 4)
def a_shift_by_beta(question: Question) -> Expected:
    M, V, gamma, square = question.given
    z = np.array([[math.sqrt(M), math.sqrt(V), 0], [math.sqrt(M), -math.sqrt(V), 0]])
    Q, M_y, V_y = two_pass(gamma * z + np.array([0, 0, math.sqrt(square)]))
    wrong = [(M, V), (M, V + square), (M_y, V - square)]
    return Expected((M_y, V_y), wrong, [Q, M + V])


@check("05", 5)
def features_that_are_deleted(question: Question) -> Expected:
    gammas = [row(output("05", "8e6f5b02"), str(feature))[0] for feature in (319, 223, 127)]
    same(question.given * 3, gammas)
    ends = re.findall(r"of the tokens: (\d+)% to (\d+)%", output("05", "ln-026"))[0]
    return Expected((), [(), (), ()], list(map(float, ends)))


# --- notebook 5b ---------------------------------------------------------------------------------


@cache
def twins() -> pd.DataFrame:
    return pd.read_csv(ROOT / "data" / "twins" / "tradeoffs.csv").query("site == 'hidden'")


@check("05b", 1)
def an_untrained_line(question: Question) -> Expected:
    fresh = twins().query("twin == 'post-ln' and weights == 'untrained' and tokens == 'all'")
    assert (fresh["slope"] + 1).abs().max() < 5e-3 and fresh["r2"].min() > 0.995
    norm = torch.nn.LayerNorm(3)  # as it starts
    return Expected((-1, 1), [(), ()], [*norm.weight.tolist(), *norm.bias.tolist()])


@check("05b", 2)
def lengths_of_random_vectors(question: Question) -> Expected:
    d, mean, variance = question.given
    one, all_of_them = (ncx2(k, k * mean**2 / variance, scale=variance) for k in (1, d))
    expected = all_of_them.mean()
    wrong = [(expected, expected), (expected, 0), (one.mean(), one.var())]
    return Expected((expected, all_of_them.std()), wrong, [all_of_them.var()])


@check("05b", 4)
def a_twin_whose_gains_are_frozen(question: Question) -> Expected:
    frozen = twins().query("twin == 'post-ln-frozen' and weights == 'trained'")
    (gamma,) = set(frozen["gamma_min"]) | set(frozen["gamma_max"])
    same(question.given, [gamma])
    slope = frozen.query("tokens == 'single entry'").pivot(index="seed", columns="layer")["slope"]
    assert (slope[6].abs() < 0.5 * slope[[1, 2, 3, 4, 5]].abs().min(axis=1)).all()
    return Expected((), [(), (), ()])


@check("05b", 5)
def what_epsilon_takes_away(question: Question) -> Expected:
    d, times = question.given
    h = math.sqrt(times) * torch.tensor([1.0, -1.0]).repeat(int(d) // 2)  # epsilon is 1
    square = ek.normalization.standardize(h, "LayerNorm", eps=1.0).double().square().sum()
    rest = round(float(square), 2)
    return Expected((rest,), [(d,), (d - rest,), ()], [0, times / (times + 1)])


# --- notebook 6 ----------------------------------------------------------------------------------


@check("06", 1)
def variance_within_and_between(question: Question) -> Expected:
    n_a, *mean_a, V_a, n_b, x, y, V_b, total = question.given
    n, means, V = np.array([n_a, n_b]), np.array([mean_a, [x, y]]), np.array([V_a, V_b])
    assert n.sum() == total
    Q = V + (means**2).sum(axis=1)
    parts = ek.analysis.decompose(n, Q, V, means)
    alike = ek.analysis.decompose(np.ones(2), Q, V, means)
    apart = ((means[1] - means[0]) ** 2).sum()
    wrong = [(alike.V_W, alike.V_B), (parts.V_W, apart), (parts.V_W, parts.V_B + parts.M)]
    common = n / total @ means
    others = [*(n / total), parts.M, *common, *((means - common) ** 2).sum(axis=1)]
    return Expected((parts.V_W, parts.V_B), wrong, others)


@check("06", 2)
def a_share_within_tokens(question: Question) -> Expected:
    same(question.given, [row(output("06", "c81e4d50"), "6")[3]])
    return Expected((), [(), ()])


@check("06", 3)
def labels_at_random(question: Question) -> Expected:
    def of_chance(n: float, T: float) -> float:
        return (T - 1) / (n - 1)

    x = np.array([0.0, 1.0, 4.0, 6.0, 7.0])  # five numbers in two groups, in every order
    shares = []
    for order in itertools.permutations(x):
        groups = np.array(order[:2]), np.array(order[2:])
        within = sum(len(group) / 5 * group.var() for group in groups)
        shares.append(1 - within / x.var())
    assert np.mean(shares) == pytest.approx(of_chance(5, 2))
    n, T = question.given
    chance = of_chance(n, T)
    return Expected((chance,), [(0,), (1 / T,), (1 - chance,)], [1])


@check("06", 4)
def one_far_token(question: Question) -> Expected:
    (p,) = question.given
    square = np.array([1.0, 0.0])  # the far token, and all others on the origin
    parts = ek.analysis.decompose(np.array([p, 1 - p]), square, np.zeros(2), square[:, None])
    M, V_B = parts.M / parts.Q, parts.V_B / parts.Q
    return Expected((M, V_B), [(V_B, M), (p**2, V_B), (1, 0)])


# --- notebook 7 ----------------------------------------------------------------------------------


@check("07", 1)
def a_mean_cosine(question: Question) -> Expected:
    x = np.reshape(question.given, (3, 2))
    cosines = [one @ other for one, other in itertools.combinations(x, 2)]
    _, M, V = two_pass(x)
    n = len(x)
    assert np.mean(cosines) == pytest.approx(M - V / (n - 1))
    return Expected((np.mean(cosines),), [(M,), (0,), (min(cosines),)], [V, n - 1, 1])


@check("07", 2)
def two_opposite_directions(question: Question) -> Expected:
    n, n_one, *one, n_other, x, y = question.given
    assert n == n_one + n_other
    vectors = np.repeat([one, [x, y]], [int(n_one), int(n_other)], axis=0)
    _, M, V = two_pass(vectors)
    cosine = M - V / (n - 1)
    assert abs(cosine) < 0.01 and np.linalg.matrix_rank(vectors) == 1
    return Expected((0,), [(0,), (1,)], [cosine, *(vectors @ vectors[0])[[0, -1]]])


@check("07", 3)
def cosines_and_dot_products(question: Question) -> Expected:
    same(question.given, row(output("07", "ef882e95"), "5"))
    n = float(re.match(r"[\d,]+", output("07", "6685b398"))[0].replace(",", ""))
    return Expected((), [(), (), ()], [n, 1])


@check("07", 4)
def what_five_dimensions_hold(question: Question) -> Expected:
    held = re.findall(
        r"^layer 2: five dimensions hold (\S+) of M and (\S+) of V", output("07", "98bf0fb5"), re.M
    )
    d = int(re.findall(r"(\d+)\)$", output("01", "325a5b5c").strip())[0])
    M, V = map(float, held[0])
    same(question.given, (d, M, V))
    assert round(V / (5 / d)) == 3
    return Expected((100 * V,), [(100 * M,), (), ()], [5 / d])


@check("07", 5)
def self_similarity_and_baseline(question: Question) -> Expected:
    table = output("07", "6685b398")
    baseline, similar, adjusted = (
        [row(table, name)[layer] for layer in (3, 5)]
        for name in ("anisotropy", "self_similarity", "adjusted")
    )
    same(question.given, [*similar, *baseline])
    assert adjusted[1] < adjusted[0]
    return Expected((), [(), ()], adjusted)


# --- notebook 8 ----------------------------------------------------------------------------------


@check("08", 1)
def a_word_of_two_tokens(question: Question) -> Expected:
    x = np.reshape(question.given, (2, 2))
    Q, M, V = two_pass(x)
    norms = np.linalg.norm(x, axis=1)
    wrong = [(Q,), (norms.mean() ** 2,), (2 * Q,)]
    return Expected((M,), wrong, [*norms**2, *x.mean(axis=0), norms.mean(), V])


def words_by_subwords() -> dict[int, list[float]]:
    """Of words of 1, 2 and 3 tokens at layer 2: number, cv_Q, slope and its interval, R²."""
    shown = output("08", "b0a1e7f2").partition("n_tokens")[2].partition("null_slope")[0]
    _, *parts = re.split(r"^(?=[123] )", shown, flags=re.M)
    return {int(part[0]): row(part, " +2") for part in parts}


@check("08", 2)
def a_line_hidden_by_subwords(question: Question) -> Expected:
    cv_Q, slope, _, _, r2, of_tokens, token_slope, *_ = row(output("08", "4ee19e31"), "2")
    same(question.given, (slope, r2, round(token_slope)))
    _, _, one_slope, _, _, one_r2 = words_by_subwords()[1]
    return Expected((), [(), (), ()], [cv_Q, of_tokens, one_slope, one_r2])


@check("08", 3)
def words_of_one_token(question: Question) -> Expected:
    _, of_layer_2 = re.split(r"^(?=2 +all tokens)", output("03", "9fcb1536"), flags=re.M)
    same(question.given, [words_by_subwords()[1][2], row(of_layer_2, "2 +all tokens")[1]])
    same(question.given[:1], [row(of_layer_2, " +single entries")[1]])
    return Expected((), [(), ()])


@check("08", 4)
def words_of_three_tokens(question: Question) -> Expected:
    n, _, slope, low, high, _ = words_by_subwords()[3]
    same(question.given, (slope, low, high, n))
    assert low < 0 < high
    return Expected((), [(), ()], [0, 10])  # the cut of section 8.6


# --- notebook 9 ----------------------------------------------------------------------------------


@check("09", 2)
def intervals_of_several_layers(question: Question) -> Expected:
    layers, miss = question.given
    assert layers == len(row(output("09", "a40d85b6"), "layer"))
    one_in = round(1 / miss)
    wrong = [(1, one_in), (layers, one_in), (1, one_in + layers)]
    others = [layers * miss, miss / layers, 1 / (one_in + layers)]
    return Expected((1, round(layers / miss)), wrong, others)


@check("09", 3)
def which_question_is_not_passed(question: Question) -> Expected:
    shown = output("09", "a40d85b6")
    asked = ("slope_high", "sd_M_low", "null_sd_M", "reliability", "reliability_low")
    slope, spread, null_spread, reliability, least = (row(shown, name)[5] for name in asked)
    others = {name: row(shown, name)[5] for name in ("slope_iv_high", "null_slope", "r2")}
    same(question.given, (slope, reliability))
    assert slope < 0 and spread > null_spread and reliability > 0.5 and least > 0
    assert others["slope_iv_high"] > 0 and "slope_iv_high" in question.right.text
    return Expected((0,), [(), (), ()], [spread, null_spread, *others.values()])


@check("09", 5)
def a_slope_of_two_texts(question: Question) -> Expected:
    best = re.findall(r"best falling line +2 +\S+ +\S+ +(\S+)", output("09", "f35a6e08"))
    same(question.given, list(map(float, best[:2])))
    shown = output("09", "9f71b406")
    counts = re.findall(r"([\d,]+) (?:sentences|tokens occur)", shown)
    return Expected((), [(), (-1,)], [*(value(count) for count in counts), 10])


# --- notebook 10 ---------------------------------------------------------------------------------


@check("10", 2)
def what_occurrences_count_for(question: Question) -> Expected:
    n, shards, share = question.given
    chance = (shards - 1) / n
    effect = share / chance
    return Expected((n / effect,), [(n,), (share * n,), (shards,)], [chance, effect, 1])


@check("10", 3)
def a_jackknife_of_four(question: Question) -> Expected:
    shards, *slopes = question.given
    assert shards == len(slopes)
    deviations = np.array(slopes) - np.mean(slopes)
    sd = np.std(slopes, ddof=1)
    wrong = [(sd / math.sqrt(shards),), (sd,), (np.ptp(slopes),)]
    others = [np.mean(slopes), *deviations**2, (deviations**2).sum(), shards - 1, 1]
    return Expected((float(jackknife(slopes)),), wrong, others)


@check("10", 5)
def the_size_of_a_shard(question: Question) -> Expected:
    def size(tokens: float, layers: float, d: float, counts: float) -> float:
        return tokens * (layers * (per_feature * d + per_token) + counts) / unit

    per_feature, per_token, counts, unit, tokens, layers, d = question.given
    shown = re.findall(
        r"^(\S+) tokens, (\d+) layers, (\d+) features: (\S+) MB", output("10", "7d763fb9"), re.M
    )
    *shape, megabytes = map(value, shown[0])
    assert round(size(*shape, counts) / 1000, 1) == megabytes and unit == 1000
    right, *wrong = ((size(tokens, layers, d, c),) for c in (counts, 0, layers * counts))
    return Expected(right, [*wrong, ()], [per_feature * d + per_token])


# --- the tests -----------------------------------------------------------------------------------


def each_notebook(function):
    return pytest.mark.parametrize("notebook", names())(function)


@each_notebook
def test_a_quiz_stands_before_the_exercises(notebook):
    (cell,) = quiz_cells(notebook)
    assert cell["cell_type"] == "markdown" and cell["id"] == f"quiz-{notebook}"
    at = cells(notebook).index(cell)
    assert "".join(cells(notebook)[at + 1]["source"]).startswith("## Exercises")
    ids = [cell["id"] for cell in cells(notebook)]
    assert len(set(ids)) == len(ids)


@each_notebook
def test_a_quiz_is_questions_and_choices_and_nothing_else(notebook):
    """What is written in another way would not be rendered as meant, or not be tested here."""
    source = "".join(quiz_cells(notebook)[0]["source"])
    rest = QUESTION.sub("", CHOICE.sub("", source))
    heading, introduction, *rules = [line for line in rest.splitlines() if line]
    assert heading == "## Quiz" and introduction[0].isalpha() and rules == ["---"] * 5
    assert "<script" not in source and "http" not in source


@each_notebook
def test_five_questions_with_three_or_four_choices_and_one_right(notebook):
    assert [question.number for question in questions(notebook)] == [1, 2, 3, 4, 5]
    for question in questions(notebook):
        letters = "".join(choice.letter for choice in question.choices)
        assert letters in ("ABC", "ABCD"), question.text
        assert sum(choice.right for choice in question.choices) == 1, question.text
        assert len({choice.text for choice in question.choices}) == len(letters)
        for choice in question.choices:  # a summary is HTML, where nothing renders Markdown
            assert not re.search(r"[$*`\\]", choice.text), choice.text


@each_notebook
def test_each_answer_refers_to_sections_and_all_of_them_exist(notebook):
    for question in questions(notebook):
        for choice in question.choices:
            assert SECTIONS.search(choice.answer), choice.answer
    named = " ".join(SECTIONS.findall("".join(quiz_cells(notebook)[0]["source"])))
    assert set(re.findall(r"\d+\.\d+", named)) <= sections()


@each_notebook
def test_the_right_choice_is_not_known_by_its_place_or_length(notebook):
    places = [question.right.letter for question in questions(notebook)]
    assert len(set(places)) >= 3, places
    longest = [
        len(question.right.text) == max(len(choice.text) for choice in question.choices)
        for question in questions(notebook)
    ]
    assert sum(longest) <= 3


def test_each_place_is_right_about_as_often_as_another():
    rights = [question.right.letter for name in names() for question in questions(name)]
    assert max(Counter(rights).values()) <= 0.4 * len(rights)


@each_notebook
def test_at_least_two_questions_rest_on_numbers_and_all_that_quote_some_are_checked(notebook):
    checked = {number for name, number in CHECKS if name == notebook}
    assert len(checked) >= 2
    assert checked <= {question.number for question in questions(notebook)}
    for question in questions(notebook):
        texts = [question.text, *(f"{one.text} {one.answer}" for one in question.choices)]
        if MEASURED.search(SECTIONS.sub("", " ".join(texts))):
            assert question.number in checked, question.text


@pytest.mark.parametrize(("notebook", "number"), CHECKS)
def test_numbers_are_those_that_are_computed(notebook, number):
    verify(questions(notebook)[number - 1])


def changed(question: Question) -> Iterator[tuple[str, Question]]:
    """The question with one of its numbers changed, for each of them."""

    def next_digit(found: re.Match[str]) -> str:
        return found[0][:-1] + str(int(found[0][-1]) + 1)

    def another(found: re.Match[str]) -> str:  # an answer may name any of several numbers
        return re.sub(r"\d", r"7\g<0>", found[0], count=1)

    def each(text: str, change: Callable[[re.Match[str]], str]) -> Iterator[str]:
        for found in numbers(text):
            yield text[: found.start()] + change(found) + text[found.end() :]

    for text in each(question.text, next_digit):
        yield text, replace(question, text=text)
    for at, choice in enumerate(question.choices):
        others = [replace(choice, text=text) for text in each(choice.text, next_digit)]
        others += [replace(choice, answer=text) for text in each(choice.answer, another)]
        for other in others:
            choices = (*question.choices[:at], other, *question.choices[at + 1 :])
            yield f"{other.text} {other.answer}", replace(question, choices=choices)


@pytest.mark.parametrize(("notebook", "number"), CHECKS)
def test_a_changed_number_is_noticed(notebook, number):
    variants = list(changed(questions(notebook)[number - 1]))
    assert variants
    for text, variant in variants:
        try:
            verify(variant)
        except (AssertionError, ValueError, EmbvarError):
            continue
        pytest.fail(f"not noticed: {text}")


def test_numbers_are_told_from_names():
    text = (
        r"At layer 2 (sections 3.6 and 4.7) $R^2$ is 0.93, $x_{k+1}$ is -4/5, −1,234 or $10^{-5}$"
    )
    assert values(text) == [0.93, -0.8, -1234, 10, -5]
    assert agrees("0.93", 0.9274) and not agrees("0.93", 0.9249) and not agrees("9", 9.3)
