"""A headless Chromium driven over its debugging pipe: opens a page and lists everything that went wrong.

No port is opened and no package is needed: the browser reads commands on descriptor 3 and writes events on descriptor
4, as JSON ended by a zero byte.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 60.0
QUIET = 0.5  # seconds without a network event after loading


def executable() -> str | None:
    """Path of Chromium, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One browser process with an empty profile of its own."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        commands, self._write = os.pipe()
        self._read, events = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (commands, events)]

        def wire() -> None:
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=wire,  # noqa: PLW1509 -- two dup2 calls, which are safe after a fork
        )  # fmt: skip
        for descriptor in (commands, events, *high):
            os.close(descriptor)
        self._buffer, self._last, self._session = b"", 0, ""
        self._seen: list[dict[str, Any]] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def close(self) -> None:
        """End this browser and remove its profile."""
        self._process.terminate()
        self._process.wait(timeout=PATIENCE)
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def problems(self, page: Path, *, width: int = 1200) -> list[str]:
        """Open a page; every console error or warning, exception, and request that leaves the page."""
        self._call("Page.navigate", url="about:blank")
        self._until_quiet()
        self._call("Log.clear")
        self._seen.clear()
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        address = page.absolute().as_uri()
        self._call("Page.navigate", url=address)
        self._until_quiet()
        return [problem for event in self._seen for problem in _problems(event, address)]

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression on the open page."""
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def _call(self, method: str, **params: object) -> dict[str, Any]:
        self._last += 1
        command = {"id": self._last, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._write, json.dumps(command).encode() + b"\0")
        for message in self._messages(time.monotonic() + PATIENCE):
            if message.get("id") == self._last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
        raise TimeoutError(method)

    def _until_quiet(self) -> None:
        """Wait for the load event, then until no event came for a moment."""
        deadline = time.monotonic() + PATIENCE
        loaded = any(event.get("method") == "Page.loadEventFired" for event in self._seen)
        while not loaded:
            for message in self._messages(deadline):
                if message.get("method") == "Page.loadEventFired":
                    loaded = True
                    break
            else:
                raise TimeoutError("the page did not finish loading")
        while any(True for _ in self._messages(time.monotonic() + QUIET)):
            pass

    def _messages(self, deadline: float) -> Iterator[dict[str, Any]]:
        while True:
            while b"\0" in self._buffer:
                raw, _, self._buffer = self._buffer.partition(b"\0")
                message = json.loads(raw)
                if "method" in message:
                    self._seen.append(message)
                yield message
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("the browser ended")
            self._buffer += data


def _problems(event: dict[str, Any], address: str) -> Iterator[str]:
    params = event.get("params", {})
    match event.get("method"):
        case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
            yield f"console {params['type']}: {[argument.get('value') for argument in params['args']]}"
        case "Runtime.exceptionThrown":
            yield f"exception: {params['exceptionDetails'].get('text')}"
        case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
            yield f"log {params['entry']['level']}: {params['entry']['text']}"
        case "Network.requestWillBeSent":
            url = params["request"]["url"]
            if url != address and not url.startswith("data:") and url != "about:blank":
                yield f"request: {url}"
