// Draws the panels of curves on the page about runs. Each is drawn when it comes into view: there may be
// thousands. The data are those of vsml/reporting/panels.py.
"use strict";

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const config = {
  responsive: true,
  displaylogo: false,
  displayModeBar: "hover",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
};

/** Return a colour of the style sheet. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Return text that plotly does not take for its markup. */
function literal(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** Return the colour of a legend entry with so much opacity. */
function lineColour(entry, opacity) {
  const hex = dark.matches ? entry.dark : entry.light;
  const parts = [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
  return `rgba(${parts.join(",")},${opacity})`;
}

/** Make an element. */
function element(tag, parent, attributes = {}) {
  const made = document.createElement(tag);
  Object.assign(made, attributes);
  parent.append(made);
  return made;
}

/** One section of curves: a legend, choices, and panels. */
class Section {
  constructor(root, data) {
    this.data = data;
    this.axis = Object.keys(data.axes)[0];
    this.hidden = new Set();
    this.drawn = new Map();
    this.addLegend(root);
    this.addChoices(root);
    const grid = element("div", root, { className: "panels" });
    const seen = (entries) => entries.filter((each) => each.isIntersecting).forEach((each) => this.see(each.target));
    this.observer = new IntersectionObserver(seen, { rootMargin: "600px" });
    this.panels = data.panels.map((panel) => {
      const box = element("div", grid, { className: "panel" });
      element("h3", box, { textContent: panel.title });
      const plot = element("div", box, { className: "plot" });
      plot.panel = panel;
      this.observer.observe(plot);
      return box;
    });
    dark.addEventListener("change", () => this.redraw());
  }

  addLegend(root) {
    if (this.data.legend.length < 2 && !this.data.panels.some((panel) => panel.level !== null)) return;
    const legend = element("div", root, { className: "legend" });
    this.data.legend.forEach((entry, number) => {
      const button = element("button", legend, { type: "button", title: "show or hide" });
      button.setAttribute("aria-pressed", "true");
      const sample = `<svg viewBox="0 0 26 8"><path d="M0 4H26" fill="none" stroke-width="2.5"/></svg>`;
      button.insertAdjacentHTML("afterbegin", sample);
      const path = button.querySelector("path");
      path.style.strokeDasharray = { solid: "none", dash: "7 3", dot: "2 3" }[entry.dash];
      const paint = () => { path.style.stroke = lineColour(entry, 1); };
      dark.addEventListener("change", paint);
      paint();
      button.append(entry.name);
      button.addEventListener("click", () => {
        if (!this.hidden.delete(number)) this.hidden.add(number);
        button.setAttribute("aria-pressed", String(!this.hidden.has(number)));
        this.redraw();
      });
    });
    if (this.data.panels.some((panel) => panel.level !== null)) {
      element("span", legend, { className: "note", textContent: this.data.levelName });
    }
  }

  addChoices(root) {
    const names = Object.entries(this.data.axes);
    const many = this.data.panels.length > 12;
    if (names.length < 2 && !many) return;
    const choices = element("div", root, { className: "choices" });
    if (names.length > 1) {
      const label = element("label", choices, { textContent: "over " });
      const select = element("select", label);
      names.forEach(([value, text]) => element("option", select, { value, textContent: text }));
      select.addEventListener("change", () => {
        this.axis = select.value;
        this.redraw();
      });
    }
    if (many) {
      const label = element("label", choices, { textContent: `of ${this.data.panels.length} panels those with ` });
      const input = element("input", label, { type: "search", placeholder: "part of a name" });
      input.addEventListener("input", () => {
        const wanted = input.value.toLowerCase();
        this.panels.forEach((box) => {
          box.hidden = !box.firstChild.textContent.toLowerCase().includes(wanted);
        });
      });
    }
  }

  see(plot) {
    this.observer.unobserve(plot);
    this.drawn.set(plot, true);
    this.draw(plot);
  }

  redraw() {
    this.drawn.forEach((_, plot) => this.draw(plot));
  }

  draw(plot) {
    Plotly.react(plot, this.traces(plot.panel), this.layout(plot.panel), config);
  }

  traces(panel) {
    return panel.lines.filter((line) => !this.hidden.has(line.entry)).flatMap((line) => {
      const entry = this.data.legend[line.entry];
      const x = line.x[this.axis];
      const common = { x, name: literal(entry.name), showlegend: false };
      const number = panel.percent ? ".1%" : ".5~g";
      const trace = {
        ...common,
        y: line.y,
        mode: line.y.length === 1 ? "lines+markers" : "lines",
        line: { color: lineColour(entry, 1), dash: entry.dash, width: 2 },
        hovertemplate: `%{y:${number}}`,
      };
      if (!line.half) return [trace];
      trace.customdata = line.half;
      trace.hovertemplate += ` ± %{customdata:${number}}`;
      const edge = (sign) => ({
        ...common,
        y: line.y.map((y, place) => {
          if (y === null || line.half[place] === null) return null;
          return Math.max(0, Math.min(panel.most, y + sign * line.half[place]));
        }),
        mode: "lines",
        line: { width: 0 },
        hoverinfo: "skip",
      });
      const upper = { ...edge(1), fill: "tonexty", fillcolor: lineColour(entry, 0.2) };
      return [edge(-1), upper, trace];
    });
  }

  /** Return the kind of the x axis; over more than two decades only powers of ten are written. */
  xType(panel) {
    if (!panel.log) return { type: "linear" };
    const ends = panel.lines.map((line) => line.x[this.axis].at(-1));
    return { type: "log", tickformat: ",~d", ...(Math.max(...ends) > 100 ? { dtick: 1 } : {}) };
  }

  layout(panel) {
    const axis = { gridcolor: colour("--grid"), linecolor: colour("--line"), zeroline: false, automargin: true };
    const faint = { color: colour("--faint"), width: 1 };
    const shapes = [];
    const annotations = [];
    if (panel.level !== null) {
      const across = { type: "line", xref: "paper", x0: 0, x1: 1, y0: panel.level, y1: panel.level };
      shapes.push({ ...across, name: "level", line: { ...faint, width: 1.5, dash: "dash" } });
    }
    panel.repeats.forEach((seen) => {
      shapes.push({ type: "line", yref: "paper", y0: 0, y1: 1, x0: seen, x1: seen, line: faint });
      annotations.push({
        x: panel.log ? Math.log10(seen) : seen, yref: "paper", y: 1, text: "images repeat", textangle: -90,
        showarrow: false, xanchor: "right", yanchor: "top", font: { size: 10, color: colour("--faint") },
      });
    });
    return {
      margin: { l: 50, r: 12, t: 30, b: 40 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--text"), size: 12 },
      hoverlabel: { bgcolor: colour("--box"), bordercolor: colour("--line"), font: { color: colour("--text") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--faint"), activecolor: colour("--text") },
      hovermode: "x unified",
      hoverdistance: -1, // the nearest point, however far
      shapes,
      annotations,
      xaxis: { ...axis, ...this.xType(panel), title: { text: this.data.axes[this.axis], standoff: 6 } },
      yaxis: { ...axis, range: panel.range, tickformat: panel.percent ? ".0%" : "", title: { text: panel.y } },
    };
  }
}

document.querySelectorAll("[data-curves]").forEach((root) => {
  const data = JSON.parse(document.getElementById(root.dataset.curves).textContent);
  root.section = new Section(root, data);
});
