"""Whether the Hub answers, found out once in a few seconds; where it does not, everything stays offline.

By default huggingface_hub retries each file for minutes. Every source of a model or data set is probed here first.
"""

from __future__ import annotations

import os
import sys
import threading

HUB_REACHABLE = "hub reachable"
HUB_NOT_REACHABLE = "hub not reachable"
PROBE_SECONDS = 3.0

_TRUE = {"1", "ON", "YES", "TRUE"}  # the values that huggingface_hub reads as true
_OFFLINE_SETTINGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
# A proxy or a gateway in between answers with these. Not 403: a mirror may refuse its front page and serve models.
_REFUSED_ON_THE_WAY = {407, 451}
# Copies of the setting that these modules took when they were imported.
_OFFLINE_COPIES = {
    "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
    "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    "evaluate.config": ("HF_EVALUATE_OFFLINE",),
}

_probed: bool | None = None


def hub_reachable(timeout: float = PROBE_SECONDS) -> bool:
    """Whether the Hub's endpoint (`HF_ENDPOINT`, else huggingface_hub's own) answers.

    The first call sends one small request; its result holds for the whole process. Nothing is sent where
    `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` is set.

    Args:
        timeout: limit of the probe in seconds, name resolution included.
    """
    global _probed
    if _offline_setting() is not None:
        return False
    if _probed is None:
        _probed = _answers_within(timeout)
    return _probed


def go_offline() -> None:
    """Keep this process, and the children that it starts from now on, from asking the Hub for anything."""
    for setting in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
        os.environ[setting] = "1"
    for module, names in _OFFLINE_COPIES.items():
        for name in names if module in sys.modules else ():
            setattr(sys.modules[module], name, True)


def ensure_hub_state(timeout: float = PROBE_SECONDS) -> str:
    """Probe the Hub once, go offline for the rest of the process where it does not answer, and return its state.

    Returns:
        `hub reachable`, `hub not reachable`, or `offline by HF_HUB_OFFLINE` (or the setting that is set).
    """
    setting = _offline_setting()
    if setting is not None and _probed is None:
        go_offline()
        return f"offline by {setting}"
    if hub_reachable(timeout):
        return HUB_REACHABLE
    go_offline()
    return HUB_NOT_REACHABLE


def _offline_setting() -> str | None:
    """The environment setting that forbids the Hub, if there is one."""
    return next((name for name in _OFFLINE_SETTINGS if os.environ.get(name, "").upper() in _TRUE), None)


def _answers_within(timeout: float) -> bool:
    # HTTP time limits leave name resolution out, which can hang for half a minute: hence a thread and a deadline.
    # Imported before the clock starts, and never by a thread that may be left behind holding the import lock.
    import huggingface_hub.utils  # noqa: F401

    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_answers(timeout)), name="hub-probe", daemon=True)
    thread.start()
    thread.join(timeout)
    return bool(answers) and answers[0]


def _answers(timeout: float) -> bool:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        # The session of huggingface_hub, so that proxies and certificates are those of the downloads to come.
        response = get_session().head(constants.ENDPOINT, timeout=timeout, follow_redirects=False)
    except Exception:  # whatever the reason (name, route, proxy, certificate), downloads would fail alike
        return False
    return response.status_code < 500 and response.status_code not in _REFUSED_ON_THE_WAY
