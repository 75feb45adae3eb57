"""The body of `flashsr plan`."""

import logging

import jax

from flashsr_jax.cost.plan.report import report


def dry_run(config, devices: int | None = None, compile_for: str | None = None) -> None:
    """Print what a run of `config` needs on `devices` devices (None: those here), and XLA's figures for a platform.

    No array is allocated and no file is read. Raises UserError for a configuration that could not run there.
    """
    logging.getLogger("flashsr_jax.devices.sharding").setLevel(logging.WARNING)  # the report says it
    for line in report(config, devices or jax.device_count()):
        print(line)
    if compile_for:
        from flashsr_jax.cost.plan.compiled import compiled_report

        for line in compiled_report(config, compile_for):
            print(line)
