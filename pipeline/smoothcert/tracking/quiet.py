"""MLflow inside a fence: no chatter, no telemetry, bounded waiting, and everything as before afterwards.

MLflow is steered by environment variables, which are process-wide; they are set around its calls only, one
thread at a time, and never where the user has set them.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # MLflow's own defaults wait for minutes: 7 retries, 120 s each
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}
_CHATTY = ("mlflow", "alembic", "sqlalchemy", "git", "urllib3", "matplotlib")
_FENCE = threading.RLock()


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Import and call MLflow inside this; errors still come out as exceptions."""
    with _FENCE, warnings.catch_warnings():
        # MLflow and SQLAlchemy deprecate each other's habits; nobody here can act on it
        warnings.simplefilter("ignore")
        added = [name for name in _DEFAULTS if name not in os.environ]
        os.environ.update({name: _DEFAULTS[name] for name in added})
        try:
            import mlflow  # noqa: F401  # configures its loggers when it is first imported

            # a level of "off" outlives what MLflow sets on import; its handlers write to stderr by themselves
            loggers = [logging.getLogger(name) for name in _CHATTY]
            levels = [logger.level for logger in loggers]
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            try:
                yield
            finally:
                for logger, level in zip(loggers, levels, strict=True):
                    logger.setLevel(level)
        finally:
            for name in added:
                os.environ.pop(name, None)
