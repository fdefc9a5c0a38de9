"""Kinds of files by their extensions: audio and video, decoded or not, archives, or neither.

Used where files are listed and where one cannot be decoded (K2D, before stage 1), so that none is ignored silently.
"""

from __future__ import annotations

import os

# Of recorders, studios and corpora, read by libsndfile.
READ_BY_LIBSNDFILE = (
    *(".wav", ".wave", ".bwf", ".w64", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mp1", ".mpa"),
    *(".mpga", ".m2a", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".sph", ".nist", ".voc", ".ircam", ".sf"),
    *(".8svx", ".iff"),
)
# Of telephones, meetings and films, decoded by PyAV.
DECODED_BY_PYAV = (
    *(".m4a", ".m4b", ".m4p", ".m4r", ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3gpp", ".3g2", ".3gpp2", ".3ga"),
    *(".f4v", ".f4a", ".mkv", ".mk3d", ".mka", ".webm", ".weba", ".aac", ".adts", ".amr", ".awb", ".wma"),
    *(".wmv", ".asf", ".avi", ".divx", ".flv", ".mpg", ".mpeg", ".vob", ".mts", ".m2ts", ".m2t", ".ogv"),
    *(".ogx", ".ogm", ".spx", ".caff", ".mpe"),
)
AUDIO_EXTENSIONS = (*READ_BY_LIBSNDFILE, *DECODED_BY_PYAV)  # what a folder is known by
# Audio and video beside that, which is read where its content is of a kind above. `.ts` is a program as often.
MEDIA_EXTENSIONS = {
    *(".alac", ".ape", ".wv", ".tta", ".tak", ".mpc", ".ac3", ".ec3", ".eac3", ".dts", ".ra", ".ram", ".qcp"),
    *(".dss", ".ds2", ".aa", ".aax", ".dsf", ".dff", ".shn", ".rf32", ".mogg", ".qoa", ".m1v", ".m2v", ".ts"),
    *(".rm", ".rmvb", ".mxf", ".dv", ".nut", ".swf", ".wtv", ".dvr-ms"),
}
# Samples alone, without rate and form: no reader can decode them.
HEADERLESS_EXTENSIONS = {".raw", ".pcm", ".ulaw", ".alaw", ".ul", ".al", ".vox", ".sln", ".g722", ".g729", ".gsm"}
ARCHIVE_EXTENSIONS = {
    *(".zip", ".tar", ".tgz", ".taz", ".tbz", ".tbz2", ".txz", ".tzst", ".gz", ".bz2", ".xz", ".zst", ".lz"),
    *(".lz4", ".lzma", ".z", ".7z", ".rar", ".iso", ".dmg", ".cab", ".cpio"),
}
TABLE_EXTENSIONS = {".parquet", ".tfrecord", ".tfrecords", ".h5", ".hdf5", ".ark", ".lmdb"}
# Files beside recordings that hold no audio: text, tables, annotations, pictures, programs, checksums.
SILENT_EXTENSIONS = {
    *(".txt", ".md", ".rst", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".toml"),
    *(".ini", ".cfg", ".conf", ".html", ".htm", ".css", ".pdf", ".rtf", ".doc", ".docx", ".odt", ".xls", ".xlsx"),
    *(".ods", ".ppt", ".pptx", ".tex", ".bib", ".log", ".srt", ".vtt", ".ass", ".ssa", ".sbv", ".lrc", ".ttml"),
    *(".sub", ".textgrid", ".eaf", ".stm", ".ctm", ".rttm", ".uem", ".trs", ".trn", ".trans", ".lab", ".phn"),
    *(".wrd", ".scp", ".cue", ".m3u", ".m3u8", ".pls", ".nfo", ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".svg"),
    *(".webp", ".tif", ".tiff", ".ico", ".heic", ".py", ".ipynb", ".sh", ".bat", ".js", ".c", ".h", ".cpp"),
    *(".pl", ".r", ".md5", ".sha1", ".sha256", ".sha512", ".sfv", ".asc", ".sig", ".url", ".lnk"),
}
_SILENT_NAMES = ("readme", "license", "licence", "changelog", "changes", "authors", "copying", "notice", "citation",
                 "makefile", "version", "thumbs.db", "desktop.ini", "text")  # fmt: skip


def unsupported_kind(path: str | os.PathLike[str]) -> str:
    """The kind, by its name, of a file that may hold audio and is no audio file, such as `an archive`; else empty."""
    stem, extension = _parts(path)
    if extension in MEDIA_EXTENSIONS:
        return "sound or video of another kind"
    if extension in ARCHIVE_EXTENSIONS:
        return "" if os.path.splitext(stem)[1] in SILENT_EXTENSIONS else "an archive"
    return "a table" if extension in TABLE_EXTENSIONS else ""


def may_hold_sound(path: str) -> bool:
    """Whether a file that is no audio file may hold audio, by its name."""
    return bool(unsupported_kind(path)) or _parts(path)[1] in HEADERLESS_EXTENSIONS


def is_silent(path: str) -> bool:
    """Whether a file holds no audio, by its name: text, pictures, programs and the like."""
    stem, extension = _parts(path)
    inner = os.path.splitext(stem)[1] if extension in ARCHIVE_EXTENSIONS else extension
    return inner in SILENT_EXTENSIONS or stem + extension in _SILENT_NAMES


def _parts(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Name and extension of a file, both in small letters."""
    name = os.fspath(path).partition("::")[0].replace("\\", "/").rpartition("/")[2]
    return os.path.splitext(name.lower())
