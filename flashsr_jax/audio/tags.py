"""What a recording is called and by whom, from one container to the other, by mutagen.

Tags are lists of texts by the names of Vorbis comments in lower case, as Picard maps them:
https://picard-docs.musicbrainz.org/en/appendices/tag_mapping.html. Chunks of wav files that count in samples (bext,
cue points and their labels) are scaled to the output's rate.
"""

import base64
import contextlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import mutagen
from mutagen import apev2, asf, flac, id3, mp3, mp4, wave
from mutagen._vorbis import VCommentDict, is_valid_key

from flashsr_jax.audio.chunks import Chunk, chunks
from flashsr_jax.errors import show_traceback

_ID3 = {
    "TIT1": "grouping",
    "TIT2": "title",
    "TIT3": "subtitle",
    "TPE1": "artist",
    "TPE2": "albumartist",
    "TPE3": "conductor",
    "TPE4": "remixer",
    "TALB": "album",
    "TCOM": "composer",
    "TEXT": "lyricist",
    "TRCK": "tracknumber",
    "TPOS": "discnumber",
    "TSST": "discsubtitle",
    "TDRC": "date",
    "TDOR": "originaldate",
    "TCON": "genre",
    "TBPM": "bpm",
    "TCOP": "copyright",
    "TSRC": "isrc",
    "TPUB": "label",
    "TLAN": "language",
    "TKEY": "key",
    "TMOO": "mood",
    "TMED": "media",
    "TCMP": "compilation",
    "TSOP": "artistsort",
    "TSO2": "albumartistsort",
    "TSOA": "albumsort",
    "TSOT": "titlesort",
    "TSOC": "composersort",
}
_MP4 = {
    "\xa9nam": "title",
    "\xa9ART": "artist",
    "aART": "albumartist",
    "\xa9alb": "album",
    "\xa9wrt": "composer",
    "\xa9cmt": "comment",
    "\xa9day": "date",
    "\xa9gen": "genre",
    "\xa9grp": "grouping",
    "\xa9lyr": "lyrics",
    "cprt": "copyright",
    "soar": "artistsort",
    "soaa": "albumartistsort",
    "soal": "albumsort",
    "sonm": "titlesort",
    "soco": "composersort",
}
_OTHER_NAMES = {  # of ASF and APEv2
    "author": "artist",
    "description": "comment",
    "wm/albumartist": "albumartist",
    "wm/albumtitle": "album",
    "wm/composer": "composer",
    "wm/genre": "genre",
    "wm/year": "date",
    "wm/tracknumber": "tracknumber",
    "wm/partofset": "discnumber",
    "wm/lyrics": "lyrics",
    "album artist": "albumartist",
    "year": "date",
    "track": "tracknumber",
    "disc": "discnumber",
    "album_artist": "albumartist",
}
_INFO = {  # of a wav's list of them
    b"INAM": "title",
    b"IART": "artist",
    b"IPRD": "album",
    b"IMUS": "composer",
    b"IWRI": "lyricist",
    b"ICMT": "comment",
    b"ICRD": "date",
    b"IGNR": "genre",
    b"ITRK": "tracknumber",
    b"IPRT": "tracknumber",
    b"ICOP": "copyright",
    b"IENG": "engineer",
    b"IKEY": "keywords",
    b"ISBJ": "subject",
    b"ISRC": "source",
    b"ILNG": "language",
    b"IMED": "media",
    b"ISFT": "software",
    b"ITCH": "encodedby",
}
_AIFF = {b"NAME": "title", b"AUTH": "artist", b"(c) ": "copyright", b"ANNO": "comment"}
_OF_THE_CODING = (
    "encoder",
    "encodedby",
    "encoding",
    "software",
    "tsse",
    "itunsmpb",
    "itunnorm",
    "itunpgap",
    "tlen",
    "wm/enc",
)
_CHUNKED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"riff", b"caff")  # wav, aiff, w64, caf
_ID3_CHUNKS = (b"id3 ", b"ID3 ")
_TEXT_CHUNKS = (b"LIST", b"info", b"strg")  # libsndfile reads them
_AUDIO_CHUNKS = (b"data", b"SSND")
_FORMAT_CHUNKS = (  # of the coding, or of nothing
    *(b"fmt ", b"fact", b"PEAK", b"ds64", b"JUNK", b"junk", b"PAD ", b"FLLR", b"riff", b"wave", b"levl"),
    *(b"COMM", b"FVER", b"CHAN", b"desc", b"chan", b"pakt", b"kuki", b"free", b"peak"),
)
DAMAGED = "tags (damaged, or of an unknown kind)"
_LARGEST_CHUNK = 1 << 24  # bytes
_LARGEST_PICTURE = (1 << 24) - 1024  # bytes, in flac, with its description
_MASK = "waveformatextensible_channel_mask"
_ID3_OF_MUSICBRAINZ = {
    "musicbrainz_albumid": "MusicBrainz Album Id",
    "musicbrainz_artistid": "MusicBrainz Artist Id",
    "musicbrainz_albumartistid": "MusicBrainz Album Artist Id",
    "musicbrainz_releasegroupid": "MusicBrainz Release Group Id",
    "musicbrainz_releasetrackid": "MusicBrainz Release Track Id",
    "musicbrainz_workid": "MusicBrainz Work Id",
    "musicbrainz_discid": "MusicBrainz Disc Id",
}
_MUSICBRAINZ = "http://musicbrainz.org"  # owner of the unique file identifier of ID3


