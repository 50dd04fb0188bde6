// Lays out pictures that Chromium left without a box. JupyterLab keeps cells out of the layout while
// they are out of sight (content-visibility). An image that is replaced meanwhile may have no box
// when its cell comes into view, and would stay unseen until something lays it out anew.
function render({ el }) {
  el.style.display = "none";
  let stopped = false;
  const seen = new IntersectionObserver(([{ isIntersecting, target }]) => {
    if (!isIntersecting) return;
    for (const image of target.querySelectorAll("img")) {
      const hidden = !image.parentElement.getClientRects().length;
      if (hidden || image.getClientRects().length || !image.naturalWidth) continue;
      const { display } = image.style;
      image.style.display = "none";
      image.offsetHeight;  // computes the layout without the image
      image.style.display = display;
    }
  });
  const begin = () => {
    const explorer = el.closest(".embvar-explorer");
    if (explorer) seen.observe(explorer);
    else if (!stopped) requestAnimationFrame(begin);  // not in the page yet
  };
  begin();
  return () => { stopped = true; seen.disconnect(); };
}
export default { render };
