// Keeps JupyterLab's keyboard shortcuts from firing while a control of the explorer has the focus.
function render({ el }) {
  el.style.display = "none";
  const guard = (event) => {
    const explorer = el.closest(".embvar-explorer");
    if (!explorer || !explorer.contains(event.target)) return;
    // Lumino, which handles shortcuts, ignores the focused element if it has this attribute.
    // Shortcuts with Control or Command, such as Ctrl+S, still work.
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey));
  };
  window.addEventListener("keydown", guard, true);  // before Lumino, which listens at the document
  return () => window.removeEventListener("keydown", guard, true);
}
export default { render };
