"""A headless Chromium, told what to do over a pipe by the DevTools protocol: no driver, no port, no other package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 30.0
PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe")


class Tab:
    """One page."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._received = b""
        self._asked = 0
        self._session: str | None = None
        self.said: list[str] = []
        """Errors and refusals, as the console has them, of the site that is open: an icon of one before may be asked for after its end."""
        self._site = ""
        self._left: set[str] = set()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have the browser do something, and wait for what it answers."""
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": parameters} | ({"sessionId": self._session} if self._session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while (answer := self._next(until)).get("id") != self._asked:
            if answer.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self._note(answer["params"])
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, url: str) -> None:
        """Go there, and wait until it is loaded."""
        site = _site_of(url)
        if site != self._site:
            self._left = (self._left | {self._site}) - {site}
            self._site = site
            self.said.clear()
        self.call("Page.navigate", url=url)
        self.wait_for(f"location.href.startsWith({url!r}) && document.readyState === 'complete'")

    def eval(self, script: str) -> Any:
        """What an expression comes to."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Until it is true."""
        until = time.monotonic() + PATIENCE
        while not self.eval(script):
            assert time.monotonic() < until, f"never became true: {script}"
            time.sleep(0.05)

    def picture(self, **how: Any) -> bytes:
        """What is to be seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", **how)["data"])

    def _note(self, said: dict[str, Any]) -> None:
        if _site_of(said.get("entry", {}).get("url", "")) not in self._left - {""}:
            self.said.append(json.dumps(said))

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            readable, _, _ = select.select([self._from], [], [], max(0.0, until - time.monotonic()))
            assert readable, "the browser does not answer"
            chunk = os.read(self._from, 1 << 16)
            assert chunk, "the browser has ended"
            self._received += chunk
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))


def _site_of(url: str) -> str:
    return urlsplit(url).netloc


@contextlib.contextmanager
def tab(profile: Path) -> Iterator[Tab]:
    """Run a browser of its own for one page."""
    assert PROGRAM is not None
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    # It reads at 3 and writes at 4; bash moves them there
    command = ["bash", "-c", f'exec "$0" "$@" 3<&{in_read} 4>&{out_write}', PROGRAM, *_FLAGS, f"--user-data-dir={profile}"]
    child = subprocess.Popen(command, pass_fds=(in_read, out_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(in_read)
    os.close(out_write)
    try:
        yield Tab(in_write, out_read)
    finally:
        os.close(in_write)  # it ends by itself
        os.close(out_read)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
