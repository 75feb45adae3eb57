"""Suffixes of the files that are looked for in folders. A file that is named is read whatever its suffix."""

import importlib.util

SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64"),
)
MEDIA = (".m4a", ".m4b", ".aac", ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".mka", ".wma", ".wmv", ".ac3", ".avi")


def readable() -> tuple[str, ...]:
    """The suffixes of all that can be read here: with PyAV (the extra `av`) those of films and their sound, too."""
    return (*SUFFIXES, *MEDIA) if importlib.util.find_spec("av") else SUFFIXES
