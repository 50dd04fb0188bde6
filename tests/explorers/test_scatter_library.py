"""jupyter-scatter without seaborn, and seaborn as soon as something of it is asked for."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import embvar_kit as ek

stats = ek.cached_statistics("smollm2")
ek.TradeoffExplorer(stats)._repr_mimebundle_()
print(*({"seaborn", "scipy.stats"} & set(sys.modules)))

from jscatter import Contour, Scatter

scatter = Scatter(data=stats.table(15, min_count=10).tail(100), x="M", y="V")
scatter.annotations([Contour()])
import seaborn

print(len(scatter.widget.annotations) > 1, type(seaborn).__name__)
"""


def test_an_explorer_does_without_seaborn_and_contours_of_the_library_still_find_it():
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "True module"]
