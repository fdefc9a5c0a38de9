"""Whether the Hub answers, found out once in a few seconds; where it does not, everything stays offline.

By default huggingface_hub retries each file for minutes. Every source of a model or data set is probed here first.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

HUB_REACHABLE = "hub reachable"
HUB_NOT_REACHABLE = "hub not reachable"

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


def go_offline() -> None:
    """Keep this process, and the children that it starts from now on, from asking the Hub for anything."""
    for setting in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
        os.environ[setting] = "1"
    for module, names in _OFFLINE_COPIES.items():
        for name in names if module in sys.modules else ():
            setattr(sys.modules[module], name, True)


def ensure_hub_state(timeout: float = 3.0) -> str:
    """Probe the Hub once, go offline for the rest of the process where it does not answer, and return its state.

    The first call sends one small request to the Hub's endpoint (`HF_ENDPOINT`, else huggingface_hub's own); its result
    holds for the whole process. Nothing is sent where `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` is set.

    Args:
        timeout: limit of the probe in seconds, name resolution included.

    Returns:
        `hub reachable`, `hub not reachable`, or `offline by HF_HUB_OFFLINE` (or the setting that is set).
    """
    global _probed
    setting = next((name for name in _OFFLINE_SETTINGS if os.environ.get(name, "").upper() in _TRUE), None)
    if _probed is None and setting is not None:
        go_offline()
        return f"offline by {setting}"
    if _probed is None:
        _probed = _answers_within(timeout)
    if _probed and setting is None:
        return HUB_REACHABLE
    go_offline()
    return HUB_NOT_REACHABLE


def _answers_within(timeout: float) -> bool:
    # Imported before the clock starts, and never by a thread that may be left behind holding the import lock.
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    answers: list[bool] = []

    def probe() -> None:
        # The session of huggingface_hub, so that proxies and certificates are those of the downloads to come.
        # Whatever makes it fail (name, route, proxy, certificate) would make downloads fail alike.
        with suppress(Exception):
            status = get_session().head(constants.ENDPOINT, timeout=timeout, follow_redirects=False).status_code
            answers.append(status < 500 and status not in _REFUSED_ON_THE_WAY)

    # HTTP time limits leave name resolution out, which can hang for half a minute: hence a thread and a deadline.
    thread = threading.Thread(target=probe, name="hub-probe", daemon=True)
    thread.start()
    thread.join(timeout)
    return answers == [True]
