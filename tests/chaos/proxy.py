"""A proxy that misbehaves on demand, in front of any gRPC server on loopback.

It knows nothing of what it carries: every unary call passes as bytes, and faults are switched on and off from
outside while it runs. A network and a server fail in ways that look different to a client:

- **refused**: told at once that nothing is done (`refuse`), or nobody listens at all (`cut`);
- **hung**: the request never arrives, and the client's deadline ends the waiting (`hang`);
- **late**: the request arrives and is applied, but the answer is not there by the deadline (`late`). This is the one
  that tells exact writers from others: what was reported as failed has happened.

`after` calls a hook behind a request that was applied and before its author hears of it: the moment at which to stop
or to kill the author.
"""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn, Self

import grpc

__all__ = ["Fault", "FaultProxy"]

HOST = "127.0.0.1"
CALLS = 128  # at once; hung and late ones each hold a thread
APPLY_TIMEOUT_S = 60.0  # for the server to apply a request whose author has gone
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
# A target that was restarted is found again at once: it is the client's patience that is tested, not the proxy's.
RECONNECTING = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class Fault(StrEnum):
    """What became of a call."""

    PASSED = "passed"
    REFUSED = "refused"
    HUNG = "hung"
    LATE = "late"


class Hook(NamedTuple):
    """What to do behind the `remaining`-th matching request from now."""

    method: str
    holding: bytes
    remaining: int
    action: Callable[[], None]


class FaultProxy:
    """A proxy on a port of its own; use it as a context manager.

    Args:
        target_port: where the server listens, on loopback.

    Attributes:
        port: where the proxy listens; it stays the same when it is cut and healed.
        counts: the calls by what became of them, so far.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.counts: Counter[Fault] = Counter()
        self._target = f"{HOST}:{target_port}"
        self._lock = threading.Lock()
        self._fault = Fault.PASSED
        self._methods: frozenset[str] = frozenset()
        self._hooks: list[Hook] = []
        self._server: grpc.Server | None = None
        self._channel: grpc.Channel | None = None

    def __enter__(self) -> Self:
        self._channel = grpc.insecure_channel(self._target, options=OPTIONS + RECONNECTING)
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        assert self._channel
        self._channel.close()

    def refuse(self, *methods: str) -> None:
        """From now on calls are answered UNAVAILABLE, and nothing is done.

        Args:
            methods: names of those concerned, such as "Upsert"; none: all. So for the other faults.
        """
        self._switch(Fault.REFUSED, methods)

    def hang(self, *methods: str) -> None:
        """From now on calls go nowhere, and are never answered."""
        self._switch(Fault.HUNG, methods)

    def late(self, *methods: str) -> None:
        """From now on calls are applied, and answered only when their authors have given up."""
        self._switch(Fault.LATE, methods)

    def cut(self) -> None:
        """Breaks all connections, and from now on nobody listens."""
        if self._server:
            self._server.stop(None).wait()
            self._server = None

    def heal(self) -> None:
        """From now on calls pass. Those that hang already are not saved."""
        self._switch(Fault.PASSED, ())
        if not self._server:
            self._listen()

    def after(self, method: str, count: int, action: Callable[[], None], *, holding: str = "") -> None:
        """Calls `action` once: when the `count`-th such call from now was applied, before its answer goes back.

        Args:
            method: its name, such as "Upsert".
            count: from 1.
            action: runs in a thread of the proxy's; the answer waits for it.
            holding: a text that stands in the request, such as a collection's name.
        """
        with self._lock:
            self._hooks.append(Hook(method, holding.encode(), count, action))

    def _switch(self, fault: Fault, methods: tuple[str, ...]) -> None:
        with self._lock:
            self._fault, self._methods = fault, frozenset(methods)

    def _listen(self) -> None:
        # What still hangs when the server is stopped is not waited for: its threads end with their calls.
        server = grpc.server(ThreadPoolExecutor(CALLS, thread_name_prefix="proxy"), options=OPTIONS)
        server.add_generic_rpc_handlers((Passing(self._call),))
        self.port = server.add_insecure_port(f"{HOST}:{self.port}")
        server.start()
        self._server = server

    def _call(self, path: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        """One call: passed on or not, answered or not."""
        method = path.rpartition("/")[2]
        with self._lock:
            fault = self._fault if not self._methods or method in self._methods else Fault.PASSED
            self.counts[fault] += 1
        if fault is Fault.REFUSED:
            abort(context, grpc.StatusCode.UNAVAILABLE, "refused by the proxy")
        if fault is Fault.HUNG:
            await_end(context)
        answer = self._forward(path, request, context, APPLY_TIMEOUT_S if fault is Fault.LATE else None)
        for action in self._due(method, request):
            action()
        if fault is Fault.LATE:
            await_end(context)
        return answer

    def _forward(self, path: str, request: bytes, context: grpc.ServicerContext, timeout_s: float | None) -> bytes:
        """Has the server answer, within the author's deadline or a timeout; its refusals are passed on."""
        assert self._channel
        forward: Callable[..., bytes] = self._channel.unary_unary(path)
        timeout = timeout_s or context.time_remaining()
        try:
            return forward(request, timeout=timeout, metadata=sendable(context.invocation_metadata()))
        except grpc.RpcError as error:
            abort(context, error.code(), error.details() or "")

    def _due(self, method: str, request: bytes) -> list[Callable[[], None]]:
        """The actions whose moment an applied request is; each comes once."""
        due, waiting = [], []
        with self._lock:
            for one in self._hooks:
                matches = one.method == method and one.holding in request
                hook = one._replace(remaining=one.remaining - matches)
                if hook.remaining:
                    waiting.append(hook)
                else:
                    due.append(hook.action)
            self._hooks = waiting
        return due


class Passing(grpc.GenericRpcHandler):
    """Hands every call, whatever its method, to one function, as bytes."""

    def __init__(self, call: Callable[[str, bytes, grpc.ServicerContext], bytes]) -> None:
        self._call = call

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """The handler of one call."""
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._call(details.method, request, context)
        )


def await_end(context: grpc.ServicerContext) -> NoReturn:
    """Waits until the author has given up, and answers nobody."""
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait()
    abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, "nobody waits for this")


def abort(context: grpc.ServicerContext, code: grpc.StatusCode, words: str) -> NoReturn:
    """Ends a call with a status."""
    context.abort(code, words)
    raise AssertionError("abort raises")


def sendable(metadata: Any) -> tuple[tuple[str, Any], ...]:
    """The metadata to pass on, an API key for instance: what the transport adds by itself is left out."""
    return tuple((key, value) for key, value in metadata if key != "user-agent")
