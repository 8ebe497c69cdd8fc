"""The vocabulary of Discord's Gateway: opcodes, close codes, intents, events, limits and URLs.

Names and numbers are those of Discord's documentation, pages *Gateway*, *Gateway Events* and
*Opcodes and Status Codes*.
"""

from __future__ import annotations

import enum
import functools
import operator
import re
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

GATEWAY_URL = "wss://gateway.discord.gg/"
API_VERSION = 10
API_URL = f"https://discord.com/api/v{API_VERSION}"

MAX_SEND_SIZE = 4096
"""Bytes a sent payload may have (*Gateway: Sending Events*)."""

SEND_LIMIT = 120
SEND_PERIOD = 60.0
"""Seconds in which a connection may send :data:`SEND_LIMIT` payloads (*Gateway: Rate Limiting*)."""

IDENTIFY_INTERVAL = 5.0
"""Seconds between two Identifies of one rate limit key (*Gateway: Identifying*)."""

IDENTIFY_SLACK = 0.25
"""Seconds by which two Identifies are sent further apart: the second may travel faster."""

SESSION_START_LIMIT = 1000
"""Identifies a token may send in 24 hours before Discord resets it (*Gateway: Identifying*)."""

NORMAL_CLOSURE = 1000
"""The close code of a client that is done (RFC 6455, section 7.4.1)."""

PROTOCOL_ERROR = 1002
INVALID_DATA = 1007
"""The answers to a close frame that RFC 6455 does not allow, and to one that is not UTF-8."""

SESSION_ENDING_CLOSE_CODES = (1000, 1001)
"""Sent by a client, they end its session (*Gateway: Initiating a Disconnect*)."""

RESUMABLE_CLOSE_CODE = 4000
"""Sent by a client, it keeps the session, as any code but those above does."""

COMPRESSIONS = ("zlib-stream", "zstd-stream", "payload", None)
"""What ``compression`` may be: both transport compressions, payload compression, or none."""

TRANSPORT_COMPRESSIONS = ("zlib-stream", "zstd-stream")
"""Those asked for in the URL; payload compression is asked for in Identify."""


def may_be_sent(close_code: int) -> bool:
    """True if a close frame may hold a code: RFC 6455, section 7.4, and what was registered since.

    :param close_code: of a frame, from 0 to 65535.
    """
    if 1000 <= close_code <= 1014:
        return close_code not in (1004, 1005, 1006)
    return 3000 <= close_code <= 4999


class Opcode(enum.IntEnum):
    """What a payload is (*Opcodes and Status Codes: Gateway Opcodes*)."""

    DISPATCH = 0
    HEARTBEAT = 1
    IDENTIFY = 2
    PRESENCE_UPDATE = 3
    VOICE_STATE_UPDATE = 4
    RESUME = 6
    RECONNECT = 7
    REQUEST_GUILD_MEMBERS = 8
    INVALID_SESSION = 9
    HELLO = 10
    HEARTBEAT_ACK = 11
    REQUEST_SOUNDBOARD_SOUNDS = 31
    REQUEST_CHANNEL_INFO = 43


class CloseCode(enum.IntEnum):
    """Why Discord closed a connection (*Opcodes and Status Codes: Gateway Close Event Codes*)."""

    UNKNOWN_ERROR = 4000
    UNKNOWN_OPCODE = 4001
    DECODE_ERROR = 4002
    NOT_AUTHENTICATED = 4003
    AUTHENTICATION_FAILED = 4004
    ALREADY_AUTHENTICATED = 4005
    INVALID_SEQ = 4007
    RATE_LIMITED = 4008
    SESSION_TIMED_OUT = 4009
    INVALID_SHARD = 4010
    SHARDING_REQUIRED = 4011
    INVALID_API_VERSION = 4012
    INVALID_INTENTS = 4013
    DISALLOWED_INTENTS = 4014

    @property
    def can_reconnect(self) -> bool:
        """False if connecting again can only fail the same way: the *Reconnect* column."""
        return self not in (
            CloseCode.AUTHENTICATION_FAILED,
            CloseCode.INVALID_SHARD,
            CloseCode.SHARDING_REQUIRED,
            CloseCode.INVALID_API_VERSION,
            CloseCode.INVALID_INTENTS,
            CloseCode.DISALLOWED_INTENTS,
        )

    @property
    def ends_session(self) -> bool:
        """True if the session cannot be resumed, but a new one may be started."""
        return self in (CloseCode.INVALID_SEQ, CloseCode.SESSION_TIMED_OUT)


