"""launch/demo.py: the check at the end of the demo looks at the model, whatever stage trained it."""

import demo
import pytest

from flashsr_jax.evaluate.report.tables import write_scores
from flashsr_jax.evaluate.results import Results, Score


@pytest.mark.parametrize("model", ["regression", "student"])
@pytest.mark.parametrize(("lsd", "code", "message"), [(1.0, 0, ""), (3.0, 1, "music: the output is no nearer to")])
def test_the_check_follows_the_model(model, lsd, code, message, tmp_path, capsys):
    values = {("speech", model): 1.0, ("music", model): lsd}
    values |= {(name, "unprocessed"): 2.0 for name in ("speech", "music")}
    scores = [Score(system, 4000.0, name, name, "", 0.0, 0, {"lsd": value}) for (name, system), value in values.items()]
    write_scores(Results({}, scores, [], [], [], [], model), tmp_path / "report")
    assert demo.finish(tmp_path) == code
    assert capsys.readouterr().err.startswith(message)
