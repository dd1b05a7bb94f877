// Forms answer while one types; without this script, their buttons do.
"use strict";
const form = document.querySelector("form[data-live]");

async function refresh() {
  const address = `${form.getAttribute("action")}?${new URLSearchParams(new FormData(form))}`;
  refresh.controller?.abort();
  const controller = refresh.controller = new AbortController();
  const results = document.getElementById("results");
  results.classList.add("busy");
  try {
    const answer = await fetch(address, { signal: controller.signal });
    if (answer.redirected) return location.reload();  // the sign-in has expired
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    show(page);
    history.replaceState(null, "", address);
    if (answer.headers.has("Refresh")) refresh.timer = setTimeout(refresh, 2000);
  } catch (error) {
    if (error.name !== "AbortError") form.submit();
  } finally {
    if (refresh.controller === controller) results.classList.remove("busy");
  }
}

function show(page) {
  for (const id of ["results", "status"]) {
    const now = document.getElementById(id), next = page.getElementById(id);
    if (next) now.replaceChildren(...next.childNodes);
  }
  for (const part of ["h1", "nav ul", "datalist"]) {
    const now = document.querySelector(part), next = page.querySelector(part);
    if (next) now.replaceChildren(...next.childNodes);
  }
  document.title = page.title;
  const rule = document.getElementById("where"), next = page.getElementById("where");
  document.getElementById("rule-error")?.remove();
  const error = page.getElementById("rule-error");
  if (error) rule.after(error);
  for (const name of ["aria-invalid", "aria-describedby"]) {
    if (next?.hasAttribute(name)) rule.setAttribute(name, next.getAttribute(name));
    else rule.removeAttribute(name);
  }
}

async function suggest(input) {
  const query = new URLSearchParams({ prefix: input.value, side: form.elements.side?.value ?? "" });
  const answer = await fetch(`/explore/people?${query}`);
  if (!answer.ok || answer.redirected) return;
  const options = (await answer.json()).map(person => new Option("", person));
  document.getElementById("ids").replaceChildren(...options);
}

if (form) {
  const later = () => {
    clearTimeout(refresh.timer);
    refresh.timer = setTimeout(refresh, 400);
  };
  form.addEventListener("change", event => { if (event.target.id !== "where") later(); });
  form.elements.where.addEventListener("input", later);
  form.elements.id.addEventListener("input", event => suggest(event.target).catch(() => {}));
  form.addEventListener("submit", event => {
    event.preventDefault();
    clearTimeout(refresh.timer);
    refresh();
  });
}
