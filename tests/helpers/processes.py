"""Runs Python code in a fresh process."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent


def package() -> Path:
    """Returns the folder of the package as this process would import it, without doing so."""
    spec = importlib.util.find_spec("tfseg_ops")
    return ROOT / "tfseg_ops" if spec is None or spec.origin is None else Path(spec.origin).parent


def run_python(
    code: str,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    path: Path | None = None,
    timeout: float = 120,
) -> str:
    """Returns what the code prints; fails with its output when it fails or hangs.

    Args:
        code: the program; its `sys.argv[1:]` are `arguments`.
        arguments: strings or paths.
        env: variables that are set besides those of this process.
        path: the folder to import the package from; by default the one that this process takes.
        timeout: in seconds; a process that has not ended by then has hung.
    """
    folder = str(path or package().parent)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([folder, str(TESTS)]), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        raise AssertionError(f"hung for {timeout} s\n{output}\n{errors}") from None
    assert process.returncode == 0, f"exit status {process.returncode}\n{output}\n{errors}"
    return output
