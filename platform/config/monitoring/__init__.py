"""Count what Django processes do, and write the dashboards and alerts for it."""
