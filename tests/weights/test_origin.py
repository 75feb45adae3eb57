"""What a weights file says of a network's origin, and what the network is called by it."""

import pytest

from flashsr_jax.upscale.model import Model, load_model
from flashsr_jax.weights.origin import mean_origin, origin, stage_of
from flashsr_jax.weights.store import save_weights

from helpers.micro_model import MICRO, micro_params

REGRESSION, STUDENT = origin("regression", "step 2000"), origin("student", "student_ldm.pth")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (REGRESSION, "regression"),
        (STUDENT, "student"),
        (mean_origin([REGRESSION, origin("regression", "step 400")]), "regression"),
        (mean_origin([REGRESSION, STUDENT]), "regression and student"),
        (mean_origin([mean_origin([REGRESSION, REGRESSION]), STUDENT]), "regression and student"),
        (mean_origin([REGRESSION, STUDENT, STUDENT]), "regression and student"),
        (mean_origin([mean_origin([REGRESSION, STUDENT])] * 3), "regression and student"),
        (mean_origin([REGRESSION, "other.safetensors"]), "regression and other.safetensors"),
        ("mean of regression, step 2000, regression, step 400", "regression"),  # of version 0.1
        ("student_ldm.pth", "student_ldm.pth"),  # of version 0.1
        ("model.safetensors", "model.safetensors"),
    ],
)
def test_a_network_is_called_by_the_stage_that_trained_it(text, name):
    assert stage_of(text) == name


def test_a_model_knows_what_its_file_says_and_else_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, MICRO, micro_params(), {"unet": REGRESSION})
    model = load_model(path)
    assert model.origins == {"vae": "model.safetensors", "unet": REGRESSION, "vocoder": "model.safetensors"}
    assert model.name == "regression"
    assert Model(model.config, model.params).name == "model"


def test_the_shipped_model_is_what_its_metadata_say():
    model = load_model("small")
    assert model.name == "regression" and "regression, step " in model.origins["unet"]


def test_a_mean_says_how_often_a_network_is_in_it():
    assert mean_origin(["a", "b", "a", "a"]) == "mean of 3 x a; b"
