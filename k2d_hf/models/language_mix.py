"""A language token that begins as a mix of several, for a student of code-switched speech (stage 3, beyond the paper).

Whisper is given one language, and its speech has two. Taiwan-Whisper (github.com/forbes110/taiwan-whisper, K2D on
Taiwanese Mandarin) begins `<|zh|>` with half of the embedding of `<|zh|>` and half of that of `<|en|>`, and the card of
Breeze-ASR-25 (arXiv 2506.11130) names a "unified mix embedding". Weighted sums of language tokens also serve languages
that Whisper does not know (arXiv 2412.16474).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError, prefixed
from k2d_hf.formatting import quote
from k2d_hf.models.languages import checked_language
from k2d_hf.models.whisper_tokens import LabelEncoder

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

NAME = "language_mix"  # of the setting, and of the note in a student's config
EXAMPLE = "{zh: 0.5, en: 0.5}"
_ENGLISH_ONLY = f"{NAME}: an English-only Whisper has no language tokens; leave it out"


def checked_mix(mix: Mapping[Any, Any], language: str | None) -> dict[str, float]:
    """The mix by Whisper's codes, its shares in parts of their sum.

    >>> checked_mix({"Chinese": 3, "en": 1}, "zh")
    {'zh': 0.75, 'en': 0.25}

    Args:
        mix: share by language.
        language: that the student is given, whose token becomes the mix.

    Raises:
        K2DError: for fewer than two languages, one that is unknown or twice, a share that is no positive number, and
            where the language is not known or has no share.
    """
    shares: dict[str, float] = {}
    for name, share in mix.items():
        with prefixed(f"{NAME}: "):
            code = checked_language(name) if isinstance(name, str) else None
        if code is None:
            raise K2DError(f"{NAME}: {quote(name)} is no language; give shares by code, such as {EXAMPLE}")
        if code in shares:
            raise K2DError(f"{NAME}: {code} is there twice; give each language one share")
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not number or not 0 < share < math.inf:
            raise K2DError(f"{NAME}: the share of {code} is {quote(share)}; give a number above 0")
        shares[code] = float(share)
    if len(shares) < 2:
        raise K2DError(f"{NAME}: a mix of {len(shares)} languages is none; give two, such as {EXAMPLE}")
    if language not in shares:
        given = "no language is set" if language is None else f"the language is {language}, which has no share"
        raise K2DError(f"{NAME}: {given}; set language to one of {', '.join(shares)}, whose token becomes the mix")
    total = math.fsum(shares.values())
    return {code: share / total for code, share in shares.items()}


def check_mixable(mix: Mapping[str, float], config: Mapping[str, Any], tokenizer: Any) -> None:
    """Raise K2DError if no student of a model, by its config and tokenizer, can begin with a mix.

    That is where its vocabulary lacks a language, as an English-only one lacks all, and where it has a mix already,
    which would be mixed twice.
    """
    encoder = LabelEncoder(tokenizer)
    if not encoder.special.multilingual:
        raise K2DError(_ENGLISH_ONLY)
    with prefixed(f"{NAME}: "):
        for code in mix:
            encoder.start_ids(code)
    _check_unmixed(config)


def _check_unmixed(config: Mapping[str, Any]) -> None:
    if (known := mix_of(config)) is not None:
        raise K2DError(f"{NAME}: the model that it is made of has a mix already ({described(known)}); leave it out")


def mix_language_token(student: WhisperForConditionalGeneration, mix: Mapping[Any, Any]) -> None:
    """Make the embedding of the token of the student's language a mix of several, and note it in the student's config.

    The row of `embed_tokens` [V, d] is replaced. Where that matrix is the output layer too, as in all of OpenAI's
    models, so is the token's logit: the weighted mean of the logits of the languages, of the student as it begins. An
    output layer of its own is left alone.

    Args:
        student: of `create_student`, with its language set.
        mix: as for `checked_mix`.

    Raises:
        K2DError: as `checked_mix`; for a student without tokens of these languages, and for one whose token is a mix
            already, as it would be mixed twice.
    """
    import torch

    settings: Any = student.generation_config
    ids: Mapping[str, int] = getattr(settings, "lang_to_id", None) or {}
    if not getattr(settings, "is_multilingual", False):
        raise K2DError(_ENGLISH_ONLY)
    shares = checked_mix(mix, settings.language)
    _check_unmixed(vars(student.config))
    if missing := [code for code in shares if f"<|{code}|>" not in ids]:
        raise K2DError(f"{NAME}: the student has no token of {missing[0]}; give tokenizer, or leave {missing[0]} out")
    embedding = student.model.decoder.embed_tokens.weight
    with torch.no_grad():
        rows = torch.stack([share * embedding[ids[f"<|{code}|>"]] for code, share in shares.items()])
        embedding[ids[f"<|{settings.language}|>"]] = rows.sum(dim=0)
    setattr(student.config, NAME, {"language": settings.language, "shares": shares})


def mix_of(config: Mapping[str, Any]) -> dict[str, float] | None:
    """The mix that a student's language token began as, its own language first; None where it is its teacher's.

    That is by its config, in which anybody may have written anything else.
    """
    if not isinstance(noted := config.get(NAME), Mapping):
        return None
    shares = noted.get("shares")
    if not isinstance(shares, Mapping) or not all(isinstance(share, float) for share in shares.values()):
        return None
    return dict(sorted(shares.items(), key=lambda one: (one[0] != noted.get("language"), one[0])))


def described(mix: Mapping[str, float]) -> str:
    """A mix in words.

    >>> described({"zh": 0.75, "en": 0.25})
    '75% zh, 25% en'
    """
    return ", ".join(f"{100 * share:.3g}% {code}" for code, share in mix.items())
