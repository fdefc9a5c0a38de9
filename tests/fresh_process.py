"""Code in a process of its own, with its own home of the Hub's libraries: they read their settings at import."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


def settings(home, environment):
    """The environment of a process that shares none of this one's settings of the Hub."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    own = {"HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    return {**inherited, **own, **environment}


def start_python(code, home, **environment):
    """Run code in a fresh interpreter, to its end; gives exit status and what was printed."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=settings(home, environment),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_python(code, home, **environment):
    """The same for code that must not fail; gives what it assigned to `result`, and the seconds."""
    started = time.monotonic()
    done = start_python(f"{code}\nimport json; print(json.dumps(result))", home, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), time.monotonic() - started


WORKER = """
import contextlib, io, json, sys, traceback
names, answers = {}, sys.stdout
for line in sys.stdin:
    answer, said = {"result": None, "error": None}, io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            exec(json.loads(line), names)
            answer["result"] = names.pop("result", None)
        except BaseException as error:
            answer["error"] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
    print(json.dumps({**answer, "said": said.getvalue()}), file=answers, flush=True)
"""


@dataclass(frozen=True)
class Answer:
    """What came of a piece of code: its `result`, or the error as one text; and all that it printed."""

    result: object
    error: str | None
    said: str


class PythonProcess:
    """A fresh interpreter that runs one piece of code after the other; what it says beside goes to `home/stderr`."""

    def __init__(self, home, **environment):
        self.log = home / "stderr"
        self.answers = []
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER],
                env=settings(home, environment),
                cwd=home,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def run(self, code):
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.answers.append(Answer(**json.loads(line)))
        return self.answers[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()
