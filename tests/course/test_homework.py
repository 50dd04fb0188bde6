"""The homework grades itself: right answers earn all points, wrong ones what they deserve."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from textwrap import dedent

import nbformat
import pytest
from bs4 import BeautifulSoup
from paths import ROOT

COURSE = ROOT / "notebooks" / "course"
PAGE = COURSE / "homework.md"
SOURCES = {path.stem: path for path in sorted((COURSE / "homework").glob("*.ipynb"))}
SOLUTION = re.compile(r"^ *### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION", re.M | re.S)
HIDDEN = re.compile(r"^ *### BEGIN HIDDEN TESTS\n(.*?)^ *### END HIDDEN TESTS", re.M | re.S)

WRONG = {
    # By assignment and kind: what each changed answer says instead; then, by test, the points left
    # and what the message has to name. All other tests earn their full points.
    ("1_variance_formula", "n and n - 1 mixed up"): (
        {
            "e1-moments": """
                def moments(x):
                    mu = x.mean(axis=0)
                    V = ((x - mu) ** 2).sum() / (len(x) - 1)
                    return (x**2).sum(axis=1).mean(), mu @ mu, V
            """,
            "e3-merge": """
                def merge(a, b):
                    (n_a, mu_a, V_a), (n_b, mu_b, V_b) = a, b
                    n, delta = n_a + n_b, mu_b - mu_a
                    S = (n_a - 1) * V_a + (n_b - 1) * V_b + n_a * n_b / n * (delta @ delta)
                    return n, mu_a + n_b / n * delta, S / (n - 1)
            """,
            "e4-unbiased": """
                def unbiased(n, M, V):
                    n = np.where(n > 1, n, np.nan)
                    return M - V / n, V * (n - 1) / n
            """,
        },
        {
            "e1-V": (0, "n - 1 was used where the paper divides by n"),
            "e3-V": (0, "n - 1 was used where the paper divides by n"),
            "e4-V": (0, "n and n - 1 have changed places"),
            "e4-M": (0, "V/n was taken off, with the measured V, which is itself too small"),
        },
    ),
    ("1_variance_formula", "V by subtraction, and two that do not run"): (
        {
            "e1-moments": """
                def moments(x):
                    x = x.astype(np.float32)
                    mu = x.mean(axis=0)
                    Q, M = (x**2).sum(axis=1).mean(), mu @ mu
                    return Q, M, Q - M
            """,
            "e4-unbiased": "def unbiased(n, M, V)",
            "e5-samples": "M_of = None",
        },
        {
            "e1-V": (0, "Was V taken as Q - M?"),
            "e4-V": (0, "the cell e4-unbiased stopped: SyntaxError: expected ':' (line 1)"),
            "e4-M": (0, "the cell e4-unbiased stopped: SyntaxError: expected ':' (line 1)"),
            "e5-average": (0, "name 'M_tilde_of' is not defined. It is misspelt"),
        },
    ),
    ("1_variance_formula", "fitted to the visible tests"): (
        {
            "e1-moments": """
                def moments(x):
                    return 34 / 3, 8.0, 10 / 3
            """,
            "e3-merge": """
                def merge(a, b):
                    n = a[0] + b[0]
                    V = (a[0] * a[2] + b[0] * b[2]) / n
                    return n, (a[0] * a[1] + b[0] * b[1]) / n, V
            """,
            # Dividing by zero gives the NaN that is asked for; the warning costs nothing.
            "e4-unbiased": """
                def unbiased(n, M, V):
                    return M - V / (n - 1), V * n / (n - 1)
            """,
            "e5-pair": "pair = np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0]])",
            "e5-samples": """
                def M_tilde_of(samples):
                    n, mu = samples.shape[1], samples.mean(axis=1)
                    V = samples.var(axis=1).sum(axis=1)
                    return np.maximum((mu**2).sum(axis=1) - V / (n - 1), 0)
            """,
        },
        {
            "e1-Q-and-M": (0, "Q of 7 vectors with 5 features is not right. It came out as 11.333"),
            "e1-V": (0, "V of 7 vectors with 5 features is not right"),
            "e3-V": (0, "the squared distance of the two means is missing"),
            "e5-negative": (0, "which is not negative"),
            "e5-average": (0, "negative values set to 0"),
        },
    ),
    ("2_one_pass", "V by subtraction in float32"): (
        {
            "e4-accurate": """
                def accurate_V(batches):
                    n = 0
                    for batch in batches:
                        if not n:
                            mu, Q = np.zeros(batch.shape[1], dtype=np.float32), np.float32(0)
                        for x in batch:
                            mu = (n * mu + x) / np.float32(n + 1)
                            Q = (n * Q + x @ x) / np.float32(n + 1)
                            n += 1
                    return Q - mu @ mu
            """,
        },
        {
            "e4-narrow": (0, "V by subtraction in float32"),
            "e4-last-bit": (0, "Take deviations from a mean before you square"),
        },
    ),
    ("2_one_pass", "several mistakes"): (
        {
            "e1-step": """
                def step(state, x):
                    k, mu, Q = state
                    return k + 1, (k * mu + x) / (k + 1), (k * Q + x @ x) / (k + 1)


                def M_and_V(state):
                    k, mu, Q = state
                    return mu @ mu, (Q - mu @ mu) * k / (k - 1)
            """,
            "e2-batch": """
                def batch_step(state, batch):
                    k, mu, Q = state
                    k, seen = k + len(batch), 1 if k else 0
                    mu = (seen * mu + batch.mean(axis=0)) / (seen + 1)
                    return k, mu, (seen * Q + (batch**2).sum(axis=1).mean()) / (seen + 1)
            """,
            "e3-subtraction": """
                def V_by_subtraction(x):
                    x = x.astype(np.float64)
                    mu = x.mean(axis=0)
                    return np.float32((x**2).sum(axis=1).mean() - mu @ mu)
            """,
            "e3-ratio": "ratio = 1e-3",
            "e4-accurate": """
                def accurate_V(batches):
                    n, total, squares = 0, 0.0, 0.0
                    for batch in batches:
                        batch = batch.astype(np.float64)
                        n, total = n + len(batch), total + batch.sum(axis=0)
                        squares += (batch**2).sum()
                    mu = total / n
                    return squares / n - mu @ mu
            """,
        },
        {
            "e1-M-and-V": (0, "n - 1 was used where the paper divides by n"),
            "e2-batches": (0, "every batch weighs the same"),
            "e2-empty": (0, "this is NaN, from 0/0"),
            "e3-single": (0, "something was computed in double precision"),
            "e3-breaks": (0, "subtraction is still right"),
            "e4-last-bit": (0, "even in double precision"),
        },
    ),
    ("2_one_pass", "what lies between is missing"): (
        {
            "e1-step": """
                def step(state, x):
                    k, mu, Q = state
                    return k + 1, mu + x / (k + 1), Q + x @ x / (k + 1)


                def M_and_V(state):
                    k, mu, Q = state
                    return mu @ mu, Q - mu @ mu
            """,
            "e2-batch": """
                def batch_step(state, batch):
                    k, mu, Q = state
                    n = k + len(batch)
                    mu = (k * mu + batch.sum(axis=0)) / n
                    return n, mu, (k * Q + (batch**2).sum()) / n
            """,
            # Means over all rows are as right as the recurrence.
            "e3-subtraction": """
                def V_by_subtraction(x):
                    mu = x.mean(axis=0)
                    return (x**2).sum(axis=1).mean() - mu @ mu
            """,
            "e4-accurate": """
                def accurate_V(batches):
                    n, S = 0, 0.0
                    for batch in batches:
                        batch = batch.astype(np.float64)
                        n, S = n + len(batch), S + ((batch - batch.mean(axis=0)) ** 2).sum()
                    return S / n
            """,
        },
        {
            "e1-mean": (0, "was added to the whole of the old mean"),
            "e1-Q": (0, "was added to the whole of the old Q"),
            "e2-empty": (0, "an empty batch leaves the state as it is"),
            "e4-wide": (0, "what lies between the batches is missing"),
            "e4-narrow": (0, "what lies between the batches is missing"),
            "e4-last-bit": (0, "What lies between the batches is missing"),
        },
    ),
    ("2_one_pass", "all batches kept"): (
        {
            "e2-batch": """
                def batch_step(state, batch):
                    for x in batch:
                        state = step(state, x)
                    return state
            """,
            "e3-ratio": "# YOUR CODE HERE\nraise NotImplementedError()",
            "e4-accurate": """
                def accurate_V(batches):
                    x = np.concatenate(list(batches)).astype(np.float64)
                    return ((x - x.mean(axis=0)) ** 2).sum(axis=1).mean()
            """,
        },
        {
            "e2-whole": (0, "taken one by one"),
            "e3-breaks": (0, "not answered yet"),
            "e4-wide": (0, "only the one at hand may be kept"),
        },
    ),
    ("3_tradeoff", "tokens weighted by their counts"): (
        {
            "e1-line": """
                (var_M, cov), (_, var_V) = np.cov(M, V, aweights=n)
                slope, r2 = cov / var_M, cov**2 / var_M / var_V
            """,
        },
        {
            "e1-slope": (0, "tokens were weighted by their counts; the regression has one point"),
            "e1-r2": (0, "tokens were weighted by their counts; the regression has one point"),
        },
    ),
    ("3_tradeoff", "several mistakes"): (
        {
            "e1-line": """
                slope = np.polyfit(V, M, 1)[0]
                r2 = abs(np.corrcoef(V, M)[0, 1])
            """,
            "e2-parts": "r, rho = M.std() / Q.std(), np.corrcoef(Q, M)[0, 1]",
            "e3-null": """
                null_slope = np.polyfit(null_M, null_V, 1)[0]
                sd_M, null_sd_M = np.std(M), np.std(null_M)
            """,
            "e4-interval": """
                se = np.std(slope_without_fold, ddof=1)
                true_se = np.std(slope_without_fold) * 19**0.5
                low, high = slope + 1.96 * true_se * np.array([-1, 1])
            """,
            "e5-parts": """
                V_W = V.mean()
                V_B = Q.mean() - V_W - M_all
            """,
        },
        {
            "e1-slope": (0, "this is the slope of M on V"),
            "e1-r2": (0, "R² is its square"),
            "e2-r-and-rho": (0, "turn it round"),
            "e3-spread": (0, "this is the spread of the measured M"),
            "e4-se": (0, "the jackknife has the factor (K - 1)/K before the sum, and not 1/K"),
            "e4-ends": (0, "1.96 was used"),
            "e5-within": (0, "every token counts alike"),
            "e5-between": (0, "every token counts alike"),
        },
    ),
    ("4_your_own_model", "several mistakes"): (
        {
            "e2-report": """
                report = stats.evidence().set_index("layer")
            """,
            "e3-shares": """
                V_W = stats.V.mean(axis=1) / stats.Q.mean(axis=1)
                split = stats.decomposition().set_index("layer")
                M_X = split["M"] / split["Q"]
                shares = pd.DataFrame({"M": M_X, "V_W": V_W, "V_B": 1 - M_X - V_W})
            """,
            "e4-survives": """
                def survives(table):
                    steep = (table["slope_high"] < 0) & (table["slope_iv_high"] < 0)
                    reliable = (table["reliability"] >= 0.5) & (table["reliability_low"] > 0)
                    return steep & reliable & (table["sd_M"] > table["null_sd_M"])
            """,
        },
        {
            "e2-values": (0, "the measured forms were taken"),
            "e3-sum": (0, "every token counts alike here"),
            "e4-null-and-reliability": (0, "compare sd_M_low with null_sd_M"),
        },
    ),
}


def cells(path: Path) -> list[nbformat.NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def about(cell: nbformat.NotebookNode) -> dict:
    """What nbgrader knows of a cell."""
    return cell.metadata.get("nbgrader", {})


def each_source(function):
    return pytest.mark.parametrize("path", SOURCES.values(), ids=list(SOURCES))(function)


def each_assignment(function):
    return pytest.mark.parametrize("name", SOURCES)(function)


# What the sources are made of


@pytest.fixture(scope="session")
def homework():
    """The script, which is in no package, and imports what lies beside it."""
    sys.path.insert(0, str(COURSE))
    spec = importlib.util.spec_from_file_location("homework", COURSE / "homework.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_four_assignments_are_there(homework):
    assert homework.assignments() == SOURCES
    assert list(SOURCES) == ["1_variance_formula", "2_one_pass", "3_tradeoff", "4_your_own_model"]


@each_source
def test_cells_have_unique_ids_and_graded_ones_have_points(path):
    found = cells(path)
    assert len({cell.id for cell in found}) == len(found)
    known = [about(cell)["grade_id"] for cell in found if about(cell)]
    assert len(set(known)) == len(known)
    for cell in found:
        if about(cell):
            assert about(cell)["grade_id"] == cell.id
            assert ("points" in about(cell)) == about(cell)["grade"]
            assert about(cell).get("points", 1) > 0


@each_source
def test_points_are_those_that_the_text_announces(homework, path):
    """Under each heading, in the first cell, and on the page for lecturers."""
    graded, found = homework.graded_cells(path), cells(path)
    by_hand = {cell.id for cell in found if about(cell).get("grade") and about(cell)["solution"]}
    heading, announced = "", {}
    for cell in found:
        if cell.cell_type == "markdown" and not about(cell):
            heading = next(
                (line[3:] for line in cell.source.splitlines() if line.startswith("## ")), heading
            )
            for points in re.findall(r"\*\((\d+) points?\b", cell.source):
                announced[heading] = announced.get(heading, 0) + int(points)
    sums = {heading: 0.0 for _, heading, _ in graded}
    for _, heading, points in graded:
        sums[heading] += points
    assert announced == sums
    total, prose = sum(sums.values()), sum(points for id, _, points in graded if id in by_hand)
    first = re.search(r"\*\*Points\*\*: (\d+), of which (\d+)", found[0].source)
    assert (float(first[1]), float(first[2])) == (total, prose)
    page = PAGE.read_text(encoding="utf-8")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{path.stem}` |"))
    assert f"| {total:g} | {prose:g} |" in row


@each_source
def test_answers_and_tests_are_marked_as_such(path):
    """An answer has a solution and no test; a test is locked, and can only check answers."""
    for cell in cells(path):
        if about(cell).get("solution") and not about(cell)["grade"]:
            assert SOLUTION.search(cell.source), cell.id
        if not about(cell).get("solution"):
            assert "SOLUTION" not in cell.source, cell.id
        if about(cell).get("grade") and not about(cell)["solution"]:
            assert about(cell)["locked"], cell.id
            assert re.search(r"assert|check\(", cell.source), cell.id
        else:
            assert "HIDDEN TESTS" not in cell.source, cell.id


def test_nearly_all_tests_hide_a_part():
    """Where nothing is hidden, the visible test asks for a property that any answer may have."""
    open_tests = {
        cell.id
        for path in SOURCES.values()
        for cell in cells(path)
        if about(cell).get("grade") and not about(cell)["solution"]
        and not HIDDEN.search(cell.source)
    }  # fmt: skip
    assert open_tests == {"e5-negative", "e2-rows", "e2-whole"}


@each_source
def test_a_cell_that_may_fail_does_not_stop_the_others(path):
    """JupyterLab runs all cells to the last one only if those that fail are marked."""
    for cell in cells(path):
        may_fail = about(cell).get("solution") or about(cell).get("grade") or cell.id == "e4-look"
        marked = "raises-exception" in cell.metadata.get("tags", ())
        assert marked == bool(may_fail and cell.cell_type == "code"), cell.id


@each_source
def test_a_task_says_what_each_point_for_prose_is_for(path):
    task = None
    for cell in cells(path):
        if not about(cell):
            task = cell.source
        elif about(cell)["grade"] and about(cell)["solution"]:
            (said,) = re.findall(
                r"\*\((\d+) points, read by a person, one for each of: (.*)\.\)\*", task
            )
            assert int(said[0]) == about(cell)["points"] == said[1].count(";") + 1, cell.id


def test_all_assignments_compare_in_the_same_way():
    assert len({cell.source for path in SOURCES.values() for cell in cells(path)
                if cell.id == "set-up"}) == 1  # fmt: skip


@each_source
def test_sources_are_saved_without_outputs(path):
    for cell in cells(path):
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@each_source
def test_the_page_has_a_rubric_of_as_many_lines_as_points(path):
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    for cell in cells(path):
        if about(cell).get("grade") and about(cell)["solution"]:
            begin = f"| {path.stem[0]}, `{cell.id}` | {about(cell)['points']} | "
            (row,) = [row for row in rows if row.startswith(begin)]
            assert row.count(";") + 1 == about(cell)["points"], row


def test_tests_that_the_page_names_exist_and_have_these_points():
    points = {
        path.stem[0]: {cell.id: about(cell).get("points") for cell in cells(path)}
        for path in SOURCES.values()
    }
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (`.*`) \| ([\d and]+) \| ", page, re.M)
    assert len(rows) > 10
    for number, names, said in rows:
        of_tests = [points[number][name] for name in re.findall(r"`([\w-]+)`", names)]
        assert said == " and ".join(map(str, of_tests)), names


# What is released


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """The kit's folder for all of these tests, so that a twin is measured once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def apart(request, monkeypatch, home):
    """For a test that grades: a home of its own, from which nothing reaches another machine.

    Session-wide, this would hold for the tests of other files, too.
    """
    if {"course", "graded", "nbgraders_own"} & set(request.fixturenames):
        monkeypatch.setenv("EMBVAR_HOME", str(home))
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
            monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")


