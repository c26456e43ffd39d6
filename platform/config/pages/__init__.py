"""Pages of the whole site: docs, dashboard, navigation, sign-in, errors."""
