"""gunicorn's own log, as all others are written: for `--logger-class`."""

import os

from gunicorn import glogging

from pages.lines import FORMATTERS, TextLine


class Logger(glogging.Logger):
    """Say what goes wrong as `LOG_FORMAT` says; requests are told by the app."""

    def setup(self, cfg):
        super().setup(cfg)
        shape = os.environ.get("LOG_FORMAT", "").strip().lower()
        for handler in self.error_log.handlers:
            handler.setFormatter(FORMATTERS.get(shape, TextLine)())
