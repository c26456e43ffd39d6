/* A page that shows something once is the answer to a form. Loaded again it would send
   the form again, and issue another key: lead to the page that `data-again` names.
   Stands before what is shown, so that nobody sees it any sooner. */
history.replaceState(null, "", document.currentScript.dataset.again);
