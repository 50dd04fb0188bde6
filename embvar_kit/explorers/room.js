// Tells the kernel how much room an explorer has, which draws its picture as wide as that.
const STEP = 40;  // pixels: as an edge of the window is dragged, few pictures are asked for
const MARGIN = 16;  // of the explorer, on both sides of the picture together
const SHARE = 0.62;  // of the window's height, as a scatter plot takes at most
const PAUSE = 200;  // milliseconds for which the room must stay as it is

function render({ model, el }) {
  el.style.display = "none";
  const explorer = () => el.closest(".embvar-explorer");
  let waiting = 0, frame = 0, told = "";
  const tell = () => {
    const width = explorer()?.clientWidth;
    if (!width || explorer().classList.contains("embvar-lecture")) return;
    const room = [width - MARGIN, SHARE * window.innerHeight].map((x) => STEP * Math.floor(x / STEP));
    // Of two views of one explorer each would answer the other's width for ever: a view speaks
    // only when its own room has changed.
    if (room.join() === told) return;
    told = room.join();
    if (told === model.get("room").join()) return;
    model.set("room", room);
    model.save_changes();
  };
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(tell, PAUSE);
  };
  const resized = new ResizeObserver(soon);
  const laidOut = () => {
    if (explorer()) resized.observe(explorer());
    else frame = requestAnimationFrame(laidOut);
  };
  laidOut();
  window.addEventListener("resize", soon);
  return () => {
    clearTimeout(waiting);
    cancelAnimationFrame(frame);
    resized.disconnect();
    window.removeEventListener("resize", soon);
  };
}
export default { render };
