"""Mail: where it is sent (SMTP_URL), by a worker, and the address that links in it begin with.

A page only asks for it: no page waits for a mail server, or has trouble with one.
"""

import logging
import re
import smtplib
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate, make_msgid, parseaddr
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import email_validator
from email_validator import EmailNotValidError, validate_email
from flask import current_app, request
from redis.exceptions import RedisError
from rq import Retry

from chattable.addresses import split_login
from chattable.database import release
from chattable.provider.address import is_near, is_this_machine
from chattable.queue import queue
from pages.hosts import own_address, own_name
from pages.values import refuse

PORTS = {"smtp": 25, "smtps": 465}
# Seconds: of a server's silence, before another try, of a whole job.
TIMEOUT, PAUSES, LONGEST = 15, (5, 30, 120), 300
AN_EXAMPLE = "An example: smtp://user:password@mail.example.org:587"

# It refuses them in any case, unless its list, which is for apps to change, is empty.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

# What an account's owner is told, in case that it was not they.
NEW_PASSWORD = """\
Hello,

your account at {} has a new password, and every other browser was logged out.

If it was not you, tell whoever runs the server at once.
"""
NEW_ADDRESS = """\
Hello,

your account at {} has another e-mail address now; it is not reached by this one any more.

If it was not you, tell whoever runs the server at once.
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Server:
    """A mail server, and who we are there."""

    host: str
    port: int
    encrypted: bool  # from the first byte on
    user: str | None
    password: str | None = field(repr=False)
    sender: str


# Asking for it.


def send(to: str, subject: str, text: str) -> None:
    """Have a mail sent, if there is a server for it; whatever becomes of it is told in the log."""
    have_done(deliver, to, subject, text)


def tell_of_password(to: str) -> None:
    """Tell an account's owner that its password was changed."""
    send(to, "Your password for Chattable was changed", NEW_PASSWORD.format(our_name()))


def tell_of_address(former: str) -> None:
    """Tell an account's owner, where they were reached before, that its address was changed."""
    send(former, "Your e-mail address for Chattable was changed", NEW_ADDRESS.format(our_name()))


def our_name():
    return public_address() or "Chattable"


def have_done(job: Callable, *args: Any) -> None:
    """Have a worker do what sends a mail. Nothing about it is kept in Redis once it is done."""
    if not current_app.config["SMTP_URL"]:
        return
    kept = {"result_ttl": 0, "failure_ttl": 1}
    options = {**kept, "job_timeout": LONGEST, "retry": Retry(max=2), "description": "a mail"}
    try:
        queue().enqueue(job, *args, **options)
    except RedisError as error:
        log.warning("a mail is not sent, Redis is away: %s", error)


def public_address() -> str | None:
    """Return what the addresses of pages begin with, for a mail; None if nobody has said.

    Whoever asks for a mail may write what they like into the Host header: a link in the mail would
    bring its secret there.
    """
    name, ours = host_name(), own_name()
    # A name of one's own network may have a port, of which the list says nothing.
    home = is_near(name) and ours.strip("[]") == name if ours else is_this_machine(name)
    address = (
        f"{request.scheme}://{request.host}" if home else ours and own_address(request.is_secure)
    )
    return address and f"{address}{request.script_root}"


def host_name():
    return urlsplit(request.host_url).hostname or ""


# Sending it, in a worker.


def deliver(to: str, subject: str, text: str) -> None:
    """Send a mail, or say in the log why not."""
    server = current_app.config["SMTP_URL"]
    message = written(server.sender, to, subject, text)
    release()  # no database connection waits for a mail server
    for pause in (*PAUSES, None):
        try:
            return hand_over(server, message)
        except (smtplib.SMTPException, OSError) as error:
            if pause is None or is_final(error):
                return log.error("a mail was not sent: %s", told(error))
            log.warning("a mail waits %s s for its server: %s", pause, told(error))
        time.sleep(pause)


def written(sender, to, subject, text):
    """Return a message, whose headers are each one line, whatever is in them."""
    address = in_ascii(to)
    message = EmailMessage(policy=SMTP if address.addr_spec.isascii() else SMTPUTF8)
    message["From"], message["To"], message["Subject"] = sender, address, subject
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=parseaddr(sender)[1].rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    return message


