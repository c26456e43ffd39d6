"""What operators measure: one table of all metrics, and the reports that carry them."""
