"""Fill chattable/static/vendor/ with the HTMX files when the project is installed."""

import filecmp
import shutil
from importlib.util import find_spec
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = {
    "htmx-4.min.js": "htmx.min.js",
    "ext/hx-ws-4.min.js": "hx-ws.min.js",
    "ext/hx-upsert-4.min.js": "hx-upsert.min.js",
}


class VendorHook(BuildHookInterface):
    """Copy HTMX and its extensions from django-htmx, which is needed only while building."""

    def initialize(self, version, build_data):
        """Copy what is missing or different before any wheel, editable or not, is built."""
        package = Path(find_spec("django_htmx").origin).parent
        source = package / "static" / "django_htmx"
        vendor = Path(self.root) / "chattable" / "static" / "vendor"
        vendor.mkdir(parents=True, exist_ok=True)
        for theirs, ours in FILES.items():
            copy_if_changed(source / theirs, vendor / ours)


def copy_if_changed(source, target):
    """Copy source to target, leaving an equal target's time alone."""
    # uv builds again whenever these files' times change
    if not target.exists() or not filecmp.cmp(source, target, shallow=False):
        shutil.copyfile(source, target)
