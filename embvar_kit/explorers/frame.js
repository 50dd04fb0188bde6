// What every explorer has: its own keys, and names for whoever cannot see it.

// Keeps JupyterLab's keyboard shortcuts from firing while a control of the explorer has the focus.
const guard = (event, explorer) => {
  if (!explorer || !explorer.contains(event.target)) return;
  // Lumino, which handles shortcuts, ignores the focused element if it has this attribute.
  // Shortcuts with Control or Command, such as Ctrl+S, still work.
  event.target.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey));
};

// ipywidgets names neither the handles of sliders nor controls without a description, and images
// have no alternative text. A value is set only where it differs, as this runs at each change.
const set = (one, attribute, value) => {
  if (one && one.getAttribute(attribute) !== value) one.setAttribute(attribute, value);
};
function name(explorer, pictures) {
  for (const slider of explorer.querySelectorAll(".widget-slider")) {
    const label = slider.querySelector(".widget-label")?.textContent ?? "";
    const shown = slider.querySelector(".widget-readout")?.textContent ?? "";
    const handles = slider.querySelectorAll(".noUi-handle");
    handles.forEach((handle, at) => {
      const ends = handles.length > 1;
      set(handle, "aria-label", ends ? `${label}, ${["least", "most"][at]}` : label);
      set(handle, "aria-valuetext", ends ? shown.split("-")[at] ?? shown : shown);
    });
  }
  for (const player of explorer.querySelectorAll(".widget-play, .jupyter-widget-play")) {
    const buttons = player.querySelectorAll("button");
    buttons.forEach((button, at) => {
      const what = ["play or pause", "stop and go back", "repeat"][at];
      set(button, "aria-label", `${what}: ${player.title}`);
      set(button, "title", what);
    });
  }
  for (const control of explorer.querySelectorAll("select, input, button")) {
    const told = control.labels?.length && control.labels[0].textContent.trim();
    const written = control.matches("button") && control.textContent.trim();
    if (told || written || control.closest(".widget-play, .jupyter-widget-play")) continue;
    set(control, "aria-label", control.title || control.closest("[title]")?.title || control.name);
  }
  for (const part of explorer.querySelectorAll(".embvar-scroll")) {
    set(part, "tabindex", "0");  // the arrow keys scroll it
    set(part, "role", "region");
    set(part, "aria-label", part.matches("code") ? "code" : "marked tokens");
  }
  for (const [css, text] of Object.entries(pictures)) {
    for (const one of explorer.querySelectorAll(`.${css}`)) {
      if (one.matches("img")) {
        set(one, "alt", text);
      } else {
        const canvas = one.querySelector("canvas");
        set(canvas, "role", "img");
        set(canvas, "aria-label", text);
      }
    }
  }
}

function render({ model, el }) {
  el.style.display = "none";
  const explorer = () => el.closest(".embvar-explorer");
  const pressed = (event) => guard(event, explorer());
  let waiting = 0;
  const soon = () => {
    waiting ||= requestAnimationFrame(() => {
      waiting = 0;
      if (explorer()) name(explorer(), model.get("pictures"));
    });
  };
  const changed = new MutationObserver(soon);
  const laidOut = () => {
    if (!explorer()) return requestAnimationFrame(laidOut);
    // A slider writes the index of its value over the text at each move, so that is observed, too.
    const attributeFilter = ["aria-valuetext"];
    const what = { childList: true, subtree: true, characterData: true, attributeFilter };
    changed.observe(explorer(), what);
    soon();
  };
  laidOut();
  model.on("change:pictures", soon);
  window.addEventListener("keydown", pressed, true);  // before Lumino, which listens at the document
  return () => {
    changed.disconnect();
    model.off("change:pictures", soon);
    window.removeEventListener("keydown", pressed, true);
  };
}
export default { render };
