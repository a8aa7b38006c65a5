"use strict";
// Draws one tick after the other of a rule on a graph. Letters: N nodes, E edges; half-edges 2e and 2e + 1.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const state = {tick: 0, node: 0, picked: null, timer: null};

const WIDTH = 1000, HEIGHT = 620, MARGIN = 60, RADIUS = 24;
const BLUE = [0, 114, 178], ORANGE = [213, 94, 0];
const MILLISECONDS_A_TICK = 700;

const kindOf = Object.fromEntries(data.slots.map((slot) => [slot.name, slot.of]));
const place = data.nodes.map((node) => ({
  x: MARGIN + node.x * (WIDTH - 2 * MARGIN),
  y: HEIGHT - MARGIN - node.y * (HEIGHT - 2 * MARGIN),
}));

function make(parent, name, attributes = {}, text = null) {
  const isDrawn = parent.namespaceURI === "http://www.w3.org/2000/svg";
  const element = isDrawn ? document.createElementNS(parent.namespaceURI, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  parent.append(element);
  return element;
}

// A port is written "port x", so that no slot has its name.
const valuesOf = (tick, name) => name.startsWith("port ") ? tick.ports[name.slice(5)] : tick.slots[name];

function largest(name) {
  let most = 1e-9;
  for (const tick of data.ticks) for (const value of valuesOf(tick, name)) most = Math.max(most, Math.abs(value));
  return most;
}
const memo = {};
const scaleOf = (name) => memo[name] ??= largest(name);

function colour(value, scale) {
  const [red, green, blue] = value >= 0 ? BLUE : ORANGE;
  return `rgba(${red}, ${green}, ${blue}, ${(0.06 + 0.94 * Math.abs(value) / scale).toFixed(3)})`;
}

const short = (value) => String(Number(value.toPrecision(3)));

// Where guards fire: of the store that was picked, else of all stores with a guard.
function firing(tick) {
  const nodes = new Set(), ends = new Set();
  for (const line of data.lines) {
    if (!line.slot || (state.picked ? line.slot !== state.picked : !line.guarded)) continue;
    const places = kindOf[line.slot] === "node" ? nodes : ends;
    for (const at of tick.fires[line.slot]) places.add(at);
  }
  return {nodes, ends};
}

function between(from, to, share) {
  return {x: from.x + (to.x - from.x) * share, y: from.y + (to.y - from.y) * share};
}

function drawGraph(tick) {
  const svg = byId("graph");
  svg.replaceChildren();
  const fires = firing(tick);
  const withNumbers = byId("numbers").checked;
  drawEdges(svg, tick, fires, withNumbers);
  drawNodes(svg, tick, fires, withNumbers);
}

function drawEdges(svg, tick, fires, withNumbers) {
  const name = byId("of-edges").value;
  if (!name) {
    for (const [low, high] of data.edges) line(svg, place[low], place[high], 0, 1);
  }
  const values = name ? valuesOf(tick, name) : [];
  const scale = name ? scaleOf(name) : 1;
  const hasEnds = kindOf[name] === "ends";
  data.edges.forEach(([low, high], edge) => {
    if (name && hasEnds) {
      const middle = between(place[low], place[high], 0.5);
      line(svg, place[low], middle, values[2 * edge], scale);
      line(svg, middle, place[high], values[2 * edge + 1], scale);
    } else if (name) {
      line(svg, place[low], place[high], values[2 * edge], scale);
    }
    for (const [half, from, to] of [[2 * edge, low, high], [2 * edge + 1, high, low]]) {
      if (!fires.ends.has(half)) continue;
      const at = between(place[from], place[to], 0.14);
      make(svg, "circle", {class: "end", "data-half": half, cx: at.x, cy: at.y, r: 6});
    }
    if (!withNumbers || !name) return;
    // Neighbouring edges have their numbers at different places, so that fewer cover one another.
    const shift = 0.05 * (edge % 3);
    const shares = hasEnds ? [[2 * edge, 0.22 + shift], [2 * edge + 1, 0.78 - shift]] : [[2 * edge, 0.4 + 2 * shift]];
    for (const [half, share] of shares) {
      const at = between(place[low], place[high], share);
      const kind = tick.changed[name].includes(half) ? "edge-text changed" : "edge-text";
      make(svg, "text", {class: kind, "data-half": half, x: at.x, y: at.y}, short(values[half]));
    }
  });
}

function line(svg, from, to, value, scale) {
  const size = Math.abs(value) / scale;
  make(svg, "line", {
    class: "edge", x1: from.x, y1: from.y, x2: to.x, y2: to.y,
    stroke: size ? colour(value, scale) : "rgba(128, 128, 128, 0.4)", "stroke-width": 1.5 + 5 * size,
  });
}

function drawNodes(svg, tick, fires, withNumbers) {
  const name = byId("of-nodes").value;
  const values = valuesOf(tick, name);
  const scale = scaleOf(name);
  const changed = new Set(name.startsWith("port ") ? [] : tick.changed[name]);
  data.nodes.forEach((node, number) => {
    const {x, y} = place[number];
    const chosen = number === state.node ? " chosen" : "";
    const group = make(svg, "g", {class: `node ${node.role}${chosen}`, "data-node": number});
    make(group, "circle", {cx: x, cy: y, r: RADIUS, fill: "var(--box)"});
    make(group, "circle", {class: "disc", cx: x, cy: y, r: RADIUS, fill: colour(values[number], scale)});
    if (fires.nodes.has(number)) make(group, "circle", {class: "ring", cx: x, cy: y, r: RADIUS + 8});
    const kind = changed.has(number) ? "value changed" : "value";
    if (withNumbers) make(group, "text", {class: kind, x, y}, short(values[number]));
    make(group, "text", {class: "edge-text", x, y: y - RADIUS - 16}, number);
    make(group, "title", {}, `node ${number}, ${node.role}`);
    group.addEventListener("click", () => { state.node = number; update(); });
  });
}

function drawRule(tick) {
  const list = byId("rule");
  list.replaceChildren();
  for (const line of data.lines) {
    const item = make(list, "li", {}, line.text);
    if (!line.slot) continue;
    const count = tick.fires[line.slot].length;
    item.classList.add("store");
    item.dataset.slot = line.slot;
    item.classList.toggle("fires", line.guarded && count > 0);
    item.classList.toggle("picked", state.picked === line.slot);
    const places = kindOf[line.slot] === "node" ? "nodes" : "half-edges";
    if (line.guarded) make(item, "span", {class: "count"}, count ? `fires at ${count} ${places}` : "");
    item.addEventListener("click", () => {
      state.picked = state.picked === line.slot ? null : line.slot;
      update();
    });
  }
}

function row(table, cells, changed = false) {
  const element = make(table, "tr");
  for (const cell of cells) make(element, "td", changed ? {class: "changed"} : {}, cell);
}

// All that the chosen node sees: its ports, its slots, and of each edge its own end and the other.
function drawHeld(tick) {
  byId("held-title").textContent = `Node ${state.node}, ${data.nodes[state.node].role}`;
  const box = byId("held");
  box.replaceChildren();
  const table = make(box, "table");
  for (const port of ["x", "t"]) {
    const isOn = tick.ports[`${port}_on`][state.node] > 0;
    row(table, [port, isOn ? short(tick.ports[port][state.node]) : "off"]);
  }
  for (const slot of data.slots.filter((each) => each.of === "node")) {
    const isNew = tick.changed[slot.name].includes(state.node);
    row(table, [slot.name, short(tick.slots[slot.name][state.node])], isNew);
  }
  const edges = make(box, "table");
  const held = data.slots.filter((each) => each.of !== "node");
  if (!held.length) return;
  const head = make(edges, "tr");
  for (const name of ["to node", ...held.map((slot) => slot.name)]) make(head, "th", {}, name);
  data.edges.forEach(([low, high], edge) => {
    if (low !== state.node && high !== state.node) return;
    const half = 2 * edge + (high === state.node ? 1 : 0);
    const other = low === state.node ? high : low;
    const values = held.map((slot) => slot.of === "ends"
      ? `${short(tick.slots[slot.name][half])}, rev ${short(tick.slots[slot.name][half ^ 1])}`
      : short(tick.slots[slot.name][half]));
    row(edges, [String(other), ...values]);
  });
}

function update() {
  const tick = data.ticks[state.tick];
  byId("slider").value = state.tick;
  byId("example").textContent = data.examples[tick.example];
  byId("tick").textContent = `tick ${tick.number} of example ${tick.example + 1}${tick.told ? ": " + tick.told : ""}`;
  drawGraph(tick);
  drawRule(tick);
  drawHeld(tick);
}

function go(to) {
  state.tick = Math.max(0, Math.min(data.ticks.length - 1, to));
  update();
}

function stop() {
  clearInterval(state.timer);
  state.timer = null;
  byId("play").textContent = "play";
}

function play() {
  if (state.timer) return stop();
  byId("play").textContent = "stop";
  if (state.tick === data.ticks.length - 1) go(0);
  state.timer = setInterval(() => {
    go(state.tick + 1);
    if (state.tick === data.ticks.length - 1) stop();
  }, MILLISECONDS_A_TICK);
}

function begin() {
  const nodes = byId("of-nodes"), edges = byId("of-edges");
  for (const {name, of} of data.slots) make(of === "node" ? nodes : edges, "option", {value: name}, name);
  for (const port of ["x", "t"]) make(nodes, "option", {value: `port ${port}`}, `${port} (port)`);
  nodes.value = data.out;
  if (!edges.options.length) make(edges, "option", {value: ""}, "nothing");
  const slider = byId("slider");
  slider.max = data.ticks.length - 1;
  slider.addEventListener("input", () => { stop(); go(Number(slider.value)); });
  byId("back").addEventListener("click", () => { stop(); go(state.tick - 1); });
  byId("forth").addEventListener("click", () => { stop(); go(state.tick + 1); });
  byId("play").addEventListener("click", play);
  for (const id of ["of-nodes", "of-edges", "numbers"]) byId(id).addEventListener("change", update);
  state.node = data.nodes.findIndex((node) => node.role === "output");
  go(data.first);
}

begin();