def in_ascii(address):
    """Return an address as servers take it: its domain in ASCII, so that few need SMTPUTF8."""
    valid = valid_email(address)
    return Address(username=valid.local_part, domain=valid.ascii_domain)


def hand_over(server, message):
    with connected(server) as connection:
        connection.send_message(message)


@contextmanager
def connected(server):
    """Give a connection on which a server takes mail, as whoever we are there."""
    kind = smtplib.SMTP_SSL if server.encrypted else smtplib.SMTP
    tls = {"context": tls_context(server)} if server.encrypted else {}
    with kind(server.host, server.port, timeout=TIMEOUT, **tls) as connection:
        connection.ehlo_or_helo_if_needed()
        if not server.encrypted and connection.has_extn("starttls"):
            connection.starttls(context=tls_context(server))
        elif server.user and not server.encrypted and not is_this_machine(server.host):
            raise smtplib.SMTPNotSupportedError("it has no STARTTLS for a password")
        if server.user:
            log_in(connection, server.user, server.password or "")
        yield connection


def log_in(connection, user, password):
    if f"{user}{password}".isascii():
        return connection.login(user, password)
    # smtplib knows no other signs; RFC 4616 does.
    connection.ehlo_or_helo_if_needed()
    word = b64encode(f"\0{user}\0{password}".encode()).decode()
    code, said = connection.docmd("AUTH", f"PLAIN {word}")
    if code != 235:
        raise smtplib.SMTPAuthenticationError(code, said)


def tls_context(server):
    context = ssl.create_default_context()
    if is_this_machine(server.host):  # it signs its own
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def is_final(error):
    """Return whether a server would refuse a mail again."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code >= 500
    return isinstance(error, smtplib.SMTPNotSupportedError | ssl.SSLCertVerificationError)


def told(error):
    """Return what the log is told: a server's words may have an address in them."""
    kind, code = type(error).__name__, getattr(error, "smtp_code", None)
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code = next((code for code, _ in error.recipients.values()), None)
    if code or isinstance(error, smtplib.SMTPResponseException):
        return f"{kind} {code}"
    return kind if isinstance(error, smtplib.SMTPRecipientsRefused) else f"{kind}: {error}"


# Addresses, and the setting.


def valid_email(address):
    """Return an address with its parts, or None if it is not one."""
    try:
        return validate_email(address, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError:
        return None


def mail_server(settings: dict[str, str]) -> Server | None:
    """Return the server that SMTP_URL names, None if none; a password may have any sign in it."""
    text = settings.get("SMTP_URL", "").strip()
    if not text:
        return None
    scheme, mark, place = text.partition("://")
    scheme = scheme.lower()
    if not mark or scheme not in PORTS:
        refuse(f"SMTP_URL must begin with smtp:// or smtps://. {AN_EXAMPLE}")
    login, rest = split_login(place)
    try:
        parts = urlsplit(f"{scheme}://{login}{rest}")
        host, port = parts.hostname or "", parts.port or PORTS[scheme]
        known = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        host, port, known = "", 0, {}
    bare = not parts.path.strip("/") and not parts.fragment if host else False
    if not bare or not re.fullmatch(r"[\w.:-]+", host) or parts.port == 0:
        refuse(f"SMTP_URL must be the address of a mail server. {AN_EXAMPLE}")
    if known.keys() - {"from"} or len(known.get("from", [])) > 1:
        refuse("SMTP_URL: the only option after the ? is from, as in ?from=chat@example.org.")
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    sender = read_sender(known, user, host)
    return Server(host, port, scheme == "smtps", user, password, sender)


def read_sender(options, user, host):
    """Return the From header: what the address says, else the user if it is an address itself."""
    ours = f"chattable@{'localhost' if re.search(r':|^[0-9.]+$', host) else host}"
    given = options["from"][0] if options else user if user and "@" in user else ours
    name, address = parseaddr(given)
    valid = valid_email(address)
    if not valid or not given.isprintable():
        refuse("SMTP_URL: it must say who sends, as in ?from=Chattable <chat@example.org>.")
    return str(Address(name, valid.local_part, valid.ascii_domain))
