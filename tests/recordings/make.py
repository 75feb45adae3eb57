"""Makes tests/recordings from Debian 12's packages: real, freely licensed, full-band speech, music and effects.

    python tests/recordings/make.py [--downloads DIR]

Needs apt-get and dpkg-deb with Debian 12 (bookworm) sources; nothing is installed. Run again, it writes the same bytes.
Every excerpt is one entry of `CLIPS`: which recordings, from where in them, under which licence, for which split.
"""

import argparse
import csv
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

from flashsr_jax.audio.bandwidth import bandwidth

RECORDINGS = Path(__file__).resolve().parent
RATE = 48_000
FADE_S = 0.005
SILENCE_DB = -50.0  # a 10 ms frame this far under the loudest one is silence
MARGIN_S = 0.05  # of the recording's own background, kept on either side of what is not silence
PEAK = 0.9  # louder excerpts are turned down: resampling overshoots, and lossy codecs do

# libsndfile's compression levels. Vorbis of quality 5.5 has no low-pass; Opus always ends at 20 kHz, MP3 here too.
ENCODINGS = {
    ".ogg": dict(format="OGG", subtype="VORBIS", compression_level=0.45),
    ".opus": dict(format="OGG", subtype="OPUS", compression_level=0.5),
    ".mp3": dict(format="MP3", subtype="MPEG_LAYER_III", compression_level=0.3, bitrate_mode="CONSTANT"),
    ".flac": dict(format="FLAC", subtype="PCM_16"),
    ".wav": dict(format="WAV", subtype="PCM_16"),
}

BUCKLE = "https://github.com/zevv/bucklespring"
HYDROGEN = "http://www.hydrogen-music.org/feeds/drumkit_list.php"
HYPERROGUE = "https://www.roguetemple.com/z/hyper/"
KLETTRES = "https://apps.kde.org/klettres/"
KTUBERLING = "https://apps.kde.org/ktuberling/"
LOMIRI = "https://gitlab.com/ubports/core/lomiri-sounds"
TUXPAINT = "https://tuxpaint.org/"
WESNOTH = "https://www.wesnoth.org/"
VERSIONS = {
    "alsa-utils": "1.2.8-1",
    "bucklespring-data": "1.4.0-2",
    "hydrogen-drumkits": "2017.09.19~dfsg-1",
    "hydrogen-drumkits-effects": "2017.09.19~dfsg-1",
    "hyperrogue-music": "12.0q-1",
    "klettres-data": "4:22.12.3-1",
    "ktuberling-data": "4:22.12.3-1",
    "lomiri-sounds": "22.02-1",
    "sonic-pi-samples": "3.2.2~repack-8",
    "tuxpaint-stamps-default": "2022.06.04-1",
    "wesnoth-1.16-music": "1:1.16.9-1",
}


@dataclass(frozen=True)
class Clip:
    """One file of tests/recordings. Its first folder is its class, the second its group (speaker, composer, kit)."""

    path: str
    split: str
    package: str
    sources: tuple[str, ...]  # each the end of a path inside the package, or "start seconds end-of-path" for a part
    license: str
    author: str
    source_url: str
    stereo: bool = False
    rate: int = RATE
    unchanged: bool = False  # the package's own file, byte for byte


def words(folder: str, names: str, suffix: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}{suffix}" for name in names.split())


def unchanged(folder: str, package: str, source_folder: str, names: str, suffix: str, *rights: str) -> list[Clip]:
    return [
        Clip(
            f"{folder}/{name.lower()}{suffix}",
            "train",
            package,
            (f"{source_folder}/{name}{suffix}",),
            *rights,
            unchanged=True,
        )
        for name in names.split()
    ]


def freesound(author: str, number: int) -> tuple[str, str, str]:
    return "CC0-1.0", author, f"https://freesound.org/people/{author}/sounds/{number}/"


