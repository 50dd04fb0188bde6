// Two panels of an explorer, each with a scatter plot: hovering over a point in one, the point of
// the same token in the other is hovered over, too. That takes no message to the kernel.
const SIDES = ["left", "right"];

async function render({ model, el }) {
  el.style.display = "none";
  const plots = await Promise.all(SIDES.map((side) =>
    model.widget_manager.get_model(model.get(side).slice("IPY_MODEL_".length))));
  const panel = (side) => el.closest(".embvar-explorer")?.querySelector(`.embvar-${side}`);
  // jscatter's own plot; of its traits, none shows the tooltip of a point.
  const drawn = (side) =>
    panel(side)?.querySelector(".embvar-scatter canvas")?.parentElement.parentElement.api;
  const partner = (side, at) => {
    if (at === null || at === undefined || at < 0) return -1;
    const indices = model.get(`${side}_partners`);
    if (!indices.byteLength) return at;  // the same tokens in the same order
    return 4 * at < indices.byteLength ? indices.getInt32(4 * at, true) : -1;
  };
  // Only the panel that the mouse came to last leads: a plot also tells of what it was made to do.
  let leading = 0;
  const come = SIDES.map((_, here) => () => { leading = here; });
  const followers = SIDES.map((side, here) => () => {
    if (here !== leading) return;
    drawn(SIDES[1 - here])?.hover(partner(side, plots[here].get("hovering")));
  });
  plots.forEach((plot, here) => plot.on("change:hovering", followers[here]));
  const named = new ResizeObserver(() => {
    for (const side of SIDES) {
      panel(side)?.setAttribute("role", "group");
      panel(side)?.setAttribute("aria-label", `${side} panel`);
    }
  });
  let frame = 0;
  const laidOut = () => {
    if (panel("right")) {
      named.observe(panel("right"));
      SIDES.forEach((side, here) => panel(side)?.addEventListener("pointerenter", come[here]));
    } else frame = requestAnimationFrame(laidOut);
  };
  laidOut();
  return () => {
    cancelAnimationFrame(frame);
    named.disconnect();
    plots.forEach((plot, here) => plot.off("change:hovering", followers[here]));
  };
}
export default { render };
