// Shows the text of the area of an explorer's picture that the mouse is over, and tells of clicks.
// Over a line that names an area, it rings that area in the picture.
function render({ model, el }) {
  el.textContent = model.get("hint");
  if (!el.textContent) el.style.display = "none";
  const tip = document.createElement("div");
  tip.className = "embvar-tip";
  tip.setAttribute("role", "tooltip");
  const ring = document.createElement("div");
  ring.className = "embvar-ring";
  document.body.append(tip, ring);
  // What fills the screen covers all that is outside of it.
  const bring = (one) => {
    const home = document.fullscreenElement ?? document.body;
    if (one.parentElement !== home) home.append(one);
    one.style.display = "block";
  };
  const at = (event) => {
    const explorer = el.closest(".embvar-explorer"), image = event.target;
    const ours = explorer?.contains(image) && image.matches(`img.${model.get("picture")}`);
    if (!ours) return -1;
    const box = image.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    const found = model.get("areas").findIndex(([x0, y0, x1, y1]) =>
      x >= x0 && x < x1 && y >= y0 && y < y1);
    image.style.cursor = found >= 0 && model.get("clickable") ? "pointer" : image.style.cursor;
    if (found < 0 && image.style.cursor === "pointer") image.style.cursor = "";
    return found;
  };
  const circle = (event) => {
    ring.style.display = "none";
    const line = event.target instanceof Element && event.target.closest("[data-area]");
    const explorer = el.closest(".embvar-explorer");
    if (!line || !explorer?.contains(line)) return;
    const image = explorer.querySelector(`img.${model.get("picture")}`);
    const area = model.get("areas")[Number(line.dataset.area)];
    if (!area || !image?.checkVisibility()) return;
    const box = image.getBoundingClientRect();
    bring(ring);
    ring.style.left = `${box.left + (area[0] + area[2]) / 2 * box.width}px`;
    ring.style.top = `${box.top + (area[1] + area[3]) / 2 * box.height}px`;
  };
  let last = null;  // where the mouse is, for areas that change under it
  const hide = () => {
    tip.style.display = ring.style.display = "none";
    last = null;
  };
  const move = (event) => {
    last = event;
    circle(event);
    const found = at(event);
    if (found < 0) {
      tip.style.display = "none";
      return;
    }
    bring(tip);
    tip.textContent = model.get("areas")[found][4];
    const { offsetWidth: width } = tip, room = window.innerWidth - width - 4;
    const right = event.clientX + 14, left = event.clientX - 14 - width;
    tip.style.left = `${right <= room ? right : Math.max(4, Math.min(left, room))}px`;
    tip.style.top = `${event.clientY + 14}px`;
  };
  const click = (event) => {
    const found = at(event);
    if (found < 0) return;
    move(event);  // a finger does not move before it clicks
    if (model.get("clickable")) model.send({ clicked: found });
  };
  const changed = () => { if (last) move(last); };
  // The end of the full screen and a mouse that leaves the page come without a move.
  const listeners = [[document, "mousemove", move], [document, "click", click],
    [document, "fullscreenchange", hide], [document.documentElement, "mouseleave", hide]];
  for (const [where, name, call] of listeners) where.addEventListener(name, call);
  model.on("change:areas", changed);
  return () => {
    for (const [where, name, call] of listeners) where.removeEventListener(name, call);
    model.off("change:areas", changed);
    tip.remove();
    ring.remove();
  };
}
export default { render };