TUXPAINT_RIGHTS = ("GPL-2.0-or-later", "Tux Paint contributors, (c) 2002-2022 Bill Kendrick", TUXPAINT)
BURAYA_RIGHTS = ("GPL-2.0-or-later", "Kseniya Buraya, for Tux Paint, (c) 2002-2022 Bill Kendrick", TUXPAINT)
KTUBERLING_RIGHTS = ("GPL-2.0-or-later", "KTuberling contributors, (c) 2007-2017 Albert Astals Cid", KTUBERLING)
KLETTRES_RIGHTS = ("GPL-2.0-or-later", "KLettres contributors, (c) 2001-2011 Anne-Marie Mahfouf", KLETTRES)
RUMPF_RIGHTS = ("CC-BY-3.0", "Emanuel Rumpf", "https://sourceforge.net/projects/rumpf-kit/")
PEARL_RIGHTS = ("GPL-2.0-only", "Glen MacArthur", HYDROGEN)
FORZEE_RIGHTS = ("GPL-2.0-only", "Vladimir Sadovnikov, Alexander Belokurov", HYDROGEN)
COLOMBO_RIGHTS = ("GPL-2.0-or-later with composition exception", "Marcos Guglielmetti", HYDROGEN)
PARROTTE_RIGHTS = ("CC-BY-SA-3.0", "Shawn Parrotte (http://www.shawnparrotte.com)", HYPERROGUE)
MENEGASS_RIGHTS = ("CC0-1.0", "menegass", "https://freesound.org/people/menegass/")
DUARTE_RIGHTS = ("CC-BY-4.0", "Mauricio Duarte", LOMIRI)

KITS = "hydrogen/data/drumkits"
PEARL = f"{KITS}/The Black Pearl 1.0"
FORZEE = f"{KITS}/ForzeeStereo"
COLOMBO = f"{KITS}/ColomboAcousticDrumkit"
PACIFIC = f"{KITS}/BJA_Pacific"
HANDS = f"{KITS}/Gimme A Hand 1.0"
GUITAR = f"{KITS}/belofilms_GuitarStrums"
SAMPLES = "sonic-pi/samples"

SPEECH = [
    Clip(
        "speech/kseniya-buraya/belarusian-1.ogg",
        "train",
        "tuxpaint-stamps-default",
        words(
            "",
            "German_Christmas_toy pinecone mad blue_fedora statue docks motorbike garbagecan blue_truck woman_nurse",
            "_desc_be.ogg",
        ),
        *BURAYA_RIGHTS,
    ),
    Clip(
        "speech/kseniya-buraya/belarusian-2.ogg",
        "train",
        "tuxpaint-stamps-default",
        words(
            "",
            "orca magpie snowman2 bluejeans1 lettuce warehouse badger iris peach snail daffodil lettuce_bolted",
            "_desc_be.ogg",
        ),
        *BURAYA_RIGHTS,
    ),
    *unchanged(
        "speech/ktuberling-greek",
        "ktuberling-data",
        "sounds/el",
        "cheese egypt_arch egypt_bridge egypt_girl egypt_palmtree egypt_sphynx flower moon_alien moon_astronaut"
        " moon_hotel moon_satellite skirt",
        ".ogg",
        *KTUBERLING_RIGHTS,
    ),
    Clip(
        "speech/ktuberling-greek/words.ogg",
        "train",
        "ktuberling-data",
        words(
            "sounds/el",
            "arrow shoe moon_star moon_fallingstar egypt_grass tv_cyclist moustache tv_tree stick2",
            ".ogg",
        ),
        *KTUBERLING_RIGHTS,
    ),
    Clip(
        "speech/ktuberling-russian/words.ogg",
        "train",
        "ktuberling-data",
        words(
            "sounds/ru",
            "xmas_snowflake xmas_star xmas_candle tv_trailer tux-huh tux-arrows xmas_owl tux-dowe tv_tipper tux-idea"
            " frier-tux tux-arrow",
            ".ogg",
        ),
        *KTUBERLING_RIGHTS,
    ),
    Clip(
        "speech/tuxpaint-russian/words.ogg",
        "train",
        "tuxpaint-stamps-default",
        words(
            "",
            "swisshome sedan university pig walnut rudolf_reindeer fishery xmaswreath moustache 8 a_with_umlaut_filled",
            "_desc_ru.ogg",
        ),
        *TUXPAINT_RIGHTS,
    ),
    Clip(
        "speech/klettres-german/letters.ogg",
        "train",
        "klettres-data",
        words("de/alpha", "f s x t p", ".ogg") + words("de/syllab", "vor zu fisch ist affe", ".ogg"),
        *KLETTRES_RIGHTS,
    ),
    Clip(
        "speech/ktuberling-danish/words.ogg",
        "train",
        "ktuberling-data",
        words(
            "sounds/da",
            "xmas_mistletoe xmas_tux xmas_turtle xmas_shoe frier-tux sherif-tux xmas_comet",
            ".ogg",
        ),
        *KTUBERLING_RIGHTS,
    ),
    Clip(
        "speech/ktuberling-ukrainian/words.ogg",
        "validation",
        "ktuberling-data",
        words(
            "sounds/uk",
            "xmas_tux tux-candles robot_workshop_base flower robot_workshop_rod butterflies_spiral butterflies_heart"
            " robot_workshop_claw",
            ".ogg",
        ),
        *KTUBERLING_RIGHTS,
    ),
    Clip(
        "speech/alsa-english/test.flac",
        "test",
        "alsa-utils",
        words("sounds/alsa", "Front_Center Side_Left Rear_Center Side_Right", ".wav"),
        "GPL-2.0-only",
        "ALSA contributors, (c) 1998-2022 Jaroslav Kysela and others",
        "https://www.alsa-project.org/",
    ),
    Clip(
        "speech/ktuberling-french/test.flac",
        "test",
        "ktuberling-data",
        words("sounds/fr", "tv_bicyclette tv_singe pizzeria_salami tv_cycliste tv_accident", ".wav"),
        *KTUBERLING_RIGHTS,
    ),
]

