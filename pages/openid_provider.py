"""What is said with an OpenID Connect provider, by Authlib: 14 MB, so only where there is one."""

from threading import Timer
from typing import Any

import httpx2
from authlib.integrations.base_client import BaseApp, OAuth2Mixin, OAuthError, OpenIDMixin
from authlib.integrations.httpx_client import OAuth2Client
from joserfc.errors import BadSignatureError

from chattable.provider.transport import Line, Pool
from pages.issuer import WELL_KNOWN

# Of one answer: seconds until its end, however it comes, and bytes, unpacked.
TIMEOUT, MOST = 5, 2**20
# With a key that only the provider has; one without a signature has a name, too: "none".
SIGNED_BY = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
SIGNED_BY += ["EdDSA", "Ed25519"]
USED = (
    *("issuer", "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri"),
    "authorization_response_iss_parameter_supported",
)


class Bounded(httpx2.BaseTransport):
    """How it is asked: of what comes late, or is too much, nothing more is read."""

    def handle_request(self, request):
        request.headers["Connection"] = "close"
        line = Line(Pool(request.url, TIMEOUT), MOST)
        end = Timer(TIMEOUT, line.hang_up)
        end.start()
        try:
            answer = line.request(request)
            answer.read()
            return answer
        finally:
            end.cancel()


class Provider(OAuth2Mixin, OpenIDMixin, BaseApp):
    """The provider that a configuration names. Nothing is asked of it until somebody logs in."""

    client_cls = OAuth2Client

    def __init__(self, config):
        self.issuer: str = config["OIDC_ISSUER"]
        self.known: dict[str, Any] = {}
        options = {"scope": config["OIDC_SCOPES"], "code_challenge_method": "S256"}
        super().__init__(
            None,
            client_id=config["OIDC_CLIENT_ID"],
            client_secret=config["OIDC_CLIENT_SECRET"],
            server_metadata_url=f"{self.issuer}{WELL_KNOWN}",
            client_kwargs={**options, "timeout": TIMEOUT, "transport": Bounded()},
        )

    def load_server_metadata(self):
        """Return what the provider says of itself, as far as we go by it."""
        if not self.known:
            said, self.server_metadata = super().load_server_metadata(), {}
            self.known = self.server_metadata = self.usable(said)
        return self.known

    def usable(self, said):
        if said["issuer"].rstrip("/") != self.issuer:
            raise OAuthError("another_issuer")
        known = {name: said[name] for name in USED if name in said}
        algorithms = said.get("id_token_signing_alg_values_supported", ["RS256"])
        methods = said.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        known["id_token_signing_alg_values_supported"] = [
            *filter(SIGNED_BY.__contains__, algorithms)
        ]
        if self.client_secret and "client_secret_basic" not in methods:
            known["token_endpoint_auth_method"] = "client_secret_post"
        return known

    def claims(self, answer, flow, redirect_uri):
        """Return what the provider says of whom it has sent back with an answer (its query).

        A dict with `iss` and `sub`, and `email` if it tells. Raises whatever is wrong with it.
        """
        self.check_sender(answer)
        token = self.fetch_access_token(
            redirect_uri, code=answer["code"], code_verifier=flow["code_verifier"]
        )
        claims = self.signed_claims(token, flow["nonce"])
        if not (0 < len(claims["sub"]) <= 255 and claims["sub"].isprintable()):
            raise OAuthError("invalid_subject")
        if "email" not in claims and "userinfo_endpoint" in self.known:
            told = self.userinfo(token=token)
            if told.get("sub") != claims["sub"]:
                raise OAuthError("another_subject")
            claims = {**told, **claims}
        return claims

    def check_sender(self, answer):
        """Refuse the answer of another provider that a browser was led to (RFC 9207)."""
        known = self.load_server_metadata()
        promised = known.get("authorization_response_iss_parameter_supported")
        if answer.get("iss", None if promised else known["issuer"]) != known["issuer"]:
            raise OAuthError("another_issuer")

    def signed_claims(self, token, nonce):
        if "id_token" not in token:
            raise OAuthError("no_id_token")
        try:
            return self.parse_id_token(token, nonce, self.expected())
        except BadSignatureError:
            # It may have another key by now, and call it as the one before.
            self.known.pop("jwks", None)
            return self.parse_id_token(token, nonce, self.expected())

    def expected(self):
        return {
            "iss": {"essential": True, "value": self.known["issuer"]},
            "aud": {"essential": True, "value": self.client_id},
        }
