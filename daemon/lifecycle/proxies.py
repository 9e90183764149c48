"""One meaning of the proxy variables for all clients of a process.

`requests`, and with it all HTTP of this worker, its exporter of spans and Google's requests for access
tokens, reads `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` in upper and lower case. gRPC reads
only lower case, has no `ALL_PROXY` and no `NO_PROXY=*`, takes a proxy without `http://` for an error, and
uses `http_proxy` for TLS too. But it first reads `grpc_proxy` and `no_grpc_proxy`, which nothing else reads.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PROXIES = ("https_proxy", "http_proxy", "all_proxy")
FOR_GRPC = ("grpc_proxy", "no_grpc_proxy")
#: Places that no proxy can reach for this machine: itself, and the metadata server that gives access tokens.
LOCAL = ("localhost", "127.0.0.1", "::1", "169.254.169.254", "metadata.google.internal")
UNIVERSE = "GOOGLE_CLOUD_UNIVERSE_DOMAIN"


def set_proxies() -> None:
    """Change the environment so that gRPC uses the proxies that `requests` uses, and local places none.

    Variables of gRPC itself that are set are left alone.
    """
    names = {name.lower() for name, value in os.environ.items() if value}
    if names.isdisjoint(PROXIES):
        return
    os.environ["no_proxy"] = without_local(os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "")
    if not any(name in os.environ for name in FOR_GRPC):
        from worker_chart_export.backends.connections import proxy_for  # noqa: PLC0415 - slow, and rarely needed

        os.environ.update(variables_for_grpc(list(grpc_targets(os.environ)), proxy_for))


def without_local(no_proxy: str) -> str:
    """Return the value of `NO_PROXY` that also excludes local places. Pure."""
    if no_proxy.strip() == "*":
        return "*"  # this means every host only if it stands alone
    given = [host.strip() for host in no_proxy.split(",") if host.strip()]
    return ",".join([*given, *(host for host in LOCAL if host not in given)])


def grpc_targets(environment: Mapping[str, str]) -> Iterator[str]:
    """Return the addresses that this worker reaches by gRPC, as URLs. Pure."""
    domain = environment.get(UNIVERSE) or "googleapis.com"
    for service in ("firestore", "pubsub"):
        emulator = environment.get(f"{service.upper()}_EMULATOR_HOST")
        yield f"http://{emulator}" if emulator else f"https://{service}.{domain}"


def variables_for_grpc(targets: list[str], proxy_for: Callable[[str], str | None]) -> dict[str, str]:
    """Return the variables that make gRPC use the same proxies. Pure.

    gRPC can use only one proxy, and only with the scheme `http`: see `check_grpc_proxy`.
    """
    proxies = {target: proxy_for(target) for target in targets}
    proxy = next(filter(None, proxies.values()), "")
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    direct = [urlsplit(target).hostname or "" for target, used in proxies.items() if not used]
    return {"grpc_proxy": proxy, "no_grpc_proxy": ",".join(dict.fromkeys([*direct, *LOCAL]))}


def check_grpc_proxy(environment: Mapping[str, str]) -> None:
    """Refuse a proxy that gRPC would ignore without a word, and connect directly.

    Raises:
        ValueError: The proxy has another scheme than `http`. The error does not quote it.
    """
    scheme, separator, _ = environment.get("grpc_proxy", "").partition("://")
    if separator and scheme.lower() != "http":
        raise ValueError("gRPC can use only a proxy with http://")
