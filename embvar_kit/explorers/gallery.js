// Tabs above a box of pages, of which one is shown. The kernel makes a page when it is first chosen.
function render({ model, el }) {
  const own = Math.random().toString(36).slice(2);
  const list = document.createElement("div");
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", "explorers");
  el.replaceChildren(list);
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
    model.set("chosen", at);
    model.save_changes();
  };
  const keys = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
  list.addEventListener("keydown", (event) => {
    const step = keys[event.key], last = tabs.length - 1;
    if (step === undefined) return;
    event.preventDefault();
    const at = Math.abs(step) === 1
      ? (model.get("chosen") + step + tabs.length) % tabs.length : step < 0 ? 0 : last;
    choose(at);
    tabs[at].focus();
  });
  const show = () => {
    const pages = el.closest(".embvar-gallery")?.querySelectorAll(".embvar-page") ?? [];
    tabs.forEach((tab, at) => {
      const chosen = at === model.get("chosen"), page = pages[at];
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
    if (!el.closest(".embvar-gallery")) requestAnimationFrame(laidOut);
  };
  laidOut();
  model.on("change:chosen", show);
  return () => model.off("change:chosen", show);
}
export default { render };
