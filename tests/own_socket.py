"""The app with a chat's socket as any app has it: a plain route of Flask-Sock, with no options."""

from flask import request
from flask_login import current_user
from flask_sock import Sock

from app import create_app
from chattable import live
from models import Chat, db

app = create_app()
sock = Sock(app)


@sock.route("/own/<int:chat_id>")
def watch(socket, chat_id):
    chat = db.session.get(Chat, chat_id)
    mine = chat if chat and chat.chattable == current_user else None
    live.relay_chat(socket, mine, request.args.get("since", 0, type=int))
