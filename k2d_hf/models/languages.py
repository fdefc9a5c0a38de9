"""Languages as people write them, and Whisper's codes for them: `zh` for `Chinese`, `zh-TW`, `cmn` and `<|zh|>`.

Recipes, options, arguments, manifests and chunks all come here (K2D, every stage).
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.formatting import quote

# Whisper's languages and their English names. transformers has the same table, and takes seconds to load.
_WHISPERS = {
    "en": "english", "zh": "chinese", "de": "german", "es": "spanish", "ru": "russian", "ko": "korean", "fr": "french",
    "ja": "japanese", "pt": "portuguese", "tr": "turkish", "pl": "polish", "ca": "catalan", "nl": "dutch",
    "ar": "arabic", "sv": "swedish", "it": "italian", "id": "indonesian", "hi": "hindi", "fi": "finnish",
    "vi": "vietnamese", "he": "hebrew", "uk": "ukrainian", "el": "greek", "ms": "malay", "cs": "czech",
    "ro": "romanian", "da": "danish", "hu": "hungarian", "ta": "tamil", "no": "norwegian", "th": "thai", "ur": "urdu",
    "hr": "croatian", "bg": "bulgarian", "lt": "lithuanian", "la": "latin", "mi": "maori", "ml": "malayalam",
    "cy": "welsh", "sk": "slovak", "te": "telugu", "fa": "persian", "lv": "latvian", "bn": "bengali", "sr": "serbian",
    "az": "azerbaijani", "sl": "slovenian", "kn": "kannada", "et": "estonian", "mk": "macedonian", "br": "breton",
    "eu": "basque", "is": "icelandic", "hy": "armenian", "ne": "nepali", "mn": "mongolian", "bs": "bosnian",
    "kk": "kazakh", "sq": "albanian", "sw": "swahili", "gl": "galician", "mr": "marathi", "pa": "punjabi",
    "si": "sinhala", "km": "khmer", "sn": "shona", "yo": "yoruba", "so": "somali", "af": "afrikaans", "oc": "occitan",
    "ka": "georgian", "be": "belarusian", "tg": "tajik", "sd": "sindhi", "gu": "gujarati", "am": "amharic",
    "yi": "yiddish", "lo": "lao", "uz": "uzbek", "fo": "faroese", "ht": "haitian creole", "ps": "pashto",
    "tk": "turkmen", "nn": "nynorsk", "mt": "maltese", "sa": "sanskrit", "lb": "luxembourgish", "my": "myanmar",
    "bo": "tibetan", "tl": "tagalog", "mg": "malagasy", "as": "assamese", "tt": "tatar", "haw": "hawaiian",
    "ln": "lingala", "ha": "hausa", "ba": "bashkir", "jw": "javanese", "su": "sundanese", "yue": "cantonese",
}  # fmt: skip
# Other English names that Whisper has.
_ALSO = {
    "burmese": "my", "valencian": "ca", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb", "pushto": "ps",
    "panjabi": "pa", "moldavian": "ro", "moldovan": "ro", "sinhalese": "si", "castilian": "es", "mandarin": "zh",
}  # fmt: skip
_CODE_BY_NAME = {name: code for code, name in _WHISPERS.items()} | _ALSO
# Codes of ISO 639 (parts 1 to 3) that are not Whisper's own.
_CODES = {
    "en": "eng", "zh": "zho chi cmn", "de": "deu ger", "es": "spa", "ru": "rus", "ko": "kor", "fr": "fra fre",
    "ja": "jpn", "pt": "por", "tr": "tur", "pl": "pol", "ca": "cat", "nl": "nld dut", "ar": "ara arb", "sv": "swe",
    "it": "ita", "id": "ind in", "hi": "hin", "fi": "fin", "vi": "vie", "he": "heb iw", "uk": "ukr", "el": "ell gre",
    "ms": "msa may zsm", "cs": "ces cze", "ro": "ron rum mo mol", "da": "dan", "hu": "hun", "ta": "tam",
    "no": "nor nob nb", "th": "tha", "ur": "urd", "hr": "hrv scr", "bg": "bul", "lt": "lit", "la": "lat",
    "mi": "mri mao", "ml": "mal", "cy": "cym wel", "sk": "slk slo", "te": "tel", "fa": "fas per pes", "lv": "lav lvs",
    "bn": "ben", "sr": "srp scc", "az": "aze azj", "sl": "slv", "kn": "kan", "et": "est ekk", "mk": "mkd mac",
    "br": "bre", "eu": "eus baq", "is": "isl ice", "hy": "hye arm", "ne": "nep npi", "mn": "mon khk", "bs": "bos",
    "kk": "kaz", "sq": "sqi alb als", "sw": "swa swh", "gl": "glg", "mr": "mar", "pa": "pan", "si": "sin", "km": "khm",
    "sn": "sna", "yo": "yor", "so": "som", "af": "afr", "oc": "oci", "ka": "kat geo", "be": "bel", "tg": "tgk",
    "sd": "snd", "gu": "guj", "am": "amh", "yi": "yid ji", "lo": "lao", "uz": "uzb uzn", "fo": "fao", "ht": "hat",
    "ps": "pus pbt", "tk": "tuk", "nn": "nno", "mt": "mlt", "sa": "san", "lb": "ltz", "my": "mya bur", "bo": "bod tib",
    "tl": "tgl fil", "mg": "mlg plt", "as": "asm", "tt": "tat", "ln": "lin", "ha": "hau", "ba": "bak", "jw": "jv jav",
    "su": "sun",
}  # fmt: skip
# Names beside the English ones that Whisper itself has.
_NAMES = {
    "zh": "putonghua guoyu huayu hanyu 中文 汉语 漢語 华语 華語 国语 國語 普通话 普通話 官话 官話",
    "yue": "粵語 粤语 廣東話 广东话 廣東話",
    "en": "英文 英语 英語", "ja": "nihongo 日本語 日语 日語 日文", "ko": "한국어 韩语 韓語", "de": "deutsch",
    "es": "español espanol", "fr": "français francais", "it": "italiano", "pt": "português portugues", "ru": "русский",
    "fa": "farsi", "tl": "filipino pilipino", "no": "bokmål bokmal", "nl": "nederlands", "vi": "tiếng_việt",
    "uk": "українська", "pl": "polski", "tr": "türkçe turkce", "ar": "العربية", "hi": "हिन्दी", "th": "ไทย ภาษาไทย",
}  # fmt: skip
# Words beside a name, for a script, a place or a standard, and for no other language of Whisper's.
_QUALIFIERS = {
    *("language", "traditional", "simplified", "standard", "modern", "spoken", "bahasa", "brazilian", "european"),
    *("american", "british", "australian", "canadian", "indian", "singapore", "mexican", "swiss", "austrian"),
    *("taiwan", "taiwanese", "mainland", "china", "hong", "kong", "us", "usa", "uk", "gb", "tw", "cn", "hk", "sg"),
}
_SUBTAG = re.compile(r"[a-z]{2}|[a-z]{4}|[0-9]{3}|[a-z0-9]{5,8}|[0-9][a-z0-9]{3}")
_COUNTRIES = {
    "cn": "zh", "tw": "zh", "jp": "ja", "us": "en", "gb": "en", "cz": "cs", "dk": "da", "gr": "el", "ua": "uk",
}  # fmt: skip
# What leaves the language to the model: ISO 639's own codes for one that is not known (und) and for several (mul).
_UNDETERMINED = ("", "auto", "und", "mul", "mixed", "multilingual")


def language_code(language: str | None) -> str | None:
    """Whisper's code of a language: `zh` for `zh`, `<|zh|>`, `Chinese`, `zh_Hant-TW` and `cmn`; None for none.

    What is no language is given back, in small letters.
    """
    name = (language or "").strip().strip("<|>").lower()
    return None if name in _UNDETERMINED else _found(name) or name


def is_language(language: str) -> bool:
    """Whether `language_code` knows it; so is what leaves it to the model."""
    code = language_code(language)
    return code is None or code in _WHISPERS


def language_of_row(row: Mapping[str, Any]) -> str | None:
    """Whisper's code of a recording's column `language`; what is no language as it stands."""
    language = row.get("language")
    return language if language is None or not is_language(language) else language_code(language)


def language_of_generation(config: Mapping[str, Any]) -> str | None:
    """Whisper's code of the language in a generation config, in which its model transcribes by default."""
    return language_code(config.get("language")) if config.get("is_multilingual", True) else None


