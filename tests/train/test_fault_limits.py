"""Faults that a run survives, up to limits in its configuration: records that cannot be read, gradients that are not
finite. The loop, data and checkpoints are those of every run; the stage is a toy, but for one test."""

import logging
import shutil

import numpy as np
import pytest

from flashsr_jax.data import CLASSES, clips
from flashsr_jax.data import batches as batch_module
from flashsr_jax.data import dataset as datasets
from flashsr_jax.errors import UserError
from flashsr_jax.train import loop

from helpers.toy import toy_config, toy_stage
from helpers.training import AT_THE_END, assert_same_checkpoint, checkpoint, logged, run, without_speed


def train(monkeypatch, config, folder, broken=()):
    monkeypatch.setitem(loop.STAGES, "vae", toy_stage(broken))
    return loop.train(config, str(folder))


@pytest.mark.training
def test_a_step_that_is_not_finite_stops_the_run_unless_the_configuration_allows_it(dataset, tmp_path, monkeypatch):
    config = toy_config(dataset, max_skipped_steps=0)
    with pytest.raises(FloatingPointError, match=r"step 5: grad_norm/vae = nan, loss = nan; stopped"):
        train(monkeypatch, config, tmp_path / "default", broken=(5, 8))
    assert [line["step"] for line in logged(tmp_path / "default")] == [2, 3, 4]
    config.max_skipped_steps = 1
    with pytest.raises(FloatingPointError, match=r"step 8: .*; 1 steps were skipped before, config.max_skipped_steps"):
        train(monkeypatch, config, tmp_path / "one", broken=(5, 8))


@pytest.mark.training
def test_a_skipped_step_changes_nothing_and_is_counted(dataset, tmp_path, monkeypatch, caplog):
    config = toy_config(dataset, max_skipped_steps=3, log_every=4)
    config.checkpoint.update(every=1, keep_last=20)
    with caplog.at_level(logging.WARNING, "flashsr_jax"):
        train(monkeypatch, config, tmp_path, broken=(5, 6, 8))
    said = [record.getMessage() for record in caplog.records if record.name.startswith("flashsr_jax")]
    assert [message.split(":")[0] for message in said] == ["step 5", "step 6", "step 8"]
    (before, _), (after, position) = checkpoint(tmp_path, 4), checkpoint(tmp_path, 6)
    assert before["state"].pop("step") == 4 and after["state"].pop("step") == 6
    assert before == after  # parameters, moments and the optimizer's own count of steps, averages
    assert position["data_position"]["skipped_steps"] == 2 and position["data_position"]["batches"] == 6
    numbers = {step: checkpoint(tmp_path, step)[0]["weights"]["vae"]["number"] for step in (6, 7, 8, 9)}
    assert numbers[6] != numbers[7] == numbers[8] != numbers[9]
    lines = [line for line in logged(tmp_path) if line["kind"] == "train"]
    assert sum(line["skipped_steps"] for line in lines) == 3
    assert ["loss" in line for line in lines] == [line["step"] not in (5, 6, 8) for line in lines]


@pytest.mark.training
def test_skipped_steps_and_their_number_survive_a_resume(dataset, tmp_path, monkeypatch):
    config, broken = toy_config(dataset, max_skipped_steps=3), (2, 5, 10)
    train(monkeypatch, config, tmp_path / "whole", broken)
    cut_off(monkeypatch, tmp_path / "resumed", config, broken)
    shutil.copytree(tmp_path / "resumed", tmp_path / "fewer")
    train(monkeypatch, config, tmp_path / "resumed", broken)
    assert_same_checkpoint(tmp_path / "whole", tmp_path / "resumed", 12, least=5)
    assert without_speed(logged(tmp_path / "whole")) == without_speed(logged(tmp_path / "resumed"))
    config.max_skipped_steps = 2  # the two before the cut still count
    with pytest.raises(FloatingPointError, match="step 10"):
        train(monkeypatch, config, tmp_path / "fewer", broken)


def cut_off(monkeypatch, folder, config, broken=(), batches=8):
    """A run whose machine fails after some batches."""

    class CutOff(batch_module.BatchIterator):
        def __next__(self):
            if self.get_state()["batches"] == batches:
                raise RuntimeError("cut off")
            return super().__next__()

    with monkeypatch.context() as patch:
        patch.setattr(batch_module, "BatchIterator", CutOff)
        with pytest.raises(RuntimeError, match="cut off"):
            train(patch, config, folder, broken)


@pytest.mark.training
def test_the_student_skips_the_phase_whose_weights_are_not_finite(runs, dataset, tmp_path):
    """The real command, a real stage, of its losses the mel's: steps 4 to 6 have an infinite one."""
    sources = [f"--config.vae_from={runs['vae']}", f"--config.teacher_from={runs['teacher']}"]
    broken = "--config.losses.mel=0,1e39,0.5,0.5"
    off = [f"--config.losses.{name}=0,0,0,0" for name in ("distill", "adversarial", "dmd")]
    options = [broken, *off, "--config.max_skipped_steps=3", *AT_THE_END]
    code, stderr = run("student", tmp_path, dataset, *sources, *options)
    assert code == 0, stderr
    assert [f"step {n}: " in stderr for n in range(1, 13)] == [n in (4, 5, 6) for n in range(1, 13)]
    assert "skipped (3, limit 3)" in stderr
    assert all(np.isfinite(value) for line in logged(tmp_path) for value in line.values() if value != line["kind"])


