"""Log lines wait for the reader of the output, and no thread waits for them."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import socket
import subprocess
import sys
import threading

import pytest

from tests.support import metric_counts
from worker_chart_export.observability import logs
from worker_chart_export.observability.line_queue import LineQueue
from worker_chart_export.observability.logs import Event, log

SIZE = 4096


def dropped(reason):
    """Return how many lines were dropped so far."""
    return metric_counts.value("log_lines_dropped_total", reason=reason)


class Pipe:
    """A small pipe: lines go in through a queue, and come out when the test reads."""

    def __init__(self, **given):
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, SIZE)
        self.queue = LineQueue(open(self.writer, "w", encoding="ascii", closefd=False), **given)  # noqa: SIM115

    def read_to_end(self):
        """Close the pipe after the last line; return all lines."""
        lines = []
        thread = threading.Thread(target=self._read, args=(lines,))
        thread.start()
        assert self.queue.drain(20)
        self.queue.write("end\n")
        thread.join(20)
        return lines[:-1]

    def _read(self, lines):
        with open(self.reader, encoding="ascii", closefd=False) as pipe:
            for line in pipe:
                lines.append(line.rstrip("\n"))
                if lines[-1] == "end":
                    return


@pytest.fixture
def pipe():
    """Return a pipe with room for everything that waits."""
    return Pipe()


@pytest.fixture
def logged(log_lines):
    """Let log lines go through a queue in this test."""
    assert log_lines() == []
    return lambda queue: logs.configure(level="INFO", log_format="json", stream=queue)


def test_a_line_is_written_before_the_call_returns(pipe):
    """A crash right after a line does not lose it."""
    pipe.queue.write("one\n")
    assert os.read(pipe.reader, 100) == b"one\n"


def test_lines_of_libraries_go_the_same_way(pipe, logged):
    """The standard library's handlers take a lock of their own, also after a fork and on newer Pythons."""
    logged(pipe.queue)
    logging.getLogger("library").warning("theirs")
    log.info(Event.TEMPLATE_WARNING, "ours")
    lines = os.read(pipe.reader, SIZE).decode().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["theirs", "ours"]


def test_no_thread_waits_while_another_one_writes(pipe, monkeypatch):
    """The thread that is writing writes the lines that come meanwhile, in their order."""
    started, go_on = threading.Event(), threading.Event()
    write_now = pipe.queue._write_now

    def write_slowly(data):
        started.set()
        assert go_on.wait(20)
        return write_now(data)

    monkeypatch.setattr(pipe.queue, "_write_now", write_slowly)
    writing = threading.Thread(target=pipe.queue.write, args=("one\n",))
    writing.start()
    assert started.wait(20)
    for line in ("two\n", "three\n"):
        pipe.queue.write(line)
    assert writing.is_alive()
    go_on.set()
    writing.join(20)
    assert os.read(pipe.reader, 100) == b"one\ntwo\nthree\n"


def test_a_line_that_a_destructor_logs_during_a_write_follows_it(pipe, monkeypatch):
    """The thread that holds the queue does not wait for itself."""
    lines, write_now = ["two\n"], pipe.queue._write_now

    def interrupted(data):
        if lines:
            pipe.queue.write(lines.pop())
        return write_now(data)

    monkeypatch.setattr(pipe.queue, "_write_now", interrupted)
    pipe.queue.write("one\n")
    assert os.read(pipe.reader, 100) == b"one\ntwo\n"


def test_a_line_that_comes_while_the_queue_is_held_is_not_forgotten(pipe):
    """Whoever releases the queue looks for more lines."""
    with pipe.queue._locked():
        pipe.queue.write("one\n")
    assert os.read(pipe.reader, 100) == b"one\n"


