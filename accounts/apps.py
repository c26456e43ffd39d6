from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.db.models.signals import post_save, pre_delete

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class AccountsConfig(AppConfig):
    name = "accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # Registers checks. They need the models, which are loaded now.
        from accounts import checks  # noqa: F401

        for changed in (post_save, pre_delete):
            changed.connect(
                _person_changed, sender="auth.User", dispatch_uid="accounts.personal"
            )


# Models can be imported only once the apps are ready.
def _person_changed(instance: "User", **signal: Any) -> None:
    from accounts.customers import personal_keys

    # Asking for its rights here would make the account remember them for too long.
    stays = instance.is_active and instance.is_staff
    if signal["signal"] is pre_delete or not stays:
        personal_keys.end_those_of(instance)
