"""What every environment shares."""

from pathlib import Path

BASE_DIR = Path(__file__).resolve().parents[2]
SECRETS = BASE_DIR / "build" / "secrets"


def read_secret(name, default=""):
    """The secret without blanks around it; the default where the file is missing or empty, as the site does it."""
    path = SECRETS / name
    return (path.read_text().strip() if path.is_file() else "") or default


SECRET_KEY = "of the tests alone, but not to be shown: s3cret-of-the-settings"  # noqa: S105
LLM_SPAM_CHECK_API_KEY = read_secret("llm_spam_check_api_key", "unconfigured")
DEBUG = False
ROOT_URLCONF = "core.urls"
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
INSTALLED_APPS = []
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "server"]
