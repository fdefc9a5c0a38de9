"""What this machine and its packages can do of what settings ask for: devices, number formats, engines, clusters.

Everything here is asked before the first model is loaded. A fault is either wrong on any machine, an error at once, or
something that this one lacks and another may have, which a plan for another machine lets pass with a note.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from k2d_hf.distillation.targets.settings import TargetsSettings
from k2d_hf.errors import K2DError, prefixed
from k2d_hf.evaluation.settings import EvaluateSettings
from k2d_hf.formatting import quote
from k2d_hf.scoring.phonemes import phones_by
from k2d_hf.transcription.engines import check_engine, check_options, engine_named, on_ray
from k2d_hf.transcription.settings import GivenSettings, WorkersSettings
from k2d_hf.transcription.transcribers import devices_of_torch
from k2d_hf.validation.settings import ValidateSettings

HERE = (None, "local")  # addresses of a Ray cluster that the run starts on this machine
_DEVICE = re.compile(r"([a-z]+)(?::(\d+))?", re.ASCII)
_ADDRESS = re.compile(r"auto|local|(ray://)?[^\s/]+:\d{1,5}")


def lacks_of(settings: WorkersSettings | EvaluateSettings | TargetsSettings, where: str = "") -> list[str]:
    """What this machine lacks to run a model as a stage's settings ask, each in one line that begins with `where`.

    Raises:
        K2DError: for what no machine can do, or a package that is not installed.
    """
    with prefixed(where):
        lacks = [where + lack for lack in _lacks(vars(settings), where)]
        if isinstance(settings, GivenSettings):
            check_options(settings.decoding(None), vars(settings)["engine"])
        if isinstance(settings, ValidateSettings):
            phones_by(settings.espeak_language)  # for which espeak-ng may be missing
        return lacks


def _lacks(values: Mapping[str, Any], where: str) -> Iterator[str]:
    with prefixed("engine: "):
        engine = check_engine(values["engine"]) if "engine" in values else "transformers"
    dtype, device, address = values["dtype"], values["device"], values.get("address")
    dtypes = engine_named(engine).dtypes
    if dtype not in ("auto", *dtypes):
        raise K2DError(f"dtype: {quote(dtype)}: the engine {engine} has auto, {', '.join(dtypes)}")
    spread = on_ray(values.get("engine", ""))
    if address is not None and not _ADDRESS.fullmatch(address):
        raise K2DError(f"address: {quote(address)} is none of a Ray cluster; write auto, or ray://HOST:10001")
    if address is not None and not spread:
        raise K2DError(f"address: for the engine ray alone; set {where}engine to ray, or leave it out")
    lack = _device_lack(device, engine)
    if spread and address not in HERE:
        yield from _unreachable(address)
        return
    if lack:
        yield lack
    if spread:
        yield from _cluster_lacks(values)
    elif not lack:
        yield from _format_lacks(dtype, device, engine)


def _device_lack(device: str, engine: str) -> str | None:
    """Why a device is not to be had here; K2DError for what is no device, or none of the engine."""
    known, of_torch = engine_named(engine).devices, engine_named("transformers").devices
    match = _DEVICE.fullmatch(device)
    if device != "auto" and (match is None or match[1] not in known):
        shown = "auto, cpu, cuda, cuda:1, ..." if match is None or match[1] not in of_torch else "auto, cpu, cuda"
        of = f" of the engine {engine}" if match is not None and match[1] in of_torch else ""
        raise K2DError(f"device: {quote(device)} is no device{of}; choose {shown}")
    if match is None or device in ("auto", "cpu"):
        return None
    count = engine_named(engine).device_count(match[1])
    if int(match[2] or 0) < count:
        return None
    has = f"there are {count}, from {match[1]}:0 on" if count else f"there is no {match[1]} device"
    return f"device: {device}: {has} on this machine; choose auto or cpu"


def _format_lacks(dtype: str, device: str, engine: str) -> Iterator[str]:
    supported_dtypes = engine_named(engine).supported_dtypes
    if dtype == "auto" or supported_dtypes is None:
        return
    kind, _, index = device.partition(":")
    if kind == "auto":
        kind = "cuda" if engine_named(engine).device_count("cuda") else "cpu"
    has = supported_dtypes(kind, int(index or 0))
    if dtype not in has:
        yield f"dtype: {dtype}: not on this {kind}, which has {', '.join(sorted(has))}; auto is safe"


def _unreachable(address: str) -> Iterator[str]:
    from k2d_hf.transcription.ray_cluster import probe

    try:
        probe(address)
    except OSError as error:
        yield f"address: {address}: nobody answers there ({error}); start a cluster with `ray start --head`"


def _cluster_lacks(values: Mapping[str, Any]) -> Iterator[str]:
    """What a cluster that is started here, for this run, will not have."""
    here = (("worker_cpus", os.cpu_count() or 1, "cores"), ("worker_gpus", devices_of_torch("cuda"), "GPUs"))
    for setting, has, unit in here:
        wanted = values[setting] * (values["workers"] or 1)
        if wanted > has:
            yield f"{setting}: {wanted:g} {unit} for the workers, and this machine has {has}; set fewer"
