"""Django settings, read top to bottom. Values come from the environment.

Every variable is listed with its default in docs/settings.md.
"""

import logging
import os
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

import environ
from django.core.exceptions import ImproperlyConfigured

from config import mail
from config.middleware.content_policy import (
    CONTENT_SECURITY_POLICY as CONTENT_SECURITY_POLICY,
)
from config.processes import secret_key
from config.unfold import UNFOLD as UNFOLD
from inference.gateway.settings import gateway_count
from inference.installation.home import Home
from inference.installation.log_lines import logs
from inference.installation.preparing import HomeUnusable, prepare

# The checkout, or the folder with the same tree that a wheel installs.
BASE_DIR = Path(__file__).resolve().parents[2]
env = environ.FileAwareEnv()

# Where this installation keeps its files

_beside = BASE_DIR if (BASE_DIR / "manage.py").exists() else Path.cwd()
MODELYARD_HOME = Path(env("MODELYARD_HOME", default=str(_beside / "var"))).resolve()
HOME = Home(MODELYARD_HOME)
# Set by the supervisor in the processes that it starts.
MODELYARD_PROCESS = env("MODELYARD_PROCESS", default="")
try:
    prepare(HOME, os.environ)
    _home_is_read_only = False
except HomeUnusable as error:
    if MODELYARD_PROCESS:
        raise ImproperlyConfigured(str(error)) from error
    # Commands like `check` work without writing; `serve` reports the problem.
    _home_is_read_only = True
MODELYARD_HOST = env("MODELYARD_HOST", default="127.0.0.1")
MODELYARD_PORT = env.int("MODELYARD_PORT", default=8000)
MODELYARD_OPERATOR_HOST = env("MODELYARD_OPERATOR_HOST", default="127.0.0.1")
MODELYARD_OPERATOR_PORT = env.int("MODELYARD_OPERATOR_PORT", default=MODELYARD_PORT + 1)
# 0: no gRPC.
MODELYARD_GRPC_PORT = env.int("MODELYARD_GRPC_PORT", default=MODELYARD_PORT + 2)
MODELYARD_PUBLIC_URL = env(
    "MODELYARD_PUBLIC_URL", default=f"http://127.0.0.1:{MODELYARD_PORT}"
)
# One engine process runs on each device; `auto`: every CUDA device, else the CPU.
MODELYARD_DEVICES = env.list("MODELYARD_DEVICES", default=["auto"])
# `auto`: one gateway process per two cores.
MODELYARD_GATEWAYS = max(1, gateway_count(env("MODELYARD_GATEWAYS", default="1")))
MODELYARD_SITE_WORKERS = env.int("MODELYARD_SITE_WORKERS", default=1)
# Gateways stop at this size; the controller limits events it has counted to half of it.
MODELYARD_SPOOL_MAX_BYTES = env.int("MODELYARD_SPOOL_MAX_BYTES", default=4 * 1024**3)

# Shown in the admin's header; `production` in red.
MODELYARD_ENVIRONMENT = env("MODELYARD_ENVIRONMENT", default="demo")

# Security

DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
# Empty if the home's own key is lost: `serve` refuses then, and nothing is signed.
SECRET_KEY = env("SECRET_KEY", default="") or secret_key.of_home(HOME)
HTTPS = env.bool("HTTPS", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = env.int("HSTS_SECONDS", default=31_536_000 if HTTPS else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
CSRF_TRUSTED_ORIGINS = env.list(
    "CSRF_TRUSTED_ORIGINS",
    default=[MODELYARD_PUBLIC_URL, f"http://localhost:{MODELYARD_PORT}"],
)

# Applications

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.simple_history",
    "config.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "simple_history",
    "axes",
    "config",
    "registry",
    "accounts",
    "inference",
    "explain",
]

MIDDLEWARE = [
    "config.middleware.site_counts.SiteCountsMiddleware",
    # Early: the others are for public requests.
    "config.middleware.internal_calls.InternalCallMiddleware",
    "config.middleware.request_log.RequestLogMiddleware",
    "config.middleware.hosts.KnownHostMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "config.middleware.content_policy.ContentPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "simple_history.middleware.HistoryRequestMiddleware",
    "config.pages.error_pages.UnstorableMiddleware",
    # Last: it replaces the response to a sign-in that it refused.
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# Logs: every process writes JSON lines, see inference/installation/log_lines/logs.py

# `files` below MODELYARD_HOME, or `stdout`: the output of `serve`, for a journal.
LOG_TO = env("LOG_TO", default="files")
# Log every request to the site, not only failures.
LOG_REQUESTS = env.bool("LOG_REQUESTS", default=False)
# People at the command line want to read only the command's own output.
LOG_LEVEL = env("LOG_LEVEL", default="INFO" if MODELYARD_PROCESS else "WARNING").upper()
if LOG_LEVEL not in logging.getLevelNamesMapping():
    raise ImproperlyConfigured("LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR.")
LOGGING_CONFIG = None
logs.configure(
    MODELYARD_PROCESS or "manage", level=LOG_LEVEL, uncaught=bool(MODELYARD_PROCESS)
)

# Data

DATABASES = {
    "default": env.db_url("DATABASE_URL", default=f"sqlite:///{HOME.database}")
}
DATABASES["default"].setdefault("CONN_MAX_AGE", 60)
# Check the connection before its first use in a request, so that pages work at once
# after a restart of the database.
DATABASES["default"].setdefault("CONN_HEALTH_CHECKS", True)
if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    # Give up a server that no longer answers after seconds, not after 15 minutes.
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 5,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        **DATABASES["default"].get("OPTIONS", {}),
    }
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # WAL: readers never wait for the writer. IMMEDIATE: a writer waits at BEGIN instead
    # of failing in the middle of its transaction.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 10,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
    # A file as in production: in memory, the threads of a test would share its locks.
    DATABASES["default"]["TEST"] = {"NAME": str(HOME.root / "test.sqlite3")}
    if MODELYARD_PROCESS and DATABASES["default"]["NAME"] != ":memory:":
        # Only commands that people run create the file. If it is missing, because it
        # was moved or its disk is not mounted, processes must wait for it and not
        # create an empty database.
        DATABASES["default"]["NAME"] = (
            f"file:{quote(DATABASES['default']['NAME'])}?mode=rw"
        )
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHE_URL = env("CACHE_URL", default="")
if CACHE_URL:
    CACHES = {
        "default": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": CACHE_URL,
            # Without timeouts, a server that does not answer would block every thread.
            "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 1, "SOCKET_TIMEOUT": 2},
        }
    }
elif _home_is_read_only:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
else:
    # It uses SQLite, so counts are atomic across processes, as rate limits need.
    CACHES = {
        "default": {
            "BACKEND": "diskcache_community.DjangoCache",
            "LOCATION": str(HOME.cache),
            "TIMEOUT": 300,
        }
    }

# With more models than this, each model's typed operations get their own document.
MODELYARD_DOCUMENTED_MODELS = env.int("MODELYARD_DOCUMENTED_MODELS", default=50)

# OpenAPI documents by content. They are quick to render, so each process has its own.
CACHES["documents"] = {
    "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
    "LOCATION": "documents",
    "OPTIONS": {"MAX_ENTRIES": 32},
}

# Celery carries hints; the database is the truth

CELERY_BROKER_URL = env("CELERY_BROKER_URL", default="filesystem://localhost")
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_POOL = "threads"
# Jobs use two at most (inference/jobs/work/turn.py), and a build of an environment one.
CELERY_WORKER_CONCURRENCY = 4
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
if CELERY_BROKER_URL.startswith("filesystem://"):
    CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, str | int] = {"folder": str(HOME.broker)}
    CELERY_BROKER_TRANSPORT = "config.processes.hint_files:Transport"
else:
    # Submitting a job must not wait for a broker that is down: the sweep sends later.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"max_retries": 0}
