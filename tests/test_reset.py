"""A new password by a link, the mail that brings it, and SMTP_URL."""

from contextlib import closing

import pytest

from chattable.serve import CannotStart
from pages import mail
from pages.mail import mail_server
from tests.mailbox import Mailbox, certificate
from tests.services import free_port

ADA = "ada@example.com"


@pytest.fixture(scope="module")
def running_mailbox():
    with closing(Mailbox()) as mailbox:
        yield mailbox


@pytest.fixture
def mailbox(running_mailbox):
    running_mailbox.mails.clear()
    return running_mailbox


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(mail, "PAUSES", (0, 0, 0))


# a mail server


def sent_by(server, to=ADA, text="words"):
    """Have a mail sent by a `Server`; its trouble is in the log."""
    from flask import Flask

    app = Flask("mail")
    app.config["SMTP_URL"] = server
    with app.app_context():
        mail.deliver(to, "A subject", text)


@pytest.fixture(autouse=True)
def no_database(monkeypatch, request):
    if "app" not in request.fixturenames and "make_app" not in request.fixturenames:
        monkeypatch.setattr(mail, "release", lambda: None)


@pytest.fixture
def trusted(tmp_path, monkeypatch):
    """The TLS context of a server whose certificate is known here, and for mail.example alone."""
    context, path = certificate(tmp_path, "mail.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return context


@pytest.fixture
def by_name(monkeypatch):
    """Find every mail server on this machine, whatever its name is."""
    found = mail.smtplib.socket.create_connection

    def here(place, *options):
        return found(("127.0.0.1", place[1]), *options)

    monkeypatch.setattr(mail.smtplib.socket, "create_connection", here)


def test_a_password_is_told_under_tls_alone(trusted, by_name, caplog):
    login = ("ada@mail.example", "pä:ss/w@rd#?%41")
    address = "smtp://ada@mail.example:pä:ss/w@rd#?%2541@mail.example:{}?from=c@example.org"
    with closing(Mailbox(trusted, login=login)) as mailbox:
        sent_by(mail_server({"SMTP_URL": address.format(mailbox.port)}))
        assert mailbox.logins == [login]
        assert mailbox.ciphers != [None]
    with closing(Mailbox()) as bare:
        sent_by(mail_server({"SMTP_URL": address.format(bare.port)}))
        assert bare.mails == []
        assert "STARTTLS" in caplog.text


def test_a_server_may_be_encrypted_from_the_first_byte_on(trusted, by_name):
    login = ("ada", "secret")
    with closing(Mailbox(trusted, encrypted=True, login=login)) as mailbox:
        sent_by(mail_server({"SMTP_URL": f"smtps://ada:secret@mail.example:{mailbox.port}"}))
        assert mailbox.logins == [login]
        assert len(mailbox.mails) == 1


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_server_that_is_another_gets_nothing(trusted, by_name, caplog, scheme):
    with closing(Mailbox(trusted, encrypted=scheme == "smtps")) as mailbox:
        sent_by(mail_server({"SMTP_URL": f"{scheme}://other.example:{mailbox.port}"}))
        assert mailbox.mails == []
    assert "CertificateVerification" in caplog.text or "CERTIFICATE_VERIFY" in caplog.text


def test_this_machines_own_server_may_sign_for_itself(tmp_path):
    context, _ = certificate(tmp_path, "elsewhere.example")
    with closing(Mailbox(context)) as mailbox:
        sent_by(mail_server({"SMTP_URL": f"smtp://localhost:{mailbox.port}"}))
        assert isinstance(mailbox.ciphers[0], dict)


def test_a_server_that_is_busy_or_away_is_asked_again(mailbox, impatient, caplog):
    mailbox.refuses = ["450 busy, ada@example.com", "451 later"]
    sent_by(mail_server({"SMTP_URL": f"smtp://127.0.0.1:{mailbox.port}"}))
    assert len(mailbox.mails) == 1
    assert caplog.text.count("waits") == 2
    assert ADA not in caplog.text


def test_a_server_that_refuses_is_not_asked_again(mailbox, impatient, caplog):
    mailbox.refuses = ["550 no such person: ada@example.com"]
    sent_by(mail_server({"SMTP_URL": f"smtp://127.0.0.1:{mailbox.port}"}))
    assert mailbox.mails == []
    assert "not sent: SMTPRecipientsRefused 550" in caplog.text
    assert ADA not in caplog.text


def test_a_server_that_is_away_is_told_in_the_log_alone(make_app, impatient, sign_up, caplog):
    app = make_app(SMTP_URL=f"smtp://ada:secret@127.0.0.1:{free_port()}")
    with app.app_context():
        mail.deliver(ADA, "A subject", "words")
    assert caplog.text.count("waits") == 3
    assert caplog.text.count("not sent") == 1
    assert "secret" not in caplog.text
    assert ADA not in caplog.text


def test_a_wrong_password_is_told_without_it(trusted, by_name, caplog):
    with closing(Mailbox(trusted, login=("ada", "right"))) as mailbox:
        sent_by(mail_server({"SMTP_URL": f"smtp://ada:wrongword@mail.example:{mailbox.port}"}))
        assert mailbox.mails == []
    assert "SMTPAuthenticationError 535" in caplog.text
    assert "wrongword" not in caplog.text


def test_addresses_and_words_are_of_any_script(mailbox):
    server = mail_server(
        {"SMTP_URL": f"smtp://127.0.0.1:{mailbox.port}?from=Zoë <c@bücher.example>"}
    )
    for to in ("zoë@example.com", "ada@bücher.example"):
        sent_by(server, to, "Grüße, 你好\n.\nFrom me")
    (sender, one, message), (_, other, _) = mailbox.mails
    assert sender == "c@xn--bcher-kva.example"
    assert (one, other) == (["zoë@example.com"], ["ada@xn--bcher-kva.example"])
    assert message["From"] == "Zoë <c@xn--bcher-kva.example>"
    assert message.get_content().splitlines() == ["Grüße, 你好", ".", "From me"]


# SMTP_URL


READ = {
    "smtp://mail.example": ("mail.example", 25, False, None, None, "chattable@mail.example"),
    "smtps://u:p@mail.example": ("mail.example", 465, True, "u", "p", "chattable@mail.example"),
    "SMTP://a@b.example:p@mail.example:587": (
        *("mail.example", 587, False),
        *("a@b.example", "p", "a@b.example"),
    ),
    "smtp://u:p%40%2F@mail.example": (
        *("mail.example", 25, False, "u"),
        *("p@/", "chattable@mail.example"),
    ),
    "smtp://[::1]:2525": ("::1", 2525, False, None, None, "chattable@localhost"),
    "smtp://mail.example/?from=Ada King <a@b.example>": (
        *("mail.example", 25, False, None),
        *(None, "Ada King <a@b.example>"),
    ),
}
WRONG = [
    "mail.example:25",
    "http://mail.example",
    "smtp://",
    "smtp://secret@",
    "smtp://mail.example:port",
    "smtp://mail.example:0",
    "smtp://mail.example:99999",
    "smtp://mail.example/path",
    "smtp://mail.example#secret",
    "smtp://u:secret@mail example",
    "smtp://u:secret@mail.example?form=a@b.example",
    "smtp://u:secret@mail.example?from=nobody",
    "smtp://u:secret@mail.example?from=a@b.example&from=c@d.example",
    "smtp://u:secret@mail.example?from=A%0d%0aBcc: e@f.example <a@b.example>",
    "smtp://no address@here@mail.example",
]


def test_the_setting_is_read_kindly():
    assert mail_server({}) is None
    for text, read in READ.items():
        server = mail_server({"SMTP_URL": text})
        assert (
            *(server.host, server.port, server.encrypted),
            *(server.user, server.password, server.sender),
        ) == read, text


def test_a_wrong_setting_is_told_in_a_sentence_without_its_password():
    for text in WRONG:
        with pytest.raises(CannotStart, match=r"^SMTP_URL") as error:
            mail_server({"SMTP_URL": text})
        assert "secret" not in str(error.value), text


def test_a_server_shows_no_password():
    assert "secret" not in repr(mail_server({"SMTP_URL": "smtp://u:secret@mail.example"}))
