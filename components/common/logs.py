"""Log lines that a person can follow: time, level when it matters, message."""

import logging
import os
import re
import sys
import warnings

QUIET = (
    "mlflow",
    "alembic",
    "botocore",
    "boto3",
    "urllib3",
    "httpx",
    "filelock",
    "fsspec",
    "datasets",
    "lm_eval",
    "matplotlib",
)
_CREDENTIALS = re.compile(r"://[^/@\s]+@")


def configure(stream: object | None = None) -> None:
    """Send log lines to standard error (or ``stream``) and quieten the libraries below warnings."""
    handler = logging.StreamHandler(stream or sys.stderr)  # type: ignore[arg-type]
    # KFP's executor writes its own bookkeeping through the root logger; ours all have names.
    handler.addFilter(lambda record: record.name != "root" or record.levelno >= logging.WARNING)
    handler.setFormatter(_Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=os.environ.get("PMC_LOG_LEVEL", "INFO").upper(), handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    # It warns of the very way in which a model that is loaded already has to be handed over.
    logging.getLogger("lm_eval.models.huggingface").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)


def without_credentials(text: str) -> str:
    """Return the text with user and password cut out of every address in it."""
    return _CREDENTIALS.sub("://", text)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = without_credentials(super().format(record))
        if record.levelno < logging.WARNING:
            return text
        time_text, _, message = text.partition(" ")
        return f"{time_text} {record.levelname}: {message}"