# In memory: beat could not start with a schedule file that a kill left half written,
# and all intervals are short.
CELERY_BEAT_SCHEDULER = "celery.beat:Scheduler"
CELERY_BEAT_SCHEDULE = {
    "sync-registry": {"task": "registry.tasks.sync_registry", "schedule": 60.0},
    "sweep-jobs": {"task": "inference.tasks.sweep_jobs", "schedule": 10.0},
    "keep-environments": {
        "task": "inference.tasks.keep_environments",
        "schedule": 10.0,
    },
    "remove-old-jobs": {"task": "inference.tasks.remove_old_jobs", "schedule": 600.0},
    "look-at-soft-limits": {
        "task": "accounts.tasks.look_at_soft_limits",
        "schedule": 60.0,
    },
    "send-notices": {"task": "accounts.tasks.send_notices", "schedule": 60.0},
    "look-for-suspicions": {
        "task": "accounts.tasks.look_for_suspicions",
        "schedule": 300.0,
    },
    "end-personal-keys": {
        "task": "accounts.tasks.end_personal_keys",
        "schedule": 60.0,
    },
    "roll-up-usage": {"task": "accounts.tasks.roll_up_usage", "schedule": 30.0},
    "forget-usage-minutes": {
        "task": "accounts.tasks.forget_usage_minutes",
        "schedule": 600.0,
    },
    "tell-followers": {"task": "inference.tasks.tell_followers", "schedule": 10.0},
    "forget-messages": {"task": "inference.tasks.forget_messages", "schedule": 3600.0},
    "remove-expired-uploads": {
        "task": "inference.tasks.remove_expired_uploads",
        "schedule": 300.0,
    },
}

# Usage: minutes are deleted after this, hours and days stay

USAGE_MINUTES_DAYS = env.int("USAGE_MINUTES_DAYS", default=62)

# Jobs

JOB_FILE_MAX_BYTES = env.int("JOB_FILE_MAX_BYTES", default=1_000_000_000)
JOB_RETENTION_DAYS = env.int("JOB_RETENTION_DAYS", default=7)
# Uploads become a job's input by a rename, so they are on the same disk as inputs.
FILE_UPLOAD_TEMP_DIR = None if _home_is_read_only else str(HOME.jobs)

# Instances that a customer may say something of on a UTC day.
MODELYARD_FEEDBACK_PER_DAY = env.int("MODELYARD_FEEDBACK_PER_DAY", default=100_000)

# Uploads: files that are sent first and named in a prediction or job later

UPLOAD_MAX_BYTES = env.int("UPLOAD_MAX_BYTES", default=1_000_000_000)
UPLOAD_TTL_S = env.int("UPLOAD_TTL_S", default=3600)
# Dotted path of a Django storage, such as an object store, and its options as JSON.
UPLOAD_STORAGE = env("UPLOAD_STORAGE", default="")
UPLOAD_STORAGE_OPTIONS = env.json("UPLOAD_STORAGE_OPTIONS", default={})
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "uploads": {
        "BACKEND": UPLOAD_STORAGE,
        "OPTIONS": UPLOAD_STORAGE_OPTIONS,
    }
    if UPLOAD_STORAGE
    else {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(HOME.uploads), "file_permissions_mode": 0o600},
    },
}

# MLflow

MLFLOW_TRACKING_URI = env(
    "MLFLOW_TRACKING_URI", default=f"sqlite:///{HOME.mlflow / 'mlflow.db'}"
)

# Folders that an MLflow *server* may name for artifacts on this machine's own disk
MLFLOW_ARTIFACT_FOLDERS = env.list("MLFLOW_ARTIFACT_FOLDERS", default=[])
MODELYARD_MAX_IMAGE_PIXELS = env.int("MODELYARD_MAX_IMAGE_PIXELS", default=20_000_000)
MODELYARD_ARTIFACT_MAX_BYTES = env.int(
    "MODELYARD_ARTIFACT_MAX_BYTES", default=10 * 1024**3
)

# Python environments of models (docs/environments.md)

# `base`: models run in this installation's own; `build`: in one of their own if they
# need it.
MODELYARD_ENVIRONMENTS = env("MODELYARD_ENVIRONMENTS", default="base")
if MODELYARD_ENVIRONMENTS not in ("base", "build"):
    raise ImproperlyConfigured("MODELYARD_ENVIRONMENTS must be base or build.")
MODELYARD_ENVIRONMENT_TIMEOUT_S = env.int(
    "MODELYARD_ENVIRONMENT_TIMEOUT_S", default=1800
)
MODELYARD_ENVIRONMENT_MAX_BYTES = env.int(
    "MODELYARD_ENVIRONMENT_MAX_BYTES", default=5_000_000_000
)
MODELYARD_ENVIRONMENT_KEEP_DAYS = env.int("MODELYARD_ENVIRONMENT_KEEP_DAYS", default=7)

