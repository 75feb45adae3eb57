"""Means, intervals and comparisons of scores against values worked out by hand and scipy's bootstrap."""

import numpy as np
import pytest
import scipy.stats

from flashsr_jax.evaluate.results import Score
from flashsr_jax.evaluate.statistics import paired, summarise


def score(clip="a", metric="lsd", value=1.0, system="mine", cutoff=4000.0, class_name="music", wall=0.0, seed=0):
    metrics = {} if value is None else {metric: value}
    return Score(system, cutoff, clip, class_name, "group", wall, seed, metrics)


def many(values, **kwargs):
    return [score(clip=f"clip{i}", value=value, **kwargs) for i, value in enumerate(values)]


def draws(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, size=count)


def test_mean_is_over_clips_and_median_over_seeds():
    """Means of the seeds: 2, 3 and 10."""
    scores = many([1.0, 3.0], seed=0) + many([3.0, 3.0], seed=1) + many([19.0, 1.0], seed=2)
    (row,) = summarise(scores, "lsd", ["system"])
    assert (row.group, row.mean, row.count, row.missing) == ({"system": "mine"}, 3.0, 2, 0)
    # both resampled clips the first: seeds 1, 3, 19; both the second: 3, 3, 1
    assert row.low == 3.0 and row.high == 3.0


def test_interval_is_scipys_percentile_bootstrap():
    values = draws(60)
    (row,) = summarise(many(values), "lsd", ["system"])
    expected = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    width = expected.high - expected.low
    assert row.mean == pytest.approx(values.mean())
    assert row.low == pytest.approx(expected.low, abs=0.05 * width)
    assert row.high == pytest.approx(expected.high, abs=0.05 * width)


def test_interval_resamples_clips_not_seeds():
    values = draws(40)
    once, thrice = many(values), [s for seed in range(3) for s in many(values, seed=seed)]
    (row,), (same,) = summarise(once, "lsd", ["system"]), summarise(thrice, "lsd", ["system"])
    assert (row.mean, row.low, row.high) == pytest.approx((same.mean, same.low, same.high))
    assert row.low < row.mean < row.high


def test_interval_covers_the_true_mean_about_95_times_in_100():
    inside = [
        row.low <= 2.0 <= row.high for seed in range(200) for row in summarise(many(draws(50, seed)), "lsd", ["system"])
    ]
    assert 0.88 <= np.mean(inside) <= 0.99


def test_the_same_scores_give_the_same_rows():
    scores = many(draws(20))
    assert summarise(scores, "lsd", ["system"]) == summarise(scores, "lsd", ["system"])
    (row,) = summarise(many([2.5]), "lsd", ["system"])
    assert (row.mean, row.low, row.high, row.count) == (2.5, 2.5, 2.5, 1)


def test_groups_come_in_order_of_appearance():
    scores = [
        score(system="b", value=1.0),
        score(system="a", value=2.0),
        score(system="b", value=3.0, cutoff=8000.0),
    ]
    rows = summarise(scores, "lsd", ["system", "cutoff_hz"])
    assert [(row.group["system"], row.group["cutoff_hz"], row.mean) for row in rows] == [
        ("b", 4000.0, 1.0),
        ("a", 4000.0, 2.0),
        ("b", 8000.0, 3.0),
    ]
    assert [row.mean for row in summarise(scores, "lsd", ["system"])] == [2.0, 2.0]


def test_a_clip_counts_once_however_many_cutoffs_it_has():
    scores = [score("a", value=1.0), score("a", value=3.0, cutoff=8000.0), score("b", value=8.0)]
    (row,) = summarise(scores, "lsd", ["system"])
    assert (row.mean, row.count) == (5.0, 2)
    assert row.low == 2.0 and row.high == 8.0


def test_missing_metrics_are_counted_never_nan():
    scores = [*many([1.0, None, 3.0]), *many([1.0, 100.0, None], seed=1)]
    (row,) = summarise(scores, "lsd", ["system"])
    assert (row.mean, row.low, row.high, row.count, row.missing) == (1.0, 1.0, 1.0, 1, 2)
    (row,) = summarise(many([None, None]), "lsd", ["system"])
    assert (row.mean, row.low, row.high, row.count, row.missing) == (None, None, None, 0, 2)
    (row,) = summarise(many([1.0, 2.0]) + many([1.0], seed=1), "lsd", ["system"])  # a seed that has no second clip
    assert (row.count, row.missing) == (1, 1)
    assert summarise([], "lsd", ["system"]) == []