@dataclass
class Tags:
    """texts: by name; pictures: covers; chunks: of a wav, name and contents, at the output's rate; left_out: what the
    input has and nothing here carries."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    pictures: list[flac.Picture] = field(default_factory=list)
    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, value: str) -> None:
        """One more value of a text, unless it is empty or there already."""
        values = self.texts.setdefault(name, [])
        if value and value not in values:
            values.append(value)


def read(path: Path, known: dict[str, str], rates: Fraction) -> Tags:
    """The tags of a file; `known` are those that libsndfile found, `rates` the output's sample rate by the file's.
    What cannot be read is said in `left_out`."""
    tags = Tags()
    with open(path, "rb") as file:
        try:
            head = file.read(12)
            if head[:4] in _CHUNKED and head[8:] != b"AVI ":
                _from_chunks(file, rates, tags)
            elif head[:4] != b"RIFF":  # of avi, `known` has them
                _from_file(path, file, tags)
        except Exception:  # noqa: BLE001 the sound is what counts: broken tags are said, and left out
            show_traceback()
            tags.left_out.append(DAMAGED)
    for name, value in known.items():
        if name not in tags.texts:
            tags.add(name, value)
    tags.texts = {name: values for name, values in tags.texts.items() if values and not _of_the_coding(name)}
    return tags


def _from_file(path: Path, file: BinaryIO, tags: Tags) -> None:
    found = _by_mutagen(path, file)
    source = getattr(found, "tags", None)
    if isinstance(source, id3.ID3):
        _from_id3(source, tags)
    elif isinstance(source, mp4.MP4Tags):
        _from_mp4(source, tags)
    elif isinstance(source, VCommentDict):
        _from_vorbis(source, tags)
    elif isinstance(source, asf.ASFTags | apev2.APEv2):
        for name, value in source.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, asf.ASFByteArrayAttribute) or getattr(one, "kind", 0) == apev2.BINARY:
                    tags.left_out.append(name)
                else:
                    tags.add(_OTHER_NAMES.get(name.lower(), name.lower()), str(one))
    tags.pictures += getattr(found, "pictures", [])
    if getattr(found, "cuesheet", None):
        tags.left_out.append("cue sheet")


def _by_mutagen(path: Path, file: BinaryIO) -> mutagen.FileType | None:
    """What mutagen makes of a file by its contents, whatever its name says; None for kinds without tags."""
    file.seek(0)
    try:
        found = mutagen.File(_Nameless(file))
    except mutagen.MutagenError:  # kinds whose beginnings are alike
        return mutagen.File(path)
    if found is None:  # an mp3 that begins with its audio, or behind something else
        try:
            found = mp3.MP3(file)
        except mutagen.MutagenError:
            return None
    return found


class _Nameless:
    """An open file without a name, for mutagen goes by the suffix."""

    def __init__(self, file: BinaryIO):
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _of_the_coding(name: str) -> bool:
    return name == _MASK or any(name.replace(" ", "").startswith(start) for start in _OF_THE_CODING)


def _from_id3(source: id3.ID3, tags: Tags) -> None:
    for frame in source.values():
        name = _ID3.get(frame.FrameID)
        if name:
            for text in frame.genres if frame.FrameID == "TCON" else frame.text:
                tags.add(name, str(text))
        elif frame.FrameID == "TXXX":
            name = frame.desc.lower()
            if name.startswith("musicbrainz "):
                name = "musicbrainz_" + name.removeprefix("musicbrainz ").replace(" ", "")
            for text in frame.text:
                tags.add(name, str(text))
        elif frame.FrameID == "COMM":
            for text in frame.text if not _of_the_coding(frame.desc.lower()) else ():
                tags.add("comment", str(text))
        elif frame.FrameID == "USLT":
            tags.add("lyrics", frame.text)
        elif frame.FrameID == "UFID" and frame.owner == _MUSICBRAINZ:
            tags.add("musicbrainz_trackid", frame.data.decode("latin-1"))
        elif frame.FrameID == "APIC":
            picture = flac.Picture()
            picture.type, picture.mime, picture.desc, picture.data = frame.type, frame.mime, frame.desc, frame.data
            tags.pictures.append(picture)
        elif not _of_the_coding(frame.FrameID.lower()) and frame.FrameID not in ("TENC", "TFLT"):
            tags.left_out.append(frame.FrameID)


def _from_mp4(source: mp4.MP4Tags, tags: Tags) -> None:
    for name, values in source.items():
        if name == "covr":
            for cover in values:
                picture = flac.Picture()
                png = cover.imageformat == mp4.MP4Cover.FORMAT_PNG
                picture.type, picture.mime, picture.data = 3, "image/png" if png else "image/jpeg", bytes(cover)
                tags.pictures.append(picture)
        elif name in ("trkn", "disk"):
            for number, total in values:
                tags.add(
                    "tracknumber" if name == "trkn" else "discnumber", f"{number}/{total}" if total else f"{number}"
                )
        elif name.startswith("----:"):
            for value in values:
                key = name.rpartition(":")[2].lower()
                if key.startswith("musicbrainz "):
                    key = "musicbrainz_" + key.removeprefix("musicbrainz ").replace(" ", "")
                tags.add(key, bytes(value).decode("utf-8", "replace"))
        elif name in _MP4:
            for value in values:
                tags.add(_MP4[name], str(value))
        elif name == "tmpo":
            for value in values:
                tags.add("bpm", str(value))
        elif name not in ("\xa9too", "pgap", "cpil", "gnre"):
            tags.left_out.append(name.strip("\xa9"))


def _from_vorbis(source: VCommentDict, tags: Tags) -> None:
    for name, value in source:
        name = name.lower()
        if name == "metadata_block_picture":
            try:
                tags.pictures.append(flac.Picture(base64.b64decode(value)))
            except (ValueError, mutagen.MutagenError):
                tags.left_out.append("cover (damaged)")
        else:
            tags.add(name, value)


def write(path: Path, tags: Tags) -> list[str]:
    """Put tags into a complete wav or flac file; returns what it cannot hold."""
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic == b"fLaC":
        audio: Any = flac.FLAC(path)
        if audio.tags is None:
            audio.add_tags()
        fits = {name: values for name, values in tags.texts.items() if is_valid_key(name)}
        for name, values in fits.items():
            audio.tags[name] = values
        small = [picture for picture in tags.pictures if len(picture.data) < _LARGEST_PICTURE]
        for picture in small:
            audio.add_picture(picture)
        audio.save()
        large = ["cover (too large for flac)"] if len(small) < len(tags.pictures) else []
        return [*sorted(set(tags.texts) - set(fits)), *large, *(_text(name) for name, _ in tags.chunks)]
    if magic != b"RIFF":
        return [*tags.texts, *(["cover"] if tags.pictures else []), *(_text(name) for name, _ in tags.chunks)]
    with _restored(path):
        _append_chunks(path, tags.chunks)
        if tags.texts or tags.pictures:
            audio = wave.WAVE(path)
            if audio.tags is None:
                audio.add_tags()
            for name, values in tags.texts.items():
                audio.tags.add(_id3_frame(name, values))
            for number, picture in enumerate(tags.pictures):
                description = picture.desc or (f"{number + 1}" if number else "")
                frame = id3.APIC(encoding=3, mime=picture.mime, type=picture.type, desc=description, data=picture.data)
                audio.tags.add(frame)
            audio.save()
    return []


@contextlib.contextmanager
def _restored(path: Path) -> Iterator[None]:
    """Where something cannot be put behind a wav's audio, none of it stays there."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(8)
    try:
        yield
    except BaseException:
        with open(path, "r+b") as file:
            file.write(head)
            file.truncate(size)
        raise


