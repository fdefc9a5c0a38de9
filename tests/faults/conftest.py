"""What all disturbed runs share: the zygote, models and recordings, and undisturbed runs to compare with."""

import os
from collections import Counter

import pytest

from faults.command_line import CommandLine
from faults.stages import Stages


def pytest_configure(config):
    config.addinivalue_line("markers", "faults: kills, full disks and dirt; all of it with `make test-faults`")


def pytest_collection_modifyitems(items):
    for item in items:
        if "faults" in item.path.parts:
            item.add_marker("faults")


def pytest_terminal_summary(terminalreporter):
    """The figures that tests recorded, summed: kills and rows by stage."""
    figures = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name.startswith("faults: "):
                figures[name.removeprefix("faults: ")] += value
    for name, value in sorted(figures.items()):
        terminalreporter.write_line(f"{name}: {value}")


@pytest.fixture
def figure(record_property):
    """Records a number, of which the sum over all tests is shown at the end."""
    return lambda name, value: record_property(f"faults: {name}", value)


@pytest.fixture(scope="session")
def k2d(tmp_path_factory):
    """The command line."""
    command_line = CommandLine(tmp_path_factory.mktemp("notes"), tmp_path_factory.mktemp("cache"))
    yield command_line
    command_line.close()


@pytest.fixture(scope="session")
def stages(tmp_path_factory, processor, k2d):
    """The stages with models and data for each, and what each gives when it is left alone."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return Stages(tmp_path_factory.mktemp("undisturbed"), processor, k2d)
