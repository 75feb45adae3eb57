"""Training batches and evaluation clips, from files on disk through the built dataset.

In the small dataset here every recording is a tone of its own, so that a window tells what it was made of.
"""

import csv
import json
import shutil
from collections import Counter

import jax
import numpy as np
import pytest
import soundfile as sf
from ml_collections import ConfigDict

from flashsr_jax.audio import lowpass_device
from flashsr_jax.audio.lowpass import LowpassFilter, simulate_low_resolution
from flashsr_jax.data import CLASSES
from flashsr_jax.data.batches import make_iterator
from flashsr_jax.data.build import build_dataset
from flashsr_jax.data.clips import fixed_clips
from flashsr_jax.errors import UserError
from flashsr_jax.train.batch import prepare

WINDOW = 30_720  # 0.64 s
# class, group, seconds, recordings, validation
RECORDINGS = [
    ("speech", "anna", 0.4, 5, False),
    ("speech", "berta", 0.25, 7, False),
    ("speech", "clara", 1.0, 1, True),
    ("music", "album", 3.2, 2, False),
    ("music", "single", 1.28, 1, False),
    ("music", "demo", 2.0, 2, True),
    ("effects", "kit", 0.2, 2, False),
    ("effects", "rain", 1.92, 1, False),
    ("effects", "door", 0.3, 1, True),
]


def settings(folder, **changes) -> ConfigDict:
    defaults = {
        "dir": str(folder),
        "mixture": {},
        "class_weights": {"speech": 1.0, "music": 1.0, "effects": 1.0},
        "gain_db": (0.0, 0.0),
        "mix_probability": 0.0,
        "bright": (),
        "floor_probability": 0.0,
        "lr_simulation": "device",
        "cutoff_hz": (2000.0, 16_000.0),
        "log_cutoff": False,
        "order": (2, 10),
        "max_corrupt_records": 0,
    }
    return ConfigDict(defaults | changes, allow_dotted_keys=True)


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """(dataset, {tone in Hz: (class, group, split)})"""
    folder = tmp_path_factory.mktemp("tones")
    table, known, hz = ["path,class,group,split"], {}, 1000
    rng = np.random.default_rng(0)
    for class_name, group, seconds, count, validation in RECORDINGS:
        for _ in range(count):
            time = np.arange(int(seconds * 48_000)) / 48_000
            split = "validation" if validation else "train"
            sf.write(
                folder / f"{hz}.wav",
                0.3 * np.sin(2 * np.pi * hz * time) + 3e-3 * rng.standard_normal(len(time)),
                48_000,
            )
            table.append(f"{hz}.wav,{class_name},{group},{split}")
            known[hz] = (class_name, group, split)
            hz += 250
    (folder / "table.csv").write_text("\n".join(table))
    build_dataset([folder], folder / "out", csv=folder / "table.csv", min_bandwidth_hz=0, workers=0)
    return folder / "out", known


def iterator(folder, split="train", *, batch_size=6, seed=0, changes=(), **arguments):
    data = settings(folder, **dict(changes))
    return make_iterator(data, split, batch_size=batch_size, window_samples=WINDOW, seed=seed, **arguments)


def take(batches, count: int) -> list[dict]:
    return [next(batches) for _ in range(count)]


