"""A new password by a link, the mail that brings it, and SMTP_URL."""

import re
import time
from contextlib import closing

import pytest
from itsdangerous import URLSafeTimedSerializer

from chattable.queue import queue
from chattable.serve import CannotStart
from models import User, db
from pages import mail, passwords, people
from pages.identities import Identity
from pages.mail import mail_server
from pages.reach import browsers_address
from tests.mailbox import Mailbox, certificate
from tests.page import parse
from tests.services import free_port

OLD, NEW = "correct horse battery", "another horse, other battery"
ADA = "ada@example.com"
PUBLIC = {"Host": "evil.example"}


@pytest.fixture(scope="module")
def running_mailbox():
    with closing(Mailbox()) as mailbox:
        yield mailbox


@pytest.fixture
def mailbox(running_mailbox):
    running_mailbox.mails.clear()
    return running_mailbox


@pytest.fixture
def app(make_app, mailbox):
    return make_app(SMTP_URL=f"smtp://127.0.0.1:{mailbox.port}?from=Chattable <chat@example.org>")


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(mail, "PAUSES", (0, 0, 0))


@pytest.fixture
def link(app, sign_up):
    """Ada's link, as the command prints it."""
    sign_up()
    return printed(app)


def printed(app, email=ADA):
    done = app.test_cli_runner().invoke(args=["reset-password", email])
    assert done.exit_code == 0, done.output
    return done.output.split()[0]


def is_logged_in(client):
    return client.get("/chats").status_code == 200


def log_in(client, password, email=ADA):
    return client.post("/login", data={"email": email, "password": password}).status_code == 302


def note(client, answer):
    return parse(client.get(answer.location).text).select_one(".note").get_text()


def sentence(answer):
    return parse(answer.text).select_one(".card__lead").get_text()


# the link


def test_a_link_sets_a_new_password_and_logs_in(app, link, client):
    assert parse(client.get(link).text).find(id="password")
    answer = client.post(link, data={"password": NEW})
    assert answer.location == "/chats"
    assert is_logged_in(client)
    assert not log_in(app.test_client(), OLD)
    assert log_in(app.test_client(), NEW)


def test_a_new_password_logs_out_whoever_was_there(app, sign_up, client):
    ada = sign_up()
    client.post(printed(app), data={"password": NEW})
    assert not is_logged_in(ada)


def test_looking_at_a_link_changes_nothing(app, link, client):
    for _ in range(3):
        assert client.get(link).status_code == 200
        assert client.head(link, data={"password": NEW}).status_code == 200
    assert not is_logged_in(client)
    assert log_in(app.test_client(), OLD)


def test_a_link_is_good_once(app, link, client):
    client.post(link, data={"password": NEW})
    other = app.test_client()
    for answer in (other.get(link), other.post(link, data={"password": "a third, of a thief"})):
        assert answer.status_code == 410
        assert "used already" in sentence(answer)
        assert parse(answer.text).find("a", href="/forgot")
    assert log_in(app.test_client(), NEW)


def test_of_two_who_follow_a_link_at_once_one_goes_on(app, link):
    """Both have been found good before either of them has set a password."""
    with app.app_context():
        users = []
        for _ in range(2):
            users.append(people.with_email(ADA))
            db.session.expunge_all()
        assert [passwords.take_back_keys(user) for user in users] == [True, False]


def test_any_change_of_the_account_ends_a_link(app, link, client):
    with app.app_context():
        db.session.scalars(db.select(User)).one().email = "other@example.com"
        db.session.commit()
    assert client.get(link).status_code == 410


def test_a_link_is_good_for_an_hour(link, client, monkeypatch):
    now = time.time()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 3590)
    assert client.get(link).status_code == 200
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + 3610)
    answer = client.post(link, data={"password": NEW})
    assert answer.status_code == 410
    assert "an hour, which is over" in sentence(answer)


def test_a_link_that_is_not_whole_is_told_in_a_sentence(app, link, client):
    word = link.partition("token=")[2]
    with app.app_context():
        key = app.config["SECRET_KEY"]
    foreign = URLSafeTimedSerializer(key, salt="invitation").dumps(["x", "y"])
    unknown = URLSafeTimedSerializer(key, salt="reset").dumps(["x", "y"])
    for token in ("", word[:-1], word[1:], "ü" * 9, "a" * 9000, ".", "..", "\0", foreign, unknown):
        answer = client.post("/reset", query_string={"token": token}, data={"password": NEW})
        assert answer.status_code == 410, token
        assert "Ask for another" in sentence(answer)


