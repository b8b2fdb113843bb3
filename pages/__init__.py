"""What stands beside the chat, a room for each thing; app.py brings them together."""
