"""How a mistake that lower rooms state as a fact is said on the command line."""

import argparse
import pickle

import pytest

from flashsr_jax.commands.arguments import guidance_scales, said, with_options
from flashsr_jax.errors import UserError


@pytest.mark.parametrize(
    ("argument", "fact", "line"),
    [
        ("data", "data=x is no folder", "--data x is no folder"),
        ("noise_profiles", "noise_profiles=x is no folder", "--noise-profiles x is no folder"),
        ("config.vae_from", "config.vae_from=x is no folder", "--config.vae_from=x is no folder"),
        (None, "x is no folder", "x is no folder"),
    ],
)
def test_the_door_adds_the_option(argument, fact, line):
    error = pickle.loads(pickle.dumps(UserError("x is no folder", argument)))  # as it comes from another process
    assert (str(error), said(error)) == (fact, line)


def test_parameters_that_a_text_names_are_said_as_options():
    error = UserError("a.wav: exists: choose another `output`, or give `skip_existing`", "output")
    assert said(error) == "-o a.wav: exists: choose another -o, or give --skip-existing"
    assert with_options("take `7`.wav and `mine`.wav") == "take `7`.wav and `mine`.wav"
    assert with_options("try `lowpass`, or another `cutoff_hz`") == "try --lowpass, or another --cutoff HZ"


def test_guidance_is_one_scale_several_or_one_of_each_class():
    assert guidance_scales("1.5") == [1.5]
    assert guidance_scales("1,2,1,3") == [1, 2, 3]
    assert guidance_scales("speech=1,music=2.5,effects=3") == [{"speech": 1, "music": 2.5, "effects": 3}]
    for text in ("speech=1", "speech=1,music=2,effects=3,song=4", "1,speech=2", "-1", "speech=x,music=1,effects=1"):
        with pytest.raises(argparse.ArgumentTypeError):
            guidance_scales(text)


def test_other_errors_are_as_they_are():
    assert said(OSError("the disk is full")) == "the disk is full"
