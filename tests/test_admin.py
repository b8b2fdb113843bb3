"""The administrator."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
from werkzeug.security import generate_password_hash

import models
from models import Setting, User, db
from tests.test_accounts import ADA

BOB = {"name": "Bob Ross", "email": "bob@example.com", "password": "correct horse battery"}
PUBLIC = "https://chat.example.org"


@pytest.fixture(autouse=True)
def quick_hashing(monkeypatch):
    """Hash passwords as quickly as there are many of them here."""
    hash_quickly = partial(generate_password_hash, method="pbkdf2:sha256:1")
    monkeypatch.setattr(models, "generate_password_hash", hash_quickly)


def person(email="bob@example.com"):
    return db.session.scalars(db.select(User).filter_by(email=email)).one()


def change(app, email, **attributes):
    with app.app_context():
        for name, value in attributes.items():
            setattr(person(email), name, value)
        db.session.commit()


def admins(app):
    with app.app_context():
        return [user.name for user in db.session.scalars(db.select(User).filter_by(admin=True))]


@pytest.fixture(params=["sqlite", "postgres"])
def either(request, make_app):
    """The app on either database."""
    return make_app(DATABASE_URL=request.getfixturevalue(f"{request.param}_url"))


def at_once(app, work, *many):
    """Do some work with each of many, in threads and app contexts of their own."""

    def one(each):
        with app.app_context():
            return work(each)

    with ThreadPoolExecutor(len(many)) as pool:
        return list(pool.map(one, many))


def join(form):
    return User.sign_up(*form.values()) is not None


# The first account.


def test_the_first_account_is_the_administrators_and_nothing_is_in_its_way(app, client):
    assert client.post("/signup", data=ADA).location == "/chats/new"
    assert app.test_client().post("/signup", data=BOB).location == "/chats/new"
    assert admins(app) == ["Ada Lovelace"]


def test_of_two_first_accounts_at_once_one_is_the_administrators(either, monkeypatch):
    both, take_turn = Barrier(2), Setting.take_turn

    def meet():
        both.wait(10)  # each has seen that there is nobody
        take_turn()

    monkeypatch.setattr(Setting, "take_turn", meet)
    assert at_once(either, join, ADA, BOB) == [True, True]
    assert len(admins(either)) == 1
