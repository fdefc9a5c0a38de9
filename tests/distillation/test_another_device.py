"""The loss on a device that is not the CPU, as far as that can be seen without one: see `on_another_device.py`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_variant_of_the_loss_stays_on_its_device_and_asks_once_for_its_positions():
    script = Path(__file__).with_name("on_another_device.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert "same device" in found.pop("mixed devices")  # the error of a real mistake
    assert len(found) == 30
    assert found == dict.fromkeys(found, ["elsewhere"])