def test_a_password_that_is_none_is_told_beside_the_field(app, link, client):
    for password in ("", "seven77", "x" * 1001):
        answer = client.post(link, data={"password": password})
        assert answer.status_code == 422
        assert "characters" in parse(answer.text).find(id="password-error").get_text()
    client.post(link, data={"password": NEW})
    assert is_logged_in(client)


def test_a_link_tells_nobody_else_of_it(link, client):
    answer = client.get(link)
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "no-store" in answer.headers["Cache-Control"]
    assert link.partition("token=")[2] not in answer.text


def test_a_disabled_account_gets_no_password(app, link, client, mailbox, run_jobs):
    with app.app_context():
        db.session.scalars(db.select(User)).one().disabled = True
        db.session.commit()
    assert client.post(link, data={"password": NEW}).status_code == 410
    assert app.test_cli_runner().invoke(args=["reset-password", ADA]).exit_code == 1
    client.post("/forgot", data={"email": ADA})
    run_jobs()
    assert mailbox.mails == []


def test_an_account_that_a_provider_made_gets_a_password(app, client):
    with app.app_context():
        people.sign_up("Ada", ADA, None)
    client.post(printed(app), data={"password": NEW})
    assert log_in(app.test_client(), NEW)


def test_whoever_came_in_by_a_provider_does_so_no_more(app, link, client):
    """A stranger may have come in by theirs, and have changed the address to the victim's then."""
    with app.app_context():
        Identity.give("https://login.example", "eve", db.session.scalars(db.select(User)).one())
    client.post(link, data={"password": NEW})
    with app.app_context():
        assert db.session.query(Identity).count() == 0


def test_the_command_says_who_is_not_there(app):
    for email in ("nobody@example.com", "no address", ""):
        done = app.test_cli_runner().invoke(args=["reset-password", email])
        assert done.exit_code == 1
        sentence = f"There is no account with the e-mail address {email}."
        assert done.output == f"Error: {sentence}\n"


def test_the_command_prints_a_whole_address_where_it_knows_its_name(app, sign_up):
    sign_up()
    app.config["ALLOWED_HOSTS"] = ["*.example.org", "chat.example.org"]
    assert printed(app, " ADA@Example.com ").startswith("https://chat.example.org/reset?token=")


@pytest.mark.parametrize("hosts", ["", "localhost,127.0.0.1", "*.example.org"])
def test_commands_print_where_the_launcher_runs(make_app, tmp_path, hosts):
    here = "http://127.0.0.1:5411"
    (tmp_path / "running.env").write_text(f"CHATTABLE_URL='{here}/chat'\n")
    app = make_app(ALLOWED_HOSTS=hosts, SCRIPT_NAME="/chat")
    with app.app_context():
        people.sign_up("Ada", ADA, None)
        assert browsers_address() == f"{here}/chat"
    assert printed(app).startswith(f"{here}/chat/reset?token=")
    invited = app.test_cli_runner().invoke(args=["invite"]).output
    assert invited.startswith(f"{here}/chat/signup?") and "(for one person" in invited


def test_a_name_of_this_machine_is_printed_with_the_port(make_app):
    app = make_app(ALLOWED_HOSTS="localhost", PORT="5411")
    invited = app.test_cli_runner().invoke(args=["invite"]).output
    assert invited.startswith("http://localhost:5411/signup?")


# the mail


def test_a_link_comes_by_mail(app, sign_up, client, mailbox, run_jobs):
    sign_up()
    answer = client.post("/forgot", data={"email": " ADA@example.com"})
    assert ADA in note(client, answer)
    run_jobs()
    ((sender, receivers, message),) = mailbox.mails
    assert (sender, receivers) == ("chat@example.org", [ADA])
    assert message["From"] == "Chattable <chat@example.org>"
    assert message["To"] == ADA
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"]
    assert re.fullmatch(r"<.+@example\.org>", message["Message-ID"])
    assert message.get_content_type() == "text/plain"
    link = re.search(r"http://localhost/reset\?token=\S+", message.get_content())[0]
    client.post(link, data={"password": NEW})
    assert is_logged_in(client)


