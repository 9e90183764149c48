"""Standard output and error that work without a reader, on a full disk, and with every character."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer


def protect_standard_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr`, so that no write to them fails.

    A job must not end in the middle because nobody reads its output any more (`| head -1`). Characters that
    the encoding does not have are written as escape sequences. A descriptor that is closed from the start
    becomes `/dev/null`: the next opened file would get its number.
    """
    sys.stdout = _protected(sys.stdout, 1)
    sys.stderr = _protected(sys.stderr, 2)


def lost_reader(stream: TextIO) -> bool:
    """Return whether the other end of the pipe `stream` was closed at the last write."""
    output = _output_of(stream)
    return output is not None and isinstance(output.failure, BrokenPipeError)


def write_failure(stream: TextIO) -> OSError | None:
    """Return why output to `stream` was lost, for example a full disk; None also for a lost reader."""
    output = _output_of(stream)
    return None if output is None or lost_reader(stream) else output.failure


class _Output(io.FileIO):
    """A file descriptor whose failed writes are dropped and remembered."""

    failure: OSError | None = None

    def write(self, data: Buffer) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            self.failure = self.failure or error
            return memoryview(data).nbytes


def _protected(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:
        _open_null(descriptor)
        return open(descriptor, "w", encoding="utf-8", closefd=False)
    if not isinstance(stream, io.TextIOWrapper) or stream.fileno() != descriptor:
        return stream  # replaced by a test
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(descriptor, "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
    )


def _open_null(descriptor: int) -> None:
    opened = os.open(os.devnull, os.O_WRONLY)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)


def _output_of(stream: TextIO) -> _Output | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Output) else None