def _id3_frame(name: str, values: list[str]) -> id3.Frame:
    for frame, known in _ID3.items():
        if known == name:
            return getattr(id3, frame)(encoding=3, text=values)
    if name == "comment":
        return id3.COMM(encoding=3, lang="XXX", desc="", text=values)
    if name == "lyrics":
        return id3.USLT(encoding=3, lang="XXX", desc="", text="\n".join(values))
    if name == "musicbrainz_trackid":
        return id3.UFID(owner=_MUSICBRAINZ, data=values[0].encode("latin-1", "replace"))
    return id3.TXXX(encoding=3, desc=_ID3_OF_MUSICBRAINZ.get(name, name), text=values)


def _from_chunks(file: BinaryIO, rates: Fraction, tags: Tags) -> None:
    """ID3 of wav and aiff, and the texts that have no ID3; bext, cue points and labels of a wav, at the output's rate;
    other chunks are left out."""
    texts = Tags()  # libsndfile leaves most of them out, and reads no letters but those of UTF-8
    for chunk, content in _chunks(file):
        if chunk.name in _ID3_CHUNKS:
            try:
                _from_id3(id3.ID3(io.BytesIO(content)), tags)
            except mutagen.MutagenError:
                tags.left_out.append(DAMAGED)
        elif chunk.kind == ">I" and chunk.name in _AIFF:
            texts.add(_AIFF[chunk.name], _decoded(content, "mac-roman"))
        elif chunk.name == b"LIST" and content[:4] == b"INFO":
            _from_info(content, chunk.kind[0], texts)
        elif chunk.kind != "<I" or chunk.name not in (b"bext", b"cue ", b"LIST"):
            if chunk.name not in (*_FORMAT_CHUNKS, *_TEXT_CHUNKS) and _text(chunk.name):
                tags.left_out.append(_text(chunk.name))
        elif chunk.name == b"bext" and len(content) >= 346:
            (reference,) = struct.unpack_from("<Q", content, 338)
            struct.pack_into("<Q", content, 338, round(reference * rates) & (1 << 64) - 1)
            tags.chunks.append((chunk.name, bytes(content)))
        elif chunk.name == b"cue " and len(content) >= 4:
            for start in range(4, len(content) - 23, 24):
                for offset in (4, 20):  # of the position in the play order, and in the samples
                    (sample,) = struct.unpack_from("<I", content, start + offset)
                    struct.pack_into("<I", content, start + offset, min(round(sample * rates), 0xFFFF_FFFF))
            tags.chunks.append((chunk.name, bytes(content)))
        elif content[:4] == b"adtl":
            _scale_lengths(content, rates)
            tags.chunks.append((chunk.name, bytes(content)))
    tags.texts = texts.texts | tags.texts
    tags.left_out += texts.left_out


