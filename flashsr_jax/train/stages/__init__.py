"""What is trained, one file a stage, each to be read from top to bottom.

A stage is a module of these functions, pure but for their errors:
    needs(config) -> {role: network}: what it reads and does not train, see `train.frozen`
    init(config, frozen, key) -> TrainState
    train_step(config, state, frozen, batch, key) -> (TrainState, {metric: scalar}), by `state.descend` of its own
        `gradients(config, state, ..., batch, key) -> Gradients`, which are of a batch or of a part of it
    eval_step(config, weights, frozen, batch, key) -> {"metrics": {name: (B,)}, "mels": (B, 3, T, F), "audio": (B, N)}
"""

from flashsr_jax.train.stages import regression, student, teacher, tune, vae, vocoder

STAGES = {
    "vae": vae,
    "regression": regression,
    "teacher": teacher,
    "student": student,
    "vocoder": vocoder,
    "tune": tune,
}
