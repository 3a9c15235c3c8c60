"""What the services of the chaos run: prints numbered lines, from 0 in each run, and plays one part.

usage: program.py web PORT | held | writer SECONDS | eater | idle | job
"""

import contextlib
import os
import select
import signal
import socket
import sys
import time

CHILDREN = 2


class Lines:
    """Numbered lines on stdout, each written whole."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.number = 0
        self.due = time.monotonic()

    def write_due(self):
        while time.monotonic() >= self.due:
            os.write(1, b"%d\n" % self.number)
            self.number += 1
            self.due = max(self.due + self.seconds, time.monotonic() - 1)
        return max(0.0, self.due - time.monotonic())


def fork_child():
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    return pid


def web(port):
    """Answers every connection, and keeps two children."""
    lines = Lines(0.05)
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=128)
    listener.setblocking(False)
    children = {fork_child() for _ in range(CHILDREN)}
    while True:
        readable, _, _ = select.select([listener], [], [], lines.write_due())
        if readable:
            connection, _ = listener.accept()
            connection.sendall(b"%d\n" % os.getpid())
            connection.close()
        gone, _ = os.waitpid(-1, os.WNOHANG)
        if gone:
            children = (children - {gone}) | {fork_child()}


def held():
    """Answers every connection to the socket that it is passed; asked to end, it answers who is there."""
    listener = socket.socket(fileno=3)
    listener.setblocking(False)
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    lines = Lines(0.1)
    while not told:
        readable, _, _ = select.select([listener], [], [], lines.write_due())
        if readable:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                connection.sendall(b"%d\n" % os.getpid())
                connection.close()


def writer(seconds):
    lines = Lines(float(seconds))
    while True:
        time.sleep(lines.write_due())


def eater():
    """Takes memory without an end when it is told to."""
    told = []
    signal.signal(signal.SIGUSR1, lambda *_: told.append(True))
    lines = Lines(0.5)
    eaten = []
    while True:
        time.sleep(0.001 if told else lines.write_due())
        if told:
            eaten.append(b"x" * 2**20)


def idle():
    lines = Lines(0.5)
    while True:
        time.sleep(lines.write_due())


def job():
    os.write(1, b"0\n")


if __name__ == "__main__":
    {"web": web, "held": held, "writer": writer, "eater": eater, "idle": idle, "job": job}[sys.argv[1]](
        *sys.argv[2:]
    )