@pytest.fixture(scope="session")
def course(homework, tmp_path_factory):
    """A course folder."""
    return homework.Course(tmp_path_factory.mktemp("course"))


@pytest.mark.slow
def test_release_writes_all_assignments_and_leaves_the_sources_alone(homework, tmp_path, capsys):
    before = {path: path.read_bytes() for path in sorted(COURSE.rglob("*")) if path.is_file()}
    assert homework.main(["release", str(tmp_path / "out")]) == 0
    names = [f"{name}.ipynb" for name in SOURCES]
    assert [Path(line).name for line in capsys.readouterr().out.splitlines()] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    after = {path: path.read_bytes() for path in before}
    assert after == before
    written = {path for path in COURSE.rglob("*") if path.is_file()} - before.keys()
    assert not {path for path in written if path.suffix != ".pyc"}


def test_release_refuses_the_folder_of_the_sources(homework, capsys):
    assert homework.main(["release", str(COURSE / "homework")]) == 1
    assert "another folder" in capsys.readouterr().err


@pytest.mark.slow
@each_assignment
def test_a_release_has_no_solution_no_hidden_test_and_no_output(course, name):
    source, released = cells(SOURCES[name]), cells(course.release(name))
    assert [cell.id for cell in released] == [cell.id for cell in source]
    text = "\n".join(cell.source for cell in released)
    assert "SOLUTION" not in text and "HIDDEN" not in text
    for old, new in zip(source, released, strict=True):
        if about(old).get("solution") and about(old)["grade"]:
            stub = "YOUR ANSWER HERE" if old.cell_type == "markdown" else "YOUR CODE HERE"
            assert stub in new.source and len(new.source) < 60
        for block in (*SOLUTION.findall(old.source), *HIDDEN.findall(old.source)):
            for line in filter(None, map(str.strip, block.splitlines())):
                if len(line) > 3 and line not in HIDDEN.sub("", SOLUTION.sub("", old.source)):
                    assert line not in new.source, line
        if new.cell_type == "code":
            assert new.outputs == [] and new.execution_count is None
        assert ("points" in about(new)) == about(new).get("grade", False)


