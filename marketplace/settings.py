"""Every setting of the site, read from environment variables (docs/settings.md lists them).

One file for development, tests and production: what differs between them is only the environment.
With DEBUG off the site refuses to start without its secrets, see `marketplace.checks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import django_stubs_ext
from celery.schedules import crontab
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from marketplace.environment import (
    read_database,
    read_flag,
    read_folder,
    read_list,
    read_number,
    read_origins,
    read_text,
)

django_stubs_ext.monkeypatch()  # lets ModelAdmin[User] and ModelForm[User] name their model

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"

# ---- who we are ----------------------------------------------------------------------------------
DEBUG = read_flag("DEBUG", default=False)
SECRET_KEY = read_text("SECRET_KEY", "development-only-" + "x" * 50 if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured(
        "SECRET_KEY is not set. Set it to a long random text and keep it; "
        "for a trial on your own machine use ./dev up, which does this for you."
    )
SITE_NAME = read_text("SITE_NAME", "LoRA Marketplace")
PUBLIC_URL = read_text("PUBLIC_URL", "http://127.0.0.1:8000").rstrip("/")
ALLOWED_HOSTS = read_list("ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]")
CSRF_TRUSTED_ORIGINS = read_list("CSRF_TRUSTED_ORIGINS", PUBLIC_URL)
DATA_DIR = read_folder("DATA_DIR", BASE_DIR / "var")

# ---- apps ----------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "marketplace.accounts",
    "marketplace.blobs",
    "marketplace.live",
    "marketplace.catalogue",
    "marketplace.uploads",
    "marketplace.compositions",
    "marketplace.hub",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django.contrib.humanize",
    "django_htmx",
    "django_filters",
    "rest_framework",
    "drf_spectacular",
    "axes",
    "csp",
]
MIDDLEWARE = [
    "marketplace.request_ids.request_id_middleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "marketplace.urls"
ASGI_APPLICATION = "marketplace.asgi.application"
WSGI_APPLICATION = "marketplace.wsgi.application"
APPEND_SLASH = False
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "marketplace.pages.site_context",
            ],
        },
    },
]

# ---- database ------------------------------------------------------------------------------------
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": read_database("DATABASE_URL", "postgresql://localhost/marketplace")}
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DATABASES["default"]["OPTIONS"].setdefault("application_name", "marketplace")
# A process that is frozen in mid-transaction must not keep its row locks from everybody else.
DATABASES["default"]["OPTIONS"].setdefault(
    "options", "-c statement_timeout=10000 -c idle_in_transaction_session_timeout=30000"
)
if read_flag("DATABASE_POOL", default=False):  # the web process only: a pool breaks after a fork
    DATABASES["default"]["OPTIONS"]["pool"] = {
        "min_size": 1,
        "max_size": read_number("DATABASE_POOL_SIZE", 10, minimum=2),
        "timeout": 5,
    }
# LISTEN needs a session of its own; set this where DATABASE_URL leads through a transaction pooler.
LISTEN_DATABASE = read_database(
    "LISTEN_DATABASE_URL", read_text("DATABASE_URL", "postgresql://localhost/marketplace")
)

# ---- cache and queue -----------------------------------------------------------------------------
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": read_text("CACHE_URL", "redis://127.0.0.1:6379/1"),
        "KEY_PREFIX": "marketplace",
    }
}
CELERY_BROKER_URL = read_text("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = (
    {
        "visibility_timeout": 86400,
        "unacked_restore_throttle": 1,
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
    }
    if "redis" in CELERY_BROKER_URL.partition("://")[0]
    else {}
)
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0.2}
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 3
CELERY_WORKER_MAX_TASKS_PER_CHILD = read_number("WORKER_TASKS_PER_CHILD", 200, minimum=1)
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE: dict[str, Any] = {
    "requeue-lost-jobs": {
        "task": "marketplace.compositions.tasks.requeue_lost_jobs",
        "schedule": float(read_number("JOB_REAPER_SECONDS", 15, minimum=1)),
    },
    "forget-old-rows": {
        "task": "marketplace.compositions.tasks.forget_old_rows",
        "schedule": crontab(minute="7", hour="4"),
    },
    "requeue-lost-transfers": {
        "task": "marketplace.uploads.tasks.requeue_lost_transfers",
        "schedule": float(read_number("JOB_REAPER_SECONDS", 15, minimum=1)),
    },
    "clean-up-quarantine": {
        "task": "marketplace.uploads.tasks.clean_up_quarantine",
        "schedule": crontab(minute="17"),
    },
    "clean-up-pushes": {
        "task": "marketplace.hub.tasks.clean_up_pushes",
        "schedule": crontab(minute="27"),
    },
    "forget-old-events": {
        "task": "marketplace.live.tasks.forget_old_events",
        "schedule": crontab(minute="47"),
    },
    "add-up-downloads": {
        "task": "marketplace.catalogue.tasks.add_up_downloads",
        "schedule": 10.0,
        # Behind a long job the next run does what this one would have done.
        "options": {"expires": 10.0},
    },
    "collect-orphan-blobs": {
        "task": "marketplace.catalogue.tasks.collect_orphan_blobs",
        "schedule": crontab(minute="37", hour="3"),
    },
}
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "run" / "celerybeat-schedule")

# ---- files ---------------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = read_folder("STATIC_ROOT", DATA_DIR / "static")
STATICFILES_DIRS = [BASE_DIR / "static", ("docs", BASE_DIR / "docs" / "images")]
STORAGES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(DATA_DIR / "blobs")},
    },
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG
WHITENOISE_AUTOREFRESH = DEBUG
QUARANTINE_DIR = DATA_DIR / "quarantine"  # received, not yet validated
BASE_MODELS_DIR = DATA_DIR / "base_models"  # converted base models, a cache
WORK_DIR = DATA_DIR / "work"  # checkpoints and results of running jobs
X_ACCEL_REDIRECT = read_text("X_ACCEL_REDIRECT", "")  # internal nginx location of the blobs
FILE_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2000
DATA_UPLOAD_MAX_NUMBER_FILES = 32

# ---- limits (docs/settings.md; security.md section 4 gives the reasons) --------------------------
MIB = 1024 * 1024
MAX_WEIGHTS_BYTES = read_number("MAX_WEIGHTS_BYTES", 256 * MIB)
MAX_UPLOAD_BYTES = read_number("MAX_UPLOAD_BYTES", 300 * MIB)
MAX_FILES_PER_REVISION = read_number("MAX_FILES_PER_REVISION", 20)
MAX_CARD_BYTES = 512 * 1024
USER_QUOTA_BYTES = read_number("USER_QUOTA_BYTES", 5 * 1024 * MIB)
UPLOAD_RETENTION_HOURS = read_number("UPLOAD_RETENTION_HOURS", 24, minimum=1)
VALIDATION_SECONDS = read_number("VALIDATION_SECONDS", 10, minimum=1)
VALIDATION_MEMORY_BYTES = read_number("VALIDATION_MEMORY_BYTES", 1024 * MIB)
MAX_RUNNING_JOBS_PER_USER = read_number("MAX_RUNNING_JOBS_PER_USER", 2, minimum=1)
MAX_QUEUED_JOBS_PER_USER = read_number("MAX_QUEUED_JOBS_PER_USER", 10, minimum=1)
MAX_JOBS_PER_DAY = read_number("MAX_JOBS_PER_DAY", 50, minimum=1)
MAX_CANDIDATES = read_number("MAX_CANDIDATES", 20, minimum=1)
MAX_POOL = read_number("MAX_POOL", 200, minimum=1)
MAX_EXAMPLES = read_number("MAX_EXAMPLES", 500, minimum=1)
JOB_LEASE_SECONDS = read_number("JOB_LEASE_SECONDS", 60, minimum=2)
JOB_HEARTBEAT_SECONDS = read_number("JOB_HEARTBEAT_SECONDS", 10, minimum=1)
JOB_MAX_ATTEMPTS = read_number("JOB_MAX_ATTEMPTS", 3, minimum=1)
JOB_SOFT_LIMIT_SECONDS = read_number("JOB_SOFT_LIMIT_SECONDS", 20 * 60, minimum=10)
JOB_HARD_LIMIT_SECONDS = read_number("JOB_HARD_LIMIT_SECONDS", 25 * 60, minimum=20)
BASE_CACHE_BYTES = read_number("BASE_CACHE_BYTES", 4 * 1024 * MIB)

# ---- what hub clients push (docs/hub.md) ---------------------------------------------------------
HUB_REPOSITORIES_PER_HOUR = read_number("HUB_REPOSITORIES_PER_HOUR", 120, minimum=1)
HUB_COMMITS_PER_HOUR = read_number("HUB_COMMITS_PER_HOUR", 600, minimum=1)

# ---- other hubs (docs/hub.md) --------------------------------------------------------------------
HUBS = read_origins("HUBS", "https://huggingface.co")  # what adapters are imported from
INTERNAL_HUBS = read_origins("INTERNAL_HUBS", "")  # may have private addresses and plain http
HUB_FILE_HOSTS = read_list(  # where those hubs may send us for files; ".x" is all below x
    "HUB_FILE_HOSTS", ".huggingface.co,.hf.co,.amazonaws.com"
)
TRANSFER_SECONDS = read_number("TRANSFER_SECONDS", 10 * 60, minimum=1)
MAX_TRANSFERS_PER_HOUR = read_number("MAX_TRANSFERS_PER_HOUR", 20, minimum=1)

# ---- accounts and security -----------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "accounts:sign_in"
LOGIN_REDIRECT_URL = "front"
LOGOUT_REDIRECT_URL = "front"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 5 / 60  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_CALLABLE = "marketplace.accounts.views.locked_out"
AXES_CLIENT_IP_CALLABLE = "marketplace.client_addresses.client_address"
SIGN_UPS_PER_HOUR = read_number("SIGN_UPS_PER_HOUR", 5, minimum=1)  # from one address
RESETS_PER_DAY = read_number("RESETS_PER_DAY", 5, minimum=1)  # mails to one address
EMAIL_BACKEND = read_text("EMAIL_BACKEND", "django.core.mail.backends.console.EmailBackend")
EMAIL_HOST = read_text("EMAIL_HOST", "localhost")
EMAIL_PORT = read_number("EMAIL_PORT", 25)
EMAIL_HOST_USER = read_text("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = read_text("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_TLS = read_flag("EMAIL_USE_TLS", default=False)
DEFAULT_FROM_EMAIL = read_text("DEFAULT_FROM_EMAIL", "marketplace@localhost")

SECURE = PUBLIC_URL.startswith("https://")
SESSION_COOKIE_SECURE = SECURE
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SECURE = SECURE
CSRF_FAILURE_VIEW = "marketplace.pages.csrf_failed"
SECURE_SSL_REDIRECT = read_flag("SSL_REDIRECT", default=SECURE)
SECURE_HSTS_SECONDS = read_number("HSTS_SECONDS", 31536000 if SECURE else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE
SECURE_HSTS_PRELOAD = SECURE
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if read_flag("BEHIND_TLS_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],  # Pico draws its form icons as data images
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "manifest-src": [SELF],
    }
}

# ---- API -----------------------------------------------------------------------------------------
TRUSTED_PROXIES = read_number("TRUSTED_PROXIES", 0)
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "marketplace.accounts.authentication.BearerAuthentication",
        "marketplace.accounts.authentication.BrowserAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["marketplace.accounts.permissions.ReadOrWriteScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": [
        "marketplace.accounts.parsers.StrictJsonParser",
        "rest_framework.parsers.FormParser",
        "rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_PAGINATION_CLASS": "marketplace.catalogue.pagination.CataloguePagination",
    "PAGE_SIZE": 30,
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_CLASSES": [
        "marketplace.accounts.throttling.AnonymousThrottle",
        "marketplace.accounts.throttling.UserThrottle",
    ],
    "DEFAULT_THROTTLE_RATES": {
        "anon": read_text("THROTTLE_ANON", "100/min"),
        "user": read_text("THROTTLE_USER", "200/min"),
        "uploads": read_text("THROTTLE_UPLOADS", "60/hour"),
    },
    "NUM_PROXIES": TRUSTED_PROXIES,
    "EXCEPTION_HANDLER": "marketplace.accounts.api_errors.handle_api_error",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "LoRA Marketplace API",
    "DESCRIPTION": "Search, upload, download and compose LoRA adapters.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "ENUM_NAME_OVERRIDES": {
        "JobState": "marketplace.compositions.models.CompositionJob.State",
        "UploadState": "marketplace.uploads.models.Upload.State",
        "BaseModelState": "marketplace.catalogue.models.BaseModel.State",
        "RevisionState": "marketplace.catalogue.models.Revision.State",
        "AccessRequestState": "marketplace.catalogue.models.AccessRequest.State",
    },
}

# ---- language, time, logs ------------------------------------------------------------------------
LANGUAGE_CODE = "en"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {"()": "marketplace.logs.json_formatter"},
        "plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "json" if read_flag("LOG_JSON", default=not DEBUG) else "plain",
        }
    },
    "root": {"handlers": ["console"], "level": read_text("LOG_LEVEL", "INFO")},
    "loggers": {"axes": {"level": "WARNING"}},
}
