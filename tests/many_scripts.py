"""Text in many scripts: words by script, and strategies that make texts of any of them with English words between."""

import unicodedata

import regex
from hypothesis import strategies as st

from k2d_hf.scoring.text import INVISIBLE

# Words of many scripts, two of each, that sound different.
WORDS = {
    "Arabic": "مرحبا كتاب", "Armenian": "բարեւ գիրք", "Bengali": "নমস্কার বই", "Cyrillic": "привет книга",
    "Devanagari": "नमस्ते किताब", "Ethiopic": "ሰላም መጽሐፍ", "Georgian": "გამარჯობა წიგნი", "Greek": "γειά βιβλίο",
    "Gujarati": "નમસ્તે પુસ્તક", "Gurmukhi": "ਘਰ ਕਿਤਾਬ", "Han": "銀行 機器", "Hangul": "안녕 학교", "Hebrew": "שלום ספר",
    "Kannada": "ನಮಸ್ಕಾರ ಪುಸ್ತಕ", "Khmer": "សួស្តី សៀវភៅ", "Lao": "ສະບາຍດີ ປຶ້ມ", "Latin": "machine tomorrow",
    "Malayalam": "നമസ്കാരം പുസ്തകം", "Myanmar": "မင်္ဂလာ စာအုပ်", "Oriya": "ନମସ୍କାର ବହି", "Sinhala": "ආයුබෝවන් පොත",
    "Tamil": "வணக்கம் புத்தகம்", "Telugu": "నమస్కారం పుస్తకం", "Thai": "สวัสดี หนังสือ", "Tibetan": "བོད བཀྲ",
    "kana": "さようなら カメラ",
}  # fmt: skip
SENTENCES = [word for pair in WORDS.values() for word in pair.split()] + [
    "क्\u200dष", "می\u200cخواهم", "צה״ל", 'צה"ל', "ג'ירפה", "שָׁלוֹם", "col·lecció", "cafe\u0301", "ใช้น้ำ", "ນ້ຳ", "ကျောင်း", "ខ្ញុំ",
    "محـــمد", "२०२३", "٢٠٢٣", "GPT-4", "don\u2019t", "machine", "ラーメン", "བཀྲ་ཤིས", "Ⅳ", "ﬁne", "3,5", "soft\u00adly", "привет-мир",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from([*SENTENCES, " ", ", ", "। ", "؟ ", "。", "…"]), max_size=12).map("".join)
_SCRIPTS = [
    *("Latin", "Greek", "Cyrillic", "Armenian", "Hebrew", "Arabic", "Devanagari", "Bengali", "Gurmukhi", "Gujarati"),
    *("Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala", "Thai", "Lao", "Tibetan", "Myanmar", "Khmer"),
    *("Ethiopic", "Georgian", "Thaana", "Mongolian", "Syriac"),
]


def _characters(script, category):
    """Those of a script and a category that this Python knows, too."""
    pattern = regex.compile(rf"(?V1)[\p{{Script_Extensions={script}}}&&\p{{{category}}}]")
    found = [chr(code) for code in range(0x3000) if pattern.match(chr(code)) and unicodedata.name(chr(code), "")]
    return [one for one in found if one not in INVISIBLE]


def _words(script):
    """Words of a script: letters, each with up to two marks."""
    letters, marks = _characters(script, "Lo") + _characters(script, "Ll"), _characters(script, "M")
    few = st.lists(st.sampled_from(marks), max_size=2).map("".join) if marks else st.just("")
    letter = st.tuples(st.sampled_from(letters), few).map("".join)
    return st.lists(letter, min_size=1, max_size=6).map("".join)


MADE_UP_WORDS = st.one_of([_words(script) for script in _SCRIPTS])
