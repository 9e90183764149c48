"""One Listen stream: a client adds and removes targets, and gets what they show and every change of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import grpc

from localcloud.firestore.messages import ListenResponse, set_timestamp
from localcloud.firestore.targets import changes, parse_target
from localcloud.grpc_server import Refused, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from localcloud.firestore.store import Database
    from localcloud.firestore.targets import Shown, Target

# A token is the instant of a snapshot. Only its presence counts: a resumed target begins anew with RESET.
_TOKEN_BYTES = 8


class ListenStream:
    """A Listen call in progress.

    Args:
        database: The store that it listens to.
        note: Is told of each target that is refused.
    """

    def __init__(self, database: Database, note: Callable[[Refused], None]) -> None:
        self._database = database
        self._note = note
        self._news = threading.Condition()
        self._requests: list[Any] = []
        self._changed: set[str] = set()
        self._closed = False
        self._targets: dict[int, Target] = {}
        self._shown: dict[int, Shown] = {}

    def close(self) -> None:
        """End the stream."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def responses(self, first: Any, requests: Iterator[Any]) -> Iterator[Any]:
        """Yield raw `ListenResponse`s until the client or `close` ends the stream.

        Args:
            first: The raw first request.
            requests: The others; they are read in a thread of their own.

        Raises:
            Refused: INVALID_ARGUMENT, a request without a target.
        """
        self._requests.append(first)
        threading.Thread(
            target=self._follow, args=(requests,), name="localcloud-firestore-listen", daemon=True
        ).start()
        stop_watching = self._database.watch(self._notice)
        try:
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._closed or self._requests or self._changed)
                    if self._closed:
                        return
                    received, self._requests = self._requests, []
                    changed, self._changed = self._changed, set()
                for request in received:
                    yield from self._apply(request)
                if changed:
                    yield from self._refresh(changed)
        finally:
            stop_watching()

    def _follow(self, requests: Iterator[Any]) -> None:
        try:
            for request in requests:
                with self._news:
                    self._requests.append(request)
                    self._news.notify_all()
        except grpc.RpcError:
            pass  # raised by gRPC's request iterator when the client has disconnected
        finally:
            self.close()

    def _notice(self, names: Collection[str]) -> None:
        with self._news:
            self._changed.update(names)
            self._news.notify_all()

    def _apply(self, request: Any) -> Iterator[Any]:
        kind = request.WhichOneof("target_change")
        if kind == "add_target":
            yield from self._add(request.add_target)
        elif kind == "remove_target":
            if self._targets.pop(request.remove_target, None):
                yield _target_change("REMOVE", request.remove_target)
        else:
            raise invalid("a ListenRequest must add or remove a target")

    def _add(self, request: Any) -> Iterator[Any]:
        target_id = request.target_id or max(self._targets, default=0) + 1
        if target_id in self._targets:
            return  # as the official emulator: a target is added once
        yield _target_change("ADD", target_id)
        try:
            target = parse_target(request, target_id, self._database)
            with self._database.unchanged():
                instant, shown = self._database.clock.read_time(), target.load(self._database)
        except Refused as refused:
            self._note(refused)
            yield _target_change("REMOVE", target_id, cause=refused)
            return
        self._targets[target_id], self._shown[target_id] = target, shown
        if request.WhichOneof("resume_type"):
            yield _target_change("RESET", target_id, instant=instant)
        yield from changes(target, {}, shown, (), instant)
        yield _target_change("CURRENT", target_id, instant=instant)
        yield _target_change("NO_CHANGE", instant=instant)

    def _refresh(self, changed: Collection[str]) -> Iterator[Any]:
        """Yield the changes of all targets at one instant, and the message that makes them a snapshot."""
        responses = []
        with self._database.unchanged():
            instant = self._database.clock.read_time()
            for target in self._targets.values():
                if target.concerns(changed):
                    before, after = self._shown[target.id], target.load(self._database)
                    left = [name for name in before if name not in after]
                    existing = {
                        name for name, found in self._database.read(left)[1].items() if found is not None
                    }
                    responses += changes(target, before, after, existing, instant)
                    self._shown[target.id] = after
        if responses:
            yield from responses
            yield _target_change("NO_CHANGE", instant=instant)


def _target_change(
    kind: str, *target_ids: int, instant: int | None = None, cause: Refused | None = None
) -> Any:
    response = ListenResponse()
    change = response.target_change
    change.target_change_type = kind
    change.target_ids.extend(target_ids)
    if instant is not None:
        change.resume_token = instant.to_bytes(_TOKEN_BYTES, "big")
        set_timestamp(change.read_time, instant)
    if cause is not None:
        change.cause.code, change.cause.message = cause.code.value[0], cause.message
    return response