def test_a_killed_process_loses_no_line():
    """Lines before SIGKILL are in the pipe."""
    script = (
        "import os, signal, sys; from worker_chart_export.observability.line_queue import LineQueue\n"
        "queue = LineQueue(sys.stdout)\n"
        "for number in range(100): queue.write(f'{number}\\n')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=False)
    assert done.stdout.split() == [b"%d" % number for number in range(100)]


def test_lines_keep_their_order_while_the_reader_stalls(pipe):
    """What did not fit into the pipe comes later, complete and in order."""
    written = [f"{number} {'x' * (number % 700)}" for number in range(1000)]
    for line in written:
        pipe.queue.write(f"{line}\n")
    assert not pipe.queue.drain(0.05)
    assert pipe.read_to_end() == written


def test_a_line_larger_than_the_pipe_arrives_in_one_piece(pipe):
    """A line that was written in part goes on where it stopped."""
    written = ["x" * 10 * SIZE, "y" * 10 * SIZE]
    for line in written:
        pipe.queue.write(f"{line}\n")
    assert pipe.read_to_end() == written


def test_threads_write_whole_lines_in_the_order_of_each(pipe):
    """Lines of several threads are never mixed."""

    def write(name):
        for number in range(300):
            pipe.queue.write(f"{name} {number} {'x' * 50}\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    found = [line.split() for line in pipe.read_to_end()]
    for name in "abcd":
        assert [int(number) for of, number, _ in found if of == name] == list(range(300))


def test_lines_over_the_limit_are_dropped_counted_and_said(logged):
    """The oldest lines stay; once the reader goes on, a line says how many are missing."""
    pipe, before = Pipe(max_bytes=2000), dropped("queue_full")
    logged(pipe.queue)
    for number in range(200):
        pipe.queue.write(f"{number} {'x' * 50}\n")
    lines = pipe.read_to_end()
    kept = [int(line.split()[0]) for line in lines if line[0] != "{"]
    assert kept == list(range(len(kept)))
    (said,) = [json.loads(line) for line in lines if line[0] == "{"]
    assert (said["severity"], said["event"]) == ("WARNING", "log_lines_dropped")
    assert said["lines"] == 200 - len(kept) > 0
    assert dropped("queue_full") - before == said["lines"]


def test_a_reader_that_has_gone_fails_nothing(pipe, logged):
    """Lines for a closed pipe are dropped and counted."""
    logged(pipe.queue)
    before = dropped("write_failed")
    os.close(pipe.reader)
    for _ in range(3):
        log.info(Event.STEP_NOOP, "nobody reads this")
    assert pipe.queue.drain(5)
    assert dropped("write_failed") - before == 3


def test_a_stalled_socket_holds_no_line():
    """The journal of systemd is a socket."""
    ours, its = socket.socketpair()
    with ours, its, its.makefile(encoding="ascii") as lines:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SIZE)
        queue = LineQueue(open(ours.fileno(), "w", encoding="ascii", closefd=False))  # noqa: SIM115
        written = [f"{number} {'x' * 1000}" for number in range(1000)]
        for line in written:
            queue.write(f"{line}\n")
        assert not queue.drain(0.05)
        assert [next(lines).rstrip("\n") for _ in written] == written


def test_the_open_file_of_other_processes_stays_as_it_is(pipe):
    """The descriptor is not made non-blocking: the shell's programs write to the same open file."""
    assert os.get_blocking(pipe.writer)


def test_an_output_that_others_made_non_blocking_gets_every_line(pipe):
    """The thread waits until the pipe has room again."""
    os.set_blocking(pipe.writer, False)
    written = [f"{number} {'x' * 500}" for number in range(100)]
    for line in written:
        pipe.queue.write(f"{line}\n")
    assert pipe.read_to_end() == written


def test_characters_that_the_output_lacks_are_escaped(pipe):
    """A line with characters outside the encoding, or with half a character, is written."""
    pipe.queue.write("caf\u00e9 \ud800\n")
    assert os.read(pipe.reader, 100) == rb"caf\xe9 \ud800" + b"\n"


def test_a_file_gets_its_lines_at_once(tmp_path):
    """Lines for a file are appended where it stands."""
    path = tmp_path / "log"
    with path.open("w", encoding="utf-8") as file:
        file.write("before\n")
        file.flush()
        queue = LineQueue(file)
        queue.write("one\n")
        assert path.read_text(encoding="utf-8") == "before\none\n"


def test_a_stream_without_a_descriptor_is_refused():
    """A stream in memory needs no queue."""
    with pytest.raises(OSError, match="fileno"):
        LineQueue(io.StringIO())
