"""Checkpoints of a run: which are kept, what becomes of damaged ones, and of a save that cannot be written."""

import logging
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashsr_jax.errors import UserError
from flashsr_jax.runs.checkpoint import DAMAGED, Checkpoints, load_weights
from flashsr_jax.runs.listing import checkpoints


def tree(step):
    return {"a": jnp.full((3, 4), float(step)), "b": {"c": jnp.full(3, -float(step))}}


ABSTRACT = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0])),
    tree(0),
)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run's folder with the checkpoints 1 and 2."""
    folder = tmp_path_factory.mktemp("two")
    checkpoints = Checkpoints(folder, keep_last=2, best_metric="lsd")
    for step in (1, 2):
        checkpoints.save(step, tree(step), tree(10 * step), {"batches": step}, {"lsd": 1.0 / step})
    checkpoints.close()
    return folder


def restored(folder):
    """The step that a run would go on from, after checking that everything is of that step; then it saves another."""
    checkpoints = Checkpoints(folder, keep_last=2, best_metric="lsd")
    weights, state, position = checkpoints.restore(ABSTRACT, ABSTRACT)
    step = checkpoints.latest_step
    assert position == {"batches": step}
    jax.tree.map(np.testing.assert_array_equal, (weights, state), (tree(step), tree(10 * step)))
    checkpoints.save(3, tree(3), tree(30), {"batches": 3})
    checkpoints.close()
    assert (folder / "checkpoints" / "3").is_dir()
    return step


def test_last_and_best_checkpoints_are_kept(tmp_path):
    tree = {"x": np.zeros(3, np.float32)}
    checkpoints = Checkpoints(tmp_path, keep_last=2, best_metric="lsd")
    for step, score in enumerate([3.0, 1.0, 2.0, None, 4.0, 5.0]):
        value = {"x": tree["x"] + step}
        checkpoints.save(step, value, tree, {"batches": step}, None if score is None else {"lsd": score})
    checkpoints.close()
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "4", "5"}
    weights, step = load_weights(tmp_path, "--vae")
    assert step == 1 and weights["x"][0] == 1


@pytest.mark.training
@pytest.mark.parametrize("damage", ["gone", "empty", "half"])
def test_whatever_file_is_damaged_the_run_goes_on_from_a_whole_checkpoint(two, tmp_path, caplog, damage):
    """Each file of the newest checkpoint in turn: it is not needed, or the one before takes over and that is said."""
    caplog.set_level(logging.WARNING, "flashsr_jax")
    files = [path.relative_to(two) for path in (two / "checkpoints" / "2").rglob("*") if path.is_file()]
    replaced = []
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(two, folder)
        content = (folder / file).read_bytes()
        (folder / file).unlink()
        if damage != "gone":
            (folder / file).write_bytes(content[: len(content) // 2] if damage == "half" else b"")
        caplog.clear()
        step = restored(folder)
        set_aside = (folder / DAMAGED / "2").is_dir()
        assert (step == 1) == set_aside == ("checkpoint 2 cannot be read" in caplog.text), file
        if set_aside:
            replaced.append(file.name)
    assert {"_METADATA", "manifest.ocdbt"} <= set(replaced)


def test_a_damaged_checkpoint_of_another_run_is_one_line(two, tmp_path):
    shutil.copytree(two, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "2" / "weights" / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(UserError, match=r"--vae=.*checkpoints/2 cannot be read .* move it away"):
        load_weights(tmp_path / "run", "--vae")


def test_checkpoints_of_another_configuration_are_left_where_they_are(two, tmp_path):
    shutil.copytree(two, tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run", keep_last=2, best_metric="lsd")
    with pytest.raises(UserError, match="no checkpoint can be read, not even step 2"):
        checkpoints.restore({"other": ABSTRACT["a"]}, ABSTRACT)
    checkpoints.close()
    assert not (tmp_path / "run" / DAMAGED).exists()
    assert restored(tmp_path / "run") == 2


LIMIT = 100_000  # bytes, which no file may pass: the one way to a failing disk that needs no privilege
TOO_LARGE = f"""
import resource
import sys
import numpy as np
from flashsr_jax.runs.checkpoint import Checkpoints
from flashsr_jax.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))
checkpoints = Checkpoints(sys.argv[1], 2, "lsd")
noise = np.random.default_rng(0).standard_normal(100_000, np.float32)
try:
    checkpoints.save(3, dict(a=noise), dict(a=noise), dict(batches=3))
    checkpoints.close()
except UserError as error:
    sys.exit("one line: " + str(error))
"""


def test_a_save_that_cannot_be_written_is_one_line_and_leaves_the_last_one(two, tmp_path):
    shutil.copytree(two, tmp_path / "run")
    program = [sys.executable, "-c", TOO_LARGE, str(tmp_path / "run")]
    done = subprocess.run(program, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith("one line: the checkpoint of step 3 could not be written")
    assert "File too large" in last and "step 2 is the last complete one" in last
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"1", "2"}
    assert restored(tmp_path / "run") == 2


def flipped(file, at=None):
    """Flip the lowest bit of one byte of a file: of its middle, or at `at`."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1
    file.write_bytes(content)


@pytest.mark.training
def test_one_flipped_bit_in_any_file_of_a_checkpoint_is_noticed(two, tmp_path, caplog):
    """The values of arrays among them, which no format checks."""
    files = [path.relative_to(two) for path in (two / "checkpoints" / "2").rglob("*") if path.is_file()]
    assert "checksums.json" in {file.name for file in files}
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(two, folder)
        flipped(folder / file)
        caplog.clear()
        step = restored(folder)
        if file.parts[2] == "metrics":
            assert step == 2 and "no longer counts as the best" in caplog.text
        else:
            assert step == 1 and "checkpoint 2 cannot be read" in caplog.text, file
            assert (folder / DAMAGED / "2").is_dir()


def test_a_checkpoint_without_checksums_is_loaded_as_before(two, tmp_path):
    shutil.copytree(two, tmp_path / "run")
    for file in (tmp_path / "run").rglob("checksums.json"):
        file.unlink()
    assert load_weights(tmp_path / "run", "--vae")[1] == 2
    assert restored(tmp_path / "run") == 2


def test_a_run_that_goes_on_with_another_best_metric_saves_and_has_the_best_by_that(tmp_path):
    before = Checkpoints(tmp_path, keep_last=1, best_metric="mel_l1")
    before.save(1, tree(1), tree(10), {}, {"mel_l1": 0.1})
    before.close()
    after = Checkpoints(tmp_path, keep_last=1, best_metric="lsd")
    for step, lsd in ((2, 2.0), (3, 3.0)):
        after.save(step, tree(step), tree(10 * step), {}, {"lsd": lsd})
    after.close()
    assert load_weights(tmp_path, None)[1] == 2
    assert [(kept.step, kept.score) for kept in checkpoints(tmp_path, "lsd")] == [(2, 2.0), (3, 3.0)]


def test_where_no_clip_could_be_measured_the_checkpoint_is_saved_and_is_not_the_best(tmp_path, caplog):
    run = Checkpoints(tmp_path, keep_last=2, best_metric="zimtohrli")
    run.save(1, tree(1), tree(10), {"batches": 1}, {"lsd": 1.0, "zimtohrli": 0.02})
    run.save(2, tree(2), tree(20), {"batches": 2}, {"lsd": 0.5})
    run.close()
    assert "step 2 cannot be the best: no clip could be measured by zimtohrli" in caplog.text
    assert load_weights(tmp_path, None)[1] == 1 and restored(tmp_path) == 2
