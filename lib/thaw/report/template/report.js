// What the page does for its reader. Without scripts, all of it is there to be read.
"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const made = (tag, attributes) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

// Contents: folded on narrow screens, and the section that is being read is marked.
for (const contents of all("nav details")) {
  const wide = matchMedia("(min-width: 75rem)");
  const fold = () => { contents.open = wide.matches; };
  const links = all("a", contents);
  const headings = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));
  const mark = () => {
    const end = scrollY > 0 && scrollY + innerHeight > document.documentElement.scrollHeight - 2;
    const last = headings.findLastIndex((heading) => heading.getBoundingClientRect().top < innerHeight / 4);
    const current = links.at(end ? -1 : Math.max(last, 0));
    for (const link of links) link.removeAttribute("aria-current");
    current.setAttribute("aria-current", "true");
    const nav = contents.parentElement; // scrolls by itself where it is higher than the window
    nav.scrollTop = Math.max(0, current.offsetTop - nav.clientHeight / 2);
  };
  wide.addEventListener("change", fold);
  addEventListener("scroll", mark, { passive: true });
  addEventListener("resize", mark);
  fold();
  mark();
}
addEventListener("beforeprint", () => all("details").forEach((details) => { details.open = true; }));

// Tables: sorted by a click on a header (up, down, as it was); long ones have a field to search them.
const SCALE = { min: 60, minutes: 60, h: 3600, hours: 3600, k: 1e3, M: 1e6 };
const ORDERS = { ascending: "descending", descending: "none", none: "ascending" };
const collator = new Intl.Collator("en", { numeric: true });
const number = (text) => { // "1,039", "4.1 min" and "93.3% (90.2 to 95.5)" count by their first number
  const plain = text.replace(/,(?=\d{3})/g, "").replace("\u2212", "-");
  const [, digits, unit] = plain.match(/^[^\p{L}\d.+-]*([+-]?\d*\.?\d+(?:e[+-]?\d+)?)\s*(\p{L}*)/u) ?? [];
  return digits === undefined ? NaN : digits * (SCALE[unit] ?? 1);
};
const sorted = (rows, column, sign) => {
  const texts = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
  const full = rows.filter((row) => /[\p{L}\d]/u.test(texts.get(row))); // what is empty, or a dash, comes last
  const numeric = full.every((row) => !Number.isNaN(number(texts.get(row))));
  const compare = numeric ? (a, b) => number(a) - number(b) : collator.compare;
  full.sort((a, b) => sign * compare(texts.get(a), texts.get(b)));
  return [...full, ...rows.filter((row) => !full.includes(row))];
};
for (const box of all(".report-scroll")) {
  const [head, body] = [box.querySelector("thead tr"), box.querySelector("tbody")];
  const rows = body ? [...body.rows] : [];
  for (const cell of head && rows.length > 2 ? head.cells : []) {
    const button = made("button", { type: "button" });
    button.append(...cell.childNodes);
    cell.append(button);
    cell.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const order = ORDERS[cell.getAttribute("aria-sort")];
      for (const other of head.cells) other.setAttribute("aria-sort", "none");
      cell.setAttribute("aria-sort", order);
      const sign = { ascending: 1, descending: -1 }[order];
      body.append(...(sign ? sorted(rows, cell.cellIndex, sign) : rows));
    });
  }
  if (rows.length < 10) continue;
  const name = `Search the table: ${box.getAttribute("aria-label")}`;
  const field = made("input", { type: "search", placeholder: "Search this table", "aria-label": name });
  const found = made("span", { role: "status" });
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of rows) {
      const text = [...row.cells].map((cell) => cell.textContent.toLowerCase()).join(" ");
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    found.textContent = field.value && `${shown} of ${rows.length} rows`;
  });
  const search = made("div", { class: "report-search" });
  search.append(field, found);
  box.before(search);
}

// Figures: what a mark is and its value, under the pointer or a finger, and by the arrow keys.
const tip = made("div", { class: "report-tip", role: "status" });
document.body.append(tip);
for (const svg of all(".report-figure svg:has(title)")) {
  const marks = all("title", svg).map((title) => {
    const mark = title.parentNode;
    mark.dataset.value = title.textContent;
    title.remove(); // or the browser would show it, too
    return mark;
  });
  const values = [...new Map(marks.map((mark) => [mark.dataset.value, mark])).values()]; // each once
  let current = -1;
  const hide = () => { tip.textContent = ""; };
  const show = (mark) => {
    const { left, top, width } = mark.getBoundingClientRect();
    tip.textContent = mark.dataset.value;
    const middle = left + width / 2 - tip.offsetWidth / 2;
    const most = document.documentElement.clientWidth - tip.offsetWidth - 4;
    tip.style.left = `${Math.max(4, Math.min(middle, most))}px`;
    tip.style.top = `${scrollY + top - tip.offsetHeight - 6}px`;
  };
  const near = ({ clientX, clientY }) => { // small marks are hit from some pixels away
    const away = values.map((mark) => {
      const { left, right, top, bottom } = mark.getBoundingClientRect();
      return right - left > 30 ? 99 : Math.hypot(clientX - (left + right) / 2, clientY - (top + bottom) / 2);
    });
    const least = Math.min(...away);
    return least < 15 ? values[away.indexOf(least)] : undefined;
  };
  const box = svg.parentElement; // which has the focus
  svg.addEventListener("pointermove", (event) => {
    const mark = event.target.closest("[data-value]") ?? near(event);
    if (mark) show(mark);
    else hide();
  });
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    current = (Math.max(current, step > 0 ? -1 : 0) + step + values.length) % values.length;
    const { left, right } = values[current].getBoundingClientRect();
    const frame = box.getBoundingClientRect();
    if (left < frame.left || right > frame.right) box.scrollLeft += left - frame.left - frame.width / 2;
    show(values[current]);
  });
  for (const away of ["pointerleave", "blur"]) box.addEventListener(away, hide);
}