@pytest.fixture(scope="session")
def nbgraders_own(homework, tmp_path_factory):
    """A course folder with a submission, and a function that runs commands of the page in it."""
    folder = tmp_path_factory.mktemp("nbgrader") / "course"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(homework, "assignments", lambda: dict(list(SOURCES.items())[:1]))
        assert homework.main(["course", str(folder)]) == 0
    handed_in = folder / "submitted" / "ada" / "1_variance_formula" / "1_variance_formula.ipynb"
    handed_in.parent.mkdir(parents=True)
    shutil.copy(SOURCES["1_variance_formula"], handed_in)
    # Nothing of the user's own settings.
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    own = {name: str(folder.parent / name.lower()) for name in names}
    enter, *_ = blocks_of_the_page("cd FOLDER")
    scripts = '"$PWD/.venv/bin'
    assert scripts in enter
    enter = enter.replace(scripts, f'"{Path(sys.executable).parent}').replace("FOLDER", str(folder))

    def start(command: str, **options) -> subprocess.Popen:
        line = ["bash", "-ec", f"{enter}\nexec {command}"]
        return subprocess.Popen(line, cwd=ROOT, env=os.environ | own, text=True, **options)

    return folder, start


def blocks_of_the_page(text: str) -> list[str]:
    """Those blocks of commands that hold some text."""
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return [block for block in map(dedent, blocks) if text in block]


