// Runs the script of a board in Node with a document that knows as much as the script asks for.
// Usage: node page_in_node.js BOARD.html; prints a JSON list of what a reader sees after each action.
const fs = require("fs");
const html = fs.readFileSync(process.argv[2], "utf8");
const script = html.match(/<script>([^]*?)<\/script>/)[1];

class Element {
  constructor(tag) { Object.assign(this, { tag, attributes: {}, children: [], listeners: {}, hidden: false, value: "" }); }
  get id() { return this.attributes.id; }
  get textContent() { return this.children.map((one) => one.textContent ?? one).join(""); }
  set textContent(text) { this.children = [text]; }
  get selectedIndex() { return this.children.findIndex((one) => one.attributes.value === this.value); }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; if (this.tag === "select") this.value = children[0]?.attributes.value; }
  focus() { document.activeElement = this; }
  all(tag) { return this.children.flatMap((one) => one.all ? [...(one.tag === tag ? [one] : []), ...one.all(tag)] : []); }
  do(name) { this.listeners[name](); }
}
const known = {};
for (const [, tag, id] of html.matchAll(/<(\w+)[^>]* id="(\w+)"/g)) {
  known[id] = new Element(tag);
  known[id].parentElement = new Element("section");
}
known.data.textContent = html.match(/id="data">([^]*?)<\/script>/)[1];
global.document = {
  createElement: (tag) => new Element(tag), createElementNS: (_, tag) => new Element(tag), activeElement: null,
  getElementById: (id) => known[id] ?? known.head.all("button").find((one) => one.id === id),
};
new Function(script)();

const seen = [];
const cells = (rows) => rows.map((row) => row.children.map((cell) => cell.textContent));
const look = () => seen.push({
  head: known.head.children.map((one) => [one.textContent, one.attributes["aria-sort"] ?? ""]),
  body: cells(known.body.children), count: known.count.textContent, focus: document.activeElement?.id ?? "",
});
const press = (id) => { const button = document.getElementById(id); button.focus(); button.do("click"); look(); };
const pick = (id, value) => { known[id].value = value; known[id].do("change"); };

look();
press("sort-learning_rate");
press("sort-learning_rate");
pick("model", "BPR");
look();
pick("model", "");
pick("key", "learning_rate");
pick("value", "0.02");
look();
known.filters.children[0].do("click");
for (const row of known.body.children.slice(0, 2)) row.all("input")[0].do("change");
seen.push({
  compare: known.compare.all("table").map((table) => cells(table.all("tr"))), words: known.compare.textContent,
  curves: known.curves.all("path").map((one) => one.attributes.d), links: known.body.all("a").map((one) => one.attributes.href),
});
console.log(JSON.stringify(seen));
