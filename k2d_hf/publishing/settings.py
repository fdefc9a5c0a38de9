"""Settings of what is published."""

from __future__ import annotations

import dataclasses

from k2d_hf.files.settings import setting


@dataclasses.dataclass(frozen=True)
class HubSettings:
    """What is published at the end of a run, and where."""

    repo_id: str | None = setting(None, "Repository of the student, USER/NAME; null is none.", metavar="USER/NAME")
    private: bool = setting(True, "Private repositories; false is for all the world.")
    revision: str | None = setting(None, "Branch, made where missing; null is the main one.", metavar="BRANCH")
    data_repo_id: str | None = setting(
        None, "Repository of the kept chunks as a data set, USER/NAME; null is none.", metavar="USER/NAME"
    )
    sample_output: bool = setting(
        False,
        "Beginning of a reference and of the student's text on the card, of each test set; transcripts are private.",
    )
    ctranslate2: bool = setting(False, "Folder with the student for faster-whisper.")
    ggml: bool = setting(False, "Folder with the student for whisper.cpp, in f16.")
    merge: bool = setting(
        False, "Whole model in the place of an adapter's folder; a student that k2d trained is whole already."
    )

    @property
    def adds_ctranslate2(self) -> bool:
        """Whether there will be such a folder: there is none without a repository."""
        return self.ctranslate2 and self.repo_id is not None

    @property
    def adds_ggml(self) -> bool:
        """Likewise for whisper.cpp."""
        return self.ggml and self.repo_id is not None
