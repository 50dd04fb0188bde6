// A button that shows the whole explorer on the full screen, in large type.
function render({ model, el }) {
  const button = document.createElement("button");
  button.className = "jupyter-button widget-button";
  button.title = "the explorer on the full screen, in large type; Escape ends it";
  el.replaceChildren(button);
  const explorer = () => el.closest(".embvar-explorer");
  const large = (on) => {
    explorer()?.classList.toggle("embvar-lecture", on);
    button.textContent = on ? "end lecture" : "lecture";
    button.setAttribute("aria-pressed", on);
    if (on === model.get("on")) return;
    model.set("on", on);  // pictures are drawn anew, in more pixels
    model.save_changes();
  };
  button.addEventListener("click", async () => {
    const on = !explorer().classList.contains("embvar-lecture");
    large(on);
    if (!on) {
      if (document.fullscreenElement) await document.exitFullscreen();
    } else {
      // Where the page may not fill the screen, the type is large all the same.
      await explorer().requestFullscreen?.().catch(() => {});
    }
  });
  const left = () => { if (!document.fullscreenElement) large(false); };
  document.addEventListener("fullscreenchange", left);
  large(false);
  return () => document.removeEventListener("fullscreenchange", left);
}
export default { render };
