// Tells where in a part of an explorer's picture the reader drags the mouse, or taps.
function render({ model, el }) {
  el.textContent = model.get("hint");
  let held = null;  // the picture that is dragged on
  const explorer = () => el.closest(".embvar-explorer");
  const place = (image, event) => {
    const box = image.getBoundingClientRect();
    const [left, upper, right, lower] = model.get("frame");
    const x = ((event.clientX - box.left) / box.width - left) / (right - left);
    const y = ((event.clientY - box.top) / box.height - upper) / (lower - upper);
    return [x, 1 - y];
  };
  const ours = ({ target }) => explorer()?.contains(target) && target.matches("img.embvar-picture");
  const over = (event) =>
    ours(event) && place(event.target, event).every((at) => at >= 0 && at <= 1)
      ? event.target : null;
  const tell = (image, event) => {
    model.set("place", place(image, event).map((at) => Math.min(1, Math.max(0, at))));
    model.save_changes();
  };
  const down = (event) => {
    const image = over(event);
    if (!image || event.button !== 0) return;
    event.preventDefault();  // else the browser drags the image away
    held = image;
    tell(held, event);
  };
  const move = (event) => {
    if (held && !(event.buttons & 1)) held = null;  // let go where nobody saw it
    if (held) return tell(held, event);
    if (ours(event)) event.target.style.cursor = over(event) ? "grab" : "";
  };
  const up = () => { held = null; };
  const still = (event) => { if (over(event)) event.preventDefault(); };
  const listeners = { pointerdown: down, pointermove: move, pointerup: up, pointercancel: up,
    dragstart: still };
  for (const [name, call] of Object.entries(listeners)) document.addEventListener(name, call);
  return () => {
    for (const [name, call] of Object.entries(listeners)) document.removeEventListener(name, call);
  };
}
export default { render };
