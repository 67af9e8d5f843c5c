"use strict";
// What the pages of a report share: making elements, what was chosen, the theme, images.
const shared = (() => {
  const $ = (id) => document.getElementById(id);
  function node(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  // What was chosen outlives a reload, as when a store's server draws the page anew; files may forbid it.
  const kept = {
    get(key) { try { return sessionStorage.getItem("solverbench " + key); } catch { return null; } },
    set(key, value) { try { sessionStorage.setItem("solverbench " + key, value); } catch { /* not kept */ } },
  };

  // Theme ------------------------------------------------------------------------------------------------------------
  const themes = ["auto", "light", "dark"];
  let chosen = kept.get("theme") || "auto";
  const wantsDark = window.matchMedia("(prefers-color-scheme: dark)");
  const dark = () => chosen === "dark" || (chosen === "auto" && wantsDark.matches);
  function setTheme() {
    if (chosen === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", chosen);
    const told = { auto: "as the system has it", light: "light", dark: "dark" }[chosen];
    $("theme").textContent = { auto: "◐", light: "○", dark: "●" }[chosen] + " " + chosen;
    $("theme").setAttribute("aria-label", "Theme: " + told);
  }
  // Set the theme now and whenever it changes, and call `changed` after each change.
  function themed(changed) {
    const set = () => { setTheme(); changed(); };
    $("theme").addEventListener("click", () => {
      chosen = themes[(themes.indexOf(chosen) + 1) % 3];
      kept.set("theme", chosen);
      set();
    });
    wantsDark.addEventListener("change", set);
    setTheme();
  }

  // A row of buttons of which one is pressed -------------------------------------------------------------------------
  function choice(holder, options, current, chosen) {
    holder.replaceChildren(...options.map(([value, text]) => {
      const button = node("button", { type: "button", "aria-pressed": value === current }, text);
      button.addEventListener("click", () => {
        for (const other of holder.children) other.setAttribute("aria-pressed", other === button);
        chosen(value);
      });
      return button;
    }));
  }

  // Buttons of which any number is pressed, after one for all or none; `pressed` is a set of values, which they change.
  function several(holder, options, pressed, changed) {
    const show = () => buttons.forEach((button, k) => button.setAttribute("aria-pressed", pressed.has(options[k][0])));
    const buttons = options.map(([value, text, more = {}]) => {
      const button = node("button", { type: "button", ...more }, text);
      button.addEventListener("click", () => {
        if (!pressed.delete(value)) pressed.add(value);
        show();
        changed();
      });
      return button;
    });
    const all = node("button", { type: "button", class: "all" }, "all or none");
    all.addEventListener("click", () => {
      const whole = pressed.size === options.length;
      pressed.clear();
      if (!whole) for (const [value] of options) pressed.add(value);
      show();
      changed();
    });
    show();
    holder.replaceChildren(...buttons, ...(options.length > 2 ? [all] : []));
  }

  return { $, node, kept, dark, themed, choice, several };
})();
