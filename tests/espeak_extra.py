"""A mark of tests that need espeak-ng, which the extras `espeak` and `test` bring."""

from importlib.util import find_spec

import pytest

needs_espeak = pytest.mark.skipif(
    not (find_spec("espeakng_loader") and find_spec("phonemizer")), reason="espeak-ng (extra espeak) is not installed"
)