@pytest.fixture(scope="module")
def damaged(dataset, tmp_path_factory):
    """(a copy of the dataset with bytes of some records overwritten, as a failing disk does; their segments)"""
    folder = tmp_path_factory.mktemp("damaged") / "dataset"
    shutil.copytree(dataset, folder)
    (shard,) = folder.glob("*train.array_record*")
    content = bytearray(shard.read_bytes())
    for at in (1, 2):
        start = at * len(content) // 3 + 1000
        content[start : start + 64] = bytes(64)
    shard.write_bytes(content)
    recordings = datasets.Recordings(folder, "train")
    corrupt = []
    for index in range(len(recordings.length)):
        try:
            recordings.read(index)
        except datasets.CorruptRecord as error:
            corrupt.append(index)
            assert f"{folder}, train record {index} (" in str(error) and error.number == index
    assert 2 <= len(corrupt) <= 4
    return folder, corrupt


def batches(config, count, workers=0, position=None):
    data = batch_module.make_iterator(
        config.data, "train", batch_size=8, window_samples=32 * 480, seed=0, workers=workers
    )
    if position:
        data.set_state(position)
    try:
        return [next(data) for _ in range(count)], data.get_state()
    finally:
        data.close()


def test_records_that_cannot_be_read_are_named_counted_and_left_out(dataset, damaged, caplog):
    folder, corrupt = damaged
    with caplog.at_level(logging.WARNING, "flashsr_jax"):
        seen, position = batches(toy_config(folder), 40)
    named = sorted(int(record.getMessage().split("train record ")[1].split()[0]) for record in caplog.records)
    assert named == position["corrupt"] == corrupt
    assert all("Corrupted" in r.getMessage() and ", limit 10)" in r.getMessage() for r in caplog.records)
    # All other examples are those of the whole dataset, and those in their place are real ones.
    whole, _ = batches(toy_config(dataset), 40)
    hr, of_whole = (np.concatenate([batch["hr"] for batch in taken]) for taken in (seen, whole))
    assert 0.5 < np.mean([np.array_equal(x, y) for x, y in zip(hr, of_whole, strict=True)]) < 1
    assert np.abs(hr).max(axis=1).min() > 0


@pytest.mark.training
def test_they_are_the_same_for_any_number_of_workers_and_after_a_resume(damaged):
    folder, _ = damaged
    config = toy_config(folder)
    seen, end = batches(config, 12)
    first, middle = batches(config, 6, workers=2)
    second, other_end = batches(config, 6, position=middle)
    assert end == other_end
    for a, b in zip(seen, first + second, strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_array_equal(a["hr"], b["hr"])


@pytest.mark.training
def test_one_record_too_many_stops_the_run_also_after_a_resume(damaged, tmp_path, monkeypatch):
    folder, corrupt = damaged
    config = toy_config(folder, steps=40)
    config.data.max_corrupt_records = len(corrupt) - 1
    message = rf"records that cannot be read: {len(corrupt)}, config.data.max_corrupt_records={len(corrupt) - 1}"
    with pytest.raises(UserError, match=message) as error:
        train(monkeypatch, config, tmp_path / "whole")
    stopped = logged(tmp_path / "whole")[-1]["step"]
    cut_off(monkeypatch, tmp_path / "resumed", config, batches=stopped)
    with pytest.raises(UserError, match=message) as again:
        train(monkeypatch, config, tmp_path / "resumed")
    assert str(error.value) == str(again.value)


@pytest.mark.training
def test_the_command_says_in_one_line_that_a_dataset_cannot_be_read(dataset, tmp_path):
    folder = tmp_path / "dataset"
    shutil.copytree(dataset, folder)
    (shard,) = folder.glob("*train.array_record*")
    shard.unlink()
    code, stderr = run("vocoder", tmp_path / "run", folder)
    last = stderr.strip().splitlines()[-1]
    assert code == 1 and "Traceback" not in stderr
    assert last.startswith("flashsr_jax: ") and f"{shard} is missing: build the dataset again" in last


def test_another_clip_takes_the_place_of_one_that_cannot_be_read(dataset, monkeypatch, caplog):
    config = toy_config(dataset)
    settings = dict(count_per_class=1, window_samples=32 * 480, cutoff_hz=4000.0)
    before = clips.fixed_clips(config.data, "train", **settings)
    read, broken = datasets.Recordings.read, []

    def read_but_one(recordings, index, *stretch):
        music = recordings.class_id[index] == CLASSES.index("music")
        if music and not broken:
            broken.append(index)
        if index in broken:
            raise datasets.CorruptRecord(index, "a record")
        return read(recordings, index, *stretch)

    monkeypatch.setattr(datasets.Recordings, "read", read_but_one)
    after = clips.fixed_clips(config.data, "train", **settings)
    assert [clip.name for clip in after] == [clip.name for clip in before]
    changed = [not np.array_equal(a.hr, b.hr) for a, b in zip(after, before, strict=True)]
    assert changed == [clip.class_name == "music" for clip in before]
    assert [record.getMessage() for record in caplog.records] == ["a record; another clip takes its place"]
