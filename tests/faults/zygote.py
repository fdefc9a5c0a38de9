"""A process that has imported everything heavy and forks the command line: it starts in no time, and is the same.

It reads orders from its standard input, a JSON object a line, and answers each with one. Nothing is computed here, for
a process that has threads cannot be forked.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import threading
import time

HEAVY = [
    *("torch", "transformers.models.whisper.modeling_whisper", "datasets", "pyarrow.parquet", "soundfile", "soxr"),
    *(
        "ctranslate2",
        "faster_whisper",
        "k2d_hf.pipeline.commands",
        "k2d_hf.distillation.trainer",
        "k2d_hf.models.student",
    ),
    *(
        "k2d_hf.distillation.targets.targets",
        "k2d_hf.transcription.faster_whisper_engine",
        "k2d_hf.transcription.transformers_engine",
    ),
    *("k2d_hf.labelling.teacher", "k2d_hf.validation.auxiliary", "k2d_hf.publishing.card_rendering"),
]
POLL_SECONDS = 0.002
_CAPABILITY_VERSION = 0x20080522  # of capset(2), version 3
_SEES_ALL_FILES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: what makes root read files that nobody may read


def main():
    import_all()
    answer({"threads": threading.active_count()})
    for line in sys.stdin:
        order = json.loads(line)
        answer(start(order) if "command" in order else wait_for(**order))


def import_all():
    for name in HEAVY:
        importlib.import_module(name)


def answer(value):
    print(json.dumps(value), flush=True)


def start(order):
    """Fork a process group that runs `k2d` with `command`; its words go to `said`, its file events to `events`."""
    process = os.fork()
    if process:
        return {"process": process}
    status = 70
    try:
        become_its_own(order)
        from k2d_hf.cli import main as k2d

        status = k2d(order["command"])
    except SystemExit as error:
        status = error.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def become_its_own(order):
    """What differs from one process to the next: session, folder, files, rights, limits."""
    os.setsid()
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    nowhere = os.open(os.devnull, os.O_RDONLY)
    said = os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor, file in ((0, nowhere), (1, said), (2, said)):
        os.dup2(file, descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not order["largest_file"]:  # which the log would exceed
        heed_files(order["watched"], order["events"], order["kill_at"])
    if order["ordinary"]:
        give_up_sight_of_all_files()
    if order["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"], resource.RLIM_INFINITY))


def heed_files(watched, log, kill_at):
    """Note each step with a file whose path begins as `watched`, and recordings read; die at step `kill_at`."""
    steps = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}
    notes = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    lock, count = threading.Lock(), [0]

    def set_cancel_event(event, arguments):
        if event not in steps:
            return
        paths = [os.fspath(path) for path in arguments[:2] if isinstance(path, (str, os.PathLike))]
        if event == "open":
            paths = paths[:1]
        writes = event != "open" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if not any(os.path.abspath(path).startswith(watched) or not writes and ".wav" in path for path in paths):
            return
        with lock:
            count[0] += writes
            os.write(notes, (json.dumps([count[0], event, writes, paths[-1]]) + "\n").encode())
            if writes and count[0] == kill_at:
                os.killpg(0, signal.SIGKILL)

    sys.addaudithook(set_cancel_event)


def give_up_sight_of_all_files():
    """Let root be told "permission denied" like everybody else; others are already."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; once for the low and once for the high ones
    if libc.capget(header, data) == 0:
        for number in _SEES_ALL_FILES:
            for field in range(3):
                data[field] &= ~(1 << number)
        libc.capset(header, data)


def wait_for(process, seconds):
    """The exit status of a process, negative for a signal, and its memory in MB; a null status if it still runs."""
    deadline = time.monotonic() + seconds
    while True:
        done, status, used = os.wait4(process, os.WNOHANG)
        if done:
            return {"status": os.waitstatus_to_exitcode(status), "memory": used.ru_maxrss / 1024}
        if time.monotonic() > deadline:
            return {"status": None, "memory": 0.0}
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
