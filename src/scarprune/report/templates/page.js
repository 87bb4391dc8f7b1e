"use strict";
(() => {
  const { specs, dark, sites } = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const printing = matchMedia("print");
  const views = (window.scarpruneViews = {});
  let chosen = null;

  const themed = (spec, theme) => {
    const text = JSON.stringify(spec);
    const made = JSON.parse(
      theme === "dark" ? text.replace(/#[0-9a-f]{6}/g, (colour) => dark[colour] ?? colour) : text
    );
    if (innerWidth < 500) made.config.legend.columns = 2;
    return made;
  };

  // ast: expressions are interpreted, so that the page needs no eval and can forbid it.
  const draw = async (name, theme) => {
    const place = document.querySelector(`[data-figure="${name}"]`);
    const old = views[name];
    const made = await vegaEmbed(place, themed(specs[name], theme), { actions: false, ast: true, renderer: "svg" });
    if (old) old.finalize();
    views[name] = made.view;
  };

  const drawAll = async () => {
    const theme = chosen ?? (system.matches ? "dark" : "light");
    root.dataset.theme = theme;
    root.dataset.drawn = "";
    for (const name of Object.keys(specs)) await draw(name, theme);
    root.dataset.drawn = theme;
  };

  const element = (tag, text) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // The rows behind a figure, as a table for those who cannot see or hover it; made when first opened.
  const numbers = (name) => {
    const rows = Object.values(specs[name].datasets ?? {}).find((set) => set.length > 2) ?? rowsOf(specs[name]);
    const keys = Object.keys(rows[0] ?? {});
    const table = element("table");
    const head = table.createTHead().insertRow();
    for (const key of keys) head.append(Object.assign(element("th", key.replaceAll("_", " ")), { scope: "col" }));
    const body = table.createTBody();
    for (const row of rows.slice(0, 500)) {
      const line = body.insertRow();
      for (const key of keys) line.insertCell().textContent = row[key] ?? "–";
    }
    if (rows.length > 500) table.createCaption().textContent = `The first 500 of ${rows.length} rows.`;
    return table;
  };

  const rowsOf = (spec) => {
    const found = [spec.data, ...(spec.layer ?? []).map((layer) => layer.data)];
    return found.filter((data) => data?.name && data.values).at(-1)?.values ?? [];
  };

  document.querySelectorAll("figure").forEach((figure) => {
    const details = figure.querySelector("details");
    details.addEventListener("toggle", () => {
      const box = details.querySelector(".wide");
      if (details.open && !box.firstChild) box.append(numbers(figure.id));
    });
  });

  document.getElementById("theme").addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    drawAll();
  });
  system.addEventListener("change", () => chosen ?? drawAll());
  printing.addEventListener("change", () => Object.values(views).forEach((view) => view.resize().run()));

  document.getElementById("csv")?.addEventListener("click", () => {
    const quoted = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
    const lines = ["site,layer,channel"];
    for (const site of sites) for (const index of site.core) lines.push([quoted(site.site), site.layer, index].join(","));
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = "core.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });

  drawAll();
})();
