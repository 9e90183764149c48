"""The control port: counters, faults, stop and start, for drills and for tests in another process.

`docs/embedded-cloud.md` documents its requests with examples.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from localcloud.chart_img import ChartImgService
from localcloud.faults import fault_of
from localcloud.firestore import FirestoreService
from localcloud.http_requests import read_json
from localcloud.http_server import HttpService, Request, Response, json_response
from localcloud.pubsub import PubsubService

if TYPE_CHECKING:
    from collections.abc import Mapping

    from localcloud.service import Service

_COUNTERS = frozenset({"/calls", "/bytes-read", "/requests"})


class ControlService(HttpService):
    """Let other processes observe and disturb the given services, addressed by name."""

    name = "control"

    def __init__(self, services: Mapping[str, Service], *, port: int = 0) -> None:
        super().__init__(port=port)
        self._services = services

    def lose_state(self) -> None:
        """Do nothing: this service has no state."""

    def identify(self, request: Request) -> str:
        """Return the method and the path."""
        return f"{request.method} {request.path}"

    def subject(self, request: Request) -> str:
        """Return the path."""
        return request.path

    def answer(self, method: str, request: Request) -> Response:
        """Run the request; 404 for an unknown path, 400 for an invalid body."""
        try:
            if request.method == "GET" and request.path in _COUNTERS:
                return json_response(self._read(request.path))
            if method == "GET /faults":
                return json_response({name: one.faults.as_list() for name, one in self._services.items()})
            if method == "POST /faults":
                return json_response({"id": self._add_fault(read_json(request.body))})
            if method == "DELETE /faults":
                for service in self._services.values():
                    service.faults.clear()
                return json_response({})
            return self._switch(request)
        except ValueError as error:
            return json_response({"message": str(error)}, 400)

    def _add_fault(self, fields: Any) -> int:
        if not isinstance(fields, dict):
            raise ValueError("expected a JSON object with a fault's fields")  # noqa: TRY004 - one kind for all
        service = self._service(fields.pop("service", None))
        return service.faults.add(fault_of(fields))

    def _service(self, name: Any) -> Service:
        if name not in self._services:
            raise ValueError(f"service: expected one of {', '.join(self._services)}, got {name!r}")
        return self._services[name]

    def _read(self, path: str) -> Any:
        firestore, chart_img = self._services["firestore"], self._services["chart_img"]
        if path == "/calls":
            return {name: service.calls.as_dict() for name, service in self._services.items()}
        if path == "/bytes-read":
            return firestore.bytes_read.as_dict() if isinstance(firestore, FirestoreService) else {}
        requests = chart_img.requests if isinstance(chart_img, ChartImgService) else []
        return [asdict(call) for call in requests]

    def _switch(self, request: Request) -> Response:
        parts = request.path.strip("/").split("/")
        if request.method != "POST" or len(parts) != 3 or parts[0] != "services":  # noqa: PLR2004 - services/NAME/ACTION
            return json_response({"message": f"no {request.method} {request.path} here"}, 404)
        service = self._service(parts[1])
        if parts[2] == "reset" and isinstance(service, PubsubService):
            return json_response({"reset": service.reset_streams()})
        if parts[2] == "stop":
            service.stop()
        elif parts[2] == "start":
            if request.query.get("lose_state", "").lower() in ("1", "true", "yes"):
                service.stop()
                service.lose_state()
            service.start()
        else:
            return json_response({"message": f"no action {parts[2]}"}, 404)
        return json_response({"running": service.running})
