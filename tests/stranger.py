"""A Flask app of somebody else's: its own `db`, `Member` and `Message`, and chats in it."""

from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from chattable import ChatMixin, Chattable, MessageMixin, init_app


class Stranger:
    """An app in an open context, prepared for chats, with its models in the order given.

    `hook(kind, member, message)` is called by the two hooks of `Member`, after `heard` has noted
    (kind, role, status, content).
    """

    def __init__(self, config, order="member chat message", chat=None, message=None, **options):
        self.heard = []
        self.hook = lambda kind, member, message: None
        self.db = SQLAlchemy(**options)
        self.app = Flask(__name__)
        self.app.config.from_mapping(config)
        self.db.init_app(self.app)
        init_app(self.app, self.db)
        self.own_models()
        makers = {
            "member": self.make_member,
            "chat": lambda: self.make_chat(chat or {}),
            "message": lambda: self.make_message(message or {}),
        }
        for name in order.split():
            makers[name]()
        self.context = self.app.app_context()
        self.context.push()
        self.pool = self.db.engine.pool

    def own_models(self):
        db = self.db

        class Message(db.Model):
            __tablename__ = "messages"

            id = db.Column(db.Integer, primary_key=True)

        class Note(db.Model):
            id = db.Column(db.Integer, primary_key=True)
            text = db.Column(db.Text, unique=True)

        self.Note = Note

    def make_member(self):
        db, stranger = self.db, self

        class Member(Chattable, db.Model):
            id = db.Column(db.Integer, primary_key=True)
            name = db.Column(db.String(80))

            def on_message_create(self, message):
                stranger.told("create", self, message)

            def on_message_update(self, message):
                stranger.told("update", self, message)

        class Room(Chattable, db.Model):
            id = db.Column(db.Integer, primary_key=True)

        self.Member, self.Room = Member, Room

    def make_chat(self, attributes):
        own = {"subject": self.db.Column(self.db.String(50), default="none")}
        self.AiChat = type("AiChat", (ChatMixin, self.db.Model), own | attributes)

    def make_message(self, attributes):
        own = {"stars": self.db.Column(self.db.Integer)}
        self.AiMessage = type("AiMessage", (MessageMixin, self.db.Model), own | attributes)

    def told(self, kind, member, message):
        self.heard.append((kind, message.role, message.status, message.content))
        self.hook(kind, member, message)

    def new_chat(self):
        """Save a member with an empty chat; return the chat."""
        member = self.Member(name="Ada")
        member.chats.append(self.AiChat())
        self.db.session.add(member)
        self.db.session.commit()
        return member.chats[0]

    def close(self):
        self.db.session.remove()
        for engine in self.db.engines.values():
            engine.dispose()
        self.context.pop()
