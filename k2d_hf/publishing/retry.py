"""Retries of requests to the Hub, and its errors in one line without the token."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from k2d_hf.errors import K2DError

T = TypeVar("T")

TRIES = 5
FIRST_WAIT = 1.0  # s before the second try; twice that before the next, and so on
REQUEST_SECONDS = 120.0  # without any answer; by default huggingface_hub waits for ever

_RETRIED = {408, 425, 429}  # besides everything from 500 on
_STALE = 412  # the branch has a later commit than the parent of ours

logger = logging.getLogger(__name__)


def with_retries(work: Callable[[], T], token: str) -> T:
    """The result of `work`, tried again after temporary failures: no answer, no connection, a server error."""
    for attempt in range(TRIES - 1):
        try:
            return work()
        except Exception as error:
            if not _is_temporary(error):
                raise
            wait = FIRST_WAIT * 2**attempt
            logger.warning("%s; trying again in %g s", _describe(error).replace(token, "<token>"), wait)
            time.sleep(wait)
    return work()


@contextmanager
def hub_requests(what: str, token: str) -> Iterator[None]:
    """Requests to the Hub: with a time limit, which its client has not, and errors as a K2DError of one line.

    It has no token in it, which a server may have sent back.
    """
    from huggingface_hub.utils import get_session

    session: Any = get_session()
    before, session.timeout = session.timeout, REQUEST_SECONDS
    try:
        yield
    except K2DError:
        raise
    except Exception as error:
        line = f"{what} failed: {_describe(error)}{_advice(error)}"
        # Not `from error`: its text, and those of its causes, may hold the token.
        raise K2DError(line.replace(token, "<token>")) from None
    finally:
        session.timeout = before


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, if a server answered."""
    return getattr(getattr(_cause(error), "response", None), "status_code", None)


def _cause(error: BaseException) -> BaseException:
    """The error of the HTTP client below those of other libraries; the error itself where there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "response", None) is not None or _is_of_the_connection(cause):
            return cause
        cause = cause.__cause__ or cause.__context__
    return error


def _is_temporary(error: Exception) -> bool:
    if isinstance(error, K2DError):
        return False
    status = status_of(error)
    if status is None:
        return _is_of_the_connection(_cause(error))
    return status >= 500 or status in _RETRIED or status == _STALE


def _is_of_the_connection(error: BaseException) -> bool:
    # huggingface_hub's HTTP library goes by another name from one release to the next, its errors by the same.
    names = {cls.__name__ for cls in type(error).__mro__}
    return isinstance(error, (ConnectionError, TimeoutError)) or "TransportError" in names


def _describe(error: Exception) -> str:
    cause, status = _cause(error), status_of(error)
    if status is not None:
        reason = " ".join((getattr(cause, "server_message", None) or "").split())
        return f"the Hub answered {status}{f' ({reason:.200})' if reason else ''}"
    kind, text = type(cause).__name__, " ".join(str(cause).split())
    return f"the connection failed ({kind}: {text:.200})" if _is_of_the_connection(cause) else f"{kind}: {text:.300}"


def _advice(error: Exception) -> str:
    if status_of(error) in (401, 403, 404):
        return "; has the token the right to write there? `hf auth login` takes another"
    if _is_temporary(error):
        return f" in each of {TRIES} tries; nothing partial stays there, so run the same command again later"
    return ""