def run(start, command: str) -> None:
    process = start(command, stderr=subprocess.PIPE)
    _, said = process.communicate()
    assert process.returncode == 0, said


@pytest.mark.slow
def test_a_course_folder_has_what_nbgrader_needs(homework, nbgraders_own, capsys):
    folder, _ = nbgraders_own
    assert (folder / "release" / "1_variance_formula" / "1_variance_formula.ipynb").is_file()
    assert (folder / "gradebook.db").is_file()
    from traitlets.config.loader import PyFileConfigLoader

    config = PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config()
    assert config.OverwriteCells.add_missing_cells is True
    assert homework.main(["course", str(folder)]) == 1
    assert "not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_points_that_are_given_in_the_formgrader_are_in_nbgraders_feedback(nbgraders_own):
    """The commands of the page, in a course folder; the form's requests without a browser."""
    folder, start = nbgraders_own
    commands = [line for block in blocks_of_the_page("nbgrader ") for line in block.splitlines()]
    commands = [line.partition("#")[0].strip() for line in commands]
    commands = [line.replace("ASSIGNMENT", "1_variance_formula") for line in commands]
    autograde, lab, feedback = commands[-3:]
    assert lab == "jupyter lab"
    run(start, autograde)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--allow-root --no-browser --port={port} --IdentityProvider.token=secret"

    def ask(path: str, **options):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/formgrader{path}",
            headers={"Authorization": "token secret", "Content-Type": "application/json"},
            **options,
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            assert answer.status == 200
            return answer.read().decode()

    with (folder.parent / "lab.log").open("w") as log:
        server = start(f"{lab} {options}", stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                page = ask("")
            except urllib.error.URLError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
            else:
                break
        assert "nbgrader formgrade" in page
        (assignment,) = json.loads(ask("/api/assignments"))
        assert (assignment["name"], assignment["num_submissions"]) == ("1_variance_formula", 1)
        path = "/api/submitted_notebooks/1_variance_formula/1_variance_formula"
        (submission,) = json.loads(ask(path))
        assert submission["student"] == "ada" and submission["needs_manual_grade"]
        assert "The point that is nearest to all" in ask(f"/submissions/{submission['id']}")
        for kind, given in (
            ("grade", {"manual_score": 3, "extra_credit": 0}),
            ("comment", {"manual_comment": "Where is c = 0?"}),
        ):
            (one,) = (
                one
                for one in json.loads(ask(f"/api/{kind}s?submission_id={submission['id']}"))
                if one["name"] == "e2-nearest"
            )
            ask(f"/api/{kind}/{one['id']}", method="PUT", data=json.dumps(given).encode())
    finally:
        server.terminate()
        server.wait()
    run(start, feedback)
    page = folder / "feedback" / "ada" / "1_variance_formula" / "1_variance_formula.html"
    text = page.read_text(encoding="utf-8")
    assert "(Score: 26.0 / 30.0)" in text and "Where is c = 0?" in text


# What is graded


@pytest.fixture(scope="session")
def graded(course, tmp_path_factory):
    """``graded(assignment, version)``: its grade; each version is run once."""
    known = {}

    def submission(name: str, version: str) -> Path:
        folder = tmp_path_factory.mktemp("submission")
        if version == "release":
            return Path(shutil.copy(course.release(name), folder))
        notebook = nbformat.read(SOURCES[name], as_version=4)
        changed, _ = WRONG.get((name, version), ({}, {}))
        for cell in notebook.cells:
            if cell.id in changed:
                cell.source = dedent(changed[cell.id]).strip()
        assert changed.keys() <= {cell.id for cell in notebook.cells}
        path = folder / "handed in.ipynb"
        nbformat.write(notebook, path)
        return path

    def grade(name: str, version: str):
        if (name, version) not in known:
            known[name, version] = course.grade(submission(name, version))
        return known[name, version]

    grade.submission = submission
    return grade


@pytest.mark.slow
@each_assignment
def test_the_solution_earns_every_point_that_is_tested(graded, name):
    grade = graded(name, "solution")
    assert grade.assignment == name
    failed = {mark.cell: mark.message for mark in grade.marks if mark.message}
    assert not failed
    assert grade.earned + grade.by_hand == grade.points
    assert grade.earned > 0.4 * grade.points


@pytest.mark.slow
@each_assignment
def test_the_students_version_earns_nothing(graded, name):
    grade = graded(name, "release")
    assert {mark.earned for mark in grade.marks} == {0} and grade.by_hand == 0
    for mark in grade.marks:
        assert "not answered" in mark.message


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), WRONG, ids=lambda part: part.replace(" ", "_"))
def test_a_wrong_submission_earns_what_it_deserves_and_is_told_why(graded, name, kind):
    _, expected = WRONG[name, kind]
    right = {mark.cell: mark.earned for mark in graded(name, "solution").marks}
    found = {mark.cell: mark for mark in graded(name, kind).marks}
    earned = {cell: mark.earned for cell, mark in found.items()}
    assert earned == right | {cell: points for cell, (points, _) in expected.items()}
    for cell, (_, said) in expected.items():
        assert said in found[cell].message, found[cell].message


