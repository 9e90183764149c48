"""The control port: counters, faults, stop and start, for tests in another process than the cloud's.

GET    /calls                                {"pubsub": {"Publish": 3}, ...}
GET    /bytes-read                           {"BatchGetDocuments": 1234}, of Firestore
GET    /requests                             the log of Chart-IMG requests
POST   /faults   {"service": "storage", ...} the fields of `Fault`; answers {"id": 1}
DELETE /faults                               of all services
POST   /services/NAME/stop
POST   /services/NAME/start?lose_state=true
POST   /services/pubsub/reset                ends all open streams
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from localcloud.chart_img import ChartImgService
from localcloud.faults import Fault
from localcloud.firestore import FirestoreService
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
            if method == "POST /faults":
                fields = json.loads(request.body)
                faults = self._services[fields.pop("service")].faults
                return json_response({"id": faults.add(Fault(**fields))})
            if method == "DELETE /faults":
                for service in self._services.values():
                    service.faults.clear()
                return json_response({})
            return self._switch(request)
        except (KeyError, TypeError, ValueError) as error:
            return json_response({"message": f"{type(error).__name__}: {error}"}, 400)

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
        service = self._services[parts[1]]
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
