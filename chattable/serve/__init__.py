"""`uv run chattable`: the launcher, a room for each thing that it starts or looks after."""
