"""A mail server on loopback that keeps what it is sent, with STARTTLS and log-ins where asked."""

import ssl
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default
from ipaddress import ip_address

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.services import free_port


class Mailbox:
    """The server; `mails` are (sender, receivers, message), `logins` (user, password)."""

    def __init__(self, tls=None, encrypted=False, login=None, refuses=()):
        self.mails, self.logins, self.ciphers = [], [], []
        # Answers to receivers, the first first.
        self.refuses = list(refuses)
        self.login = login
        self.port = free_port()
        options = {"hostname": "127.0.0.1", "port": self.port, "enable_SMTPUTF8": True}
        if encrypted:
            options["ssl_context"] = tls
        elif tls:
            options["tls_context"] = tls
        if login:
            secure = bool(tls) and not encrypted
            options |= {"authenticator": self._check, "auth_require_tls": secure}
            options["auth_required"] = True
        self.controller = Controller(self, **options)
        self.controller.start()

    def close(self):
        self.controller.stop()

    def _check(self, server, session, envelope, mechanism, data):
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=self.logins[-1] == self.login, handled=False)

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.refuses:
            return self.refuses.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        message = message_from_bytes(envelope.content, policy=default)
        self.ciphers.append(session.ssl)
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, message))
        return "250 OK"


def certificate(folder, *names):
    """Return (TLS context of a server, path of its certificate), which it has signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    known = [x509.DNSName(name) for name in names] + [x509.IPAddress(ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(known), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    kind, cipher = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = folder / "mail.pem"
    path.write_bytes(key.private_bytes(encoding, kind, cipher) + signed.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, path
