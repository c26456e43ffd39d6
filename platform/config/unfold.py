"""The look of the admin. Settings import this module, so it imports no Django."""

from typing import Any

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Modelyard",
    "SITE_HEADER": "Modelyard",
    "SITE_SUBHEADER": "Models, served and governed",
    "SITE_SYMBOL": "deployed_code",
    "SITE_URL": "/",
    "SITE_FAVICONS": [
        {
            "rel": "icon",
            "type": "image/svg+xml",
            "href": "/static/modelyard/favicon.svg",
        },
    ],
    "SHOW_HISTORY": True,
    "SHOW_BACK_BUTTON": True,
    "STYLES": ["/static/modelyard/admin.css"],
    "SCRIPTS": ["/static/modelyard/admin.js"],
    "BORDER_RADIUS": "6px",
    "ENVIRONMENT": "config.pages.navigation.environment",
    "DASHBOARD_CALLBACK": "config.pages.dashboard.add_context",
    "ACCOUNT": {"navigation": "config.pages.navigation.account_links"},
    "SIDEBAR": {
        "show_search": True,
        "show_all_applications": False,
        "navigation": "config.pages.navigation.navigation",
    },
    "COLORS": {
        "primary": {
            "50": "oklch(96.2% .018 272.314)",
            "100": "oklch(93% .034 272.788)",
            "200": "oklch(87% .065 274.039)",
            "300": "oklch(78.5% .115 274.713)",
            "400": "oklch(67.3% .182 276.935)",
            "500": "oklch(58.5% .233 277.117)",
            "600": "oklch(51.1% .262 276.966)",
            "700": "oklch(45.7% .24 277.023)",
            "800": "oklch(39.8% .195 277.366)",
            "900": "oklch(35.9% .144 278.697)",
            "950": "oklch(25.7% .09 281.288)",
        }
    },
}
