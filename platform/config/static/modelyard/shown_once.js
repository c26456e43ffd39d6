/* A page that shows something once is the answer to a form. Loaded again it would send
   the form again, and issue another key: lead to the page that `data-again` names. */
const again = document.querySelector("[data-again]").dataset.again;
history.replaceState(null, "", again);
