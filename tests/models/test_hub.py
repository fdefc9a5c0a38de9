"""The Hub is asked once, briefly; where it does not answer, everything is offline within seconds."""

import os
import socket

import pytest
from fresh_process import run_python
from hub_server import LocalHub, serving

PROBE = "from k2d_hf.models.hub import *\n"
RESOLVE = """
import time
from k2d_hf.models import resolve_checkpoint
from k2d_hf.errors import K2DError
result = []
for _ in range(2):
    started = time.monotonic()
    try:
        resolve_checkpoint("nobody/nothing")
    except K2DError as error:
        result.append([str(error), time.monotonic() - started])
"""
NOT_REACHABLE = (
    "model nobody/nothing: not a folder here, not in the cache, and the Hub is not reachable; "
    "give the path of a local checkpoint folder"
)


@pytest.fixture
def closed_port():
    """An address at which no server listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def black_hole():
    """An address that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("status", "reachable"),
    [(200, True), (302, True), (401, True), (403, True), (404, True), (407, False), (451, False), (503, False)],
)
def test_only_an_answer_of_the_hub_itself_counts(status, reachable, monkeypatch):
    from huggingface_hub import constants

    from k2d_hf.models import hub

    with serving(LocalHub(front_page=status)) as address:
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(hub, "_probed", None)
        monkeypatch.setattr(hub, "go_offline", lambda: None)
        assert hub.ensure_hub_state() == ("hub reachable" if reachable else "hub not reachable")


def test_the_hub_is_asked_once(tmp_path):
    hub = LocalHub()
    with serving(hub) as address:
        states, _ = run_python(PROBE + "result = [ensure_hub_state() for _ in range(3)]", tmp_path, HF_ENDPOINT=address)
    assert states == ["hub reachable"] * 3
    assert hub.requests == ["HEAD /"]


@pytest.mark.parametrize("setting", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_nothing_is_sent_where_the_user_forbids_it(tmp_path, setting):
    hub = LocalHub()
    with serving(hub) as address:
        code = PROBE + "result = [ensure_hub_state(), ensure_hub_state()]"
        found, _ = run_python(code, tmp_path, HF_ENDPOINT=address, **{setting: "1"})
    assert found == [f"offline by {setting}", "offline by HF_HUB_OFFLINE"]
    assert hub.requests == []


def test_unknown_model_at_a_closed_port_fails_at_once(tmp_path, closed_port):
    (first, second), seconds = run_python(RESOLVE, tmp_path, HF_ENDPOINT=closed_port)
    assert first[0] == second[0] == NOT_REACHABLE
    assert seconds < 10


def test_unknown_model_in_a_black_hole_fails_within_the_limit_of_the_probe(tmp_path, black_hole):
    (first, second), seconds = run_python(RESOLVE, tmp_path, HF_ENDPOINT=black_hole)
    assert first[0] == second[0] == NOT_REACHABLE
    assert second[1] < 0.5  # not asked again
    assert seconds < 10


def test_the_limit_includes_name_resolution(tmp_path):
    slow_lookup = "import socket, time\nsocket.getaddrinfo = lambda *_, **__: time.sleep(30)\n"
    state, seconds = run_python(
        slow_lookup + PROBE + "result = ensure_hub_state(0.3)", tmp_path, HF_ENDPOINT="http://hub.invalid"
    )
    assert state == "hub not reachable"
    assert seconds < 10


def test_offline_reaches_libraries_imported_before_and_processes_started_after(tmp_path, black_hole):
    code = """
import subprocess, sys, time
import datasets, huggingface_hub
from k2d_hf.models.hub import ensure_hub_state
ensure_hub_state(0.3)
started = time.monotonic()
def kind(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
child = "from k2d_hf.models.hub import ensure_hub_state; print(ensure_hub_state())"
result = {
    "hub": kind(lambda: huggingface_hub.model_info("nobody/nothing")),
    "datasets": kind(lambda: datasets.load_dataset("nobody/nothing")),
    "child": subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout.strip(),
    "seconds": time.monotonic() - started,
}
"""
    found, _ = run_python(code, tmp_path, HF_ENDPOINT=black_hole)
    assert found.pop("seconds") < 8
    assert found == {
        "hub": "OfflineModeIsEnabled",
        "datasets": "ConnectionError",
        "child": "offline by HF_HUB_OFFLINE",
    }


def test_every_copy_of_the_setting_is_changed(monkeypatch):
    import datasets.config
    import evaluate.config
    from huggingface_hub import constants

    from k2d_hf.models.hub import go_offline

    copies = [
        (constants, "HF_HUB_OFFLINE"),
        (datasets.config, "HF_HUB_OFFLINE"),
        (datasets.config, "HF_DATASETS_OFFLINE"),
        (evaluate.config, "HF_EVALUATE_OFFLINE"),
    ]
    for module, name in copies:
        monkeypatch.setattr(module, name, False)
        monkeypatch.setenv(name, "0")
    go_offline()
    assert all(getattr(module, name) for module, name in copies)
    assert {os.environ[name] for _, name in copies} == {"1"}