@pytest.mark.slow
@pytest.mark.parametrize("name", ["3_tradeoff", "4_your_own_model"])
def test_model_answers_quote_what_their_cells_print(graded, name):
    run = cells(graded(name, "solution").run)
    printed = "\n".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "")
        for cell in run
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", printed)]
    quoted = set()
    for cell in run:
        if cell.cell_type == "markdown" and about(cell).get("grade"):
            quoted |= set(re.findall(r"\d+\.\d+", cell.source))
    assert len(quoted) > 5
    for number in quoted:
        # The last digit may differ where another processor rounds differently.
        unit = 10.0 ** -len(number.partition(".")[2])
        assert any(abs(float(number) - value) < 1.01 * unit for value in numbers), number


@pytest.mark.slow
def test_a_deleted_test_is_put_back_and_an_edited_one_restored(graded, course, tmp_path):
    notebook = nbformat.read(graded.submission("1_variance_formula", "release"), as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id != "e1-V"]
    for cell in notebook.cells:
        if cell.id == "e3-V":
            cell.source = "assert True"
            cell.metadata.nbgrader.points = 100
    nbformat.write(notebook, tmp_path / "clever.ipynb")
    grade = course.grade(tmp_path / "clever.ipynb")
    assert grade.earned == 0 and grade.points == 30


