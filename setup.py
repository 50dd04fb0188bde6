"""Puts the notebook behind ``embvar report`` into the wheel; the rest is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NOTEBOOK = "09_your_own_model.ipynb"


class BuildWithNotebook(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:  # an editable install finds it in the checkout
            target = Path(self.build_lib, "embvar_kit", NOTEBOOK)
            self.copy_file(str(Path("notebooks", NOTEBOOK)), str(target))


setup(cmdclass={"build_py": BuildWithNotebook})