def test_metrics_that_are_best_at_zero_count_by_their_size():
    (row,) = summarise(many([-3.0, 3.0], metric="low_band_gain_db"), "low_band_gain_db", ["system"])
    assert row.mean == 3.0
    scores = many([-3.0, 1.0], metric="low_band_gain_db") + many([2.0, -2.0], metric="low_band_gain_db", system="other")
    (row,) = paired(scores, "mine", "other", "low_band_gain_db")
    assert (row.better, row.worse, row.worsened) == (1, 1, [("clip0", 1.0)])


def test_wall_free_leaves_out_walled_clips():
    scores = [score("a", value=1.0, wall=21_500.0), score("b", value=5.0, wall=16_000.0)]
    assert summarise(scores, "lsd", ["system"])[0].mean == 3.0
    assert summarise(scores, "lsd", ["system"], wall_free=True)[0].mean == 1.0
    scores += [score("a", value=2.0, system="other"), score("b", value=2.0, wall=16_000.0, system="other")]
    assert paired(scores, "mine", "other", "lsd")[0].mean == 1.0
    (row,) = paired(scores, "mine", "other", "lsd", wall_free=True)
    assert (row.mean, row.better, row.worse, row.missing) == (-1.0, 1, 0, 0)


def test_paired_counts_and_names_what_got_worse():
    mine, other = [1.0, 2.0, 5.0, 2.0, None], [2.0, 2.0, 1.0, 1.5, 1.0]
    scores = many(mine) + many(other, system="other") + many([9.0] * 5, system="third")
    (row,) = paired(scores, "mine", "other", "lsd")
    assert (row.better, row.worse, row.equal, row.missing) == (1, 2, 1, 1)
    assert row.worsened == [("clip2", 4.0), ("clip3", 0.5)]
    assert row.mean == pytest.approx((-1 + 0 + 4 + 0.5) / 4)
    (back,) = paired(scores, "other", "mine", "lsd")
    assert (back.better, back.worse, back.mean) == (2, 1, -row.mean)
    assert (back.low, back.high) == pytest.approx((-row.high, -row.low))
    higher = many([3.0, 1.0], metric="visqol") + many([2.0, 2.5], metric="visqol", system="other")
    (row,) = paired(higher, "mine", "other", "visqol")
    assert (row.better, row.worse, row.worsened, row.mean) == (1, 1, [("clip1", -1.5)], -0.25)


def test_paired_interval_is_of_the_differences():
    """Clips differ far more than the two systems do, which pairing takes out."""
    clips, gain = 100 * draws(80), np.random.default_rng(5).normal(0.5, 0.3, 80)
    scores = many(clips) + many(clips + gain, system="other")
    (row,) = paired(scores, "mine", "other", "lsd")
    expected = scipy.stats.bootstrap(
        (-gain,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert row.mean == pytest.approx(-gain.mean())
    width = expected.high - expected.low
    assert row.low == pytest.approx(expected.low, abs=0.05 * width)
    assert row.high == pytest.approx(expected.high, abs=0.05 * width)


def test_paired_takes_a_system_with_seeds_against_one_without():
    mine = many([1.0, 5.0]) + many([2.0, 1.0], seed=1) + many([9.0, 3.0], seed=2)  # means 3, 1.5, 6
    other = many([2.5, 2.5], system="other")
    (row,) = paired(mine + other, "mine", "other", "lsd")
    assert row.mean == 0.5  # 3 - 2.5
    assert (row.better, row.worse) == (1, 1)  # medians of the clips: 2 and 3
    assert row.worsened == [("clip1", 0.5)]
    (row,) = paired(mine + other, "other", "mine", "lsd")
    assert (row.mean, row.worsened) == (-0.5, [("clip0", 0.5)])


def test_paired_compares_clips_at_the_same_cutoffs_only():
    scores = [
        score("a", value=1.0),
        score("a", value=7.0, cutoff=8000.0),
        score("b", value=1.0),
        score("a", value=2.0, system="other"),
        score("b", value=3.0, system="other"),
    ]
    (row,) = paired(scores, "mine", "other", "lsd")
    assert (row.mean, row.missing) == (-2.0, 1)
    first, second = paired(scores, "mine", "other", "lsd", by=["cutoff_hz"])
    assert (first.group, first.mean, first.missing) == ({"cutoff_hz": 4000.0}, -1.5, 0)
    assert (second.mean, second.better, second.worse, second.missing) == (None, 0, 0, 1)


def test_mistakes_are_refused():
    scores = [score(), score(system="other")]
    for message, call in [
        ("no metric 'pesq'", lambda: summarise(scores, "pesq", ["system"])),
        ("no colour", lambda: summarise(scores, "lsd", ["system", "colour"])),
        ("several scores", lambda: summarise(scores, "lsd", ["cutoff_hz"])),
        ("no scores of third", lambda: paired(scores, "mine", "third", "lsd")),
        ("grouped by system", lambda: paired(scores, "mine", "other", "lsd", by=["system"])),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
