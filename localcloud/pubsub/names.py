"""The names of topics, subscriptions and snapshots: the wrong ones, the missing ones and those in use."""

from __future__ import annotations

import re

import grpc

from localcloud.grpc_server import Refused, invalid

_ID = re.compile(r"projects/[^/]+/(topics|subscriptions|snapshots)/(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
_PROJECT = re.compile(r"projects/[^/]+")
_KINDS = {"topics": "Topic", "subscriptions": "Subscription", "snapshots": "Snapshot"}


def check_name(name: str, kind: str) -> None:
    """Refuse a name that is not `projects/P/{kind}/ID` with an id of 3 to 255 allowed characters."""
    match = _ID.fullmatch(name)
    if match is None or match[1] != kind:
        raise invalid(f"Invalid [{kind}] name: (name={name})")


def check_project(name: str) -> None:
    """Refuse a name that is not `projects/P`."""
    if _PROJECT.fullmatch(name) is None:
        raise invalid(f"Invalid [projects] name: (name={name})")


def missing(name: str, kind: str) -> Refused:
    """Return the error for what does not exist: NOT_FOUND, or INVALID_ARGUMENT for a malformed name."""
    try:
        check_name(name, kind)
    except Refused as refused:
        return refused
    said = "not found" if kind == "topics" else "does not exist"
    return Refused(grpc.StatusCode.NOT_FOUND, f"{_KINDS[kind]} {said} (resource={name})")


def taken(name: str, kind: str) -> Refused:
    """Return the error for the name of a new resource that exists already."""
    return Refused(grpc.StatusCode.ALREADY_EXISTS, f"{_KINDS[kind]} already exists (resource={name})")
