"""The folder in which an install keeps its database, its Redis and its key: for apps, too."""

import os
import secrets
import tempfile
from pathlib import Path

from chattable.serve.sentences import CannotStart


def open_instance():
    """Return the folder that holds database, Redis and key, made if it is missing."""
    instance = Path(os.environ.get("INSTANCE_PATH") or "instance").absolute()
    try:
        for folder in (instance, instance / "redis"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"INSTANCE_PATH: {instance} cannot be used: {error.strerror}.") from None
    return instance


def secret_key(instance):
    """Return SECRET_KEY for those who set none: kept in the instance, for its owner's eyes."""
    if os.environ.get("SECRET_KEY"):
        return {}
    path = instance / "secret_key"
    if not path.exists():
        # written aside and moved, so that no half of a key is ever read
        descriptor, draft = tempfile.mkstemp(dir=instance)
        with open(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        os.replace(draft, path)
    return {"SECRET_KEY": path.read_text().strip()}
