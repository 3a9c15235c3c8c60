"""A TCP service as one should be: takes its socket from the supervisor, and finishes what it has accepted.

Run as a program. Answers every connection with one line, its pid, and closes it. At SIGTERM it accepts no
more, answers whoever it has accepted, and ends.
"""

import os
import select
import signal
import socket

assert os.environ["LISTEN_PID"] == str(os.getpid())
listener = socket.socket(fileno=3 + os.environ["LISTEN_FDNAMES"].split(":").index("http"))
listener.setblocking(False)
ending, ended = os.pipe()
signal.signal(signal.SIGTERM, lambda *_: os.write(ended, b"."))
poll = select.epoll()
poll.register(listener, select.EPOLLIN)
poll.register(ending, select.EPOLLIN)
callers = {}
accepts = True
print("listening", flush=True)
while accepts or callers:
    for number, _ in poll.poll():
        if number == ending:
            accepts = False
            poll.unregister(listener)
            poll.unregister(ending)
        elif number == listener.fileno():
            if not accepts:
                continue
            try:
                caller, _ = listener.accept()
            except BlockingIOError:
                continue
            callers[caller.fileno()] = caller
            poll.register(caller, select.EPOLLIN)
        else:
            caller = callers.pop(number)
            if caller.recv(100):
                caller.sendall(b"%d\n" % os.getpid())
            poll.unregister(caller)
            caller.close()
