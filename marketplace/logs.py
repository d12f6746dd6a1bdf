"""One line of JSON for each log record, through structlog's formatter.

Each line carries what `request_ids` and `celery` bound: the id of the request, and in a worker the
task. Nothing here decides what is logged; credentials never reach a log record in the first place.
"""

from __future__ import annotations

import logging

import structlog


def json_formatter() -> logging.Formatter:
    """Return the formatter that `settings.LOGGING` names."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.ExtraAdder(),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