def heard(hr_N: np.ndarray) -> set[int]:
    """The tones in a window that last some 20 ms or more."""
    spectrum = np.abs(np.fft.rfft(hr_N * np.hanning(len(hr_N)), 48_000))
    return {hz for hz in range(1000, 8000, 250) if spectrum[hz] > 0.02 * spectrum.max() and spectrum[hz] > 20}


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_batches_of_the_committed_recordings(dataset):
    """Shapes and types; the exact and the device's low resolution are the same examples and nearly the same sound."""
    changes = {"mix_probability": 0.5, "gain_db": (-12.0, 6.0)}
    device = take(iterator(dataset, changes=changes), 4)
    exact = take(iterator(dataset, changes=changes | {"lr_simulation": "exact"}), 4)
    for with_filter, with_lr in zip(device, exact, strict=True):
        assert set(with_filter) == {"hr", "filter", "cutoff_hz", "bandwidth_hz", "class_id"}
        assert set(with_lr) == {"hr", "lr", "cutoff_hz", "bandwidth_hz", "class_id"}
        assert with_lr["hr"].shape == with_lr["lr"].shape == (6, WINDOW)
        assert with_lr["hr"].dtype == with_lr["lr"].dtype == np.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(with_filter["filter"])} == {np.dtype(np.float32)}
        assert with_lr["class_id"].dtype == np.int32
        for name in ("hr", "cutoff_hz", "bandwidth_hz", "class_id"):
            assert_same(with_lr[name], with_filter[name])
        assert (with_lr["cutoff_hz"] <= 0.94 * with_lr["bandwidth_hz"] + 1e-3).all()
        assert (with_lr["bandwidth_hz"] >= 16_000).all()
        lr = np.asarray(jax.jit(lowpass_device.simulate_low_resolution)(with_filter["hr"], with_filter["filter"]))
        error = np.mean((lr - with_lr["lr"])[:, 2400:-2400] ** 2, axis=1)
        assert (error < 1e-6 * np.mean(with_lr["lr"] ** 2, axis=1) + 1e-14).all()


@pytest.mark.training
def test_inputs_as_they_are_met_are_the_same_on_both_paths(dataset):
    """Also: the recordings, the gain and the mixture are what they are without, and stay clean."""
    changes = {"mix_probability": 0.5, "gain_db": (-12.0, 6.0)}
    clean = take(iterator(dataset, changes=changes), 2)
    changes["floor_probability"] = 0.5
    device = take(iterator(dataset, changes=changes), 2)
    exact = take(iterator(dataset, changes=changes | {"lr_simulation": "exact"}), 2)
    given = np.concatenate([batch["lr_given"] for batch in device])
    assert 3 <= given.sum() <= 9 and given.dtype == bool
    for without, on_device, on_host in zip(clean, device, exact, strict=True):
        for name in ("hr", "bandwidth_hz", "class_id"):
            assert_same(on_device[name], without[name])
        assert_same(on_device["cutoff_hz"], on_host["cutoff_hz"])
        kept = ~on_device["lr_given"]
        assert_same(on_device["cutoff_hz"][kept], without["cutoff_hz"][kept])
        assert (on_device["cutoff_hz"] <= without["cutoff_hz"]).all()
        plain = np.asarray(jax.jit(lowpass_device.simulate_low_resolution)(without["hr"], without["filter"]))
        windows = [jax.jit(prepare)(batch)[0] for batch in (on_device, on_host)]
        for i, met in enumerate(on_device["lr_given"]):
            here, there = (np.asarray(w.lr[i])[2400:-2400] for w in windows)
            assert np.mean((here - there) ** 2) <= (1e-12 if met else 1e-6) * np.mean(there**2)
            change = np.mean((on_host["lr"][i] - plain[i])[2400:-2400] ** 2) / np.mean(plain[i] ** 2)
            assert (1e-12 < change < 0.5) if met else change < 1e-6


