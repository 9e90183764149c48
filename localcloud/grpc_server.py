"""A gRPC server without generated servicers: raw message classes, plain functions, counted calls, faults."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.faults import Fault, check_fault
from localcloud.service import Service
from localcloud.unserved import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

# Every open stream and every waiting pull occupies one thread. Idle threads cost almost nothing.
_MAX_THREADS = 256
# Streams beyond these are refused. Otherwise they would leave no thread to the other calls, which would hang.
_MAX_STREAMS = 200
# In-flight calls get this time to end before they are cut off. All check `stopping` and end at once,
# unless the machine is busy.
_STOP_GRACE_SECONDS = 5.0
# Refusals that no repetition changes. Google's Node client repeats a stream twice, for seven seconds, unless
# it gets the headers before the status.
_FINAL = frozenset({grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT})


class Refused(Exception):
    """A call that ends with a gRPC status other than OK."""

    def __init__(self, code: grpc.StatusCode, message: str, *, details: bytes = b"") -> None:
        """Store the status, its message and its details, a serialized `google.rpc.Status`."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def end(self, context: grpc.ServicerContext) -> None:
        """End the call of `context` with this status; it always raises."""
        if self.code in _FINAL:
            context.send_initial_metadata(())
        if self.details:
            context.set_trailing_metadata((("grpc-status-details-bin", self.details),))
        context.abort(self.code, self.message)


class NotServed(Refused):
    """A call that asks for something that the embedded cloud does not serve: UNIMPLEMENTED."""

    def __init__(self, name: str, unserved: Mapping[str, str]) -> None:
        """Store the refusal of `name`, an entry of the service's table or one below it."""
        super().__init__(grpc.StatusCode.UNIMPLEMENTED, refusal(name, unserved))


