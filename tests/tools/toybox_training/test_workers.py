"""Two processes that train one network: what they end with is what one with both batches ends with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toybox_training.loop import averaged_weights
from toybox_training.workers import ALONE, workers_of_environment

TOOLS = Path(__file__).parents[3] / "tools"

SCRIPT = """
import atexit
import os
import sys
from pathlib import Path
import torch
from torch import nn
from toybox_training.loop import LoopConfig, batch_generator, initial_weights, train
from toybox_training.workers import run_program, workers_of_environment

class Plane:
    def __init__(self, both):
        self.both = both
        with initial_weights(3):
            self.networks = nn.Linear(6, 6)

    def loss(self, done, batch, generator):
        batches = [2 * batch, 2 * batch + 1] if self.both else [batch]
        points = [torch.randn(8, 6, generator=batch_generator(0, one)) for one in batches]
        return torch.stack([(self.networks(x) - x.roll(1, 1)).square().mean() for x in points]).mean(), {}

    def report(self, networks, folder, step):
        return {"done": step}

config = LoopConfig(steps=12, learning_rate=0.01, muon_learning_rate=0.02, warmup_steps=2, report_every=12)

def main():
    with workers_of_environment() as workers:
        out = Path(sys.argv[1])
        train(config, Plane(both=workers.count == 1), out, resume=False, workers=workers)
        rows = workers.gather(torch.tensor([[workers.rank]]))
        if workers.rank == 0:
            torch.save(rows, out / "ranks.pt")

if "WORLD_SIZE" in os.environ:
    # As gloo's threads now and then do while the interpreter ends.
    atexit.register(os.abort)
run_program(main)
"""


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_that_has_both_their_batches(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    for options, name in (([], "one"), (launcher, "two")):
        command = [sys.executable, *options, str(script), str(tmp_path / name)]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)
        # A shutdown that aborts makes no failure of finished work.
        assert result.returncode == 0, result.stderr
    one, two = averaged_weights(tmp_path / "one"), averaged_weights(tmp_path / "two")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=1e-5, rtol=1e-4)
    assert torch.load(tmp_path / "two/ranks.pt").tolist() == [[0], [1]]
    # One of them writes.
    assert len((tmp_path / "two/progress.jsonl").read_text().splitlines()) == 1


def test_a_process_alone_averages_nothing_and_waits_for_nobody() -> None:
    with workers_of_environment() as workers:
        assert workers == ALONE
        weight = torch.ones(2, requires_grad=True)
        weight.grad = torch.tensor([1.0, 2.0])
        workers.average_gradients([weight])
        workers.wait()
        assert weight.grad.tolist() == [1.0, 2.0]
        assert workers.any(True)
        assert not workers.any(False)
