// Buttons with data-copy="id" copy the value or text of the element with that id.
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    const text = "value" in source ? source.value : source.textContent;
    const copied = await copy(text, source);
    const before = button.innerHTML;
    button.textContent = copied ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.innerHTML = before; }, 2000);
  });
}

async function copy(text, source) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Browsers allow the clipboard only to secure pages: leave the text selected.
    if ("select" in source) source.select();
    else getSelection().setBaseAndExtent(source, 0, source, source.childNodes.length);
    return document.execCommand("copy");
  }
}
