"""Puts into the wheel what the notebooks read and what lies outside the package.

That is the notebook behind ``embvar report``, and from ``data/`` the statistics and the twins. The
rest is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NOTEBOOK = "09_your_own_model.ipynb"
DATA = ("stats", "twins")


class BuildWithFilesOutside(build_py):
    def run(self):
        super().run()
        if self.editable_mode:  # an editable install finds them in the checkout
            return
        package = Path(self.build_lib, "embvar_kit")
        self.copy_file(str(Path("notebooks", NOTEBOOK)), str(package / NOTEBOOK))
        # What an earlier build left there would go into the wheel as well.
        shutil.rmtree(package / "data", ignore_errors=True)
        for name in DATA:
            self.copy_tree(str(Path("data", name)), str(package / "data" / name))


setup(cmdclass={"build_py": BuildWithFilesOutside})
