"""The site as a WSGI application."""

import gc
import os
from importlib import import_module

from django.conf import settings
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# Imports leave next to nothing to collect, and looking for it takes a tenth of their
# time.
gc.disable()
application = get_wsgi_application()
if settings.MODELYARD_PROCESS != "internal":
    # Now, and not in the threads of the first pages.
    import_module(settings.ROOT_URLCONF)
gc.freeze()
gc.enable()
