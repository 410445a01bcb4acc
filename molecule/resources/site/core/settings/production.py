"""Production."""

from core.settings.base import *  # noqa: F403

DEBUG = False

# security settings
SECURE_CONTENT_TYPE_NOSNIFF = True

ALLOWED_HOSTS = [
    ".example.org",  # with all subdomains
    "192.0.2.77",  # the load balancer, asked for by the hosting team
]
X_FRAME_OPTIONS = "DENY"