MUSIC = [
    Clip(
        "music/shawn-parrotte/motion.ogg",
        "train",
        "hyperrogue-music",
        ("7 12 music/hr3-motion.ogg",),
        *PARROTTE_RIGHTS,
    ),
    Clip(
        "music/shawn-parrotte/desert.opus",
        "train",
        "hyperrogue-music",
        ("18 10 music/hr3-desert.ogg",),
        *PARROTTE_RIGHTS,
    ),
    Clip(
        "music/gianmarco-leone/the-dangerous-symphony.ogg",
        "train",
        "wesnoth-1.16-music",
        ("203 12 music/the_dangerous_symphony.ogg",),
        "GPL-2.0-or-later",
        "Gianmarco Leone (c) 2008",
        WESNOTH,
    ),
    Clip(
        "music/mattias-westlund/traveling-minstrels.ogg",
        "train",
        "wesnoth-1.16-music",
        ("161 12 music/traveling_minstrels.ogg",),
        "GPL-2.0-or-later",
        "Mattias Westlund (c) 2008",
        WESNOTH,
    ),
    Clip(
        "music/mauricio-duarte/ubports.ogg", "train", "lomiri-sounds", ("21 12 ringtones/UBports.ogg",), *DUARTE_RIGHTS
    ),
    Clip(
        "music/mauricio-duarte/time-not-lost.ogg",
        "train",
        "lomiri-sounds",
        ("22 10 ringtones/Time not Lost.ogg",),
        *DUARTE_RIGHTS,
    ),
    Clip(
        "music/canonical/latin.ogg",
        "train",
        "lomiri-sounds",
        ("4 12 ringtones/Latin.ogg",),
        "CC-BY-SA-3.0",
        "Canonical Ltd. (c) 2013",
        LOMIRI,
    ),
    Clip(
        "music/garzul/loop-44k1-stereo.ogg",
        "train",
        "sonic-pi-samples",
        ("0 6 samples/loop_garzul.flac",),
        *freesound("Garzul", 213524),
        stereo=True,
        rate=44_100,
    ),
    Clip(
        "music/mika55/loop.ogg",
        "train",
        "sonic-pi-samples",
        ("samples/loop_mika.flac",),
        *freesound("mika55", 188551),
    ),
    Clip(
        "music/aleksi-aubry-carlson/main-theme.ogg",
        "validation",
        "wesnoth-1.16-music",
        ("29 12 music/main_menu.ogg",),
        "GPL-2.0-or-later",
        "Aleksi Aubry-Carlson (c) 2005",
        WESNOTH,
    ),
    Clip(
        "music/belofilms-guitar/test.flac",
        "test",
        "hydrogen-drumkits-effects",
        words(GUITAR, "Cmajor_UP_00 Gmajor_UP_00 Aminor_UP_00", ".flac"),
        "CC-BY-3.0",
        "Gabriel Verdugo Soto (www.belofilms.com)",
        HYDROGEN,
    ),
    Clip(
        "music/lezaarth-tabla/test.flac",
        "test",
        "sonic-pi-samples",
        ("0 5.5 samples/loop_tabla.flac",),
        *freesound("lezaarth", 242591),
    ),
]

