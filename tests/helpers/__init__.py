"""What several tests need: micro-sized trainings, stand-in parameters, golden arrays, synthetic results."""

from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
RECORDINGS = TESTS / "recordings"
GOLDEN = TESTS / "golden"
