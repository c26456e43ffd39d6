from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Registers what Django checks; it needs the models, which are there now.
        from accounts import checks  # noqa: F401
