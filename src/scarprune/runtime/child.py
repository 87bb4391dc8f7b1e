"""A Python process of its own that answers requests: for work that must not happen in this one."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class ChildError(Exception):
    """The child refused a request or died; the message is its last word."""


class Child:
    """Runs a script that reads requests from stdin, one JSON object a line, and answers each with one.

    An answer with the key ``error`` is a refusal. The script sees neither its own folder nor the working
    directory on its path (``python -P``), and the Hugging Face libraries in it make no requests.
    """

    def __init__(self, script: Path) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, **request: Any) -> None:
        """Give the child work; it begins at once, and ``receive`` waits for the answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: ``receive`` says of what
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def receive(self) -> Mapping[str, Any]:
        """The next answer.

        Raises:
            ChildError: the child refused, or it is gone.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildError(self._last_word())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ChildError(str(answer["error"]))
        return answer

    def ask(self, **request: Any) -> Mapping[str, Any]:
        """``send`` and ``receive``."""
        self.send(**request)
        return self.receive()

    def close(self) -> None:
        """End the child, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(BrokenPipeError):
                pipe and pipe.close()

    def _last_word(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        if code < 0:
            return f"killed by signal {-code}" + (", most likely for want of memory" if code == -9 else "")
        return lines[-1] if lines else f"ended with exit code {code}"
