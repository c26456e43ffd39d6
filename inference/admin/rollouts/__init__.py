"""The admin of rollouts: a list, a page that shows the evidence, and moves by hand."""