class Intents(enum.IntFlag):
    """Which groups of events a session receives (*Gateway: Gateway Intents*)."""

    GUILDS = 1 << 0
    GUILD_MEMBERS = 1 << 1
    GUILD_MODERATION = 1 << 2
    GUILD_EXPRESSIONS = 1 << 3
    GUILD_INTEGRATIONS = 1 << 4
    GUILD_WEBHOOKS = 1 << 5
    GUILD_INVITES = 1 << 6
    GUILD_VOICE_STATES = 1 << 7
    GUILD_PRESENCES = 1 << 8
    GUILD_MESSAGES = 1 << 9
    GUILD_MESSAGE_REACTIONS = 1 << 10
    GUILD_MESSAGE_TYPING = 1 << 11
    DIRECT_MESSAGES = 1 << 12
    DIRECT_MESSAGE_REACTIONS = 1 << 13
    DIRECT_MESSAGE_TYPING = 1 << 14
    MESSAGE_CONTENT = 1 << 15
    GUILD_SCHEDULED_EVENTS = 1 << 16
    AUTO_MODERATION_CONFIGURATION = 1 << 20
    AUTO_MODERATION_EXECUTION = 1 << 21
    GUILD_MESSAGE_POLLS = 1 << 24
    DIRECT_MESSAGE_POLLS = 1 << 25

    @classmethod
    def all(cls) -> Intents:
        """Every documented intent, the privileged ones too."""
        return functools.reduce(operator.or_, cls)

    @classmethod
    def privileged(cls) -> Intents:
        """The intents that have to be switched on for the bot (*Gateway: Privileged Intents*)."""
        return cls.GUILD_MEMBERS | cls.GUILD_PRESENCES | cls.MESSAGE_CONTENT

    @classmethod
    def default(cls) -> Intents:
        """Every documented intent that needs no permission."""
        return cls.all() & ~cls.privileged()

    @classmethod
    def parse(cls, text: str) -> Intents:
        """Read names separated by commas, in any case: ``"guilds,guild_messages"``.

        :param text: the names, a str.
        :returns: all of the intents together.
        :raises ValueError: if a name is unknown; the message names it, and the known ones.
        """
        intents = cls(0)
        for name in text.split(","):
            try:
                intents |= cls[name.strip().upper()]
            except KeyError:
                known = ", ".join(intent.name.lower() for intent in cls if intent.name)
                raise ValueError(f"unknown intent {name.strip()!r}; known are {known}") from None
        return intents