@pytest.mark.slow
def test_one_command_prints_the_marks_and_writes_a_table(homework, graded, tmp_path, capsys):
    wrong = graded.submission("1_variance_formula", "n and n - 1 mixed up")
    table = tmp_path / "marks.csv"
    assert homework.main(["grade", str(wrong), "--table", str(table)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^ +3 of 6 +Exercise 1 · Three numbers of a set$", printed, re.M)
    assert "- e1-V (3): V of the triangle: n - 1 was used where the paper divides by n." in printed
    assert re.search(r"^ +10 of 30 +in all, 7 still to give by hand$", printed, re.M)
    (example,) = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert printed.partition("\n")[2] == example
    rows = table.read_text(encoding="utf-8").splitlines()
    assert rows[0] == "submission,assignment,cell,exercise,earned,points,message,comment"
    assert len(rows) == 1 + len(graded("1_variance_formula", "solution").marks)


@pytest.fixture
def filled_in(homework, tmp_path):
    """``filled_in(submission, changes)``: the table of an ungraded submission, with changes."""

    def write(submission: Path, changes: dict[str, tuple[str, str]], name: str = "") -> Path:
        rows = [("submission", "cell", "earned", "comment")]
        known = dict.fromkeys(
            cell for cell, *_ in homework.graded_cells(SOURCES["1_variance_formula"])
        )
        for cell, given in (known | changes).items():
            rows.append((name or submission, cell, *(given or ("", ""))))
        with (tmp_path / "filled.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        return tmp_path / "filled.csv"

    return write


@pytest.mark.slow
def test_points_and_comments_of_a_filled_in_table_count(
    homework, graded, filled_in, tmp_path, capsys
):
    """They are in the printed totals, in the next table and on the pages of the students."""
    wrong = graded.submission("1_variance_formula", "n and n - 1 mixed up")
    other = Path(shutil.copy(graded.submission("1_variance_formula", "release"), tmp_path))
    marks = filled_in(
        wrong,
        {
            "e2-nearest": ("2.5", "Why does the mixed\nterm <vanish>?"),
            "e5-why": ("0", ""),
            "e4-M": ("1", "A slip."),
        },
    )
    table, folder = tmp_path / "marks.csv", tmp_path / "pages"
    command = ["grade", str(wrong), str(other), "--marks", str(marks), "--table", str(table)]
    assert homework.main([*command, "--feedback", str(folder)]) == 0
    said = capsys.readouterr()
    assert f"e4-M earned 0 when it was graded, and has 1 in {marks}, which counts" in said.err
    assert said.err.count("\n") == 1
    assert "- e2-nearest (4): comment: Why does the mixed\n" in said.out
    first, second = said.out.partition("all submissions\n")[2].splitlines()
    assert first == f" 13.5 of 30   {wrong}: 1_variance_formula"
    assert second == f"    0 of 30   {other}: 1_variance_formula"
    with table.open(newline="", encoding="utf-8") as file:
        rows = {row["cell"]: row for row in csv.DictReader(file) if row["submission"] == str(wrong)}
    assert [rows[cell]["earned"] for cell in ("e2-nearest", "e5-why", "e4-M")] == [
        "2.5",
        "0.0",
        "1.0",
    ]
    assert rows["e2-nearest"]["comment"] == "Why does the mixed\nterm <vanish>?"
    (path,) = folder.rglob(f"{wrong.stem}.html")
    page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    words = " ".join(page.main.get_text().split())
    assert "13.5 of 30 points." in words and "2.5 of 4 Exercise 2" in words
    assert "mixed\nterm <vanish>?" in page.find(id="e2-nearest").find(class_="comment").get_text()
    listed = page.find("table", class_="marks").find("a", href="#e2-nearest").parent.get_text()
    assert "term <vanish>?" in listed
    # What was written can be read again, and says the same.
    again = homework._read_marks(table, [wrong, other])
    assert len(again) == 2 * len(rows)
    assert again[wrong.resolve(), "e2-nearest"] == {
        "comment": "Why does the mixed\nterm <vanish>?",
        "earned": 2.5,
    }


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"e2-nearest": ("4.5", "")}, "", "4.5 points; e2-nearest can earn from 0 to 4"),
        ({"e2-nearest": ("-1", "")}, "", "-1 points; e2-nearest can earn from 0 to 4"),
        ({"e2-nearest": ("nan", "")}, "", "nan points; e2-nearest can earn from 0 to 4"),
        ({"e2-nearest": ("2,5", "")}, "", "'2,5' is not a number of points"),
        ({"e7": ("1", "")}, "", "with a cell e7 is graded"),
        ({}, "bo.ipynb", "no submission bo.ipynb with a cell e1-Q-and-M is graded"),
    ],
)
def test_a_filled_in_table_that_cannot_count_is_refused_by_line(
    homework, filled_in, tmp_path, capsys, changes, name, said
):
    submission = Path(shutil.copy(SOURCES["1_variance_formula"], tmp_path / "ada.ipynb"))
    marks = filled_in(submission, changes, name)
    assert homework.main(["grade", str(submission), "--marks", str(marks)]) == 1
    told = capsys.readouterr()
    assert said in told.err and f"{marks}, line " in told.err and told.out == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"submission;cell;earned;comment\n", "has no column cell, comment, earned, submission"),
        (b"submission,cell,earned\n", "has no column comment, separated"),
        (b"submission,cell,earned,comment\nada.ipynb,e1-V,3,\xe4\n", "cannot be read"),
        (2 * b"ada.ipynb,e1-V,3,\n", "line 3: e1-V has had a row before"),
    ],
)
def test_what_is_no_table_of_marks_is_refused(homework, monkeypatch, tmp_path, capsys, text, said):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SOURCES["1_variance_formula"], "ada.ipynb")
    head = b"" if text.startswith(b"sub") else b"submission,cell,earned,comment\n"
    Path("filled.csv").write_bytes(head + text)
    assert homework.main(["grade", "ada.ipynb", "--marks", "filled.csv"]) == 1
    assert said in capsys.readouterr().err
    assert homework.main(["grade", "ada.ipynb", "--marks", "none.csv"]) == 1
    assert "none.csv cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_one_command_writes_a_page_for_each_student(homework, graded, tmp_path):
    """Pages of files with the same name lie in folders of their own, as the files did."""
    wrong = graded.submission("1_variance_formula", "n and n - 1 mixed up")
    handed_in = [tmp_path / "in" / name / "answers <1>.ipynb" for name in ("ada", "bo")]
    for path in handed_in:
        path.parent.mkdir(parents=True)
    notebook = nbformat.read(wrong, as_version=4)
    tricks = 'A joke: <img src="x" onerror="alert(1)"><script>alert(2)</script>'
    publishes = (
        "from IPython.display import publish_display_data\n"
        "size = {'width': '1 onerror=document.title=1'}\n"
        "publish_display_data({'image/png': 'AAAA'}, {'image/png': size})"
    )
    notebook.cells.append(nbformat.v4.new_code_cell(publishes))
    drawn = '<details><summary>my sketch</summary><img src="data:image/png;base64,AAAA"></details>'
    notebook.cells += [nbformat.v4.new_markdown_cell(text) for text in (tricks, drawn)]
    nbformat.write(notebook, handed_in[0])
    shutil.copy(graded.submission("1_variance_formula", "release"), handed_in[1])
    folder = tmp_path / "pages"
    assert homework.main(["grade", *map(str, handed_in), "--feedback", str(folder)]) == 0
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
    assert written == ["ada/answers <1>.html", "bo/answers <1>.html"]

    text = (folder / written[0]).read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")
    assert page.h1.get_text() == "Homework 1 · The variance formula"
    assert "ada/answers <1>.ipynb" in page.h1.find_next("p").get_text()
    words = " ".join(page.main.get_text().split())
    assert "10 of 30 points; 7 of them are still to be given by hand." in words
    table = page.find("table", class_="marks")
    rows = [" ".join(row.get_text().split()) for row in table.tbody.find_all("tr")]
    assert rows[0].startswith(
        "3 of 6 Exercise 1 · Three numbers of a set e1-V, 0 of 3 points: V of"
    )
    assert rows[1] == "0 of 4 4 still to give Exercise 2 · The point that is nearest to all"
    grade = graded("1_variance_formula", "n and n - 1 mixed up")
    said = {mark.cell: mark.message for mark in grade.marks if mark.message}
    assert set(said) == {"e1-V", "e3-V", "e4-V", "e4-M"}
    links = {link["href"][1:]: link.parent.get_text() for link in table.find_all("a")}
    assert links.keys() == said.keys()
    for cell, message in said.items():
        assert message in links[cell]
        assert message in page.find(id=cell).find(class_="message").get_text()
    # What was hidden while the student wrote is there, and so is what the student wrote.
    (hidden,) = HIDDEN.findall(next(c.source for c in cells(SOURCES["1_variance_formula"])
                                    if c.id == "e1-V"))  # fmt: skip
    test = page.find(id="e1-V").details.get_text()
    assert all(line.strip() in test for line in hidden.splitlines())
    assert "V = ((x - mu) ** 2).sum() / (len(x) - 1)" in page.main.get_text()
    assert "Exercise 3" in " ".join(heading.get_text() for heading in page.main.find_all("h2"))
    # But nothing of it runs in the browser of whoever opens the page.
    assert "A joke" in page.main.get_text()
    assert not page.main.find_all("script") and not page.main.find_all(onerror=True)
    assert page.main.find("summary", string="my sketch")
    assert page.main.find("img", src="data:image/png;base64,AAAA")
    # The file needs no other, and no other machine.
    sources = [one["src"] for one in page.find_all(src=True)]
    assert all(source.startswith("data:") for source in sources) and len(sources) == 2
    (policy,) = page.find_all("meta", attrs={"http-equiv": "Content-Security-Policy"})
    assert page.find_all("script")[-1]["nonce"] in policy["content"]
    assert all(link["href"].startswith(("data:", "#")) for link in page.find_all(href=True))
    assert "MathJax" in page.find_all("script")[-1].string

    unanswered = BeautifulSoup((folder / written[1]).read_text(encoding="utf-8"), "html.parser")
    assert "0 of 30 points." in " ".join(unanswered.main.get_text().split())
    for mark in graded("1_variance_formula", "release").marks:
        assert mark.message in unanswered.find(id=mark.cell).find(class_="message").get_text()


def test_what_is_no_homework_is_refused_by_name(homework, tmp_path, capsys):
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{", encoding="utf-8")
    other = ROOT / "notebooks" / "01_variance_formula.ipynb"
    assert homework.main(["grade", str(broken), str(other), str(tmp_path / "none.ipynb")]) == 1
    said = capsys.readouterr().err
    assert "broken.ipynb is no notebook" in said
    assert "01_variance_formula.ipynb has no graded cell of 1_variance_formula" in said
    assert "none.ipynb cannot be read" in said
