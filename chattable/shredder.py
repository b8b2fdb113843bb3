"""What was deleted leaves the files, too: the append-only file of the embedded Redis, and others.

For whoever has deleted something, and for modules that know of a file.
"""

import logging
import os
import threading
from pathlib import Path

from flask import current_app
from redis.exceptions import RedisError, ResponseError

from chattable import live

SHRED = 5  # seconds

log = logging.getLogger(__name__)


def also_shred(app, file):
    """Have `file()` called, too, in the app's context; it returns False if it cannot now."""
    app.extensions.setdefault("chattable_files", [rewrite_redis_log]).append(file)


def shredder(app):
    """Have what was deleted taken out of the files: soon, and once for many deletions."""
    for file in app.extensions.get("chattable_files", [rewrite_redis_log]):
        shred_soon(app, file)


def shred_soon(app, file):
    timer = threading.Timer(SHRED, shred, [app, file])
    timer.daemon = True
    if app.extensions.setdefault(place(file), timer) is timer:
        timer.start()


def place(file):
    # A process that was forked meanwhile has no timer that runs.
    return f"shredder of {os.getpid()}: {file.__name__}"


def shred(app, file):
    app.extensions.pop(place(file), None)
    with app.app_context():
        if not file():
            shred_soon(app, file)


def rewrite_redis_log():
    """Have the embedded Redis write its append-only file anew; return False if it cannot now."""
    try:
        if is_embedded():
            live.redis().bgrewriteaof()
        return True
    except RedisError as error:
        log.info("the append-only file is not rewritten yet: %s", error)
        return False


def is_embedded():
    """Return whether this Redis keeps its files with ours: any other is its owner's business."""
    if not current_app.config["REDIS_URL"].startswith("unix://"):
        return False
    try:
        folder = str(live.redis().config_get("dir").get("dir", ""))
    except ResponseError:
        return False  # whoever may not ask has not started it
    return Path(folder).resolve() == Path(current_app.instance_path, "redis")
