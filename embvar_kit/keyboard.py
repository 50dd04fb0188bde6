"""Keys pressed on an explorer's controls are the controls': JupyterLab's shortcuts wait outside.

In command mode JupyterLab takes arrow keys and letters for itself, wherever the focus is in a
notebook: a dropdown would not open, and a letter typed on it could delete a cell.
"""

from __future__ import annotations

import anywidget

_SCRIPT = """
function render({ el }) {
  el.style.display = "none";
  const keys = (event) => {
    const explorer = el.closest(".embvar-explorer");
    if (!explorer || !explorer.contains(event.target)) return;
    // Lumino, which handles shortcuts, leaves an element with this mark alone; it looks at the
    // focused one first. With Control or Command, Ctrl+S for one, shortcuts stay as they are.
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey));
  };
  window.addEventListener("keydown", keys, true);  // before Lumino, which listens at the document
  return () => window.removeEventListener("keydown", keys, true);
}
export default { render };
"""


class OwnKeys(anywidget.AnyWidget):
    """Put into an explorer, it keeps the explorer's keys for its controls. It shows nothing."""

    _esm = _SCRIPT
