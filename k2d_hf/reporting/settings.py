"""Settings of the report."""

from __future__ import annotations

import dataclasses

from k2d_hf.files.settings import setting


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """The page that shows what a run did."""

    enabled: bool = setting(True, "Page report.html at the end of a run.")
    student: bool = setting(True, "Student's transcripts of the chunks shown; a minute or less on a CPU.")
    megabytes: float = setting(25.0, "Largest size of the page; players beyond it are left out.", least=0, metavar="MB")
