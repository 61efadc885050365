// Tables of class "sortable" get buttons in their heads, and long ones a field to search in.
(() => {
  "use strict";
  const MISSING = "–", ROWS_TO_SEARCH = 12;
  const collator = new Intl.Collator(undefined, { numeric: true });
  // Without the mark that may stand behind it, such as "worst".
  const textOf = (row, column) => (row.cells[column].firstChild?.textContent ?? "").trim();
  const numberOf = text => (/\d/.test(text) ? Number(text.replace(/[,\s%]/g, "")) : NaN);

  function sort(table, head) {
    const column = head.cellIndex, body = table.tBodies[0];
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const rows = Array.from(body.rows, row => {
      const text = textOf(row, column);
      return { row, text, value: numberOf(text), missing: text === MISSING };
    });
    const numeric = rows.every(one => one.missing || !Number.isNaN(one.value));
    const compare = numeric ? (a, b) => a.value - b.value : (a, b) => collator.compare(a.text, b.text);
    rows.sort((a, b) => a.missing - b.missing || (falling ? compare(b, a) : compare(a, b)));
    const sorted = document.createDocumentFragment();
    for (const one of rows) sorted.append(one.row);
    body.append(sorted);
  }

  function addSearch(table) {
    const rows = Array.from(table.tBodies[0].rows);
    const plain = text => text.normalize("NFKC").toLocaleLowerCase();
    const names = rows.map(row => plain(textOf(row, 0)));
    const box = document.createElement("p"), label = document.createElement("label");
    const field = document.createElement("input"), count = document.createElement("output");
    box.className = "search";
    field.type = "search";
    label.append(`Search: ${table.tHead.rows[0].cells[0].textContent.toLowerCase()} `, field);
    box.append(label, " ", count);
    table.parentElement.before(box);
    field.addEventListener("input", () => {
      const wanted = plain(field.value.trim());
      let shown = 0;
      rows.forEach((row, place) => {
        row.hidden = !names[place].includes(wanted);
        shown += !row.hidden;
      });
      count.textContent = wanted ? `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")}` : "";
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    if (table.tBodies[0].rows.length > ROWS_TO_SEARCH) addSearch(table);
    for (const head of table.tHead.rows[0].cells) {
      if (!head.textContent.trim()) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, head));
      head.append(button);
    }
  }
})();
