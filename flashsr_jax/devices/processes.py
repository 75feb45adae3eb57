"""Runs of several processes: how they find each other, stop together when told to, and end when one of them dies.

Every process starts with the same command. Where JAX detects the cluster by itself (Slurm's srun, Open MPI's mpirun,
TPU hosts by their metadata or, in Kubernetes, their environment) it needs nothing else; elsewhere the
caller, or environment variables, say who is who. A process alone needs none of this.
"""

import contextlib
import importlib.util
import logging
import os
import signal
import sys
from typing import Any

import jax
from jax.experimental import multihost_utils

from flashsr_jax.errors import UserError

LOGGER = logging.getLogger(__name__)
RESUMABLE = 75  # exit code: EX_TEMPFAIL of sysexits.h. The same command, started again, goes on.
OPTIONS = ("coordinator_address", "num_processes", "process_id")  # JAX_... in the environment
CONNECT_S = 300  # hosts do not start all at once
HEARTBEAT_S = 30  # silence after which a process counts as dead, and the others end
SHUTDOWN_S = 15  # for the others to come to their end


class Preempted(Exception):
    """The run was told to stop, and has saved what it did."""


class Preemption:
    """Whether the run has to stop: SIGTERM, which schedulers send before they take a host away. A context manager.

    Any of several processes may get the signal; all stop after the same step.
    """

    def __init__(self) -> None:
        self._noticed = False

    def __enter__(self) -> "Preemption":
        if jax.process_count() == 1:  # JAX watches for the signal in runs of several
            self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *_: object) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._before)

    def reached(self, step: int) -> bool:
        """Whether to stop after `step`; to be asked after every step."""
        if jax.process_count() == 1:
            return self._noticed
        return multihost_utils.reached_preemption_sync_point(step)

    def _notice(self, *_: object) -> None:
        self._noticed = True


def initialize(coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Join the processes of this run, before anything else asks JAX for its devices.

    `coordinator_address` is HOST:PORT of process 0. What is None is read from the environment; where that does not
    have it either, JAX looks for a cluster. Raises UserError where only some are given, or do not fit each other. Where
    the others do not come within `CONNECT_S`, JAX ends the process and says so.
    """
    given: dict[str, Any] = dict(zip(OPTIONS, (coordinator_address, num_processes, process_id), strict=True))
    for name, value in given.items():
        given[name] = os.environ.get(f"JAX_{name.upper()}") if value is None else value
    if any(value is not None for value in given.values()):
        _check(given)
        if given["num_processes"] > 1:
            _join(**given, cluster_detection_method="deactivate")
    elif tasks := _tasks_of_this_job():
        try:
            _join()
        except ValueError as error:  # JAX's word for no cluster
            raise UserError(
                f"{tasks} processes were started together, but JAX does not see where the first one runs: give each "
                + ", ".join(OPTIONS)
            ) from error
    elif importlib.util.find_spec("libtpu"):  # this may be one of a pod's hosts
        with contextlib.suppress(ValueError):
            _join()


def end_if_others_are_lost(error: jax.errors.JaxRuntimeError) -> None:
    """Ends this process where `error` says that another one of the run is gone: waiting for it would be forever."""
    if jax.process_count() > 1 and "RESOURCE_EXHAUSTED" not in str(error):
        print(
            f"flashsr_jax: process {jax.process_index()} of {jax.process_count()} has lost the others "
            f"({str(error).splitlines()[0]}). One of them died: its own log says why. Started again on all hosts, "
            "the same command goes on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(RESUMABLE)  # exit handlers would wait for the others


def _check(given: dict) -> None:
    """Make the numbers of `given` integers. Raises UserError where they are none, missing or out of range."""
    for name in OPTIONS[1:]:
        try:
            given[name] = None if given[name] is None else int(given[name])
        except ValueError as error:
            raise UserError(f"{name}={given[name]} is not a number") from error
    count, index = given["num_processes"], given["process_id"]
    if missing := [name for name, value in given.items() if value is None and count != 1]:
        raise UserError(f"{', '.join(missing)} missing: processes find each other by {', '.join(OPTIONS)} together")
    if count < 1 or not 0 <= (index or 0) < count:
        raise UserError(f"process_id={index} is not one of 0 ... {count - 1} (num_processes={count})")


def _tasks_of_this_job() -> int:
    """How many processes srun or mpirun started beside this one, itself included; 0 where there is nothing to join."""
    name = "SLURM_NTASKS" if "SLURM_STEP_NODELIST" in os.environ else "OMPI_COMM_WORLD_SIZE"
    tasks = int(os.environ.get(name, "1"))
    return tasks if tasks > 1 else 0


def _join(**options: Any) -> None:
    LOGGER.info("waiting up to %d s for the other processes of this run", CONNECT_S)
    try:
        jax.distributed.initialize(
            **options,
            initialization_timeout=CONNECT_S,
            heartbeat_timeout_seconds=HEARTBEAT_S,
            shutdown_timeout_seconds=SHUTDOWN_S,
        )
    except jax.errors.JaxRuntimeError as error:
        where = options.get("coordinator_address", "this host")
        raise UserError(
            f"no coordinator can listen at {where} ({str(error).splitlines()[0]}): is the port taken?"
        ) from error
    if jax.default_backend() == "cpu":
        # There only process 0 would find its programs in the cache, and wait in vain for the others to compile theirs.
        jax.config.update("jax_enable_compilation_cache", False)
    LOGGER.info("process %d of %d; should one die, the others end", jax.process_index(), jax.process_count())
