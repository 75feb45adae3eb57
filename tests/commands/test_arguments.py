"""How a mistake that lower rooms state as a fact is said on the command line."""

import pickle

import pytest

from flashsr_jax.commands.arguments import said
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


def test_other_errors_are_as_they_are():
    assert said(OSError("the disk is full")) == "the disk is full"
