"""A person who is logged in, without a page, or the slow hashing of a password."""

from pages import logins


def entered(app, user):
    """Return a test client on which `user` is logged in; in an app context."""
    login = logins.begin(user, user.password_hash, "a test", "127.0.0.1")
    client = app.test_client()
    with client.session_transaction() as session:
        session["_user_id"], session["login"] = user.get_id(), login.token
    return client
