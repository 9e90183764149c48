"""Run the four services as one cloud."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from localcloud.chart_img import ChartImgService
from localcloud.control import ControlService
from localcloud.firestore import FirestoreService
from localcloud.pubsub import PubsubService
from localcloud.refusals import Refusals
from localcloud.storage import StorageService

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from localcloud.service import Service

DEFAULT_PROJECT = "demo-project"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """The ports to listen on; 0 = any free one."""

    pubsub: int = 0
    firestore: int = 0
    storage: int = 0
    chart_img: int = 0
    control: int = 0


@dataclass(kw_only=True)
class LocalCloud:
    """Pub/Sub, Firestore, Storage and Chart-IMG on this machine, for one process or many.

    Use it as a context manager, or call `stop` when done.
    """

    project: str = DEFAULT_PROJECT
    ports: Ports = field(default_factory=Ports)
    seed: int = 0
    report: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        self.pubsub = PubsubService(port=self.ports.pubsub, seed=self.seed)
        self.firestore = FirestoreService(port=self.ports.firestore, seed=self.seed)
        self.storage = StorageService(port=self.ports.storage, seed=self.seed)
        self.chart_img = ChartImgService(port=self.ports.chart_img, seed=self.seed)
        self.services: dict[str, Service] = {
            "pubsub": self.pubsub,
            "firestore": self.firestore,
            "storage": self.storage,
            "chart_img": self.chart_img,
        }
        refusals = Refusals(self.report)
        for service in self.services.values():
            service.refusals = refusals
        self.control = ControlService(self.services, port=self.ports.control)

    @classmethod
    def start(
        cls,
        *,
        project: str = DEFAULT_PROJECT,
        ports: Ports | None = None,
        seed: int = 0,
        report: Callable[[str], None] | None = None,
    ) -> Self:
        """Start a cloud.

        Args:
            project: The project id that clients should use.
            ports: Where to listen.
            seed: Seeds the chance of faults with a probability.
            report: Gets a line about requests that are refused as not served; see `Refusals`.

        Raises:
            OSError, RuntimeError: A port is taken; nothing is left running.
        """
        cloud = cls(project=project, ports=ports or Ports(), seed=seed, report=report)
        with contextlib.ExitStack() as undo:
            for service in (*cloud.services.values(), cloud.control):
                service.start()
                undo.callback(service.stop)
            undo.pop_all()
        return cloud

    def environment(self) -> dict[str, str]:
        """Return the variables through which Google's clients, the worker and its tests find this cloud."""
        return {
            "GOOGLE_CLOUD_PROJECT": self.project,
            "PUBSUB_EMULATOR_HOST": self.pubsub.address,
            "FIRESTORE_EMULATOR_HOST": self.firestore.address,
            "STORAGE_EMULATOR_HOST": self.storage.url,
            "CHART_IMG_BASE_URL": self.chart_img.url,
            "LOCALCLOUD_CONTROL_URL": self.control.url,
        }

    def stop(self) -> None:
        """Stop everything and cut off calls in progress. A second call has no effect."""
        with contextlib.ExitStack() as all_of_them:
            for service in (*self.services.values(), self.control):
                all_of_them.callback(service.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
