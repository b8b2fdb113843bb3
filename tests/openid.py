"""An OpenID Connect provider on loopback, on Authlib's server side: what it says can be made wrong.

It asks nobody: who comes is `person` (a dict of claims), at once.
"""

import threading
import time
from base64 import urlsafe_b64encode
from contextlib import suppress
from json import dumps
from urllib.parse import parse_qsl, urlsplit

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core.grants import OpenIDCode
from flask import Flask, Response, jsonify, request
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey
from werkzeug.serving import WSGIRequestHandler, make_server

ADA = {"sub": "ada-1", "name": "Ada Lovelace", "email": "ada@example.com", "email_verified": True}
CLIENT, SECRET = "chattable", "a secret/of+the client"


class OpenIdProvider:
    """The provider, `url` its issuer. `forget()` makes it right again."""

    def __init__(self):
        self.keys = [RSAKey.generate_key(2048, {"kid": "first"})]
        self.codes = {}
        self.server = make_server("localhost", 0, self._app(), True, request_handler=Quiet)
        self.url = f"http://localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=[0.05], daemon=True).start()
        self.forget()

    def forget(self):
        self.person = dict(ADA)
        # What is to be other than it should: of the ID token, of what is said of the provider, of
        # what is answered about a person.
        self.claims, self.metadata, self.info = {}, {}, None
        self.algorithm, self.method = "RS256", "client_secret_basic"
        self.broken = set()
        # What a path answers instead: bytes, one after the other.
        self.floods = {}
        self.asked = []

    def rotate(self, kid):
        """Sign with another key from now on, which has this name."""
        self.keys = [RSAKey.generate_key(2048, {"kid": kid})]

    def visit(self, address):
        """Do what a browser does that is sent there; return (path, query) of where it is sent."""
        parts = urlsplit(address)
        with self.app.test_client() as browser:
            sent = browser.get(f"{parts.path}?{parts.query}", base_url=self.url)
        assert sent.status_code == 302, sent.text
        back = urlsplit(sent.location)
        return back.path, dict(parse_qsl(back.query))

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def _app(self):
        app = self.app = Flask("openid")
        server = AuthorizationServer(app, lambda _: Client(self), lambda *_: None)
        server.register_grant(Grant, [CodeChallenge(required=True), Words(self)])
        app.config["OPENID"] = self

        @app.before_request
        def note():
            self.asked.append(request.path)
            if request.path in self.broken:
                return "broken", 500
            if request.path in self.floods:
                return Response(self.floods[request.path], mimetype="application/json")

        app.add_url_rule("/.well-known/openid-configuration", view_func=self._describe)
        app.add_url_rule("/keys", view_func=self._show_keys)
        app.add_url_rule("/person", view_func=lambda: jsonify(self.info))
        app.add_url_rule("/enter", "enter", lambda: self._let_in(server))
        app.add_url_rule("/token", "token", server.create_token_response, methods=["POST"])
        return app

    def _let_in(self, server):
        person = Person(self.person)
        grant = server.get_consent_grant(end_user=person)
        return server.create_authorization_response(grant_user=person, grant=grant)

    def _describe(self):
        said = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/enter",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            "token_endpoint_auth_methods_supported": [self.method],
        }
        if self.info is not None:
            said["userinfo_endpoint"] = f"{self.url}/person"
        return jsonify(said | self.metadata)

    def _show_keys(self):
        return jsonify(KeySet(self.keys).as_dict(private=False))

    def sign(self, claims):
        """Return an ID token as the provider of a test signs it."""
        if self.algorithm == "none":
            return unsigned(claims)
        header = {"alg": self.algorithm, "kid": self.keys[0].kid}
        key = self.keys[0]
        if self.algorithm == "HS256":  # with what everybody can read
            key = OctKey.import_key(key.as_pem(private=False))
        return jwt.encode(header, claims, key, [self.algorithm])


def unsigned(claims):
    """Return a token that nobody has signed, and that says so."""
    parts = ({"alg": "none"}, claims)
    return "".join(
        f"{urlsafe_b64encode(dumps(part).encode()).decode().rstrip('=')}." for part in parts
    )


class Quiet(WSGIRequestHandler):
    def log(self, *words):
        pass


class Person(dict):
    def get_user_id(self):
        return self["sub"]


class Client(ClientMixin):
    def __init__(self, provider):
        self.provider = provider

    def get_client_id(self):
        return CLIENT

    def get_allowed_scope(self, scope):
        return scope

    def check_redirect_uri(self, uri):
        return True

    def check_client_secret(self, secret):
        return secret == SECRET

    def check_endpoint_auth_method(self, method, endpoint):
        return method == self.provider.method

    def check_response_type(self, kind):
        return kind == "code"

    def check_grant_type(self, kind):
        return kind == "authorization_code"


class Code(AuthorizationCodeMixin):
    """A code that was given, with what was asked for."""

    def __init__(self, code, person, data):
        self.code, self.person, self.data = code, person, data
        self.code_challenge = data.get("code_challenge")
        self.code_challenge_method = data.get("code_challenge_method")

    def get_redirect_uri(self):
        return self.data["redirect_uri"]

    def get_scope(self):
        return self.data["scope"]

    def get_nonce(self):
        return self.data["nonce"]

    def get_auth_time(self):
        return None

    def get_acr(self):
        return None

    def get_amr(self):
        return None


class Grant(AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "client_secret_post", "none"]

    @property
    def provider(self):
        return self.request.client.provider

    def save_authorization_code(self, code, request):
        self.provider.codes[code] = Code(code, request.user, dict(request.payload.data))

    def query_authorization_code(self, code, client):
        return client.provider.codes.get(code)

    def delete_authorization_code(self, code):
        with suppress(KeyError):
            del self.provider.codes[code.code]

    def authenticate_user(self, code):
        return code.person


class Words(OpenIDCode):
    """The ID token."""

    def __init__(self, provider):
        super().__init__(require_nonce=True)
        self.provider = provider

    def exists_nonce(self, nonce, request):
        return False

    def generate_user_info(self, user, scope):
        return user

    def resolve_client_private_key(self, client):
        return self.provider.keys[0]

    def encode_id_token(self, token, request):
        claims = {"iss": self.provider.url, "aud": CLIENT, "iat": int(time.time())}
        claims |= {"exp": int(time.time()) + 60, "nonce": request.authorization_code.get_nonce()}
        if self.provider.info is None:
            claims |= request.user
        claims |= {"sub": request.user["sub"]} | self.provider.claims
        return self.provider.sign({k: v for k, v in claims.items() if v is not None})