# REST

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "accounts.api.authentication.ApiKeyAuthentication"
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    # Views of the prediction plan set no throttle: the plan checks limits itself.
    "DEFAULT_THROTTLE_CLASSES": ["accounts.api.throttling.KeyThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["inference.api.negotiation.JsonParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "inference.api.negotiation.JsonNegotiation",
    "DEFAULT_SCHEMA_CLASS": "inference.api.openapi.inspector.ApiSchema",
    "EXCEPTION_HANDLER": "inference.api.exception_handler.render_exception",
    "UNAUTHENTICATED_USER": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Modelyard",
    "DESCRIPTION": "Predictions and explanations from the models of your registry.\n\n"
    "Send your API key as `Authorization: Bearer …` or `X-API-Key`. Every error has "
    "one shape; [each code is explained](/docs/errors). Answers tell what is left of "
    "your limits in `RateLimit`; a refusal says in `Retry-After` when to come back.\n\n"
    "Your models are listed last, each with requests that work. Where they are many, "
    "each has a document of its own: `/api/schema/?model=NAME`, and for people "
    "`/docs/?model=NAME`.",
    "LICENSE": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
    "VERSION": metadata.version("modelyard"),
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {
        "deepLinking": True,
        "defaultModelsExpandDepth": -1,
        "displayRequestDuration": True,
        "persistAuthorization": False,
        "tryItOutEnabled": True,
        # The default sends the document to a host of Swagger UI's maker.
        "validatorUrl": None,
    },
    "POSTPROCESSING_HOOKS": [
        "inference.api.openapi.document.complete",
    ],
}

# People

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
# This stops slow guessing; the limit per minute in config/pages/login.py stops fast
# guessing. A name is locked for one address only, so that nobody can lock others out.
AXES_FAILURE_LIMIT = 20
AXES_COOLOFF_TIME = 1.0
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "config.middleware.client_address.of_request"
AXES_LOCKOUT_CALLABLE = "config.pages.error_pages.locked_out"
# We do not need to know when people signed in.
AXES_DISABLE_ACCESS_LOG = True
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
CSRF_FAILURE_VIEW = "config.pages.error_pages.csrf_failure"
# A link to set a password works once, within three days.
PASSWORD_RESET_TIMEOUT = 3 * 24 * 3600
# For example smtp+tls://user:password@host:587; without it, mail is printed to the log.
_mail = mail.settings_of(env("EMAIL_URL", default=""))
MAIL_BACKEND = env("EMAIL_BACKEND", default=_mail["EMAIL_BACKEND"])
# What only prints cannot fail, and is known by its name.
EMAIL_BACKEND = (
    MAIL_BACKEND
    if MAIL_BACKEND.endswith((".console.EmailBackend", ".dummy.EmailBackend"))
    else "config.monitoring.mails.CountedBackend"
)
EMAIL_HOST = _mail["EMAIL_HOST"]
EMAIL_PORT = _mail["EMAIL_PORT"]
EMAIL_HOST_USER = _mail["EMAIL_HOST_USER"]
EMAIL_HOST_PASSWORD = _mail["EMAIL_HOST_PASSWORD"]
EMAIL_USE_TLS = _mail["EMAIL_USE_TLS"]
EMAIL_USE_SSL = _mail["EMAIL_USE_SSL"]
# A mail server that hangs must not keep the site's threads.
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env("DEFAULT_FROM_EMAIL", default="modelyard@localhost")

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
# Times in the admin include their zone.
FORMAT_MODULE_PATH = "config.formats"

# Keep the whole reason of each change; by default, 100 characters.
SIMPLE_HISTORY_HISTORY_CHANGE_REASON_USE_TEXT_FIELD = True

STATIC_URL = "/static/"
# An empty folder: WhiteNoise warns at every start if it is missing.
STATIC_ROOT = HOME.static
# Serve files straight from the packages: no `collectstatic` before the first start.
WHITENOISE_USE_FINDERS = True