# In the order of the documentation. Three of its receive events are not among them: Hello,
# Reconnect and Invalid Session have opcodes of their own, and no name to listen to.
EVENTS: frozenset[str] = frozenset(
    (
        "READY",
        "RESUMED",
        "RATE_LIMITED",
        "APPLICATION_COMMAND_PERMISSIONS_UPDATE",
        "AUTO_MODERATION_RULE_CREATE",
        "AUTO_MODERATION_RULE_UPDATE",
        "AUTO_MODERATION_RULE_DELETE",
        "AUTO_MODERATION_ACTION_EXECUTION",
        "CHANNEL_CREATE",
        "CHANNEL_UPDATE",
        "CHANNEL_DELETE",
        "CHANNEL_INFO",
        "CHANNEL_PINS_UPDATE",
        "THREAD_CREATE",
        "THREAD_UPDATE",
        "THREAD_DELETE",
        "THREAD_LIST_SYNC",
        "THREAD_MEMBER_UPDATE",
        "THREAD_MEMBERS_UPDATE",
        "ENTITLEMENT_CREATE",
        "ENTITLEMENT_UPDATE",
        "ENTITLEMENT_DELETE",
        "GUILD_CREATE",
        "GUILD_UPDATE",
        "GUILD_DELETE",
        "GUILD_AUDIT_LOG_ENTRY_CREATE",
        "GUILD_BAN_ADD",
        "GUILD_BAN_REMOVE",
        "GUILD_EMOJIS_UPDATE",
        "GUILD_STICKERS_UPDATE",
        "GUILD_INTEGRATIONS_UPDATE",
        "GUILD_MEMBER_ADD",
        "GUILD_MEMBER_REMOVE",
        "GUILD_MEMBER_UPDATE",
        "GUILD_MEMBERS_CHUNK",
        "GUILD_ROLE_CREATE",
        "GUILD_ROLE_UPDATE",
        "GUILD_ROLE_DELETE",
        "GUILD_SCHEDULED_EVENT_CREATE",
        "GUILD_SCHEDULED_EVENT_UPDATE",
        "GUILD_SCHEDULED_EVENT_DELETE",
        "GUILD_SCHEDULED_EVENT_USER_ADD",
        "GUILD_SCHEDULED_EVENT_USER_REMOVE",
        "GUILD_SOUNDBOARD_SOUND_CREATE",
        "GUILD_SOUNDBOARD_SOUND_UPDATE",
        "GUILD_SOUNDBOARD_SOUND_DELETE",
        "GUILD_SOUNDBOARD_SOUNDS_UPDATE",
        "SOUNDBOARD_SOUNDS",
        "INTEGRATION_CREATE",
        "INTEGRATION_UPDATE",
        "INTEGRATION_DELETE",
        "INTERACTION_CREATE",
        "INVITE_CREATE",
        "INVITE_DELETE",
        "MESSAGE_CREATE",
        "MESSAGE_UPDATE",
        "MESSAGE_DELETE",
        "MESSAGE_DELETE_BULK",
        "MESSAGE_REACTION_ADD",
        "MESSAGE_REACTION_REMOVE",
        "MESSAGE_REACTION_REMOVE_ALL",
        "MESSAGE_REACTION_REMOVE_EMOJI",
        "PRESENCE_UPDATE",
        "STAGE_INSTANCE_CREATE",
        "STAGE_INSTANCE_UPDATE",
        "STAGE_INSTANCE_DELETE",
        "SUBSCRIPTION_CREATE",
        "SUBSCRIPTION_UPDATE",
        "SUBSCRIPTION_DELETE",
        "TYPING_START",
        "USER_UPDATE",
        "VOICE_CHANNEL_EFFECT_SEND",
        "VOICE_CHANNEL_START_TIME_UPDATE",
        "VOICE_CHANNEL_STATUS_UPDATE",
        "VOICE_STATE_UPDATE",
        "VOICE_SERVER_UPDATE",
        "WEBHOOKS_UPDATE",
        "MESSAGE_POLL_VOTE_ADD",
        "MESSAGE_POLL_VOTE_REMOVE",
    )
)
"""The names of all documented events (*Gateway Events: Receive Events*), as they stand in ``t``.

Discord also sends events that its documentation does not name, and new ones before it does.
"""

_LONGEST_EVENT = max(map(len, EVENTS))

_EVENTS_PAGE = "https://docs.discord.com/developers/events/gateway-events#receive-events"

# Receive events of the documentation that come as opcodes, so that no ``t`` ever names them.
_OPCODE_EVENTS = ("HELLO", "RECONNECT", "INVALID_SESSION")


def event_name(text: str) -> str:
    """The name of an event as it stands in ``t``, from what a user has written.

    :param text: a documented name in any case, or an undocumented one in upper case.
    :returns: the name in upper case.
    :raises ValueError: if no event can have such a name; the message tells of the nearest one.
    """
    name = text.upper()
    if name in EVENTS:
        return name
    if name in _OPCODE_EVENTS:
        raise ValueError(
            f"{name} comes with an opcode of its own, and is no event to listen to; "
            "on_socket_raw_message is called with every payload"
        )
    if re.fullmatch("[A-Z][A-Z0-9_]*", text):
        return text
    nearest = nearest_event(text)
    hint = f"did you mean {nearest}?" if nearest else f"their names stand at {_EVENTS_PAGE}"
    raise ValueError(f"{text[:_LONGEST_EVENT]!r} is no event of Discord's Gateway; {hint}")


def nearest_event(name: str) -> str | None:
    """The documented event whose name is most like a given one, to be named in a warning.

    The names are those of *Gateway Events: Receive Events*.

    :param name: of an event, perhaps misspelt or shortened, in any case; spaces and hyphens are
        taken as underscores, and "on" in front is left out.
    :returns: the name itself if it is documented, None if no documented name is near.
    """
    spelt = name.strip().upper().replace(" ", "_").replace("-", "_").removeprefix("ON_")
    # No typing error has thousands of characters, which would take long to compare.
    if len(spelt) > 2 * _LONGEST_EVENT:
        return None
    import difflib  # here: few programs misspell a name, and it takes a while to import

    similar = difflib.get_close_matches(spelt, sorted(EVENTS), n=1, cutoff=0.75)
    # The shortest and first of those that begin so: "message" stands for MESSAGE_CREATE.
    longer = sorted((event for event in EVENTS if event.startswith(f"{spelt}_")), key=_brevity)
    return next(iter([*similar, *longer]), None)


