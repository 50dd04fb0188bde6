// Draws the axes, the legend and some names of a scatter plot, and keeps the plot as wide as its column.
// jscatter's own axes stand at the right, their numbers are 10 pixels high, titles are plain text,
// and a plot that is wider than high shows values on both sides at which there can be no point.
const APART = 6;  // least distance of two numbers of an axis, in heights of a letter
const TYPE = 13;  // pixels of the type beside which dots have the size that the plot names
const LINES = "http://www.w3.org/2000/svg";

// Round values between two ends: steps of 1, 2 or 5 times a power of ten; on a logarithmic axis
// powers of ten, and their double and fivefold where there are few. Where that leaves fewer than two,
// as between 60 and 180, the steps are those of a linear axis.
function roundValues(low, high, most, logarithmic) {
  const found = [];
  if (logarithmic) {
    const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
    const every = Math.max(1, Math.ceil((last - first) / most));
    const factors = high / low < 100 ? [1, 2, 5] : [1];
    for (let power = first; power <= last; power += every) {
      found.push(...factors.map((factor) => factor * 10 ** power));
    }
    const seen = found.filter((value) => value >= low && value <= high);
    if (seen.length > 1) return seen;
    found.length = 0;
  }
  const least = (high - low) / most, power = 10 ** Math.floor(Math.log10(least));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= least);
  for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-9); i++) {
    found.push(Number((i * step).toPrecision(10)));
  }
  return found;
}

// A value in digits; where they would not fit beside the axis, as a multiple of a power of ten.
const written = (value) => {
  const size = Math.abs(value);
  const digits = (x) => x.toLocaleString("en-US", { maximumSignificantDigits: 6 }).replace("-", "−");
  if (value === 0 || (size >= 1e-4 && size < 1e6)) return digits(value);
  const [factor, power] = value.toExponential(5).split("e").map(Number);
  const raised = `10${[...String(power)].map((sign) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[sign] ?? "⁻").join("")}`;
  return factor === 1 ? raised : `${digits(factor)}·${raised}`;
};

