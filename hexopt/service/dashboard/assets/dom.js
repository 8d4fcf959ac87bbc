// Elements are only ever given text, never markup: ids come from clients.
export const at = (id) => document.getElementById(id);

export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function facts(list, rows) {
  if (list.childElementCount !== rows.length) {
    list.replaceChildren(...rows.map(() => make("div", {}, make("dt"), make("dd"))));
  }
  rows.forEach(([name, value], k) => {
    put(list.children[k].children[0], name);
    put(list.children[k].children[1], value);
  });
}

export function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => make("option", { value, text })));
  select.value = chosen;
}

// The rows of a table by key: what stays is changed in place, so that focus and scrolling stay too.
export class Rows {
  constructor(body, create, fill) {
    Object.assign(this, { body, create, fill, rows: new Map() });
  }

  update(items, key) {
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    const seen = new Set();
    let next = this.body.firstElementChild;
    for (const item of items) {
      const name = key(item);
      seen.add(name);
      let row = this.rows.get(name);
      if (!row) {
        row = this.create(item);
        this.rows.set(name, row);
      }
      this.fill(row, item);
      if (row === next) next = next.nextElementSibling;
      else this.body.insertBefore(row, next);
    }
    for (const [name, row] of this.rows) {
      if (seen.has(name)) continue;
      row.remove();
      this.rows.delete(name);
    }
    if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  }
}