def invalid(message: str) -> Refused:
    """Return a `Refused` with INVALID_ARGUMENT."""
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One RPC.

    Attributes:
        request: The proto-plus request type.
        response: The proto-plus response type, or a raw protobuf class.
        handle: Takes the raw request. It returns the raw response or its fields (None = no fields), with
            `streams` a list of raw responses. With `converses` it takes the first raw request, an iterator
            of the others and the call's context, and yields raw responses.
        subject: Returns the text for `Fault.match` from the raw request.
        streams: The response is a stream.
        converses: Requests and responses are streams.
        wants_context: `handle` also takes the call's context.
    """

    request: Any
    response: Any
    handle: Callable[..., Any]
    subject: Callable[[Any], str]
    streams: bool = False
    converses: bool = False
    wants_context: bool = False


def raw(message_type: Any) -> Any:
    """Return the raw protobuf class behind a proto-plus type: several times faster to read and write."""
    return message_type.pb() if hasattr(message_type, "pb") else message_type


class _Unserved(grpc.GenericRpcHandler):
    """Refuse every RPC that no other handler has, by name. It ends a stream at once."""

    def __init__(self, owner: GrpcService) -> None:
        self._owner = owner

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        _, service, method = handler_call_details.method.split("/")  # /package.Service/Method
        unserved = self._owner.unserved
        name = method if method in unserved else f"{service.rpartition('.')[2]}.{method}"

        def refuse(_requests: Any, context: grpc.ServicerContext) -> Any:
            refused = NotServed(name, unserved)
            self._owner.note(method, refused)
            refused.end(context)

        return grpc.stream_stream_rpc_method_handler(refuse)


class GrpcService(Service):
    """A restartable gRPC server. Subclasses define the methods.

    Attributes:
        pseudo_methods: Names for faults besides those of the RPCs.
        unserved: RPCs, services and fields that are not served -> what to use instead.
    """

    name = "grpc"
    supported_faults: frozenset[str] = frozenset({"drop"})
    pseudo_methods: frozenset[str] = frozenset()
    unserved: Mapping[str, str] = MappingProxyType({})

    def methods(self) -> Mapping[str, Mapping[str, Method]]:
        """Return the methods by service name and method name."""
        raise NotImplementedError

    def check_fault(self, fault: Fault) -> None:
        """Refuse faults with an unknown method, status or kind."""
        methods = {name for service in self.methods().values() for name in service} | self.pseudo_methods
        check_fault(fault, methods=methods, supported_faults=self.supported_faults)
        if fault.error is not None and fault.error not in grpc.StatusCode.__members__:
            raise ValueError(f"{fault.error!r} is no gRPC status name")

    def wake(self) -> None:
        """Wake up waiting calls, so that they check `stopping`."""

    @property
    def address(self) -> str:
        """Return `host:port`, as the variables `*_EMULATOR_HOST` expect it."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start serving; see `Service.start`."""
        if self._server is not None:
            return
        self.stopping = threading.Event()
        self._threads = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix=f"localcloud-{self.name}")
        self._free_streams = threading.Semaphore(_MAX_STREAMS)
        # Without so_reuseport=0 a second cloud on the same port would silently share its calls.
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        server = grpc.server(self._threads, options=options)
        server.add_generic_rpc_handlers(
            [
                *(self._generic(name, methods) for name, methods in self.methods().items()),
                _Unserved(self),
            ]
        )
        self.port = server.add_insecure_port(self.address)
        server.start()
        self._server = server

    def stop(self) -> None:
        """Cut off every call; see `Service.stop`."""
        if self._server is None:
            return
        # The open calls end only once the clients know that the server goes (GOAWAY), as UNAVAILABLE.
        # A stream that its client reopens earlier ends as CANCELLED, and Google's subscriber then gives up.
        stopped = self._server.stop(_STOP_GRACE_SECONDS)
        self.stopping.set()
        self.wake()
        stopped.wait()
        self._threads.shutdown(wait=True)
        self._server = None

    def wait(self, seconds: float) -> None:
        """Wait `seconds`, or until the service stops."""
        if seconds > 0 and self.stopping.wait(seconds):
            raise Refused(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    def note(self, method: str, refused: Refused) -> None:
        """Report a call of `method` that ends because it asks for something that is not served."""
        if isinstance(refused, NotServed):
            self.refusals.add(self.name, method, refused.message)

    def _generic(self, service: str, methods: Mapping[str, Method]) -> grpc.GenericRpcHandler:
        handlers = {name: self._handler(name, method) for name, method in methods.items()}
        return grpc.method_handlers_generic_handler(service, handlers)

    def _handler(self, name: str, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        codecs = {
            "request_deserializer": raw(method.request).FromString,
            "response_serializer": raw(method.response).SerializeToString,
        }

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            return self._answer(name, method, request, context)

        def streaming(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield from self._answer(name, method, request, context)

        def conversing(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            if not self._free_streams.acquire(blocking=False):
                message = f"{_MAX_STREAMS} streams are open, the embedded cloud takes no more"
                Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, message).end(context)
            try:
                yield from self._converse(name, method, requests, context)
            finally:
                self._free_streams.release()

        if method.converses:
            return grpc.stream_stream_rpc_method_handler(conversing, **codecs)
        if method.streams:
            return grpc.unary_stream_rpc_method_handler(streaming, **codecs)
        return grpc.unary_unary_rpc_method_handler(unary, **codecs)

    def _answer(self, name: str, method: Method, request: Any, context: grpc.ServicerContext) -> Any:
        self.calls.add(name)
        try:
            fault = self.faults.take(name, method.subject(request)) if self.faults.armed else None
            effect = partial(method.handle, request, *([context] if method.wants_context else []))
            response = self._run_faulty(fault, request, method, effect) if fault else effect()
        except Refused as refused:
            self.note(name, refused)
            return refused.end(context)
        if response is None or isinstance(response, dict):
            return raw(method.response)(**(response or {}))
        return response

    def _converse(
        self, name: str, method: Method, requests: Iterator[Any], context: grpc.ServicerContext
    ) -> Iterator[Any]:
        self.calls.add(name)
        try:
            first = next(requests)
        except (StopIteration, grpc.RpcError):
            return  # the client disconnected before its first request
        try:
            fault = self.faults.take(name, method.subject(first)) if self.faults.armed else None
            if fault:
                self.before_effect(fault, first)
                self.fail_as(fault)
                if fault.drop:
                    return
            yield from method.handle(first, requests, context)
        except Refused as refused:
            self.note(name, refused)
            refused.end(context)
        if self.stopping.is_set():
            context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")

    def _run_faulty(self, fault: Fault, request: Any, method: Method, effect: Callable[[], Any]) -> Any:
        if not fault.after_effect:
            self.fail_as(fault)
        self.before_effect(fault, request)
        nothing: list[Any] | None = [] if method.streams else None
        with self.around_effect(fault, request):
            response = nothing if fault.drop else effect()
        if fault.after_effect:
            self.fail_as(fault)
        return response

    def before_effect(self, fault: Fault, request: Any) -> None:
        """Run the effects of a fault that come just before the call takes effect."""
        if fault.before:
            fault.before(request)

    def around_effect(self, fault: Fault, request: Any) -> AbstractContextManager[None]:  # noqa: ARG002 - for subclasses
        """Return the context in which a faulty call takes effect."""
        return nullcontext()

    def fail_as(self, fault: Fault) -> None:
        """Wait as long as `fault` says, then raise its error.

        Raises:
            Refused: The fault's error, or UNAVAILABLE when the service stops meanwhile.
        """
        self.wait(fault.delay_seconds)
        if fault.error is not None:
            raise Refused(grpc.StatusCode[str(fault.error)], fault.message)
