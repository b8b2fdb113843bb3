"""Chats for any Flask app: a reply that streams, with its tokens and its cost."""
