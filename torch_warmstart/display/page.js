(function () {
  "use strict";

  function start(sheet) {
    sheet.dataset.ready = "";
    const table = sheet.querySelector("table");
    if (!table) return;
    const filter = sheet.querySelector("input");
    const state = sheet.querySelector("select");
    const shown = sheet.querySelector(".shown");
    const groups = Array.from(table.tBodies, function (body) {
      return {
        body: body,
        fold: body.querySelector("tr.fold"),
        entries: Array.from(body.querySelectorAll("tr.entry")),
        open: body.dataset.open !== "false",
      };
    });
    const entries = groups.flatMap(function (group) { return group.entries; });
    const texts = new Map(entries.map(function (entry) {
      return [entry, entry.textContent.toLowerCase()];
    }));
    const flat = document.createElement("tbody");
    let sorted = { column: -1, down: false };

    function show() {
      const wanted = filter.value.toLowerCase();
      const only = state ? state.value : "";
      let count = 0;
      for (const group of groups) {
        let found = 0;
        for (const entry of group.entries) {
          const fits = texts.get(entry).includes(wanted) && (!only || entry.dataset.state === only);
          found += fits;
          const folded = sorted.column < 0 && group.fold && !group.open && !wanted;
          entry.hidden = !fits || folded;
        }
        count += found;
        if (group.fold) {
          group.fold.hidden = !found;
          const open = String(group.open || Boolean(wanted));
          group.fold.querySelector("button").setAttribute("aria-expanded", open);
        }
      }
      shown.textContent = count + " of " + entries.length;
    }

    function value(entry, column) {
      const cell = entry.cells[column];
      const text = cell.textContent.trim();
      if (!cell.classList.contains("number")) return text;
      const number = parseFloat(text.replaceAll(",", ""));
      return Number.isNaN(number) ? -Infinity : number;
    }

    function arrange() {
      for (const [at, head] of Array.from(table.tHead.rows[0].cells).entries()) {
        const order = at !== sorted.column ? "none" : sorted.down ? "descending" : "ascending";
        head.setAttribute("aria-sort", order);
      }
      if (sorted.column < 0) {
        flat.remove();
        for (const group of groups) {
          group.body.append(...group.entries);
          table.append(group.body);
        }
      } else {
        const keyed = entries.map(function (entry) { return [value(entry, sorted.column), entry]; });
        const order = new Intl.Collator(undefined, { numeric: true }).compare;
        keyed.sort(function (one, other) {
          const by = typeof one[0] === "number" ? one[0] - other[0] || 0 : order(one[0], other[0]);
          return sorted.down ? -by : by;
        });
        flat.append(...keyed.map(function (pair) { return pair[1]; }));
        for (const group of groups) group.body.remove();
        table.append(flat);
      }
      show();
    }

    table.tHead.addEventListener("click", function (event) {
      const head = event.target.closest("th");
      if (!head) return;
      const column = head.cellIndex;
      if (column !== sorted.column) sorted = { column: column, down: false };
      else if (!sorted.down) sorted.down = true;
      else sorted = { column: -1, down: false };
      arrange();
    });
    for (const group of groups) {
      if (!group.fold) continue;
      group.fold.addEventListener("click", function () {
        group.open = !group.open;
        show();
      });
    }
    for (const button of sheet.querySelectorAll(".tools button")) {
      button.addEventListener("click", function () {
        for (const group of groups) group.open = button.dataset.open === "true";
        show();
      });
    }
    filter.addEventListener("input", show);
    if (state) state.addEventListener("change", show);
    show();
  }

  document.querySelectorAll("section.tws:not([data-ready])").forEach(start);
})();
