"""The lecture for its tests: the script that renders it, as a module, and the slides it reads."""

from __future__ import annotations

import importlib.util
import sys

from paths import ROOT

SCRIPT = ROOT / "notebooks" / "course" / "slides.py"

_spec = importlib.util.spec_from_file_location("lecture_slides", SCRIPT)
script = sys.modules["lecture_slides"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)

SLIDES = script.read_outline(script.OUTLINE.read_text(encoding="utf-8"))
"""The slides of the outline."""

SHOWN = [slide for slide in SLIDES if slide.cell]
"""Those that show a cell of a notebook."""
