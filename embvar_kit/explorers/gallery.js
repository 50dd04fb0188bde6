// Tabs above a box of pages, of which one is shown. The kernel makes a page when it is first chosen.
const PATIENCE = 8000;  // milliseconds for which the kernel may be silent
const SILENT = "The kernel does not answer. If it is busy, the explorer will open once it is free; " +
  "if it has stopped, load the page again.";

function render({ model, el }) {
  const own = Math.random().toString(36).slice(2);
  const list = document.createElement("div");
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", "explorers");
  const said = document.createElement("div");
  said.setAttribute("role", "status");
  el.replaceChildren(list, said);
  let frame = 0, waiting = 0;
  const pages = () => el.closest(".embvar-gallery")?.querySelectorAll(".embvar-page") ?? [];
  const open = (at) => pages()[at]?.checkVisibility() ?? false;
  const tabs = model.get("titles").map((title, at) => {
    const tab = document.createElement("button");
    tab.id = `${own}-tab-${at}`;
    tab.className = "jupyter-button widget-button";
    tab.textContent = title;
    tab.setAttribute("role", "tab");
    tab.addEventListener("click", () => choose(at));
    list.append(tab);
    return tab;
  });
  const choose = (at) => {
    const silent = () => {
      const closed = !open(model.get("chosen"));
      said.textContent = closed ? SILENT : "";
      if (closed) waiting = setTimeout(silent, 1000);
    };
    said.textContent = "";
    clearTimeout(waiting);
    waiting = setTimeout(silent, PATIENCE);
    model.set("chosen", at);
    try {
      model.save_changes();
    } catch {  // the connection was cut
      clearTimeout(waiting);
      silent();
    }
  };
  // The arrows move between the tabs; Enter, the space bar or a click opens one: that may take long.
  const keys = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
  list.addEventListener("keydown", (event) => {
    const step = keys[event.key], last = tabs.length - 1;
    if (step === undefined) return;
    event.preventDefault();
    const here = tabs.indexOf(document.activeElement);
    const at = Math.abs(step) === 1
      ? (here + step + tabs.length) % tabs.length : step < 0 ? 0 : last;
    tabs[at].focus();
  });
  const show = () => {
    const boxes = pages();
    tabs.forEach((tab, at) => {
      const chosen = at === model.get("chosen"), page = boxes[at];
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
      tab.classList.toggle("mod-active", chosen);
      if (!page) return;
      page.id = `${own}-page-${at}`;
      page.setAttribute("role", "tabpanel");
      page.setAttribute("aria-labelledby", tab.id);
      tab.setAttribute("aria-controls", page.id);
    });
    // Voila's page has no landmark of its own.
    if (el.isConnected && !document.querySelector("main, [role=main]")) {
      el.closest("body > *")?.setAttribute("role", "main");
    }
  };
  const laidOut = () => {
    show();
    if (!el.closest(".embvar-gallery")) frame = requestAnimationFrame(laidOut);
  };
  laidOut();
  model.on("change:chosen", show);
  return () => {
    cancelAnimationFrame(frame);
    clearTimeout(waiting);
    model.off("change:chosen", show);
  };
}
export default { render };