def _from_info(content: bytearray, order: str, texts: Tags) -> None:
    """The texts of a wav's list of them."""
    position = 4
    while position + 8 <= len(content):
        name, length = struct.unpack_from(f"{order}4sI", content, position)
        text = _decoded(content[position + 8 : position + 8 + length], "cp1252")
        if name in _INFO:
            texts.add(_INFO[name], text)
        elif text and _text(name):
            texts.left_out.append(_text(name))
        position += 8 + length + length % 2


def _decoded(content: bytearray, older: str) -> str:
    """A text that ends at its first zero: UTF-8, or what programs wrote before that."""
    content = content.partition(b"\0")[0]
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        return content.decode(older, "replace").strip()


def _chunks(file: BinaryIO) -> Iterator[tuple[Chunk, bytearray]]:
    """The chunks of a file beside its audio, with their contents, as far as they can be followed."""
    size = file.seek(0, io.SEEK_END)

    class View:
        def __getitem__(self, bounds: slice) -> bytes:
            file.seek(bounds.start or 0)
            return file.read(bounds.stop - (bounds.start or 0))

    view = View()
    for chunk in chunks(view, size):
        if chunk.name in _AUDIO_CHUNKS:
            if not chunk.length:  # it was not known: what follows is audio
                return
        elif chunk.start + chunk.length <= size and chunk.length <= _LARGEST_CHUNK:
            yield chunk, bytearray(view[chunk.start : chunk.start + chunk.length])


def _text(name: bytes) -> str:
    """What a chunk is called; empty where that is no name."""
    text = name.decode("latin-1").strip()
    return text if text.isprintable() and text.isascii() else ""


def _scale_lengths(content: bytearray, rates: Fraction) -> None:
    """Of the regions (ltxt) in a list of labels."""
    position = 4
    while position + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, position)
        if name == b"ltxt" and position + 16 <= len(content):
            (samples,) = struct.unpack_from("<I", content, position + 12)
            struct.pack_into("<I", content, position + 12, min(round(samples * rates), 0xFFFF_FFFF))
        position += 8 + length + length % 2


def _append_chunks(path: Path, added: list[tuple[bytes, bytes]]) -> None:
    with open(path, "r+b") as file:
        size = file.seek(0, 2)
        if size % 2:
            file.write(b"\0")
        file.writelines(
            name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2) for name, content in added
        )
        size = file.tell()
        file.seek(4)
        file.write(struct.pack("<I", size - 8))