def checked_language(language: str | None) -> str | None:
    """As `language_code`, of a language that a user writes; K2DError, with those written alike, if it is none."""
    code = language_code(language)
    if code is None or code in _WHISPERS:
        return code
    several = sorted(_languages_in(code))
    if len(several) > 1:
        raise K2DError(f"language {quote(language)} is unknown: it names {' and '.join(several)}; give one of them")
    alike = difflib.get_close_matches(code, [*_CODE_BY_NAME, *_WHISPERS], n=2)
    near = [_COUNTRIES[code]] if code in _COUNTRIES else [_CODE_BY_NAME.get(one, one) for one in alike]
    similar = dict.fromkeys(f"{_WHISPERS[one].title()} ({one})" for one in near)
    hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
    raise K2DError(
        f"language {quote(language)} is unknown: give a code such as zh, a name such as Chinese, or none for the "
        f"model's guess{hint}"
    )


@lru_cache(maxsize=1)
def _known() -> dict[str, str]:
    """Code by everything that stands for a language by itself."""
    known = {name.replace(" ", "_"): code for name, code in _CODE_BY_NAME.items()}
    for table in (_CODES, _NAMES):
        known |= {_plain(name): code for code, listed in table.items() for name in listed.split()}
    return known | {code: code for code in _WHISPERS}


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


@lru_cache(maxsize=4096)
def _found(name: str) -> str | None:
    known = _known()
    plain = re.sub(r"\s*[(\[].*?[)\]]", "", _plain(name))  # English (United States)
    if found := known.get(plain) or known.get(plain.replace(" ", "_")):
        return found
    first, *more = re.split(r"[.@]", plain)[0].replace("_", "-").split("-")  # of zh_TW.UTF-8, as a locale is called
    if first in known and len(first) <= 3 and more:
        spoken = known.get(more[0]) if len(more[0]) == 3 else None  # zh-yue, zh-cmn
        if all(_SUBTAG.fullmatch(part) for part in (more[1:] if spoken else more)):
            return spoken or known[first]
    languages = _languages_in(plain)
    return languages.pop() if len(languages) == 1 else None


def _languages_in(plain: str) -> set[str]:
    """The languages that words name, as in `Mandarin Chinese` and `English (US)`; none where another word is there."""
    known = _known()
    words = [word for word in re.split(r"[\W_]+", plain) if word not in _QUALIFIERS]
    if not all(word in known and (len(word) > 3 or not word.isascii()) for word in words):
        return set()
    languages = {known[word] for word in words}
    return languages - {"zh"} if languages == {"zh", "yue"} else languages  # Cantonese is Chinese
