(() => {
  shared.themed(() => {});
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", async () => {
    const text = shared.$(button.dataset.copy).textContent;
    try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(shared.$(button.dataset.copy)); button.textContent = "Selected"; }
  });
})();