def test_a_new_password_is_told_by_mail(link, client, mailbox, run_jobs):
    client.post(link, data={"password": NEW})
    run_jobs()
    ((_, receivers, message),) = mailbox.mails
    assert receivers == [ADA]
    assert "has a new password" in message.get_content()


def test_nobody_learns_whether_there_is_an_account(app, sign_up, client, mailbox, run_jobs):
    sign_up()
    visitor = app.test_client()
    answers = []
    for email in (ADA, "bob@example.com"):
        page = client.post("/forgot", data={"email": email})
        with app.app_context():
            (job,) = queue().jobs
            assert (job.func_name, job.description) == ("pages.reset.mail_link", "a mail")
            queue().empty()
        answers.append((page.status_code, page.location, note(client, page).replace(email, "")))
    assert answers[0] == answers[1]
    assert visitor.get("/forgot").status_code == 200


def test_nothing_of_a_mail_stays_in_redis(app, sign_up, client, run_jobs, redis_server):
    sign_up()
    for email in (ADA, "bob@example.com"):
        client.post("/forgot", data={"email": email})
    run_jobs()
    with redis_server.client() as redis:
        keys = [key for key in redis.scan_iter() if b"rq:job" in key]
        assert keys == []


def test_what_is_no_address_is_told_beside_the_field(client):
    for email in ("", "ada", "ada@example.com\r\nBcc: eve@example.com", "a" * 9000):
        answer = client.post("/forgot", data={"email": email})
        assert answer.status_code == 422
        assert "e-mail address" in parse(answer.text).find(id="email-error").get_text()


def test_too_many_mails_are_not_asked_for(app, sign_up, client):
    sign_up()
    for email in (ADA, "bob@example.com"):
        statuses = [client.post("/forgot", data={"email": email}).status_code for _ in range(4)]
        assert statuses == [302, 302, 302, 429]


def test_a_forged_name_of_the_server_is_in_no_link(app, sign_up, client, mailbox, run_jobs, caplog):
    sign_up()
    answer = client.post("/forgot", data={"email": ADA}, headers=PUBLIC)
    assert answer.status_code == 302
    run_jobs()
    assert mailbox.mails == []
    assert "ALLOWED_HOSTS" in caplog.text


ADDRESSES = [
    (["chat.example.org"], "evil.example", "https://chat.example.org"),
    (
        ["*.example.org", "chat.example.org"],
        "chat.example.org:5000",
        "https://chat.example.org",
    ),
    (["chat.internal"], "chat.internal:5000", "http://chat.internal:5000"),
    (["chat.internal"], "evil.example", "http://chat.internal"),
    ([], "localhost:5000", "http://localhost:5000"),
    ([], "[::1]:5000", "http://[::1]:5000"),
    ([], "127.0.0.1", "http://127.0.0.1"),
    ([], "localhost.evil.example", None),
    ([], "127.0.0.1.evil.example", None),
    ([], "192.168.1.7", None),
]


def test_a_link_begins_with_a_name_that_is_ours(app):
    for names, host, address in ADDRESSES:
        app.config["ALLOWED_HOSTS"] = names
        with app.test_request_context(headers={"Host": host}):
            assert mail.public_address() == address, host


def test_a_link_has_the_path_under_which_we_are_found(make_app, mailbox, sign_up, run_jobs):
    app = make_app(SMTP_URL=f"smtp://localhost:{mailbox.port}", SCRIPT_NAME="/chat")
    app.config["ALLOWED_HOSTS"] = ["chat.example.org"]
    with app.app_context():
        people.sign_up("Ada", ADA, OLD)
    place = {"base_url": "http://evil.example/chat"}
    app.test_client().post("/forgot", data={"email": ADA}, **place)
    run_jobs()
    assert "https://chat.example.org/chat/reset?token=" in mailbox.mails[0][2].get_content()


def test_where_no_mail_is_sent_one_is_told_whom_to_ask(make_app):
    client = make_app().test_client()
    assert "Ask whoever runs this server" in client.get("/login").text
    assert parse(client.get("/login").text).find("a", href="/forgot") is None
    for answer in (client.get("/forgot"), client.post("/forgot", data={"email": ADA})):
        assert answer.status_code == 404
        assert "sends no mail" in sentence(answer)


def test_the_log_in_page_leads_to_a_link(client):
    assert parse(client.get("/login").text).find("a", href="/forgot")


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
