"""Where the repository, its tests and its pages are."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent

FOLDERS_OF_PAGES = (
    *(".", "data", "notebooks/course", "notebooks/course/instructor", "notebooks/reference"),
    "tests/benchmarks",
)
PAGES = sorted(page for folder in FOLDERS_OF_PAGES for page in (ROOT / folder).glob("*.md"))
"""The Markdown pages of the repository."""
