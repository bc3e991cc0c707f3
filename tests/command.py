"""The command line, run within the test's own process."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from unittest.mock import patch

from rushes.cli import main


def rushes(*words: object) -> subprocess.CompletedProcess[str]:
    """What the installed command runs, with its streams and exit status, without the seconds that imports cost."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    argv = ["rushes", *map(str, words)]
    with patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            status = stop.code
    return subprocess.CompletedProcess(argv, status or 0, out.getvalue(), err.getvalue())
