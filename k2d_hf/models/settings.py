"""Settings of the untrained student."""

from __future__ import annotations

import dataclasses

from k2d_hf.files.settings import setting


@dataclasses.dataclass(frozen=True)
class StudentSettings:
    """Which layers the student keeps, and of which model."""

    decoder_layers: int | list[int] | None = setting(
        2, "Number of decoder layers, first and last among them, or a list of layers: 0,-1; null is all."
    )
    init: str | list[str] | None = setting(
        None,
        "Model whose layers the student begins with instead of the teacher's, such as one that was distilled before: "
        "a folder, a run, a Hub id, or several to try in order.",
        metavar="MODEL",
    )
    encoder_layers: int | list[int] | None = setting(None, "The same for the encoder; null is all of it.")
