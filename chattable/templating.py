"""What pages are made of in any app: default partials, a style sheet, scripts, sums in words.

An app has its own way by the name of a partial: its `templates/chattable/_message.html` goes first.
"""

import hashlib
from decimal import Decimal
from pathlib import Path

from flask import Blueprint, Flask, request

from chattable.live.frames import ROOT

YEAR = 365 * 24 * 3600  # s
STATIC = Path(__file__).resolve().parent / "static"


def init_app(app: Flask) -> None:
    """Let an app's templates include `chattable/_head.html` and `chattable/_chat.html`."""
    app.jinja_env.filters["chattable_dollars"] = dollars
    app.jinja_env.filters["chattable_duration"] = duration
    # What addresses begin with in templates that workers render, too: they have no `url_for`.
    app.context_processor(lambda: {"chattable_root": request.script_root if request else ROOT})
    app.register_blueprint(
        Kept(
            "chattable",
            __name__,
            url_prefix="/chattable",
            template_folder="templates",
            static_folder=str(STATIC),
            static_url_path=f"/static/{digest(STATIC)}",
        )
    )


class Kept(Blueprint):
    """A blueprint whose files browsers may keep: other files have another address."""

    def get_send_file_max_age(self, filename):
        return YEAR


def digest(folder: Path) -> str:
    """Return a short hash of all files in a folder: browsers may keep what lies under it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def dollars(amount: Decimal | None) -> str:
    """Return a sum for people, with enough digits to be non-zero: "$0.0010", "$0.00002"."""
    if amount is None:
        return "price unknown"
    places = 4
    while amount and places < 12 and amount < Decimal(1).scaleb(-places):
        places += 1
    return f"${amount:,.{places}f}"


def duration(seconds: int) -> str:
    """Return a time for people: "8 s", "1 min 8 s". The page goes on counting in the same words."""
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
