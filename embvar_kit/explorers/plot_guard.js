// Leaves the wheel to the page until the reader means the plot, keeps the zoom within bounds, resets
// the view at one click, and lets a press of the mouse move nothing. jscatter alone zooms at every
// turn of the wheel, without bounds, and where frames are slow a press drags the plot by all that the
// mouse had moved since the last one.
const MOST = 50;  // largest zoom; the smallest is 1, the whole plot
const PAUSE = 400;  // milliseconds without a turn that end one gesture of the wheel

async function render({ model, el }) {
  el.textContent = "The wheel scrolls the page; after a click into the plot, or with Ctrl, it zooms.";
  const name = model.get("plot").slice("IPY_MODEL_".length);
  const scatter = await model.widget_manager.get_model(name);
  let plot = null, clicked = false, scale = 1, turned = -Infinity, ours = false;

  // jscatter's own reset is an animation, which stops half-way where frames are slow: past its end
  // the easing falls again (regl-scatterplot clips the value of quadInOut, not its argument).
  const reset = () => {
    scale = 1;
    scatter.trigger("msg:custom", { type: "view_reset", animation: 0 }, []);
  };
  const rescale = () => { scale = 2 ** scatter.get("zoom_level"); };

  const wheel = (event) => {
    if (ours || !event.target.matches("canvas")) return;
    event.stopPropagation();
    const held = event.ctrlKey || event.metaKey;
    if (!clicked && !held) return;
    const { height } = event.target.getBoundingClientRect();
    const unit = [1, 12, height][event.deltaMode];  // pixels, lines or pages; as jscatter has it
    const wanted = scale * Math.exp(-unit * (event.deltaY || event.deltaX) / height);
    const goesOn = event.timeStamp - turned < PAUSE;
    if (scale <= 1 && wanted <= 1 && !held && !goesOn) return;  // nothing to zoom: the page scrolls
    event.preventDefault();
    turned = event.timeStamp;
    if (wanted <= 1) {
      reset();
    } else {
      const next = Math.min(wanted, MOST), { clientX, clientY } = event;
      const deltaY = -height * Math.log(next / scale);
      scale = next;
      ours = true;
      event.target.dispatchEvent(new WheelEvent("wheel", { deltaY, clientX, clientY }));
      ours = false;
    }
  };
  const click = (event) => {
    if (!event.target.closest('button[title="Reset View"]')) return;
    event.stopPropagation();
    reset();
  };
  const press = (event) => {
    clicked = Boolean(plot?.contains(event.target));
    if (!clicked) return;
    // The camera takes in where the mouse is now. What that changes is still to be drawn.
    const camera = plot.querySelector("canvas")?.parentElement.parentElement.api?.get("camera");
    if (camera?.tick()) camera.setView(camera.view);
  };
  const leave = () => { clicked = false; };

  // Before jscatter's, except for "pointerleave", which would come for all parts of the plot, too.
  const before = { capture: true, passive: false };
  const listeners = [["wheel", wheel, before], ["click", click, before], ["pointerleave", leave]];
  const find = () => {  // once this text is laid out, the plot is beside it
    plot = el.closest(".embvar-panel, .embvar-explorer")?.querySelector(".embvar-scatter") ?? null;
    if (!plot) return;
    seen.disconnect();
    for (const one of listeners) plot.addEventListener(...one);
  };
  const seen = new ResizeObserver(find);
  seen.observe(el);
  document.addEventListener("pointerdown", press, true);
  scatter.on("change:zoom_level", rescale);
  return () => {
    seen.disconnect();
    document.removeEventListener("pointerdown", press, true);
    scatter.off("change:zoom_level", rescale);
    for (const one of listeners) plot?.removeEventListener(...one);
  };
}
export default { render };
