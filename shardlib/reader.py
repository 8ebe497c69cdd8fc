"""Reader: the thread that owns the life of a shard.

The reader alone connects, reads, carries out what the protocol says, calls the user's functions,
asks the policy, waits and connects again. Reconnecting is a loop, never a call out of a callback,
so neither the stack nor the number of threads grows with the number of connections. Any exception
on this thread costs a connection at most.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import types
import urllib.parse
from collections.abc import Callable
from typing import Any, TypeVar

from shardlib import frames, payloads, protocol
from shardlib.backoff import Backoff
from shardlib.callbacks import Callbacks, Screen
from shardlib.compression import create_inflater
from shardlib.connection import AT_ONCE, Connection, ConnectionLost
from shardlib.currentsession import CurrentSession
from shardlib.deadline import Deadline
from shardlib.errors import (
    BrokenStream,
    ConnectionFailed,
    SendTimeout,
    ShardClosed,
    UnreadableMessage,
)
from shardlib.eventcounts import EventCounts
from shardlib.gateway import (
    API_VERSION,
    GATEWAY_URL,
    RESUMABLE_CLOSE_CODE,
    Intents,
    Opcode,
    gateway_url,
    is_encrypted,
)
from shardlib.heartbeat import Heartbeat
from shardlib.lifecycle import PEERS_SHARE, Life, Lifecycle, Request
from shardlib.limits import check_gate_wait, default_gate
from shardlib.loss import Cause, Loss
from shardlib.options import Options
from shardlib.payloads import Payload
from shardlib.protocol import PROTOCOL_EVENTS, GatewayProtocol, Message
from shardlib.proxies import is_this_machine
from shardlib.reconnect import Reconnect, ReconnectPolicy, Stop, after_disconnect
from shardlib.running import LeftToParent
from shardlib.sessiongate import check_may_resume
from shardlib.state import ShardState
from shardlib.text import count, describe, printable
from shardlib.transport import StreamBroken

# Seconds that the close frame of a peer that answers is awaited before the next connection begins:
# a Gateway that still reads the old connection would refuse the Resume.
CLOSE_HANDSHAKE_TIMEOUT = 1.0

# Seconds of a wait to identify that the log tells of. A manager opens sockets a second before.
_LONG_IDENTIFY_WAIT = 1.5
# Seconds after which a session gate has taken its time, and then the seconds to read in before
# Resume is sent.
LONG_GATE_WAIT = 1.0
READ_BEFORE_RESUME = 0.05

OWNED_ELSEWHERE = (
    "the session is owned elsewhere: the session_gate did not let the shard resume it, since "
    "another process goes on with it; connect() would ask the gate again"
)

_NEVER = Deadline(None)

_Plan = TypeVar("_Plan", Reconnect, Stop, Reconnect | Stop)

# How often _finish() is tried: an exception, if memory is short for example, may end each try.
_MOST_TRIES = 100

# Seconds to wait after an exception so unexpected that the policy could not even be asked.
_FAULT_PAUSE = 1.0


class Reader:
    """The lives of a shard, as its reader thread lives them.

    :param options: of the shard.
    :param callbacks: to call.
    """

    def __init__(self, options: Options, callbacks: Callbacks) -> None:
        self._options = options
        self._loads: Callable[[bytes], Any] = options.json.loads
        # The time of a function in C is not worth counting; one in Python may take long.
        if not isinstance(self._loads, types.BuiltinFunctionType):
            self._loads = functools.partial(
                callbacks.run, "loads() of the option json", options.json.loads
            )
        self._callbacks = callbacks
        session = options.session
        self.protocol = GatewayProtocol(
            CurrentSession()
            if session is None
            else CurrentSession(
                session.session_id, session.resume_gateway_url, session.sequence, session.sequence
            ),
            hello_timeout=options.hello_timeout,
            ready_timeout=options.ready_timeout,
        )
        self.lifecycle = Lifecycle(self._create_thread)
        self.connection = self._create_connection(GATEWAY_URL, API_VERSION)
        self.heartbeat: Heartbeat | None = None  # of this connection, from Hello on
        self.presence = options.presence  # with which the next Identify begins
        # Counters; other threads may read them at any time.
        self.messages = 0
        self.bytes_inflated = 0
        self.reconnects = 0
        self.resumes = 0
        self.events = EventCounts()
        # The connection, and the bytes received on those before it. Replaced as a whole: the sum
        # never goes back.
        self._counted = (self.connection, 0)
        self._gate = options.identify_gate or default_gate(options.identity.token)
        # Of the connection under way: why it is to end, when READY or RESUMED came, and whether
        # its beginning was told.
        self._lost: Loss | None = None
        self._established_at: float | None = None
        self._connection_is_told = False
        # True once a session gate that took its time has let Resume through on this connection.
        self._let_through = False
        self._end_is_told = False  # of the life that ends
        self._debugging = False

    # Any thread

    @property
    def bytes_received(self) -> int:
        """The bytes received on all connections, as they came over the wire."""
        connection, before = self._counted
        return before + connection.bytes_received

    def leave_to_parent(self) -> None:
        """In a forked child: let go of the connection, and end the reader, if it was that thread.

        Called by the only thread of the child.
        """
        self._callbacks.leave_to_parent()
        self.connection.leave_to_parent()

    def keep_presence(self, presence: Payload | None) -> None:
        """Begin every later session with a presence: the one that was sent last."""
        self.presence = presence

    def try_identify(self, connection: Connection) -> None:
        """Ask the identify gate, and send Identify if it lets this shard through.

        :raises ShardClosed: if the gate lets no more through.
        """
        # First: an Identify that can't be sent must use up no slot. The text, token and all, is not
        # kept: an error of the user's gate has this frame in its traceback.
        self._options.identity.identify_text(self.presence)
        wait = check_gate_wait(
            self._callbacks.run(
                "the identify gate", self._gate.try_acquire, self._options.identity.shard_id
            )
            if self.lifecycle.in_reader_thread()
            else self._gate.try_acquire(self._options.identity.shard_id)
        )
        if wait > 0:
            if self.lifecycle.in_reader_thread():
                self.protocol.open_later(self._now() + wait)
                self.lifecycle.life.identify_later(wait)
                self._log_wait(wait)
            return

        def claimed() -> None:
            self.protocol.identify_sent(self._now())

        # Not claimed if another thread was faster.
        if self.lifecycle.life.claim_opening(connection, ShardState.IDENTIFYING, claimed):
            if not self.lifecycle.in_reader_thread():
                connection.interrupt()  # the reader sleeps until another deadline, the gate's
            # A presence that is kept from now on finds the shard identifying, and is sent to it.
            self._send(connection, self._options.identity.identify_text(self.presence))

    def _log_wait(self, wait: float) -> None:
        if wait >= _LONG_IDENTIFY_WAIT:
            self._callbacks.log(
                logging.INFO,
                "identifying in %.1f seconds: it is rationed, see shardlib.IdentifyGate",
                wait,
            )

    def _now(self) -> float:
        """Seconds of the clock that the protocol's deadlines go by.

        It stands still while a function of the user's keeps the reader from reading: the Gateway's
        answer may have come long ago.
        """
        return time.monotonic() - self._callbacks.seconds

    # One life

    def _create_thread(self, life: Life) -> threading.Thread:
        return threading.Thread(
            target=self._run,
            args=(life,),
            name=f"shard-{self._options.identity.shard_id}-reader",
            daemon=True,
        )

    def _run(self, life: Life) -> None:
        """The reader thread."""
        error: BaseException | None = None
        try:
            error = self._connection_loop(life)
        except BaseException as unexpected:  # SystemExit and its like, or a fault of the library's
            if isinstance(unexpected, LeftToParent):
                return
            if self._callbacks.is_forked:
                raise
            error = unexpected
            if isinstance(error, Exception):
                self._callbacks.log(
                    logging.CRITICAL,
                    "the reader failed, which closes the shard; please report it",
                    exc_info=error,
                )
        self._end_is_told = False
        fault: BaseException | None = None
        for _ in range(_MOST_TRIES):  # steps that were done are left out; a life has to end
            try:
                if fault is not None:
                    self._callbacks.log(
                        logging.ERROR, "closing was interrupted, and is tried again: %r", fault
                    )
                self._finish(life, error)
                break
            except BaseException as interruption:
                fault = interruption
        error = fault = None  # their tracebacks refer to this frame: they would be a cycle

    def _tell_states(self, life: Life) -> None:
        """Call on_socket_state for each change of the state, whichever thread has made it."""
        while life.untold_states:
            self._callbacks.notify("on_socket_state", life.take_state())

    def _connection_loop(self, life: Life) -> BaseException | None:
        """One connection after the other. Returns the error that closes the shard, if any does."""
        policy: ReconnectPolicy | None = None
        plan: Reconnect | Stop | None = None
        fault: Exception | None = None
        while not isinstance(plan, Stop):
            try:
                if fault is not None:
                    told, fault = fault, None
                    self._recover(life, told)
                    del told  # its traceback refers to this frame: the two would be a cycle
                    self.lifecycle.wait(lambda: life.is_over, Deadline(_FAULT_PAUSE))
                if policy is None:
                    self.lifecycle.enter_reader()
                    self._callbacks.begin_life()  # before all callbacks, on_socket_closed too
                    self._tell_states(life)
                    self._warn_if_readable(life.beginning.socket_url)
                    policy = self._create_policy(life)
                if life.request is Request.CLOSE:
                    plan = self._decide(after_disconnect(plan, life.close_code))
                    break
                if plan is None:
                    plan = self._decide(self._begin_plan(life, policy))
                if self._pause(life, plan):
                    plan = self._connect(life, policy, plan)
            except Exception as error:  # ours, or the system's: memory is short, say
                awaited = life.first_attempt_awaited and not life.no_fail
                if awaited and life.request is not Request.CLOSE:
                    return error  # for connect() to raise
                plan, fault = None, error
        return plan.error

    def _warn_if_readable(self, socket_url: str) -> None:
        """Tell that the network can read the token, unless no network is between."""
        host = urllib.parse.urlsplit(socket_url).hostname or ""
        if not is_encrypted(socket_url) and not is_this_machine(host):
            self._callbacks.log(
                logging.WARNING,
                "the connection to %s is not encrypted: whoever is between can read the bot's "
                "token, and use it. Connect to a wss:// URL, unless the network is your own",
                printable(host, 100),
            )

    def _begin_plan(self, life: Life, policy: ReconnectPolicy) -> Reconnect:
        session = self.protocol.session
        if life.beginning.new_session and life.sockets_opened == 0:
            return policy.reinstantiate(session)
        return policy.begin(session)

    def _decide(self, plan: _Plan) -> _Plan:
        """Take a decision of the policy. A session that is not to be resumed is forgotten now."""
        if not plan.resume:
            self.protocol.drop_session()
        return plan

    def _create_policy(self, life: Life) -> ReconnectPolicy:
        return ReconnectPolicy(
            socket_url=life.beginning.socket_url,
            should_reconnect=self._options.should_reconnect,
            backoff=self._options.backoff or Backoff(),
            intents=Intents(self._options.identity.intents),
        )

    def _pause(self, life: Life, plan: Reconnect) -> bool:
        """Wait until the next connection is due. False if the life is to be closed."""
        wait = self.lifecycle.wait
        if plan.least_delay:
            wait(lambda: life.request is Request.CLOSE, Deadline(plan.least_delay))
        if plan.delay > plan.least_delay:
            left = Deadline(plan.delay - plan.least_delay)
            wait(lambda: life.request is Request.CLOSE or life.immediate, left)
        return life.request is not Request.CLOSE

    def _recover(self, life: Life, fault: Exception) -> None:
        """Put things in order after an exception that the policy could not judge."""
        for step in (
            functools.partial(life.set_state, ShardState.WAITING),
            functools.partial(self._tell_states, life),
            self._stop_heartbeat,
            self.connection.release,
            functools.partial(self._callbacks.report, fault),
            functools.partial(self._notify_disconnected, None, closed_by_self=False),
        ):
            try:
                step()
            except Exception:
                continue  # what fails again and again must keep no other step from being done

    def _stop_heartbeat(self) -> None:
        if self.heartbeat is not None:
            self.heartbeat.stop()

    def _notify_disconnected(self, code: int | None, closed_by_self: bool) -> None:
        """Call on_socket_disconnected, once for every on_socket_connected."""
        if self._connection_is_told:
            self._connection_is_told = False
            self._callbacks.notify("on_socket_disconnected", code, closed_by_self)

    def _connect(self, life: Life, policy: ReconnectPolicy, plan: Reconnect) -> Reconnect | Stop:
        """One connection, from opening to what follows it."""
        if life.take_request() is Request.REINSTANTIATE:
            plan = self._decide(policy.reinstantiate(self.protocol.session))
        connection = self._create_connection(plan.url, life.beginning.socket_version)
        self._replace_connection(connection)
        self.protocol.begin_connection(life.beginning.socket_url)
        if not life.use(connection):
            return plan
        loss = Loss(Cause.FAULT, "the connection failed unexpectedly")
        try:
            loss = self._open_and_read(life, connection)
        except Exception as error:
            loss = Loss(
                Cause.FAULT, f"the connection failed unexpectedly: {describe(error)}", error=error
            )
        finally:
            if not self._callbacks.is_forked:
                self._close(life, connection, loss)
        try:
            return self._after_loss(life, policy, loss)
        finally:
            del loss  # its error's traceback refers to this frame: the two would be a cycle

    def _create_connection(self, url: str, version: int) -> Connection:
        options = self._options
        return Connection(
            gateway_url(url, version, options.compression),
            inflater=create_inflater(options.compression, options.max_payload),
            max_payload=options.max_payload,
            connect_timeout=options.connect_timeout,
            send_timeout=options.send_timeout,
            ssl_context=options.ssl_context,
            proxy=options.proxy,
            hide_token=options.identity.hide_token,
        )

    def _replace_connection(self, connection: Connection) -> None:
        self.heartbeat = None
        self._lost = None
        self._established_at = None
        self._let_through = False
        self._counted = (connection, self.bytes_received)
        self.connection = connection

    def _open_and_read(self, life: Life, connection: Connection) -> Loss:
        self._tell_states(life)
        self._callbacks.log(logging.DEBUG, "connecting to %s", connection.url)
        try:
            connection.open()
        except ConnectionFailed as failure:
            if life.request is not None and life.request is not Request.CLOSE:
                return self._requested(life)
            # Without its traceback, whose frames would keep this connection alive.
            return Loss(Cause.NOT_OPENED, str(failure), failure=failure.with_traceback(None))
        self.protocol.opened(self._now())
        life.socket_opened()
        self._tell_states(life)
        self._connection_is_told = True
        self._callbacks.notify("on_socket_connected")
        return self._read(life, connection)

    def _read(self, life: Life, connection: Connection) -> Loss:
        """Handle messages until the connection ends, or is to end. Returns why it does."""
        callbacks, gateway = self._callbacks, self.protocol
        while True:
            if life.untold_states:  # another thread may have changed the state, or a callback
                self._tell_states(life)
            if callbacks.screen is not None:
                self._deliver_screened(callbacks.screen)
            loss = self._lost or connection.failure
            if loss is not None:
                try:
                    return loss
                finally:
                    del loss  # its error's traceback may refer to this frame: a cycle
            if life.request is not None:
                return self._requested(life)
            self._debugging = callbacks.is_debugging()
            heartbeat = self.heartbeat
            if heartbeat is not None and heartbeat.notes:
                self._write_notes(heartbeat)
            deadline = gateway.next_deadline()
            until = _NEVER
            if deadline is not None:
                if deadline <= self._now():  # also while bytes keep coming
                    self._pass_deadline(connection)
                    continue
                until = Deadline(max(0.0, deadline - self._now()))
            handled_before = self.messages
            try:
                # At a break CPython closes the generator at once, which then puts back what it has
                # not taken out: the closing handshake reads on from there.
                for frame_type, data in connection.receive(until):
                    self._handle(connection, frame_type, data)
                    if self._lost is not None or life.request is not None:
                        break
                data = b""  # no message is kept while the next one is awaited
            except TimeoutError:
                self._pass_deadline(connection)
            except ConnectionLost as ended:
                return connection.failure or ended.loss
            except BrokenStream as error:
                return connection.failure or Loss(
                    Cause.UNREADABLE, str(error), error=_bare(error), limit=error.limit
                )
            except Exception as error:  # memory is short, say
                return Loss(
                    Cause.UNREADABLE,
                    f"a message could not be taken in: {describe(error)}",
                    error=error,
                )
            finally:
                if callbacks.wants_batches:
                    callbacks.notify_batch(self.messages - handled_before)
                callbacks.flush()

    def _pass_deadline(self, connection: Connection) -> None:
        self.protocol.on_deadline(self._now())
        self._carry_out(connection)

    def _requested(self, life: Life) -> Loss:
        request = life.request  # read once: another thread may ask for something else meanwhile
        if request is Request.CLOSE or request is None:
            return Loss(Cause.CLOSING, "the shard is being closed")
        return Loss(
            Cause.USER_ASKED,
            f"{request.name.lower()}() asked for a new connection",
            session_lost=request is Request.REINSTANTIATE,
            immediate=life.immediate,
        )

    def _close(self, life: Life, connection: Connection, loss: Loss) -> None:
        """End a connection properly, as far as its peer takes part."""
        heartbeat = self.heartbeat
        life.set_state(ShardState.WAITING)  # what is sent now waits for the next connection
        try:
            self._tell_states(life)
            code, timeout = RESUMABLE_CLOSE_CODE, AT_ONCE
            if life.request is Request.CLOSE and life.error is None:
                code, timeout = life.close_code, self._options.close_timeout * PEERS_SHARE
            elif loss.peer_answers:
                timeout = min(CLOSE_HANDSHAKE_TIMEOUT, self._options.close_timeout)
            connection.close(code, Deadline(timeout))
        finally:
            if heartbeat is not None:
                heartbeat.stop()
            connection.release()
        if heartbeat is not None:
            heartbeat.join()

    def _after_loss(self, life: Life, policy: ReconnectPolicy, loss: Loss) -> Reconnect | Stop:
        """Decide what follows, and tell of it."""
        # A reason that repeats the token must reach no error.
        loss = loss.because(self._options.identity.hide_token(loss.reason))
        closed_by_user = life.request is Request.CLOSE and life.error is None
        plan = policy.after(
            loss,
            self.protocol.session,
            time.monotonic(),
            awaited=life.first_attempt_awaited,
            established_at=self._established_at,
            opening_sent=self.protocol.opening_sent,
            resuming=self.protocol.resuming,
            replay_begun=self.protocol.replay_begun,
            no_fail=life.no_fail,
        )
        if life.request is Request.CLOSE:
            plan = after_disconnect(plan, life.close_code)
        self._decide(plan)
        if isinstance(plan, Reconnect):
            life.connection_ended(str(loss))
            life.set_state(ShardState.WAITING)
        elif plan.error is not None:
            life.begin_closing(plan.error)
        self._tell_states(life)
        if loss.error is not None:
            self._callbacks.report(loss.error)
        if isinstance(plan, Reconnect) and plan.fault is not None:
            self._callbacks.report(
                plan.fault, "the option backoff failed, and the default was used: "
            )
        if isinstance(plan, Reconnect) and life.request is not Request.CLOSE:
            self._log_loss(loss, plan)
        self._notify_disconnected(life.close_code if closed_by_user else loss.code, closed_by_user)
        return plan

    def _printable(self, text: str, limit: int) -> str:
        """A peer's text for the log. The token is hidden first: it could be cut in two."""
        return printable(self._options.identity.hide_token(text), limit)

    def _log_loss(self, loss: Loss, plan: Reconnect) -> None:
        delay = max(plan.delay, plan.least_delay)
        what = str(loss)
        if loss.error is not None:
            what = "the connection is given up"  # why was told before
        elif loss.failure is None and not loss.peer_answers:
            what = f"connection lost: {what}"
        following = "resuming" if plan.resume else "a new session"
        if loss.failure is not None and not plan.resume:
            following = "trying again"  # there may never have been a session
        self._callbacks.log(
            logging.WARNING if loss.failure is not None else logging.INFO,
            "%s; %s %s",
            what,
            following,
            f"in {count(round(delay, 1), 'second')}" if delay >= 0.05 else "now",
        )

    def _finish(self, life: Life, error: BaseException | None) -> None:
        """End a life: note why, log, and call on_socket_closed."""
        self._tell_states(life)
        self._notify_disconnected(None, closed_by_self=False)  # SystemExit and its like come here
        if not life.is_closed:
            life.close(error)
        self._tell_states(life)
        error = life.error
        # If the first attempt failed, connect() raises the error.
        if life.state is ShardState.CLOSED and not self._end_is_told:
            if isinstance(error, Exception):
                self._callbacks.log(logging.ERROR, "closed: %s", error)
            elif error is None:
                self._callbacks.log(logging.INFO, "closed")
            else:  # by a callback that ends the program
                self._callbacks.log(logging.INFO, "closed: a callback raised %s", describe(error))
            self._end_is_told = True
            self._callbacks.notify("on_socket_closed", error)
        self._callbacks.end_life()
        failed = self.lifecycle.end(life)
        if failed is not None:
            self._callbacks.log(logging.ERROR, "the shard could not begin anew: %s", failed)

    # Messages

    def handle_message(self, message: bytes | str) -> None:
        """Handle a message without a connection that could be lost."""
        connection = self.connection
        handled_before = self.messages
        try:
            if isinstance(message, str):
                self._handle(connection, frames.TEXT, message.encode(errors="surrogatepass"))
            else:
                self._handle(connection, frames.BINARY, message)
        except BrokenStream as error:
            self._callbacks.report(error)
            self._lost = Loss(Cause.UNREADABLE, str(error))
        if self._callbacks.wants_batches:
            self._callbacks.notify_batch(self.messages - handled_before)
        self._callbacks.flush()

    def _handle(self, connection: Connection, frame_type: int, data: bytes) -> None:
        """Inflate a message, decode it, act on it, call back. The hot path.

        :param frame_type: TEXT or BINARY, as the message came in its frame.
        :param data: what the frame held.
        """
        callbacks, gateway, loads = self._callbacks, self.protocol, self._loads
        try:
            text = connection.inflate[frame_type](data)
        except UnreadableMessage as error:
            self._unreadable(error)
            return
        if text is None:
            return
        self.messages += 1
        self.bytes_inflated += len(text)
        if self._debugging:
            if self.heartbeat is not None:  # first what this may be an answer to
                self._write_notes(self.heartbeat)
            callbacks.log_traffic("received %r", text)
        if not callbacks.wants_payloads:
            header = payloads.read_dispatch_header(text)
            if header is not None:
                name, sequence = header
                # No function listens: the data, most of the message, need not be decoded.
                if not callbacks.wants(name) and name not in PROTOCOL_EVENTS:
                    if gateway.resume_pending or not gateway.session.receive_next(sequence):
                        message = Message(Opcode.DISPATCH, name, sequence, None)
                        self._act_and_call_back(connection, message, text)
                        return
                    self.events.add(name)
                    if callbacks.wants_texts:
                        callbacks.hand_on_text(name, sequence, text)
                        if self.lifecycle.life.error is not None:
                            return  # a callback raised its way out
                    gateway.session.complete()
                    return
        try:
            payload = loads(text)
        except Exception:  # each module has errors of its own
            payload = None
        if (
            type(payload) is not dict
            or type(event := payload.get("t")) is not str
            or event in PROTOCOL_EVENTS
            or type(opcode := payload.get("op")) is not int
            or opcode != 0
            or gateway.resume_pending
            or callbacks.wants_raw_payloads
            or not gateway.session.receive_next(payload.get("s"))
        ):
            self._handle_any(connection, text, payload)
            return
        # What is left is the next event of a session: nothing of the protocol can be concerned.
        self.events.add(event)
        if callbacks.wants_texts:
            callbacks.hand_on_text(event, payload["s"], text)
        callbacks.dispatch(event, payload)
        if self.lifecycle.life.error is None:  # else a callback raised its way out
            gateway.session.complete()

    def _handle_any(self, connection: Connection, text: bytes, decoded: Any) -> None:
        """Act on any message at all, and call back.

        :param text: of the message.
        :param decoded: what the JSON module made of it, or None.
        """
        try:
            payload = payloads.check_payload(text, decoded)
        except UnreadableMessage as error:
            self._unreadable(error)
            return
        message = protocol.extract(payload)
        self._callbacks.notify("on_socket_raw_message", payload)
        self._act_and_call_back(connection, message, text, payload)

    def _act_and_call_back(
        self, connection: Connection, message: Message, text: bytes, payload: Payload | None = None
    ) -> None:
        """Act on a message, and call back if it is an event that is to be delivered.

        :param message: what the protocol needs of it.
        :param text: of the message.
        :param payload: the whole of it, None if no function listens to the event.
        """
        gateway, callbacks = self.protocol, self._callbacks
        deliver = gateway.receive(message, self._now())
        if deliver and message.event is not None:
            self.events.add(message.event)
        self._carry_out(connection)
        if not deliver:
            return
        screen = callbacks.screen
        if screen is not None and message.event is not None:
            call = functools.partial(self._deliver, message, text, payload)
            screen.put(message.event, text, call)
            self._deliver_screened(screen)
            return
        self._deliver(message, text, payload)
        if self.lifecycle.life.error is None:  # else a callback raised its way out
            gateway.session.complete()

    def _deliver(self, message: Message, text: bytes, payload: Payload | None) -> None:
        callbacks = self._callbacks
        if message.event is not None and callbacks.wants_texts:
            callbacks.hand_on_text(message.event, message.sequence, text)
        if payload is not None:
            callbacks.dispatch(message.event, payload)

    def _deliver_screened(self, screen: Screen) -> None:
        """Deliver what a screen lets through. The session is not done with what it keeps back."""
        life = self.lifecycle.life
        while (deliver := screen.take()) is not None:
            deliver()
            if life.is_over:
                break
        if life.error is None and not screen.is_holding:
            self.protocol.session.complete()

    def _unreadable(self, error: UnreadableMessage) -> None:
        """Skip a message. One refused for its size while READY is awaited must be READY itself."""
        self._callbacks.report(error)
        if error.limit is not None and self.lifecycle.life.state is ShardState.IDENTIFYING:
            self._lost = Loss(Cause.UNREADABLE, str(error), limit=error.limit)

    # What the protocol wants

    def _carry_out(self, connection: Connection) -> None:
        """Carry out the protocol's effects."""
        for effect in self.protocol.take_effects():
            if isinstance(effect, protocol.Acknowledge):
                self._acknowledge()
            elif isinstance(effect, protocol.AnswerHeartbeat):
                self._answer_heartbeat(connection)
            elif isinstance(effect, protocol.StartHeartbeat):
                self._start_heartbeat(connection, effect.interval)
            elif isinstance(effect, protocol.Identify):
                self._identify(connection)
            elif isinstance(effect, protocol.Resume):
                self._resume(connection)
            elif isinstance(effect, protocol.Established):
                self._established(effect.resumed)
            elif isinstance(effect, protocol.Warn):
                self._callbacks.log(logging.WARNING, "%s", self._printable(effect.text, 500))
            else:
                self._lose(effect)

    def _lose(self, loss: Loss) -> None:
        self._lost = self._lost or loss

    def _acknowledge(self) -> None:
        heartbeat = self.heartbeat
        ping = None if heartbeat is None else heartbeat.acknowledge()
        if ping is not None:
            self._callbacks.notify("on_socket_heartbeat", ping)

    def _answer_heartbeat(self, connection: Connection) -> None:
        if self.heartbeat is not None:
            self.heartbeat.request(by_gateway=True)
        else:  # op 1 came before Hello: there is no heartbeat yet, but an answer is due
            sequence = self.protocol.session.last_sequence
            self._send(connection, payloads.heartbeat(sequence), urgent=False)

    def _start_heartbeat(self, connection: Connection, interval: float) -> None:
        if self.heartbeat is not None:  # a second Hello changes the interval and nothing else
            self.heartbeat.change_interval(interval)
            return
        self.heartbeat = heartbeat = Heartbeat(
            connection,
            interval,
            last_sequence=lambda: self.protocol.session.last_sequence,
            callback_seconds=lambda: self._callbacks.seconds,
            on_unanswered=self._callbacks.warn_of_running,
            watchdog=self._callbacks.watchdog,
        )
        if connection.websocket is None:  # _handle_message() without a connection to keep alive
            return
        try:
            heartbeat.start(f"shard-{self._options.identity.shard_id}-heartbeat")
        except RuntimeError as error:  # the system has no thread to give
            self._lose(Loss(Cause.FAULT, f"no heartbeat could be started: {error}", error=error))

    def _identify(self, connection: Connection) -> None:
        """Identify, if the gate lets the shard through. What the gate raises ends no reader."""
        if connection.websocket is None or self._lost is not None:
            return
        try:
            self.try_identify(connection)
        except BaseException as error:
            self._gate_failed("identify gate", error)
        self._tell_states(self.lifecycle.life)

    def _gate_failed(self, gate: str, error: BaseException) -> None:
        """Go on after what a gate has raised. One of the user's may ask a server."""
        if isinstance(error, LeftToParent):
            raise error
        if isinstance(error, ShardClosed) or not isinstance(error, Exception):
            self.stop(error)  # SystemExit and KeyboardInterrupt are for join() to raise, too
        else:
            reason = f"the {gate} failed: {describe(error)}"
            self._lose(Loss(Cause.GATE_FAILED, reason, error=error))

    def stop(self, error: BaseException) -> None:
        """Close the shard because of an error, which the waiting methods raise. For the reader."""
        deadline = Deadline(self._options.close_timeout)
        self.lifecycle.life.stop(error, RESUMABLE_CLOSE_CODE, deadline)

    def _resume(self, connection: Connection) -> None:
        if connection.websocket is None or not self._may_resume():
            return
        text = self._options.identity.resume_text(self.protocol.session)

        def claimed() -> None:
            self.protocol.resume_sent(self._now())

        life = self.lifecycle.life
        if life.claim_opening(connection, ShardState.RESUMING, claimed):
            self._send(connection, text)  # else a user's identify() was faster
        self._tell_states(life)

    def _may_resume(self) -> bool:
        """Ask the session gate, if there is one. What the gate raises ends no reader."""
        gate = self._options.session_gate
        if gate is None or self._let_through:
            return True
        shard_id, session_id = self._options.identity.shard_id, self.protocol.session.session_id
        since = time.monotonic()
        try:
            may_resume = check_may_resume(
                self._callbacks.run("the session gate", gate.may_resume, shard_id, session_id)
            )
        except BaseException as error:
            self._gate_failed("session gate", error)
            return False
        if not may_resume:
            self.stop(ShardClosed(None, OWNED_ELSEWHERE))
        if self.lifecycle.life.request is not None:  # perhaps since the gate was asked
            return False
        if time.monotonic() - since < LONG_GATE_WAIT:
            return True
        # The Gateway may have closed the connection meanwhile. Then a Resume would count as one
        # that got no answer, and some of these cost the session. So the reader reads first.
        self._let_through = True
        self.protocol.open_later(self._now() + READ_BEFORE_RESUME)
        return False

    def _established(self, resumed: bool) -> None:
        self._established_at = time.monotonic()
        life = self.lifecycle.life
        again = life.sockets_opened > 1
        self._callbacks.log(
            logging.INFO,
            "resumed, session %s" if resumed else "ready, session %s",
            self._printable(str(self.protocol.session.session_id), 100),
        )
        # First the counters, then the state: a thread that waits for READY may read them next.
        self.resumes += resumed
        self.reconnects += again
        life.established()
        self._tell_states(life)
        if not resumed:
            self._callbacks.notify("on_socket_ready")
        if resumed or again:
            self._callbacks.notify("on_socket_reconnected", resumed)

    def _send(self, connection: Connection, text: str, urgent: bool = True) -> None:
        try:
            if connection.send(text, urgent=urgent):
                return  # no room in the send window for an answer that can wait
        except SendTimeout as error:
            connection.fail(Loss(Cause.UNRESPONSIVE, str(error)))
        except StreamBroken:
            pass  # the connection has ended; the next read finds out why
        else:
            self.log_sent(text)

    # The log

    def log_sent(self, text: str) -> None:
        """Log a payload that was sent. Any thread but the heartbeat's."""
        self._callbacks.log_traffic("sent %r", text)

    def _write_notes(self, heartbeat: Heartbeat) -> None:
        for text in heartbeat.take_notes():
            self._callbacks.log_traffic("sent %r", text)


def _bare(error: Exception) -> Exception:
    """An error without its traceback, whose frames would keep the connection alive."""
    return error.with_traceback(None)
