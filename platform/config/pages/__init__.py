"""The site's own pages: docs, dashboard, navigation, search, sign-in, errors."""
