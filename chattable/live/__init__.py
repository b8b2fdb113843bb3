"""The live page: frames are rendered, published, fanned out to sockets; a late page catches up."""

from chattable.live.broadcast import (
    Broadcast,
    broadcast_deletion,
    broadcast_message,
)
from chattable.live.catalog import (
    forget_trouble,
    heard_models,
    keep_models,
    keep_trouble,
    known_models,
)
from chattable.live.connection import CONNECTIONS, check_writing, redis
from chattable.live.frames import ANEW, listed_frame, render, since_frame, unsent_frame
from chattable.live.keys import (
    channel,
    install,
    lease_key,
    own,
    owner_channel,
    prefix,
    stops_channel,
    turn_key,
)
from chattable.live.origin import same_origin
from chattable.live.outbox import ANNOUNCE, announce, announce_on, end_sockets
from chattable.live.question import give_updates
from chattable.live.relay import BACKLOG_BYTES, GONE, NOT_YOURS, SILENCE, Watcher
from chattable.live.reserve import give_back, set_aside
from chattable.live.snapshots import Snapshot, latest_number, snapshot
from chattable.live.socket import CATCHING_UP, PING, Refused, follow, relay_chat, rest, serve
from chattable.live.start import init_app
from chattable.live.turns import (
    LEASE,
    RENEW,
    TURN,
    claim,
    end_turn,
    ending,
    lease,
    leased,
    request_stop,
    silence,
    take_over_turn,
    take_turn,
    turn_holder,
)

__all__ = [
    "ANEW",
    "ANNOUNCE",
    "BACKLOG_BYTES",
    "Broadcast",
    "CATCHING_UP",
    "CONNECTIONS",
    "GONE",
    "LEASE",
    "NOT_YOURS",
    "PING",
    "RENEW",
    "Refused",
    "SILENCE",
    "Snapshot",
    "TURN",
    "Watcher",
    "announce",
    "announce_on",
    "broadcast_deletion",
    "broadcast_message",
    "channel",
    "check_writing",
    "claim",
    "end_sockets",
    "end_turn",
    "ending",
    "follow",
    "forget_trouble",
    "give_back",
    "give_updates",
    "heard_models",
    "init_app",
    "install",
    "keep_models",
    "keep_trouble",
    "known_models",
    "latest_number",
    "lease",
    "lease_key",
    "leased",
    "listed_frame",
    "own",
    "owner_channel",
    "prefix",
    "redis",
    "render",
    "relay_chat",
    "request_stop",
    "rest",
    "same_origin",
    "serve",
    "set_aside",
    "silence",
    "since_frame",
    "snapshot",
    "stops_channel",
    "take_over_turn",
    "take_turn",
    "turn_holder",
    "turn_key",
    "unsent_frame",
]