async function render({ model, el }) {
  el.classList.add("embvar-axes");
  const name = model.get("plot").slice("IPY_MODEL_".length);
  const scatter = await model.widget_manager.get_model(name);
  const lines = document.createElementNS(LINES, "svg");
  lines.setAttribute("aria-hidden", "true");  // the plot has a text of its own
  const part = (kind) => {
    const made = document.createElement("div");
    made.className = `embvar-axes-${kind}`;
    return made;
  };
  const xTitle = part("x"), yTitle = part("y"), legend = part("legend");
  el.replaceChildren(lines, xTitle, yTitle, legend);

  let frame = null, canvas = null, api = null, waiting = 0;

  // The part of an axis in view, in fractions of the whole, as the plot's camera has it now: the
  // plot's scales and the last of its "view" events are out of date after a change of its size.
  const seen = (which) => {
    const across = which === "x", view = api.get("cameraView");
    const [zoom, shift] = across ? [view[0], view[12] / api.get("aspectRatio")] : [view[5], view[13]];
    return [-1, 1].map((edge) => ((edge - shift) / zoom + 1) / 2);
  };
  const axis = (which) => {
    const [low, high] = scatter.get(`${which}_scale_domain`) ?? [0, 1];
    const logarithmic = scatter.get(`${which}_scale`).startsWith("log"), [from, to] = seen(which);
    const value = (at) => logarithmic ? low * (high / low) ** at : low + (high - low) * at;
    const at = (x) => logarithmic ? Math.log(x / low) / Math.log(high / low) : (x - low) / (high - low);
    return { ends: [value(from), value(to)], logarithmic, place: (x) => (at(x) - from) / (to - from) };
  };
  const add = (parent, tag, attributes, text = "") => {
    const made = document.createElementNS(LINES, tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    parent.append(made);
    return made;
  };
  const groups = { x: add(lines, "g", { class: "x-axis" }), y: add(lines, "g", { class: "y-axis" }) };
  const named = add(lines, "g", {});
  // Names of points, right of them or left, those of marked ones first; where neither side has room,
  // a point stays without.
  const nameThem = (left, upper, plot, type) => {
    named.replaceChildren();
    const across = axis("x"), up = axis("y"), taken = [];
    const all = ["names", "outermost"].flatMap((kind) =>
      model.get(kind).map((one) => [...one, kind === "names" ? "embvar-name" : "embvar-outer"]));
    for (const [x, y, text, kind] of all) {
      const [right, high] = [across.place(x), up.place(y)];
      if (!(right >= 0 && right <= 1 && high >= 0 && high <= 1)) continue;
      const at = { x: left + right * plot.width, y: upper + (1 - high) * plot.height + 0.35 * type };
      at.y = Math.min(Math.max(at.y, upper + type), upper + plot.height - 0.3 * type);
      const name = add(named, "text", { class: kind, y: at.y }, text);
      const fits = ["start", "end"].some((anchor) => {
        name.setAttribute("text-anchor", anchor);
        name.setAttribute("x", at.x + (anchor === "start" ? 1 : -1) * 0.7 * type);
        const box = name.getBBox(), [ends, foot] = [box.x + box.width, box.y + box.height];
        const free = taken.every((one) => one.x > ends || one.x + one.width < box.x ||
          one.y > foot || one.y + one.height < box.y);
        if (!free || box.x < left || ends > left + plot.width) return false;
        taken.push(box);
        return true;
      });
      if (!fits) name.remove();
    }
  };
  const draw = () => {
    waiting = 0;
    if (!api || !canvas?.clientWidth) return;  // out of sight, as while JupyterLab changes its theme
    const own = el.getBoundingClientRect(), plot = canvas.getBoundingClientRect();
    const left = plot.left - own.left, upper = plot.top - own.top;
    const type = parseFloat(getComputedStyle(el).fontSize);
    for (const [which, group] of Object.entries(groups)) {
      const { ends, logarithmic, place } = axis(which), across = which === "x";
      const room = (across ? plot.width : 2 * plot.height) / type / APART;
      group.replaceChildren();
      for (const value of roundValues(...ends, Math.max(2, room), logarithmic)) {
        const x = across ? left + place(value) * plot.width : left;
        const y = across ? upper + plot.height : upper + (1 - place(value)) * plot.height;
        const tick = add(group, "g", { class: "tick" });
        add(tick, "line", { x1: x, y1: y, x2: across ? x : x + plot.width, y2: across ? upper : y });
        const text = across
          ? { x, y: y + 1.2 * type, "text-anchor": "middle" }
          : { x: x - 0.5 * type, y: y + 0.35 * type, "text-anchor": "end" };
        add(tick, "text", text, written(value));
      }
    }
    nameThem(left, upper, plot, type);
    xTitle.style.left = `${left}px`;
    xTitle.style.width = `${plot.width}px`;
    xTitle.style.top = `${upper + plot.height + 1.5 * type}px`;
    legend.style.right = `${own.right - plot.right}px`;
  };
  const soon = () => { waiting ||= requestAnimationFrame(draw); };

  // The plot takes the width there is, and a height in proportion, as far as the window allows.
  const fit = () => {
    if (!frame?.clientWidth || !canvas) return;
    const { width, height } = canvas.getBoundingClientRect();
    const wanted = model.get("height") ||
      Math.round(Math.max(300, Math.min(0.62 * width, 0.62 * window.innerHeight)));
    if (scatter.get("height") !== wanted) scatter.set("height", wanted);
    frame.style.setProperty("--embvar-height", `${wanted}px`);
    // Dots grow with the type, as in a lecture.
    const larger = parseFloat(getComputedStyle(el).fontSize) / TYPE;
    const { pointSizeSelected, pointOutlineWidth } = scatter.get("regl_scatterplot_options");
    api?.set({
      aspectRatio: width / height,  // both axes end at the edges of the plot
      pointSize: larger * scatter.get("size"),
      pointSizeSelected: larger * pointSizeSelected,
      pointOutlineWidth: larger * pointOutlineWidth,
    });
    soon();
  };
  const titles = () => {
    [xTitle.innerHTML, yTitle.innerHTML] = model.get("titles");
    const { title, colours, marks = [], swatches = [] } = model.get("legend");
    const bar = part("bar"), numbers = part("marks");
    const add = (parent, text) => {
      const made = document.createElement("span");
      made.innerHTML = text;
      parent.append(made);
      return made;
    };
    for (const [at, text] of marks) add(numbers, text).style.left = `${100 * at}%`;
    legend.replaceChildren();
    add(legend, title);
    if (colours) {
      bar.style.background = `linear-gradient(to right, ${colours.join()})`;
      const scale = part("scale");
      scale.append(bar, numbers);
      legend.append(scale);
    }
    for (const [text, colour] of swatches) {
      const one = add(legend, ""), box = part("swatch");
      box.style.background = colour;
      one.append(box, text);
    }
  };

  // The plot's own trait for it loads pictures in any order, and draws them in coarse pixels.
  let turn = 0;
  const behind = async () => {
    const mine = ++turn, png = model.get("behind");
    if (!api) return;
    const bitmap = png?.byteLength ? await createImageBitmap(new Blob([png])) : null;
    if (mine !== turn) return;
    const before = api.get("backgroundImage"), linear = { min: "linear", mag: "linear" };
    api.set({ backgroundImage: bitmap && api.get("regl").texture({ data: bitmap, ...linear }) });
    before?.destroy();
    api.redraw();
  };

  const resized = new ResizeObserver(fit);
  const looked = new ResizeObserver(() => find());  // once this is laid out, the plot is beside it
  const find = () => {
    frame = el.closest(".embvar-plot");
    canvas = frame?.querySelector(".embvar-scatter canvas");
    // jscatter makes its plot in the animation frame after its canvas.
    api = canvas?.parentElement.parentElement.api;
    if (!api) {
      if (el.isConnected) requestAnimationFrame(find);
      return;
    }
    looked.disconnect();
    api.set({ width: "auto", height: "auto" });
    api.subscribe("view", soon);
    resized.observe(canvas);
    resized.observe(el);  // another theme moves the plot and leaves its size
    window.addEventListener("resize", fit);
    fit();
    if (model.get("behind")?.byteLength) behind();
  };
  titles();
  looked.observe(el);
  const ends = ["x_scale", "y_scale", "x_scale_domain", "y_scale_domain"].map((trait) =>
    `change:${trait}`).join(" ");
  scatter.on(ends, soon);
  model.on("change:titles change:legend", titles);
  model.on("change:names change:outermost", soon);
  model.on("change:behind", behind);
  return () => {
    looked.disconnect();
    resized.disconnect();
    window.removeEventListener("resize", fit);
    scatter.off(ends, soon);
    model.off("change:titles change:legend", titles);
    model.off("change:names change:outermost", soon);
    model.off("change:behind", behind);
  };
}
export default { render };
