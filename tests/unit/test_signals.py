"""Signals, waited for in a process of its own: it may be stopped, and its parent may have ignored some."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

WAITING = """
import signal, subprocess, threading
from exporter.process.signals import Signals, hangup_is_ignored, restore_dispositions, stop_is_pending
restore_dispositions()
signals = Signals([signal.SIGTERM, signal.SIGHUP])
print(hangup_is_ignored(), subprocess.run(["false"]).returncode, flush=True)
while (told := signals.wait(0.1)) is not signal.SIGTERM:
    if told is not None:
        print(told.name, stop_is_pending(), flush=True)
threading.Timer(0.1, signals.wake).start()
print(signals.wait(60), flush=True)
"""


@contextmanager
def waiting(*ignored: signal.Signals) -> Iterator[subprocess.Popen[str]]:
    inherited = {int(each): int(signal.SIG_IGN if each in ignored else signal.SIG_DFL) for each in (signal.SIGHUP, *ignored)}  # nohup(1)
    ignore = f"import signal\nfor number, handler in {inherited}.items(): signal.signal(number, handler)\n"
    become = f"import os, sys\n{ignore}os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    with subprocess.Popen([sys.executable, "-c", become, WAITING], stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_stop_is_no_signal() -> None:
    """However long it lasts, the wait goes on; and another thread can end it."""
    with waiting() as child:
        assert line(child) == "False 1"
        child.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        child.send_signal(signal.SIGCONT)
        child.send_signal(signal.SIGHUP)
        assert line(child) == "SIGHUP False"
        child.send_signal(signal.SIGTERM)
        assert line(child) == "None"
        assert child.wait() == 0


def test_one_that_came_during_the_stop() -> None:
    """Both are kept, in the kernel's order: the lower number first."""
    with waiting() as child:
        assert line(child) == "False 1"
        child.send_signal(signal.SIGSTOP)
        for number in (signal.SIGTERM, signal.SIGHUP):
            child.send_signal(number)
        time.sleep(0.5)
        child.send_signal(signal.SIGCONT)
        assert line(child) == "SIGHUP True"
        assert line(child) == "None"


def test_what_a_parent_ignores() -> None:
    """Signals that are waited for come all the same, and a child's status is not lost."""
    with waiting(signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD) as child:
        assert line(child) == "True 1"
        child.send_signal(signal.SIGHUP)
        assert line(child) == "SIGHUP False"
        child.send_signal(signal.SIGTERM)
        assert line(child) == "None"
