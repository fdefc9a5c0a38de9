"""`k2d` as a process of its own that can be killed, starved and watched: forked from a zygote, or started afresh."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
ZYGOTE = Path(__file__).with_name("zygote.py")
QUIET = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}
SECONDS = 120  # that a run may take; all take a few


@dataclass(frozen=True)
class Ended:
    """How a run ended: exit status (negative: by that signal, None: by ours, for it hung), words, seconds, MB."""

    status: int | None
    said: str
    seconds: float
    memory: float = 0.0
    steps: list[list] = field(default_factory=list)  # of files: number, event, whether it writes, path

    @property
    def lines(self):
        return self.said.splitlines()

    @property
    def last_step(self):
        return self.steps[-1][0] if self.steps else 0

    def recordings_read(self):
        """Recordings that were opened, each once, in order."""
        return list(
            dict.fromkeys(path for _, event, _, path in self.steps if event == "open" and path.endswith(".wav"))
        )

    def finished(self):
        """Names of shards and checkpoints that this run wrote: whole files get their names last."""
        renamed = [Path(path) for _, event, _, path in self.steps if event == "os.rename"]
        return [path.name for path in renamed if path.suffix in (".parquet", ".arrow") and ".resume" in str(path)]


class Running:
    """A process that runs `k2d`."""

    def __init__(self, order, wait):
        self.process = order["process"]
        self.started = time.monotonic()
        self._order, self._wait = order, wait

    def ended(self, *, within=SECONDS):
        """Wait for its end; one that takes longer is killed, and has no status."""
        done = self._wait(self.process, within)
        if done["status"] is None:
            self.kill()
            self._wait(self.process, SECONDS)
        seconds = time.monotonic() - self.started
        said = Path(self._order["said"]).read_text(encoding="utf-8", errors="replace")
        events = Path(self._order["events"])
        notes = events.read_text(encoding="utf-8").splitlines() if events.exists() else []
        return Ended(done["status"], said, seconds, done["memory"], [json.loads(note) for note in notes])

    def alive(self):
        """Whether it runs, or has ended and not been waited for."""
        try:
            state = Path(f"/proc/{self.process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state != "Z"

    def kill(self, *, after=0.0):
        """kill -9 of the whole group, some seconds after its start."""
        time.sleep(max(0.0, self.started + after - time.monotonic()))
        for kill in (os.kill, os.killpg):  # one that is forked this moment has not become a group yet
            with suppress(ProcessLookupError, PermissionError):
                kill(self.process, signal.SIGKILL)


class CommandLine:
    """Starts `k2d`; its orders and words are kept in `notes`, its conversions of models in `cache`."""

    def __init__(self, notes, cache):
        self.notes = notes
        self.environment = {**QUIET, "K2D_CACHE": str(cache)}
        self.count = 0
        inherited = {**os.environ, **self.environment, "PYTHONPATH": str(ROOT)}
        self.process_environment = {k: v for k, v in inherited.items() if not k.startswith("COV_")}
        self.started, self.import_seconds = time.monotonic(), 0.0
        self.zygote = subprocess.Popen(
            [sys.executable, str(ZYGOTE)],
            env=self.process_environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self):
        self.zygote.stdin.close()
        self.zygote.wait(20)
        self.zygote.stdout.close()

    def _order(self, **order):
        if not self.import_seconds:  # it says so when it has imported everything
            assert json.loads(self.zygote.stdout.readline()) == {"threads": 1}
            self.import_seconds = time.monotonic() - self.started
        self.zygote.stdin.write(json.dumps(order) + "\n")
        self.zygote.stdin.flush()
        return json.loads(self.zygote.stdout.readline())

    def start(self, folder, *command, kill_at=0, ordinary=False, largest_file=0, environment=None):
        """Start `k2d COMMAND` in a folder, by fork; it kills itself at its step number `kill_at` with files there."""
        self.count += 1
        order = {
            "command": [str(part) for part in command],
            "folder": str(folder),
            "watched": str(folder),
            "said": str(self.notes / f"said-{self.count}.txt"),
            "events": str(self.notes / f"events-{self.count}.jsonl"),
            "environment": {**self.environment, **(environment or {})},
            "kill_at": kill_at,
            "ordinary": ordinary,
            "largest_file": largest_file,
        }
        return Running(
            order | self._order(**order), lambda process, seconds: self._order(process=process, seconds=seconds)
        )

    def start_afresh(self, folder, *command):
        """Start `python -m k2d_hf COMMAND`, as a user does."""
        self.count += 1
        said = self.notes / f"said-{self.count}.txt"
        with said.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "k2d_hf", *map(str, command)],
                cwd=folder,
                env=self.process_environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

        def wait(_, seconds):
            try:
                return {"status": process.wait(seconds), "memory": 0.0}
            except subprocess.TimeoutExpired:
                return {"status": None, "memory": 0.0}

        return Running({"process": process.pid, "said": said, "events": "/nowhere"}, wait)

    def run(self, folder, *command, **options):
        """Run `k2d COMMAND` to its end."""
        return self.start(folder, *command, **options).ended()
