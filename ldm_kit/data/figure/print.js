// A script cannot know the width of the paper: what was drawn for the screen is scaled as an image is.
const plot = document.getElementById("{plot_id}");
const scaled = () => plot.querySelectorAll(".main-svg").forEach((one) => {
  one.setAttribute("viewBox", `0 0 ${one.getAttribute("width")} ${one.getAttribute("height")}`);
  one.setAttribute("preserveAspectRatio", "xMinYMin meet");
});
scaled();
plot.on("plotly_afterplot", scaled);
