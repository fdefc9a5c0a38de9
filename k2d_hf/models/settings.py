"""Settings of the untrained student."""

from __future__ import annotations

import dataclasses

from k2d_hf.files.settings import setting


@dataclasses.dataclass(frozen=True)
class StudentSettings:
    """Which layers and neurons the student keeps, of which model, and what its language token begins as."""

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
    encoder_neurons: int | None = setting(
        None,
        "Number of neurons that each feed-forward network of the encoder keeps, those with the largest weights; null "
        "is all.",
        least=1,
    )
    language_mix: dict[str, float] | None = setting(
        None,
        "Shares of languages in the embedding that the token of the student's language begins with, such as "
        "{zh: 0.5, en: 0.5}; null is the teacher's.",
        metavar="{CODE: SHARE}",
    )

    @property
    def has_whole_encoder(self) -> bool:
        """Whether the student keeps all layers and neurons of the encoder that it begins with."""
        return self.encoder_layers is None and self.encoder_neurons is None

    @property
    def has_teachers_embedding(self) -> bool:
        """Whether the student's token embedding begins as the teacher's, whose stored hidden states need that one."""
        return self.init is None and self.language_mix is None