EFFECTS = [
    *unchanged(
        "effects/rumpf-kit",
        "hydrogen-drumkits",
        f"{KITS}/rumpf_kit_z01_h2",
        "beats_01-32 beats_02-14 beats_05-10 beats_06-28 beats_07-14 beats_09-10 beats_01-12 beats_01-18",
        ".flac",
        *RUMPF_RIGHTS,
    ),
    *unchanged(
        "effects/black-pearl-kit",
        "hydrogen-drumkits",
        PEARL,
        "SabianHatClosed-Hard SabianHatPedal-Med",
        ".wav",
        *PEARL_RIGHTS,
    ),
    Clip(
        "effects/black-pearl-kit/cymbals-and-snare.ogg",
        "train",
        "hydrogen-drumkits",
        words(
            PEARL,
            "SabianHatSwish-Hard SabianHatOpen-Hard PearlSnare-Med SabianHatSemiOpen-Hard PaisteRide-Hard"
            " SabianHatChoke-Med PaisteRideFlink-Hard ZildjianSplashChoke-Hard SabianCrashFlink-Hard"
            " ZildjianSplash-Hard",
            ".wav",
        ),
        *PEARL_RIGHTS,
    ),
    Clip(
        "effects/colombo-kit/hits.ogg",
        "train",
        "hydrogen-drumkits",
        words(
            COLOMBO,
            "hihat-open-4 snare-opaque-2mics_normal-shot1 crash16i__ride_cup4 hihat-closed-4 crash20i__ride-cup1"
            " hihat-semi-open-1 snare-opaque-normal-mic-normal_shot2 crash16i__crash1",
            ".flac",
        ),
        *COLOMBO_RIGHTS,
    ),
    Clip(
        "effects/forzee-kit/hits.ogg",
        "train",
        "hydrogen-drumkits",
        words(f"0 1.6 {FORZEE}", "Tambourine-2 HiHatFoot-2 HiHatClosed-2 Snare-3 HiHatSemiopen-2 AgogoLow-2", ".wav")
        + words(f"0 3 {FORZEE}", "China-2 CrashRide18Bow-2", ".wav"),
        *FORZEE_RIGHTS,
    ),
    Clip(
        "effects/menegass-cymbals/open.ogg",
        "train",
        "sonic-pi-samples",
        words(SAMPLES, "drum_cymbal_open drum_splash_soft drum_splash_hard", ".flac"),
        *MENEGASS_RIGHTS,
    ),
    *unchanged(
        "effects/menegass-cymbals",
        "sonic-pi-samples",
        SAMPLES,
        "drum_cymbal_pedal drum_cymbal_closed",
        ".flac",
        *MENEGASS_RIGHTS,
    ),
    Clip(
        "effects/veezay-vinyl/hiss.ogg",
        "train",
        "sonic-pi-samples",
        ("samples/vinyl_hiss.flac",),
        *freesound("veezay", 130393),
    ),
    *unchanged(
        "effects/tasmanianpower-vinyl",
        "sonic-pi-samples",
        SAMPLES,
        "vinyl_rewind",
        ".flac",
        *freesound("TasmanianPower", 162493),
    ),
    Clip(
        "effects/ecodtr-whoosh/whoosh.mp3",
        "train",
        "sonic-pi-samples",
        ("samples/ambi_dark_woosh.flac",),
        *freesound("EcoDTR", 27281),
    ),
    Clip(
        "effects/zott820-till/till.ogg",
        "train",
        "sonic-pi-samples",
        ("samples/perc_till.flac",),
        *freesound("Zott820", 209578),
    ),
    Clip(
        "effects/bucklespring-keyboard/typing.ogg",
        "train",
        "bucklespring-data",
        words(
            "buckle/wav",
            "2a-1 2a-0 0f-1 0f-0 03-1 03-0 57-1 57-0 35-1 35-0 0e-1 0e-0 02-1 02-0 58-1 58-0 42-1 42-0 01-1 01-0"
            " 1e-1 1e-0 1f-1 1f-0 20-1 20-0 21-1 21-0 22-1 22-0 23-1 23-0",
            ".wav",
        ),
        "GPL-2.0-or-later",
        "Ico Doornekamp (c) 2016",
        BUCKLE,
    ),
    *unchanged(
        "effects/hyperrogue-steam",
        "hyperrogue-music",
        "hyperrogue/sounds",
        "steamhiss",
        ".ogg",
        "CC0-1.0",
        "HyperRogue contributors",
        HYPERROGUE,
    ),
    *unchanged(
        "effects/lomiri-camera",
        "lomiri-sounds",
        "camera/click",
        "camera_click",
        ".ogg",
        *freesound("jdaniel1999", 376205),
    ),
    Clip(
        "effects/gimme-a-hand/percussion.ogg",
        "validation",
        "hydrogen-drumkits",
        words(
            HANDS,
            "Tambourine-Med HandClap-Med Maraca-Med CajonSlaps-Med Fingersnap-Med WaterglassHi-Med WoodBlock-Med"
            " Tambourine-Soft HandClap-Hard Clave-Med CajonSlaps-Hard Maraca-Soft Cowbell-Med WaterglassLo-Med"
            " BongoHi-Med CajonThumps-Med Tambourine-Softest HandClap-Soft",
            ".wav",
        ),
        *PEARL_RIGHTS,
    ),
    Clip(
        "effects/bja-pacific-kit/test.flac",
        "test",
        "hydrogen-drumkits",
        words(
            f"0 0.5 {PACIFIC}",
            "HH_06 HH_08 SN_06 HH_07 CB2_03 HH_04 SN_08 HH2_07 BD_05 HH_08 SN_06 HH3_05",
            ".aiff",
        ),
        "CC-BY-SA-3.0-US",
        "Luc Tunguay",
        HYDROGEN,
    ),
    Clip(
        "effects/hullum-3d-printer/test.flac",
        "test",
        "sonic-pi-samples",
        ("0 5.5 samples/loop_3d_printer.flac",),
        *freesound("hullum", 415571),
    ),
]

