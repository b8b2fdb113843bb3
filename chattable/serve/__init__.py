"""`uv run chattable`: the launcher, a module for each thing that it starts or looks after.

An app comes in for the folder and the key that it has in common with the launcher.
"""

from chattable.serve.instance import instance_folder, kept_key, open_folder, secret_key
from chattable.serve.sentences import CannotStart
from chattable.serve.settings import unquoted

__all__ = [
    "CannotStart",
    "instance_folder",
    "kept_key",
    "open_folder",
    "secret_key",
    "unquoted",
]