def misspelling_warning(event: str) -> str | None:
    """What to tell a user about the name of an event that looks misspelt; None if none does.

    :param event: the name, as :func:`event_name` returns it. An undocumented one that is like no
        documented one may be newer than this version of the library.
    """
    nearest = None if event in EVENTS else nearest_event(event)
    if nearest is None:
        return None
    return (
        f"{event[:_LONGEST_EVENT]} is no event that Discord documents, and perhaps never comes; "
        f"did you mean {nearest}?"
    )


def _brevity(name: str) -> tuple[int, str]:
    return len(name), name


def is_encrypted(url: str) -> bool:
    """True if a gateway's URL asks for TLS.

    :param url: a ``ws://`` or ``wss://`` URL.
    """
    return urlsplit(url).scheme == "wss"


def check_url(name: str, url: str, *schemes: str) -> SplitResult:
    """The parts of a URL, its host in ASCII, if a client can connect there.

    :param name: of the URL, for the messages of errors.
    :param url: as a user or a peer gives it.
    :param schemes: those that it may have.
    :raises TypeError: if it is no str.
    :raises ValueError: if it cannot be used; the message says why.
    """
    if not isinstance(url, str):
        raise TypeError(f"{name} must be a str, not {type(url).__name__}")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ValueError(f"{name} must have no whitespace or control characters: {url!r}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{name} must be a URL: {error}") from None
    if "@" in parts.netloc:
        # The URL is not shown: what stands before the @ may be a password.
        raise ValueError(f"{name} must have no user name or password")
    if parts.scheme not in schemes:
        beginnings = " or ".join(f"{scheme}://" for scheme in schemes)
        raise ValueError(f"{name} must begin with {beginnings}, not {url!r}")
    if not parts.hostname or port == 0:
        raise ValueError(f"{name} must name a host, and a port other than 0, not {url!r}")
    if "#" in url:
        raise ValueError(f"{name} must have no fragment (#): {url!r}")
    netloc = parts.netloc
    if not netloc.isascii():  # a name in the letters of its language
        try:
            netloc = parts.hostname.encode("idna").decode() + (f":{port}" if port else "")
        except UnicodeError:
            raise ValueError(f"{name} must name a host that can be, not {url!r}") from None
    return SplitResult(parts.scheme, netloc, parts.path, parts.query, "")


def gateway_url(url: str, version: int, compression: str | None) -> str:
    """Complete the URL of a gateway with the query that a connection needs.

    ``v``, ``encoding`` and ``compress`` are set (*Gateway: Connecting*), whatever else the query
    holds is kept.

    :param url: a ``ws://`` or ``wss://`` URL, as *Get Gateway Bot* or READY give it.
    :param version: of the API.
    :param compression: one of :data:`COMPRESSIONS`.
    :raises TypeError: if an argument has the wrong type.
    :raises ValueError: if the URL, the version or the compression cannot be used; the message says
        why.
    """
    parts = check_url("a gateway URL", url, "ws", "wss")
    if not isinstance(version, int) or isinstance(version, bool):
        raise TypeError(f"the API version must be an int, not {type(version).__name__}")
    if version < 1:
        raise ValueError(f"the API version must be 1 or more, not {version}")
    if compression not in COMPRESSIONS:
        raise ValueError(f"compression must be one of {COMPRESSIONS}, not {compression!r}")
    ours = {"v": str(version), "encoding": "json"}
    if compression in TRANSPORT_COMPRESSIONS:
        ours["compress"] = compression
    theirs = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(key, value) for key, value in theirs if key not in ("v", "encoding", "compress")]
    query = urlencode(kept + list(ours.items()))
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", query, ""))


def check_resume_url(url: str, socket_url: str) -> str:
    """A ``resume_gateway_url``, if the token may be sent there.

    :param url: as READY, or a session from a file, gives it.
    :param socket_url: the URL given to connect().
    :raises TypeError: if it is no string.
    :raises ValueError: if it is no gateway's URL, or asks for less encryption than `socket_url`.
    """
    gateway_url(url, API_VERSION, None)
    if is_encrypted(socket_url) and not is_encrypted(url):
        raise ValueError("it is not encrypted, as the URL given to connect() is")
    return str(url)