CLIPS = SPEECH + MUSIC + EFFECTS


def fetch(package: str, downloads: Path) -> Path:
    """The package's files, unpacked under `downloads`."""
    unpacked = downloads / package
    if not unpacked.exists():
        subprocess.run(["apt-get", "download", f"{package}={VERSIONS[package]}"], cwd=downloads, check=True)
        (archive,) = downloads.glob(f"{package}_*.deb")
        partial = downloads / f"{package}.partial"
        subprocess.run(["dpkg-deb", "-x", archive, partial], check=True)
        partial.rename(unpacked)
    return unpacked


def find(root: Path, ending: str) -> Path:
    """The package's file whose path has this end; of copies of a stamp in several folders, the first."""
    name = ending.rsplit("/", 1)[-1]
    matches = sorted(path for path in root.rglob(name) if str(path).endswith(ending))
    if not matches:
        raise FileNotFoundError(f"{root.name}: no file ends in {ending}")
    return matches[0]


def trim(x_NxC: np.ndarray, rate: int) -> np.ndarray:
    """Cut the silence before and after."""
    frame = rate // 100
    n = len(x_NxC) // frame
    power = np.square(x_NxC[: n * frame]).reshape(n, -1).mean(-1)
    loud = np.nonzero(power > power.max() * 10 ** (SILENCE_DB / 10))[0]
    margin = int(MARGIN_S * rate)
    return x_NxC[max(0, loud[0] * frame - margin) : (loud[-1] + 1) * frame + margin]


def excerpt(source: str, root: Path, clip: Clip) -> tuple[np.ndarray, Path]:
    """One recording or a part of it: (N, channels) at the clip's rate, faded at both ends; and where it lies."""
    start_s, seconds, ending = source.split(" ", 2) if source[0].isdigit() else ("0", "0", source)
    path = find(root, ending)
    x_NxC, rate = sf.read(path, always_2d=True)
    start = int(float(start_s) * rate)
    x_NxC = x_NxC[start : start + int(float(seconds) * rate) if float(seconds) else None]
    if not clip.stereo:  # a downmix would cancel the high band
        x_NxC = x_NxC[:, [np.square(x_NxC).sum(0).argmax()]]
    x_NxC = trim(x_NxC, rate)
    x_NxC = soxr.resample(x_NxC, rate, clip.rate, "VHQ")
    fade = np.linspace(0, 1, int(FADE_S * clip.rate), endpoint=False)[:, None]
    x_NxC[: len(fade)] *= fade
    x_NxC[-len(fade) :] *= fade[::-1]
    return x_NxC, path


