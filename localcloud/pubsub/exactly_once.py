"""The error for ack ids without effect, on a subscription with exactly-once delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from localcloud.grpc_server import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_acks(invalid_ids: Sequence[str], *, exactly_once: bool) -> None:
    """Refuse ack ids that had no effect; without exactly-once delivery they are fine.

    Raises:
        Refused: INVALID_ARGUMENT as the official emulator says it. The details name each id, and Google's
            clients read them.
    """
    if not (exactly_once and invalid_ids):
        return
    info = error_details_pb2.ErrorInfo(
        reason="EXACTLY_ONCE_ACKID_FAILURE",
        domain="pubsub.googleapis.com",
        metadata=dict.fromkeys(invalid_ids, "PERMANENT_FAILURE_INVALID_ACK_ID"),
    )
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="Some ack ids are not valid.")
    status.details.add().Pack(info)
    raise Refused(grpc.StatusCode.INVALID_ARGUMENT, status.message, details=status.SerializeToString())
