// What is wider than the text scrolls in a box of its own: tables, pictures on a phone, formulas,
// code and printed lines. A box that hides a part is marked, so that a line above it says so.
const HEADING = ":scope > :is(h1, h2, h3, h4, h5, h6)";
const TABLES = ".pst-scrollable-table-container, .cell_output > .output";
const LARGE = 600;  // pixels of a picture's own width: smaller ones can be read on a phone as they are

const headingOf = (box) => {
  for (let part = box; part; part = part.parentElement) {
    const heading = part.querySelector(HEADING);
    if (heading) {
      const text = heading.cloneNode(true);
      text.querySelectorAll(".headerlink, mjx-assistive-mml").forEach((one) => one.remove());
      return text.textContent.trim();
    }
  }
  return document.title;
};

const number = new Map();  // of two tables under one heading, the second says so
const nameOf = (kind, box) => {
  const heading = headingOf(box);
  const count = (number.get(kind + heading) ?? 0) + 1;
  number.set(kind + heading, count);
  return `${kind} ${count} of “${heading}”, wider than the text`;
};

const watch = new ResizeObserver((changes) => changes.forEach((change) => marks.get(change.target)?.()));
const marks = new Map();  // of each box that is watched, what to do when its size has changed

// Mark a place whenever what scrolls in it goes on beyond its edge.
const follow = (watched, place, what, scrolling, then = () => {}) => {
  marks.set(watched, () => {
    const box = scrolling();
    const wide = Boolean(box) && box.scrollWidth > box.clientWidth + 1;
    place.classList.toggle("wide", wide);
    if (wide) place.dataset.rest = what;
    else delete place.dataset.rest;
    then(wide);
  });
  watch.observe(watched);
};

// A table or a picture is a region with a name, so that somebody who reaches it with Tab is told
// what it is and how the rest comes into view. The theme lets Tab reach a table, too, but may have
// looked before the table had its width.
const named = (box, name) => (wide) => {
  if (wide) {
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", name);
    box.tabIndex = 0;
  } else {
    box.removeAttribute("role");
    box.removeAttribute("aria-label");
    box.removeAttribute("tabindex");
  }
};

for (const table of document.querySelectorAll(".bd-article table")) {
  const box = table.closest(TABLES);
  if (!box || marks.has(box)) continue;
  follow(box, box, "table", () => box, named(box, nameOf("Table", box)));
}

for (const picture of document.querySelectorAll(".bd-article img")) {
  const wrap = () => {
    if (picture.naturalWidth <= LARGE) return;
    const box = Object.assign(document.createElement("span"), { className: "picture" });
    picture.style.setProperty("--own-width", `${picture.naturalWidth}px`);
    picture.replaceWith(box);
    box.append(picture);
    follow(box, box, "picture", () => box, named(box, nameOf("Picture", box)));
  };
  if (picture.complete) wrap();
  else picture.addEventListener("load", wrap, { once: true });
}

// MathJax puts what scrolls into the place of a formula later.
for (const place of document.querySelectorAll(".bd-article div.math")) {
  follow(place, place, "formula", () => place.querySelector("mjx-container"));
}

for (const lines of document.querySelectorAll(".bd-article .highlight > pre")) {
  const what = lines.closest(".cell_output") ? "output" : "code";
  follow(lines, lines.parentElement, what, () => lines);
}