def fix_ogg_serial(path: Path) -> None:
    """libsndfile numbers its Ogg streams at random: give all pages number 1 and new checksums (RFC 3533)."""
    data = bytearray(path.read_bytes())
    at = 0
    while at < len(data):
        segments = data[at + 26]
        size = 27 + segments + sum(data[at + 27 : at + 27 + segments])
        data[at + 14 : at + 18] = (1).to_bytes(4, "little")
        data[at + 22 : at + 26] = bytes(4)
        data[at + 22 : at + 26] = ogg_crc(data[at : at + size]).to_bytes(4, "little")
        at += size
    path.write_bytes(data)


def ogg_crc(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc = (crc << 8) & 0xFFFFFFFF ^ OGG_CRC_TABLE[crc >> 24 ^ byte]
    return crc


def ogg_crc_table() -> list[int]:
    table = []
    for i in range(256):
        value = i << 24
        for _ in range(8):
            value = (value << 1) & 0xFFFFFFFF ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value)
    return table


OGG_CRC_TABLE = ogg_crc_table()


def make(clip: Clip, root: Path, path: Path) -> tuple[list[Path], str]:
    """Write the clip's file; the recordings it is made of, and what was changed in them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if clip.unchanged:
        source = find(root, clip.sources[0])
        shutil.copyfile(source, path)
        return [source], "none"
    excerpts, sources = zip(*(excerpt(source, root, clip) for source in clip.sources), strict=True)
    x_NxC = np.concatenate(excerpts)
    peak = np.abs(x_NxC).max()
    gain = min(1.0, PEAK / peak)
    encoding = ENCODINGS[path.suffix]
    sf.write(path, gain * x_NxC, clip.rate, **encoding)
    if encoding["format"] == "OGG":
        fix_ogg_serial(path)
    steps = [
        "cut" if len(sources) == 1 else f"{len(sources)} recordings cut and joined",
        "both channels" if clip.stereo else "the louder channel",
        f"{clip.rate / 1000:g} kHz",
        *([f"gain {20 * np.log10(gain):.1f} dB"] if gain < 1 else []),
        encoding["subtype"].replace("_", " "),
    ]
    return list(dict.fromkeys(sources)), "; ".join(steps)


def describe(clip: Clip, path: Path, root: Path, sources: list[Path], changes: str) -> dict[str, object]:
    info = sf.info(path)
    x_NxC, rate = sf.read(path, always_2d=True)
    x_N = x_NxC[:, np.square(x_NxC).sum(0).argmax()]
    kind, group, _ = clip.path.split("/")
    return {
        "path": clip.path,
        "class": kind,
        "group": group,
        "split": clip.split,
        "seconds": round(info.frames / info.samplerate, 2),
        "sample_rate": info.samplerate,
        "channels": info.channels,
        "bandwidth_hz": round(bandwidth(x_N, rate)),
        "package": clip.package,
        "version": VERSIONS[clip.package],
        "original_path": "; ".join(str(source.relative_to(root)) for source in sources),
        "license": clip.license,
        "author": clip.author,
        "source_url": clip.source_url,
        "changes": changes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--downloads", type=Path, default=Path("~/.cache/flashsr-recordings").expanduser())
    downloads = parser.parse_args().downloads
    downloads.mkdir(parents=True, exist_ok=True)
    roots = {package: fetch(package, downloads) for package in VERSIONS}
    (RECORDINGS / "LICENSES").mkdir(parents=True, exist_ok=True)
    for folder in ("speech", "music", "effects"):
        shutil.rmtree(RECORDINGS / folder, ignore_errors=True)
    rows = []
    for clip in CLIPS:
        path, root = RECORDINGS / clip.path, roots[clip.package]
        rows.append(describe(clip, path, root, *make(clip, root, path)))
        print(
            f"{rows[-1]['path']}: {rows[-1]['seconds']} s to {rows[-1]['bandwidth_hz']} Hz, {path.stat().st_size} bytes"
        )
    shutil.copyfile("/usr/share/common-licenses/GPL-2", RECORDINGS / "LICENSES" / "GPL-2.0.txt")
    with (RECORDINGS / "recordings.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