def test_a_pass_sees_every_recording_of_a_class(tones):
    folder, known = tones
    batches = iterator(folder, changes={"class_weights": {"speech": 2.0, "music": 1.0, "effects": 1.0}})
    once = batches.pass_examples["music"]
    seen = take(batches, -(-int(once) // 6))
    music = [hr for batch in seen for hr in batch["hr"][batch["class_id"] == CLASSES.index("music")]]
    assert len(music) == pytest.approx(once / 4, abs=2)
    heard_tones = set().union(*(heard(hr) for hr in music))
    assert heard_tones >= {hz for hz, (name, _, split) in known.items() if (name, split) == ("music", "train")}


@pytest.mark.training
@pytest.mark.parametrize("lr_simulation", ["exact", "device"])
def test_same_seed_same_batches_for_any_number_of_workers(tones, lr_simulation):
    folder, _ = tones
    changes = {"lr_simulation": lr_simulation, "mix_probability": 0.5, "gain_db": (-6.0, 6.0), "floor_probability": 0.5}
    alone = take(iterator(folder, changes=changes), 6)
    if lr_simulation == "exact":
        workers = iterator(folder, changes=changes, workers=2)
        assert_same(take(workers, 6), alone)
        workers.close()
    assert_same(take(iterator(folder, changes=changes), 6), alone)
    other = take(iterator(folder, changes=changes, seed=1), 6)
    assert not any(np.array_equal(a["hr"], b["hr"]) for a, b in zip(alone, other, strict=True))


def test_a_batch_of_one_window_is_one_of_the_stream(tones):
    config = settings(tones[0])
    one, four = (make_iterator(config, "train", batch_size=n, window_samples=WINDOW, seed=3) for n in (1, 4))
    hr = next(four)["hr"]
    for index in range(4):
        np.testing.assert_array_equal(next(one)["hr"], hr[index : index + 1])


def test_resumes_exactly_where_it_stopped(tones):
    folder, _ = tones
    changes = {"mix_probability": 0.5, "floor_probability": 0.1}
    whole = take(iterator(folder, changes=changes), 9)
    first = iterator(folder, changes=changes)
    take(first, 4)
    state = json.loads(json.dumps(first.get_state()))
    assert_same(take(first, 2), whole[4:6])
    second = iterator(folder, changes=changes)
    second.set_state(state)
    assert second.get_state() == state
    assert_same(take(second, 5), whole[4:])
    second.set_state(state)
    assert_same(take(second, 1), whole[4:5])


@pytest.mark.training  # a process imports what it needs for longer than it reads
def test_a_worker_resumes_where_another_number_of_them_stopped(tones):
    folder, _ = tones
    first = iterator(folder, changes={"mix_probability": 0.5, "floor_probability": 0.1})
    take(first, 4)
    workers = iterator(folder, changes={"mix_probability": 0.5, "floor_probability": 0.1}, workers=1)
    workers.set_state(json.loads(json.dumps(first.get_state())))
    assert_same(take(workers, 2), take(first, 2))
    workers.close()


def test_processes_share_each_batch(tones):
    """Each total batch is the same whatever the number of processes, which take it in their order."""
    folder, _ = tones
    whole = take(iterator(folder, batch_size=6), 5)
    parts = [take(iterator(folder, batch_size=2, process_index=i, process_count=3), 5) for i in range(3)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert_same(jax.tree.map(lambda *leaves: np.concatenate(leaves), *shares), batch)


def test_an_epoch_plays_everything_and_each_epoch_differs(tones):
    """In one pass over a class every window of its duration comes once: 3.2 s make 5, short ones share theirs."""
    folder, known = tones
    weights = {"speech": 0.0, "music": 1.0, "effects": 0.0}
    epoch = 5 + 5 + 2
    hr = np.concatenate([b["hr"] for b in take(iterator(folder, changes={"class_weights": weights}), 4)])
    orders = []
    for first in (0, epoch):
        played = [heard(x) for x in hr[first : first + epoch]]
        assert all(len(tones_) == 1 for tones_ in played)
        order = [tones_.pop() for tones_ in played]
        counts = {hz: 5 for hz, (name, group, _) in known.items() if group == "album"}
        counts |= {hz: 2 for hz, (name, group, _) in known.items() if group == "single"}
        assert Counter(order) == counts
        orders.append(order)
    assert orders[0] != orders[1]
    windows = {x.tobytes() for x in hr}
    assert len(windows) == len(hr)  # crops differ, too


def test_short_recordings_are_joined_within_their_group(tones):
    folder, known = tones
    weights = {"speech": 1.0, "music": 0.0, "effects": 0.0}
    batches = take(iterator(folder, changes={"class_weights": weights}), 6)
    started = set()
    for hr in np.concatenate([b["hr"] for b in batches]):
        tones_ = heard(hr)
        groups = {known[hz][1] for hz in tones_}
        assert len(groups) == 1 and len(tones_) >= 2
        assert {known[hz][0] for hz in tones_} == {"speech"} and {known[hz][2] for hz in tones_} == {"train"}
        started |= tones_
        level = np.sqrt(np.mean(hr.reshape(-1, 480) ** 2, axis=1))
        assert level.min() > 0.25 * level.max()  # no gap where the parts meet
    assert started == {hz for hz, (name, _, split) in known.items() if (name, split) == ("speech", "train")}


def test_classes_come_by_weight(tones):
    folder, known = tones
    even = np.concatenate([b["class_id"] for b in take(iterator(folder), 10)])
    assert Counter(even.tolist()) == {0: 20, 1: 20, 2: 20}
    weights = {"speech": 3.0, "music": 1.0, "effects": 0.0}
    batches = take(iterator(folder, changes={"class_weights": weights}), 10)
    assert Counter(np.concatenate([b["class_id"] for b in batches]).tolist()) == {0: 45, 1: 15}
    for batch in batches:
        for class_id, hr in zip(batch["class_id"], batch["hr"], strict=True):
            assert {known[hz][0] for hz in heard(hr)} == {CLASSES[class_id]}


def test_gain_and_mixing(tones):
    folder, known = tones
    plain = next(iterator(folder))
    louder = next(iterator(folder, changes={"gain_db": (6.0, 6.0)}))
    np.testing.assert_allclose(louder["hr"], plain["hr"] * 10 ** (6 / 20), rtol=1e-5)
    mixed = take(iterator(folder, changes={"mix_probability": 1.0}), 4)
    narrowest = []
    for batch in mixed:
        for hr, class_id in zip(batch["hr"], batch["class_id"], strict=True):
            classes = {known[hz][0] for hz in heard(hr)}
            assert len(classes) == 2 and CLASSES[class_id] in classes
            assert 0.03 < np.sqrt(np.mean(hr**2)) < 0.3
        narrowest.append(batch["bandwidth_hz"])
    unmixed = np.concatenate([b["bandwidth_hz"] for b in take(iterator(folder), 4)])
    assert np.mean(np.concatenate(narrowest)) <= np.mean(unmixed)


def test_filters_stay_in_the_configured_range(dataset):
    changes = {"cutoff_hz": (3000.0, 5000.0), "order": (4, 5)}
    cutoffs = np.concatenate([b["cutoff_hz"] for b in take(iterator(dataset, changes=changes), 10)])
    assert 3000 <= cutoffs.min() < 3300 and 4700 < cutoffs.max() <= 5000
    for batch in take(iterator(dataset, changes=changes), 3):
        poles = (batch["filter"]["sign"] == -1).sum(axis=1)
        assert set(poles) <= {4, 5}


def test_fixed_clips(dataset):
    arguments = {"count_per_class": 2, "window_samples": WINDOW, "cutoff_hz": 4000.0}
    clips = fixed_clips(settings(dataset), "test", **arguments)
    assert [clip.name for clip in clips] == [f"{name}-{number}" for name in CLASSES for number in range(2)]
    for clip, again in zip(clips, fixed_clips(settings(dataset), "test", **arguments), strict=True):
        assert_same(clip.hr, again.hr)
        assert clip.hr.dtype == np.float32 and clip.hr.shape == (WINDOW,) and clip.class_name == clip.name[:-2]
        lowpass = LowpassFilter("cheby1", 8, 4000.0)
        assert_same(clip.lr, simulate_low_resolution(clip.hr, lowpass))
        assert np.sqrt(np.mean(clip.hr**2)) > 1e-3  # not a pause


def test_fixed_clips_are_of_many_groups(tones):
    folder, known = tones
    clips = fixed_clips(settings(folder), "train", count_per_class=2, window_samples=WINDOW, cutoff_hz=4000.0)
    groups = [{known[hz][1] for hz in heard(clip.hr)} for clip in clips]
    assert all(len(group) == 1 for group in groups) and len(set().union(*groups)) == 6


def test_a_dataset_without_a_weighted_class(tones, tmp_path):
    folder, _ = tones
    with pytest.raises(UserError, match=r"no test recordings"):
        iterator(folder, split="test")
    copy = shutil.copytree(folder, tmp_path / "copy")
    rows = list(csv.DictReader((copy / "manifest.csv").read_text().splitlines()))
    with (copy / "manifest.csv").open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(row | {"class": row["class"].replace("effects", "music")} for row in rows)
    with pytest.raises(UserError) as caught:
        iterator(copy)
    assert "no train recordings of effects" in str(caught.value) and "class_weights.effects=0" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    next(iterator(copy, changes={"class_weights": {"speech": 1.0, "music": 1.0, "effects": 0.0}}))


@pytest.fixture(scope="module")
def speech_alone(tones, tmp_path_factory):
    """A second dataset: tones of 9 to 10 kHz, for training alone."""
    folder = tmp_path_factory.mktemp("speech.alone")
    rows = ["path,class,group,split"]
    for hz in range(9000, 10_000, 250):
        x = 0.3 * np.sin(2 * np.pi * hz * np.arange(96_000) / 48_000)
        sf.write(folder / f"{hz}.wav", x + 3e-3 * np.random.default_rng(hz).standard_normal(96_000), 48_000)
        rows.append(f"{hz}.wav,speech,dora,train")
    (folder / "table.csv").write_text("\n".join(rows))
    build_dataset([folder], folder / "out", csv=folder / "table.csv", min_bandwidth_hz=0, workers=0)
    return folder / "out"


def loudest(hr_N: np.ndarray) -> int:
    return int(np.abs(np.fft.rfft(hr_N * np.hanning(len(hr_N)), 48_000)).argmax())


def test_datasets_of_a_mixture_are_drawn_from_by_their_weights(tones, speech_alone):
    """Each by its own; within one, its classes by theirs."""
    mixture = {str(tones[0]): 3.0, str(speech_alone): 1.0}
    batches = iterator("nowhere", changes={"mixture": mixture})
    drawn = take(batches, 8)
    of_second = [loudest(hr) >= 9000 for batch in drawn for hr in batch["hr"]]
    classes = np.concatenate([batch["class_id"] for batch in drawn])
    assert sum(of_second) == pytest.approx(12, abs=1)
    assert set(classes[of_second]) == {CLASSES.index("speech")}
    assert np.bincount(classes[~np.array(of_second)]) == pytest.approx([12, 12, 12], abs=1)
    of_first, second = (f"{folder}: speech" for folder in mixture)
    assert batches.pass_examples.keys() == {of_first, second, *(f"{tones[0]}: {name}" for name in CLASSES[1:])}
    assert batches.pass_examples[second] == pytest.approx(4 * 4 * 3)  # 4 recordings of 3 windows, a fourth of the draws


def test_a_mixture_resumes_is_shared_and_mixes_classes_of_all_datasets(tones, speech_alone):
    changes = {"mixture": {str(tones[0]): 1.0, str(speech_alone): 1.0}, "mix_probability": 1.0}
    whole = take(iterator("nowhere", changes=changes), 4)
    first = iterator("nowhere", changes=changes)
    assert_same(take(first, 1), whole[:1])
    second = iterator("nowhere", changes=changes)
    second.set_state(json.loads(json.dumps(first.get_state())))
    assert_same(take(second, 3), whole[1:])
    parts = [
        take(iterator("nowhere", changes=changes, batch_size=3, process_index=i, process_count=2), 2) for i in (0, 1)
    ]
    for batch, *shares in zip(whole, *parts, strict=False):
        assert_same(jax.tree.map(lambda *leaves: np.concatenate(leaves), *shares), batch)
    spectra = [np.abs(np.fft.rfft(hr * np.hanning(WINDOW), 48_000)) for batch in whole for hr in batch["hr"]]
    both = [x[9000:10_000].max() > 20 and x[1000:8000].max() > 20 for x in spectra]
    assert sum(both) >= 6  # a voice of the second dataset has the music or effects of the first under it


def test_a_mixture_is_validated_on_all_that_have_something_to_validate_on(tones, speech_alone, caplog):
    arguments = {"count_per_class": 2, "window_samples": WINDOW, "cutoff_hz": 4000.0}
    mixture = {str(tones[0]): 1.0, str(speech_alone): 1.0}
    caplog.set_level("INFO")
    clips = fixed_clips(settings("nowhere", mixture=mixture), "validation", **arguments)
    for clip, alone in zip(clips, fixed_clips(settings(tones[0]), "validation", **arguments), strict=True):
        assert_same(clip.hr, alone.hr)
    assert f"data.mixture: no validation recordings in {speech_alone}" in caplog.text
    clips = fixed_clips(settings("nowhere", mixture=mixture), "train", **arguments)
    assert {loudest(clip.hr) >= 9000 for clip in clips if clip.class_name == "speech"} == {False, True}


def test_a_record_of_any_dataset_of_a_mixture_that_cannot_be_read_is_named(tones, speech_alone, tmp_path, caplog):
    copy = shutil.copytree(speech_alone, tmp_path / "copy")
    (shard,) = copy.glob("*.array_record*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    changes = {"mixture": {str(tones[0]): 1.0, str(copy): 1.0}, "max_corrupt_records": 4}
    batches = iterator("nowhere", changes=changes)
    take(batches, 6)
    assert f"{copy}, train record " in caplog.text and f"{tones[0]}, train record" not in caplog.text


def test_mistakes_in_a_mixture(tones, speech_alone, tmp_path):
    with pytest.raises(UserError, match=r"^data.mixture: .*/nothing: no dataset there"):
        iterator("nowhere", changes={"mixture": {str(tmp_path / "nothing"): 1.0, str(tones[0]): 1.0}})
    with pytest.raises(UserError, match=r"^data.mixture: .*: no train recordings of music: add some"):
        iterator("nowhere", changes={"mixture": {str(speech_alone): 1.0}})
    music = {"class_weights": {"speech": 0.0, "music": 1.0, "effects": 0.0}}
    with pytest.raises(UserError, match=r"^data.mixture: .*: no recordings of music, the classes that have a weight"):
        iterator("nowhere", changes={"mixture": {str(speech_alone): 1.0, str(tones[0]): 1.0}} | music)


def test_mistakes_in_the_configuration(tones, tmp_path):
    folder, _ = tones
    with pytest.raises(UserError, match="flashsr data build"):
        iterator(tmp_path / "nothing")
    with pytest.raises(UserError, match="'scipy' is not one of device, exact"):
        iterator(folder, changes={"lr_simulation": "scipy"})
    with pytest.raises(UserError, match="data.floor_probability=1.5: give a share"):
        iterator(folder, changes={"floor_probability": 1.5})
    with pytest.raises(UserError, match=r"data.bright=\('',\): give limits in dB"):
        iterator(folder, changes={"bright": ("",)})
    with pytest.raises(UserError, match="all are 0"):
        iterator(folder, changes={"class_weights": {"speech": 0.0, "music": 0.0, "effects": 0.0}})


def test_a_manifest_of_other_records_is_noticed(tones, tmp_path):
    folder, _ = tones
    copy = shutil.copytree(folder, tmp_path / "copy")
    header, *lines = (copy / "manifest.csv").read_text().splitlines()
    (copy / "manifest.csv").write_text("\n".join([header, *lines[1:]]) + "\n")
    with pytest.raises(UserError, match="build the dataset again"):
        iterator(copy)
    (copy / "manifest.csv").write_text("\n".join([header, *reversed(lines)]) + "\n")
    with pytest.raises(UserError, match="build the dataset again"):
        take(iterator(copy), 3)
